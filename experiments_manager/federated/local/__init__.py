"""Training for clients of a federation, between two messages."""
