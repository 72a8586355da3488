"""The loop and its steps: one run from start to end."""
