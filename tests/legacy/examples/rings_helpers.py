# ruff: noqa
# fmt: off
"""Points on two rings."""

import numpy as np


def make_rings(samples, radius):
  rings = np.arange(samples) % 2
  angles = np.linspace(0.0, 20.0, samples)
  lengths = 1.0 + rings * (radius - 1.0)
  points = np.stack([lengths * np.cos(angles), lengths * np.sin(angles)], axis=1)
  return points.astype(np.float32), rings.astype(np.int32)
