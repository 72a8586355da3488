"""Attributes that the legacy framework's settings object had besides the settings themselves."""

from __future__ import annotations

from typing import Any

DEFAULT_VALUES: dict[str, Any] = {
    "verbose": 1,
    "sample_weight": [],
    "initial_epoch": 0,
    "validation_freq": 1,
    "max_queue_size": 10,
    "workers": 1,
    "use_multiprocessing": False,
}
"""Attributes that always had the same value there."""

FROM_MODULE: dict[str, Any] = {"debug_server_addresses": "127.0.0.1:2333", "init_environment": False}
"""Attributes that are the file's own name of that spelling, and their value where it has none."""

NAMES = frozenset(
    {
        *DEFAULT_VALUES,
        *FROM_MODULE,
        *(
            "experiment_settings",
            "federated_learning",
            "model_export_filename",
            "recoverFromCheckpoint",
            "sessionFolder",
        ),
        *("assertPositive_above_equal_zero", "assertPositive_above_zero", "assertType", "hasOrDefault"),
    }
)
"""All of them, and the methods."""
