"""What records are made of: the columns of our own, and decoders of those that other programs wrote."""
