"""Train, watch, export and serve TensorFlow / Keras 3 experiments from one settings module."""

__version__ = "0.1.0"
