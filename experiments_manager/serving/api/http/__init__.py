"""HTTP: connections of strangers with their limits, and the REST API on them."""
