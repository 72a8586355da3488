"""Answering the records of a topic, each of them once: consumer, transactions, turns."""
