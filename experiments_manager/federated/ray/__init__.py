"""Clients in processes of Flower's own simulation, which Ray starts."""
