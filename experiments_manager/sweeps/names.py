"""Names in a search space: a key of `hparams` counts for more than a setting of the same name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from experiments_manager.settings.overrides import HPARAMS


def qualified(overrides: Mapping[str, Any], hparams: Collection[str]) -> dict[str, Any]:
    """Return values by the names that overrides go by: `hparams.KEY` for each key of `hparams`.

    What a settings file derives from an entry of its `hparams` follows from there, and not the other way round.

    Args:
        overrides: Values by name.
        hparams: Keys of the file's `hparams`.
    """
    return {HPARAMS + name if name in hparams else name: value for name, value in overrides.items()}
