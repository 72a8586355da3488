"""Trials as jobs of a cluster: messages in files on the shared disk, jobs in the queue, and what runs on a node."""
