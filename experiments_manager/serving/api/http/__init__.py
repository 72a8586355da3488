"""HTTP: connections with their limits, and the REST API on them."""
