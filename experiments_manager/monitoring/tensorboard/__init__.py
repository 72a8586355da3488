"""TensorBoard: what is written for it, and the board itself."""
