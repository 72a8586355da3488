"""Losses and parts of models that users' files import, made of plain Keras."""
