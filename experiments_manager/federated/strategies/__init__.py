"""How the clients' weights become those of the next round."""
