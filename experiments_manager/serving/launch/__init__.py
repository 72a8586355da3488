"""Starting a model server: engines, processes, and the sidecar of a training."""
