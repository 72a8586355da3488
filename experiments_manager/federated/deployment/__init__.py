"""A federation of several machines, over a SuperLink and SuperNodes of Flower."""
