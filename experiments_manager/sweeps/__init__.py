"""Sweeps: the search for the settings that work best, over runs that know nothing of it."""
