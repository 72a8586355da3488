"""Settings that are dictionaries: each as a model that declares its keys, with types and ranges."""
