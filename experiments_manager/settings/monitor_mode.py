"""Which way the watched value should go."""

from __future__ import annotations

_GROWS = ("acc", "auc", "precision", "recall", "f1", "iou", "dice", "psnr", "ssim", "r2", "fmeasure")
"""Parts of metric names where more is better, for `monitor_mode = "auto"`."""


def resolved_mode(monitor: str, mode: str) -> str:
    """Tell what `monitor_mode = "auto"` means, by the name of what is watched.

    Args:
        monitor: Name of the watched value.
        mode: `min`, `max` or `auto`.

    Returns:
        `min` or `max`.
    """
    if mode != "auto":
        return mode
    return "max" if any(part in monitor.lower() for part in _GROWS) else "min"
