"""Durations and numbers of bytes as one reads them."""

from __future__ import annotations

_UNITS = ("B", "kB", "MB", "GB", "TB")


def format_duration(seconds: float) -> str:
    """Return a duration as one reads it: `3.2 s`, `4:05`, `1:02:03`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def format_bytes(count: float) -> str:
    """Return a number of bytes with three digits: `512 B`, `1.2 GB`."""
    power = 0
    while count >= 999.5 and power < len(_UNITS) - 1:
        count, power = count / 1000, power + 1
    return f"{count:.3g} {_UNITS[power]}"
