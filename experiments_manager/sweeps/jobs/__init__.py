"""Trials as jobs of a cluster: what they and the driver tell each other, jobs in the queue, and what runs on a node."""
