"""Which way the watched value should go."""

import pytest

from experiments_manager.settings.monitor_mode import resolved_mode


@pytest.mark.parametrize(
    ("monitor", "mode", "resolved"),
    [
        ("val_loss", "auto", "min"),
        ("val_accuracy", "auto", "max"),
        ("AUC", "auto", "max"),
        ("val_mean_iou", "auto", "max"),
        ("val_error", "auto", "min"),
        ("val_accuracy", "min", "min"),
        ("val_loss", "max", "max"),
    ],
)
def test_auto_tells_by_the_name_and_all_else_is_as_said(monitor, mode, resolved):
    assert resolved_mode(monitor, mode) == resolved
