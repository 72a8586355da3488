"""What tells data apart: a short description of each split, kept in checkpoints and compared when a run goes on.

| data | what is covered |
| --- | --- |
| arrays, and arrays that a pipeline holds in memory | shape, type, and all values up to 4 MiB an array; of larger ones 512 pieces of 8 KiB at equal distances, the first and the last among them |
| arrays of strings | 4,096 of them at equal distances |
| pipelines | number of batches in an epoch, the first batch as it is before `augment`, and sizes of the files that they name (256 of each list) |
| `keras.utils.PyDataset` | number of batches, and the first, the middle and the last one |

Floating-point values that differ by rounding alone, as processors do it differently, are told from others by some of
the values and means that are kept beside the checksum.
"""  # noqa: E501

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from experiments_manager.training.feeds.feed import Feed, leaf_names

WHOLE = 2**22
"""Bytes up to which an array is covered completely."""
PIECES, PIECE = 512, 2**13
"""How many pieces of a larger one are covered, and their bytes."""
STRINGS, FILES = 4096, 256
SKETCHED = 64
"""Values, and means, that are kept of floating-point arrays."""
ROUNDING, ROUNDING_OF_MEANS = 1e-5, 1e-6
"""Differences relative to the largest value that another processor may make."""


def fingerprint(feed: Feed) -> dict[str, Any] | None:
    """Return what tells the data of a feed from others: plain data; `None` where it is not to be compared."""
    content = feed.content()
    if content is None:
        return None
    return {"batches": None if feed.kind == "arrays" else feed.steps, "parts": parts_of(content)}


def parts_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Describe named nests of arrays (or lists of names of files), leaf by leaf.

    Args:
        content: Nests as `Feed.content` gives them; a name is put behind those of its leaves.
    """
    parts: dict[str, Any] = {}
    for place, nest in content.items():
        if place == "files":
            parts[place] = _of_files(nest)
            continue
        for name, leaf in zip(leaf_names(nest), tf.nest.flatten(nest), strict=True):
            tensors = [tensor for tensor in tf.nest.flatten(leaf, expand_composites=True) if tensor is not None]
            for number, tensor in enumerate(tensors):
                text = " ".join(filter(None, (name if len(tensors) == 1 else f"{name}/{number}", place)))
                parts[text] = described(np.asarray(tensor))
    return parts


def checksum(batch: Any) -> str:
    """Return a short text that differs where nests of arrays do."""
    parts = parts_of({"": batch})
    return hashlib.sha256(
        repr([(part["shape"], part["dtype"], part["digest"]) for part in parts.values()]).encode()
    ).hexdigest()[:12]


def described(array: np.ndarray) -> dict[str, Any]:
    """Return shape, type and checksum of an array, and of numbers some values and means."""
    told = {"shape": list(array.shape), "dtype": array.dtype.name}
    if array.dtype.kind in "OSU":
        flat = array.reshape(-1)
        texts = [_as_bytes(flat[place]) for place in _places(flat.size, STRINGS)]
        return {**told, "digest": _digest(str(len(text)).encode() + b":" + text for text in texts)}
    pieces = list(_pieces(np.ascontiguousarray(array).reshape(-1)))
    told["digest"] = _digest(piece.tobytes() for piece in pieces)
    if array.size and (array.dtype.kind == "f" or "float" in array.dtype.name):
        told["sketch"] = _sketch(np.concatenate(pieces).astype(np.float64))
    return told


def _pieces(flat: np.ndarray) -> Iterable[np.ndarray]:
    if flat.nbytes <= WHOLE:
        yield flat
        return
    length = PIECE // flat.itemsize
    for start in _places(flat.size - length + 1, PIECES):
        yield flat[start : start + length]


def _places(size: int, most: int) -> list[int]:
    """Return at most so many numbers below `size` at equal distances, 0 and the last among them."""
    if size <= most:
        return list(range(size))
    return [number * (size - 1) // (most - 1) for number in range(most)]


def _sketch(values: np.ndarray) -> dict[str, list[float]]:
    means = [float(part.mean()) for part in np.array_split(values, min(SKETCHED, values.size))]
    return {"values": values[_places(values.size, SKETCHED)].tolist(), "means": means}


def _as_bytes(text: Any) -> bytes:
    return text if isinstance(text, bytes) else str(text).encode()


def _digest(content: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in content:
        digest.update(part)
    return digest.hexdigest()[:16]


def _of_files(names: Iterable[str]) -> dict[str, Any]:
    """Describe files by their sizes in order: they may stand elsewhere, and under other names, than they did."""
    names = list(names)
    paths = [Path(names[place]) for place in _places(len(names), FILES)]
    sizes = [path.stat().st_size for path in paths if path.is_file()]
    return {"shape": [len(names)], "dtype": "files", "digest": _digest(f"{size} ".encode() for size in sizes)}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Compare fingerprints of all splits.

    Args:
        before: By split, as a checkpoint holds them.
        now: Those of the data that are there.

    Returns:
        What differs, in words; and what differs in the last digits alone.
    """
    different: list[str] = []
    rounded: list[str] = []
    for split in dict.fromkeys([*before, *now]):
        old, new = before.get(split), now.get(split)
        if old is None or new is None:
            if (old is None) != (new is None):
                different.append(f"{split}: {'none before, there is some now' if old is None else 'there is none now'}")
            continue
        if old["batches"] != new["batches"]:
            different.append(
                f"{split}: {_counted(new['batches'])} batches in an epoch, {_counted(old['batches'])} before"
            )
        for name in dict.fromkeys([*old["parts"], *new["parts"]]):
            _compare(f"{split}: {name}", old["parts"].get(name), new["parts"].get(name), different, rounded)
    return different, rounded


def _counted(batches: int | None) -> str:
    return "an unknown number of" if batches is None else str(batches)


def _compare(
    name: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None, different: list[str], rounded: list[str]
) -> None:
    if old is None or new is None:
        different.append(f"{name} {'was not there before' if old is None else 'is not there any more'}")
    elif (old["shape"], old["dtype"]) != (new["shape"], new["dtype"]):
        different.append(f"{name} is {_looks(new)}, {_looks(old)} before")
    elif old["digest"] != new["digest"]:
        if _is_rounding(old.get("sketch"), new.get("sketch")):
            rounded.append(f"{name} differs in its last digits")
        else:
            what = "has files of other sizes" if old["dtype"] == "files" else "has other values"
            different.append(f"{name} {what} (checksum {new['digest'][:8]}, {old['digest'][:8]} before)")


def _looks(part: Mapping[str, Any]) -> str:
    if part["dtype"] == "files":
        return f"a list of {part['shape'][0]}"
    return f"{tuple(part['shape'])} {part['dtype']}"


def _is_rounding(old: Mapping[str, list[float]] | None, new: Mapping[str, list[float]] | None) -> bool:
    if old is None or new is None:
        return False
    scale = max((abs(value) for value in old["values"] if np.isfinite(value)), default=0.0)
    tolerances = {"values": ROUNDING * scale, "means": ROUNDING_OF_MEANS * scale}
    return all(
        np.allclose(new[name], old[name], rtol=0, atol=most, equal_nan=True) for name, most in tolerances.items()
    )
