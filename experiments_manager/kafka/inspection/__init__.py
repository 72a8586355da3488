"""Looking at a topic: its messages as they are stored, its size, who reads it."""
