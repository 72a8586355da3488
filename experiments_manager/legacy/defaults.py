"""Values that the legacy framework fixed, and that its settings files therefore do not give."""

from __future__ import annotations

from experiments_manager.settings.schema import Values

PLATEAU_FACTOR = 0.1
PLATEAU_MIN_DELTA = 1e-4
PLATEAU_MIN_LEARNING_RATE = 1e-6


def apply_legacy_defaults(values: Values) -> None:
    """Fill in the reduction of the learning rate on a plateau, as far as a file says nothing of it.

    After two thirds of the epochs that early stopping waits, the learning rate was multiplied by 0.1, down to 1e-6, and
    only a change by more than 1e-4 counted as an improvement. `reduce_lr_patience = None` turns it off.
    """
    patience = values.early_stopping_patience
    if "reduce_lr_patience" in values.model_fields_set or patience is None:
        return
    values.reduce_lr_patience = patience * 2 // 3
    given = values.model_fields_set
    if "reduce_lr_factor" not in given:
        values.reduce_lr_factor = PLATEAU_FACTOR
    if "reduce_lr_min_delta" not in given:
        values.reduce_lr_min_delta = PLATEAU_MIN_DELTA
    if "min_learning_rate" not in given:
        values.min_learning_rate = PLATEAU_MIN_LEARNING_RATE
