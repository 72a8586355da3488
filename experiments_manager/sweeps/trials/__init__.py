"""Trials as processes: forked from a warm one, told what to train, watched, and killed where they must be."""
