"""Where batches come from, and how their place in the data is found again."""
