"""Figures of results, drawn with matplotlib's objects: no pyplot, and no window is ever opened.

Each module turns plain arrays into a `matplotlib.figure.Figure`; `canvas` turns that into a file. They are used by
TensorBoard's images, by `figures/` in the run folder, by `compare --plot` and by the report. matplotlib is imported
when the first figure is drawn.
"""
