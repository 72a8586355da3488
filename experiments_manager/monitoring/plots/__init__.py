"""Figures of results, drawn with matplotlib's objects: no pyplot, and no window is ever opened."""
