"""A value that does not fit is told together with the one that may be meant."""

import pytest

from experiments_manager.settings.schema import SETTINGS
from experiments_manager.settings.value_suggestions import remedy


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("epochs", "10", "Write 10."),
        ("epochs", (10,), "Write 10."),
        ("epochs", 1e2, "Write 100."),
        ("epochs", range(10), "Write 10."),
        ("epochs", "many", "Correct it."),
        ("epochs", "-3", "Correct it."),
        ("epochs", 2.5, "Correct it."),
        ("gpus", "0", "Write [0]."),
        ("gpus", 1, "Write [1]."),
        ("gpus", "0,1", "Write (0, 1)."),
        ("export", "False", "Write False."),
        ("export", 0, "Write False."),
        ("export", None, "Correct it."),
        ("class_names", "cat, dog", "Write ['cat', 'dog']."),
        ("monitor_mode", "minimum", "Correct it."),
        ("monitor_mode", "Min", "Write 'min'."),
        ("mixed_precision", "bfloat 16", "Write 'bfloat16'."),
        ("ema_momentum", "none", "Write None."),
        ("ema_momentum", False, "Write None."),
        ("gradient_clip_norm", "1.5", "Write 1.5."),
        ("hparams", [("a", 1)], "Correct it."),
    ],
)
def test_what_may_be_meant_is_told_where_it_fits(name, value, told):
    assert remedy(value, SETTINGS[name]) == told
