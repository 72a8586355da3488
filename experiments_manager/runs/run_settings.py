"""The settings of a run, from the snapshot of the user's code in its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments_manager.runs.run import Run
from experiments_manager.settings import Settings, load_settings
from experiments_manager.settings.overrides import HPARAMS


def load_run_settings(run: Run, overrides: Mapping[str, Any] | Sequence[str] = ()) -> Settings:
    """Loads the settings of a run from its own snapshot, with the overrides it was started with and further ones.

    Args:
        run: The run.
        overrides: Further settings to change, as for `load_settings`.

    Raises:
        RunError: The run never started, or its manifest cannot be read.
        SettingsError: The settings cannot be used.
    """
    place = {"model_file_search": run.settings_dir}
    known = dict(run.manifest.get("overrides") or {})
    merged = known
    if overrides:  # loaded once more for their types
        merged = known | load_settings(run.settings_file, overrides, hparams=_entries(known), **place).overrides
    values = {name: value for name, value in merged.items() if not name.startswith(HPARAMS)}
    return load_settings(run.settings_file, values, hparams=_entries(merged), **place)


def _entries(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `hparams` among overrides: the run began with them, so their keys and types are right."""
    return {name.removeprefix(HPARAMS): value for name, value in overrides.items() if name.startswith(HPARAMS)}
