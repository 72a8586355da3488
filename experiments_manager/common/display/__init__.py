"""What people are shown on every floor: how far something is, and values as one reads them."""
