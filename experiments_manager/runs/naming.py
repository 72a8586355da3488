"""Names of run folders: readable, unique per second, and safe in every shell, container, file system and address."""

from __future__ import annotations

import datetime
import hashlib
import itertools
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from experiments_manager.runs.errors import RunError

LONGEST_NAME = 200
"""Bytes; well below the 255 of common file systems, so that names derived from it still fit."""
_ROOM_FOR_SUFFIX = len("-99999")
_SAFE_PUNCTUATION = "._-=,"


def run_name(session_name: str, hparams: Mapping[str, Any], now: datetime.datetime) -> str:
    """Compose `<session_name>_<hparams>_<YYYY-MM-DD--HH-MM-SS>`.

    Args:
        session_name: The name of the experiment.
        hparams: Written as keys and values, e.g. `hidden_units10_learning_rate0.1`.
        now: The time in the name.

    Returns:
        A name of at most 200 bytes, room for a suffix like `-2` included; what is too long is cut and closed by a
        digest of the whole, so that runs which differ only behind the cut keep different names.
    """
    stamp = now.strftime("%Y-%m-%d--%H-%M-%S")
    parts = [_safe(session_name).lstrip(".-") or "run", hparams_text(hparams)]
    start = "_".join(part for part in parts if part)
    return f"{_cut(start, LONGEST_NAME - _ROOM_FOR_SUFFIX - len(stamp) - 1)}_{stamp}"


def hparams_text(hparams: Mapping[str, Any]) -> str:
    """Write hparams as in `hidden_units10_learning_rate0.1`, without characters that a path cannot bear."""
    return "_".join(_safe(f"{key}{_value_text(value)}") for key, value in hparams.items())


def numbered(name: str) -> Iterator[str]:
    """Give `name`, `name-2`, `name-3`, …: where one is taken, the next may be free."""
    yield name
    yield from (f"{name}-{number}" for number in itertools.count(2))


def check_run_name(name: str) -> None:
    """Refuse a name that a user has chosen for a run folder where it would be unsafe.

    Raises:
        RunError: It says what is wrong with the name.
    """
    if not name or name != _safe(name) or name[0] in ".-":
        allowed = f"letters, digits and {' '.join(_SAFE_PUNCTUATION)}, not beginning with . or -"
        raise RunError(f"The run name {name!r} cannot be used. Expected {allowed}. Choose another --run-name.")
    size = len(name.encode())
    if size > LONGEST_NAME:
        raise RunError(f"The run name {name!r} is too long. Expected at most {LONGEST_NAME} bytes, got {size}.")


def require_run_name(resume: str, run_name: str | None) -> None:
    """Refuse to go on with a run that nobody named.

    Raises:
        RunError: `resume` is `auto`, and there is no name.
    """
    if resume == "auto" and run_name is None:
        raise RunError(
            "Resume auto does not know which run. Expected a run name with it, got none. Add --run-name NAME."
        )


def _value_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "-".join(f"{key}{_value_text(item)}" for key, item in value.items())
    if isinstance(value, (set, frozenset)):
        return "-".join(sorted(_value_text(item) for item in value))
    if isinstance(value, str):
        return value
    if hasattr(value, "tolist"):  # NumPy and its like, whose repr is np.float64(0.1)
        return _value_text(value.tolist())
    if isinstance(value, Iterable):
        return "-".join(_value_text(item) for item in value)
    return getattr(value, "__name__", None) or str(value).replace("e+", "e")  # 1e+20 is no 1e-20


def _safe(text: str) -> str:
    text = unicodedata.normalize("NFC", text)
    return "".join(letter if letter.isalnum() or letter in _SAFE_PUNCTUATION else "-" for letter in text)


def _cut(text: str, size: int) -> str:
    encoded = text.encode()
    if len(encoded) <= size:
        return text
    digest = hashlib.sha256(encoded).hexdigest()[:8]
    kept = encoded[: size - len(digest) - 1].decode(errors="ignore").rstrip("_-.")
    return f"{kept}_{digest}"
