"""The side that has data: local training between two messages."""
