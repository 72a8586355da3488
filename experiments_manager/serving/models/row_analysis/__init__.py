"""What a graph itself tells of the samples of a call: whether they may be tried, and whether they are kept apart."""
