"""Proof that a folder is what it was when it was written: size and SHA-256 of each file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments_manager.common.errors import UserError

CHECKSUMS = "checksums.json"
_CHUNK = 1024 * 1024


class DamagedError(UserError):
    """A file is missing, truncated or altered."""

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(f"{file} {reason}.")
        self.file = file
        """The first bad file."""


def write_checksums(folder: Path) -> None:
    """Write size and SHA-256 of every file below `folder` into its `checksums.json`.

    Args:
        folder: A complete folder that nobody writes to, and that is brought to the disk afterwards as a whole (see
            `atomic.replace_directory`).

    Raises:
        OSError: A file could not be read, or the result could not be written.
    """
    files = {
        file.relative_to(folder).as_posix(): {"size": file.stat().st_size, "sha256": file_digest(file)}
        for file in _files(folder)
    }
    (folder / CHECKSUMS).write_text(json.dumps({"files": files}, indent=2) + "\n", encoding="utf-8")


def verify_checksums(folder: Path) -> None:
    """Compare every file with what `write_checksums` noted; files that came later do not matter.

    Raises:
        DamagedError: It names the first file, in the order of paths, that is missing, truncated or altered.
    """
    noted = _read(folder / CHECKSUMS)
    # Sizes first: that finds what is missing or truncated at once, before gigabytes are read.
    for name, expected in noted.items():
        file = folder / name
        if not file.is_file():
            raise DamagedError(file, "is missing")
        size = file.stat().st_size
        if size != expected["size"]:
            kind = "is truncated" if size < expected["size"] else "has grown"
            raise DamagedError(file, f"{kind}. Expected {expected['size']} bytes, got {size}")
    for name, expected in noted.items():
        try:
            digest = file_digest(folder / name)
        except OSError as error:
            raise DamagedError(folder / name, f"cannot be read: {error.strerror}") from error
        if digest != expected["sha256"]:
            raise DamagedError(folder / name, f"is damaged. Expected SHA-256 {expected['sha256']}, got {digest}")


def _read(file: Path) -> dict[str, Any]:
    try:
        files = json.loads(file.read_text(encoding="utf-8"))["files"]
        return {name: {"size": int(entry["size"]), "sha256": str(entry["sha256"])} for name, entry in files.items()}
    except FileNotFoundError as error:
        raise DamagedError(file, "is missing") from error
    except OSError as error:
        raise DamagedError(file, f"cannot be read: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DamagedError(file, "is damaged. Expected a table of files in JSON") from error


def _files(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.rglob("*")) if file.is_file() and file != folder / CHECKSUMS)


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
