"""A federation in one process: clients in threads, one compiled model for all of them."""
