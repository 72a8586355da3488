"""Files and folders that are there whole, or not at all.

Everything is written beside its place, under a hidden name that ends in `.partial`, brought to the disk, and renamed
into its place. A reader sees the old content or the new one, never half of either, and a write that fails (disk
full, read-only) leaves the old content and no litter. Only a process that is killed in the midst leaves a `.partial`
behind; `remove_leftovers` clears these away.

All functions raise `OSError` as the operating system gives it, with the path that was to be written.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_PARTIAL = ".partial"
_PREVIOUS = ".previous"
_THIS_PROCESS = os.urandom(4).hex()
_FILE_SYSTEM_CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES}


def write_bytes(path: Path | str, content: bytes, *, sync: bool = True) -> None:
    """Replace the file `path` by `content`, or leave it as it was.

    Args:
        path: The file; its folder must exist.
        content: All of its new content.
        sync: Whether it is brought to the disk at once; without, it costs a hundredth of the time, and a machine that
            loses its power may lose the file.

    Raises:
        OSError: It could not be written; the file is what it was before.
    """
    path = Path(path)
    partial = staging_path(path)
    try:
        with partial.open("xb") as stream:
            stream.write(content)
            if sync:
                stream.flush()
                os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        _remove(partial)
        raise type(error)(error.errno, error.strerror, str(path)) from error
    except BaseException:
        _remove(partial)
        raise
    if sync:
        _sync_folder(path.parent)


def write_text(path: Path | str, text: str, *, sync: bool = True) -> None:
    """Replace the file `path` by `text` in UTF-8, line ends as given, or leave it as it was; see `write_bytes`.

    Raises:
        OSError: It could not be written; the file is what it was before.
    """
    write_bytes(path, text.encode("utf-8", errors="surrogateescape"), sync=sync)


def write_json(path: Path | str, value: Any, *, sync: bool = True) -> None:
    """Replace the file `path` by `value` as indented JSON, or leave it as it was.

    Raises:
        OSError: It could not be written; the file is what it was before.
        ValueError: `value` holds NaN or an infinity, which JSON does not have (see `jsonable.to_jsonable`).
        TypeError: `value` holds something else that JSON does not have.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", sync=sync)


def staging_path(target: Path | str) -> Path:
    """Give an unused hidden path beside `target`, to write what is renamed to `target` when it is whole."""
    target = Path(target)
    name = target.name.encode("utf-8", errors="surrogateescape")[:150].decode("utf-8", errors="ignore")
    return target.with_name(f".{name}.{_THIS_PROCESS}-{os.urandom(4).hex()}{_PARTIAL}")


def replace_directory(stage: Path | str, target: Path | str) -> None:
    """Put the finished folder `stage` in the place of `target`, which may exist.

    What is in `stage` is brought to the disk first. An existing `target` is moved aside, and back again if the second
    rename fails; so there is one instant in which it has no name. Should the process be killed in that instant,
    `remove_leftovers` gives the old folder its name back. Readers that may not see the gap use a new name each time.

    Args:
        stage: A complete folder on the same file system.
        target: Where it shall stand.

    Raises:
        OSError: The folder could not be renamed; `target` is what it was before, and `stage` is still there.
    """
    stage, target = Path(stage), Path(target)
    _sync_tree(stage)
    previous = target.with_name(f".{target.name}.{_THIS_PROCESS}-{os.urandom(4).hex()}{_PREVIOUS}")
    try:
        target.rename(previous)
    except FileNotFoundError:
        stage.rename(target)
    else:
        try:
            stage.rename(target)
        except BaseException:
            previous.rename(target)
            raise
        _remove(previous)
    _sync_folder(target.parent)


def remove_leftovers(folder: Path | str, *, older_than: float = 0.0) -> list[Path]:
    """Clear away what killed processes left half written directly in `folder`.

    What this process is writing at the moment is spared. What *other* living processes are writing is not: hold the
    run's lock, or give an age.

    Args:
        folder: The folder to clean; its subfolders are left alone.
        older_than: Spare what was changed in the last so many seconds.

    Returns:
        The paths that were removed or, for a folder that had been moved aside, given their old name again.
    """
    handled = []
    for path in sorted(Path(folder).glob(".*")):
        if path.suffix not in (_PARTIAL, _PREVIOUS) or f".{_THIS_PROCESS}-" in path.name:
            continue
        with contextlib.suppress(OSError):
            if older_than and time.time() - path.lstat().st_mtime < older_than:
                continue
            original = path.with_name(path.name[1:].rsplit(".", 2)[0])
            if path.suffix == _PREVIOUS and not original.exists():
                path.rename(original)
            else:
                _remove(path)
            handled.append(path)
    return handled


def _remove(path: Path) -> None:
    """Remove a file or a folder, as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _sync_tree(folder: Path) -> None:
    for parent, _, files in os.walk(folder):
        for name in files:
            _sync(Path(parent, name))
        _sync_folder(Path(parent))


def sync_files(paths: Iterable[Path]) -> None:
    """Bring files that were appended to to the disk, with their names; one that is gone or cannot be is passed over.

    Args:
        paths: Files, in any order.
    """
    paths = list(paths)
    for path in [*paths, *{path.parent for path in paths}]:
        with contextlib.suppress(OSError):
            _sync(path)


def _sync_folder(folder: Path) -> None:
    """Bring names to the disk; some network file systems cannot, and then have to be trusted."""
    if os.name == "posix":
        try:
            _sync(folder)
        except OSError as error:
            if error.errno not in _FILE_SYSTEM_CANNOT_SYNC:
                raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
