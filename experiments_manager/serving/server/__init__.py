"""The model server: options, flags, and its life from start to shutdown."""
