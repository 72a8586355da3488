"""What is measured and shown of a training."""
