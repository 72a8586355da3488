"""Commands about how good a trained model is, and what it goes by."""
