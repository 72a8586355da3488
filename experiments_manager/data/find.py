"""Finding a file or folder of a project from wherever it is needed."""

from __future__ import annotations

from pathlib import Path


def find_upwards(name: Path | str, near: Path | str) -> Path:
    """Find `name` in the folder of the file `near` or one above it, else in the working directory or one above it.

    A settings module and its copy in a run folder find the same data this way, without an absolute path in either.

    Args:
        name: Relative path of a file or folder, e.g. `data/digits`.
        near: The file to begin at, usually `__file__`.

    Raises:
        FileNotFoundError: No such file or folder on the way up from either place.
    """
    beginnings = [Path(near).resolve().parent, Path.cwd()]
    for beginning in beginnings:
        for folder in (beginning, *beginning.parents):
            if (folder / name).exists():
                return folder / name
    raise FileNotFoundError(
        f"{name} was not found. Expected it in {beginnings[0]} or {beginnings[1]}, or in a folder above one of them."
    )
