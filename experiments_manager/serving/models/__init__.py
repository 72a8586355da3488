"""Versions of models: registry, loading, signatures."""
