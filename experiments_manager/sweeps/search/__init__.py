"""What to try next: search spaces, algorithms, and when a trial or the whole sweep has been tried enough."""
