"""The folders of data that settings name, as a resume from elsewhere finds them again."""

from __future__ import annotations

from pathlib import Path

from experiments_manager.settings import Settings

DATA_DIRS = ("train_data_dir", "validation_data_dir", "test_data_dir")


def found_data_dirs(settings: Settings, seen_from: Path) -> dict[str, str]:
    """Return absolute paths of the data folders, so that a resume from another directory finds the same data.

    Args:
        settings: The settings.
        seen_from: The working directory of the hooks, which need not be there yet.
    """
    given = {name: getattr(settings, name) for name in DATA_DIRS}
    paths = {name: path for name, path in given.items() if isinstance(path, str | Path) and str(path)}
    found = {name: (seen_from / path).resolve() for name, path in paths.items()}
    return {name: str(path) for name, path in found.items() if path.exists()}
