"""Durations and sizes read as a person writes them."""

import pytest

from experiments_manager.common.display.quantities import format_bytes, format_duration


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (3.21, "3.2 s"), (59.97, "1:00"), (245, "4:05"), (3723, "1:02:03")]
)
def test_durations_read_naturally(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (999.7, "1 kB"), (1500, "1.5 kB"), (2.5e6, "2.5 MB"), (3e15, "3e+03 TB")],
)
def test_bytes_are_told_with_their_unit(count, text):
    assert format_bytes(count) == text
