"""The model server, its engines, and the sidecar of a training."""
