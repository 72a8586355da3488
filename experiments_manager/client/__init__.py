"""The streaming client of a model server; no TensorFlow."""
