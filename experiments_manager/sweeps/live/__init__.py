"""What is shown of a sweep while it runs."""
