"""Federations: the same settings module, trained where the data lives, with Flower."""
