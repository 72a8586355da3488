"""The settings of a run, from the snapshot of the user's code in its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments_manager.runs.run import Run
from experiments_manager.settings import Settings, load_settings


def load_run_settings(run: Run, overrides: Mapping[str, Any] | Sequence[str] = ()) -> Settings:
    """Loads the settings of a run from its own snapshot, with the overrides it was started with and further ones.

    Args:
        run: The run.
        overrides: Further settings to change, as for `load_settings`.

    Raises:
        RunError: The run never started, or its manifest cannot be read.
        SettingsError: The settings cannot be used.
    """
    merged = dict(run.manifest.get("overrides") or {})
    if overrides:  # loaded once more for their types
        merged |= load_settings(run.settings_file, overrides, model_file_search=run.settings_dir).overrides
    return load_settings(run.settings_file, merged, model_file_search=run.settings_dir)
