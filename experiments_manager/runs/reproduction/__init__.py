"""Training a run again, with the packages that its run.json names, and judging whether the result is the same."""
