"""Where the model file is."""

from __future__ import annotations

from pathlib import Path

from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.settings.problems import display_path


def find_model_file(named: str, settings_file: Path, start_dir: Path, search: Path | None = None) -> Path | str:
    """Find the model file that a settings module names.

    A relative path is looked for from the folder of the start, then beside the settings file. In a run folder it is
    looked for there alone: at the same place as in the original, else by its name.

    Args:
        named: The path as the settings module gives it.
        settings_file: Absolute path of the settings module.
        start_dir: The folder that relative paths of the settings module start from.
        search: The folder of a snapshot, outside of which nothing is read.

    Returns:
        The absolute path, or a sentence that says where it was looked for.
    """
    path = Path(named).expanduser()
    candidates = _in_snapshot(path, settings_file, search) if search else _in_place(path, settings_file, start_dir)
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    looked = " and ".join(dict.fromkeys(display_path(candidate) for candidate in candidates))
    there = {
        file.name for folder in {item.parent for item in candidates} if folder.is_dir() for file in folder.glob("*.py")
    }
    hint = did_you_mean(path.name, there, "Check the path.", shown="{}")
    return f"file {named!r} not found. Expected it at {looked}. {hint}"


def _in_place(path: Path, settings_file: Path, start_dir: Path) -> list[Path]:
    return [start_dir / path, settings_file.parent / path]  # an absolute path stays itself in both


def _in_snapshot(path: Path, settings_file: Path, search: Path) -> list[Path]:
    search = search.absolute()
    relative = [] if path.is_absolute() else [search / path, settings_file.parent / path]
    inside = [item for item in relative if item.resolve().is_relative_to(search.resolve())]
    moved_aside = search / "model_file" / path.name  # where a snapshot puts it if its name is another file's
    return [moved_aside, *inside, search / path.name, *sorted(search.rglob(path.name))]
