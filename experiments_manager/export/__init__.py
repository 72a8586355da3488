"""Versions of a servable SavedModel: staged, verified, published atomically."""
