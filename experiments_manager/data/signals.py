"""Signals of one length with a label each, from NumPy archives."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.common.tables.problems import DataFileError, refuse


def read_signals(
    path: Path | str, split: str, *, length: int | None = None, channels: int = 1
) -> tuple[np.ndarray, np.ndarray | None]:
    """Read the signals of one split.

    Args:
        path: A NumPy archive (`numpy.savez`) that holds `x_<split>`, numbers of shape [signals, length] or
            [signals, length, channels], and where there are labels `y_<split>`, whole numbers of shape [signals].
        split: Name of the split, e.g. `train`.
        length: Samples that each signal must have; `None` takes any.
        channels: Channels that each signal must have.

    Returns:
        Signals, `float32` of shape [signals, length, channels], and labels, `int32` of shape [signals], or `None`
        where the archive has none for this split.

    Raises:
        DataFileError: The archive cannot be read, or does not hold that; the message lists all that is wrong.
    """
    path = Path(path)
    arrays = _read_archive(path, split)
    signals, labels = arrays.get(f"x_{split}"), arrays.get(f"y_{split}")
    if signals is None:
        known = sorted(arrays)
        hint = did_you_mean(f"x_{split}", known)
        raise DataFileError(
            f"{path} has no array x_{split}. Expected it among {', '.join(known) or 'none'}. {hint}".rstrip()
        )
    problems = [*_problems_of_signals(signals, split, length, channels), *_problems_of_labels(labels, signals, split)]
    refuse(f"{path}: {problem}" for problem in problems)
    signals = np.asarray(signals, np.float32).reshape(len(signals), signals.shape[1], channels)
    return signals, None if labels is None else labels.astype(np.int32)


def _read_archive(path: Path, split: str) -> dict[str, np.ndarray]:
    """Read the arrays of one split; of the others the names alone, as empty arrays."""
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataFileError(f"{path} holds one array. Expected an archive made by numpy.savez.")
        with archive:
            return {
                name: np.asarray(archive[name]) if name in (f"x_{split}", f"y_{split}") else np.empty(0)
                for name in archive.files
            }
    except FileNotFoundError:
        raise DataFileError(f"{path} not found. Expected a NumPy archive with x_{split} and y_{split}.") from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        if isinstance(error, DataFileError):
            raise
        raise DataFileError(f"{path} cannot be read: {error}. Expected an archive made by numpy.savez.") from error


def _problems_of_signals(signals: np.ndarray, split: str, length: int | None, channels: int) -> list[str]:
    name, shape = f"x_{split}", signals.shape
    if signals.dtype.kind not in "fiu":
        return [f"{name} is of type {signals.dtype}. Expected numbers."]
    if signals.ndim not in (2, 3) or not signals.size:
        return [f"{name} has the shape {list(shape)}. Expected [signals, length] or [signals, length, channels]."]
    problems = []
    if length is not None and shape[1] != length:
        problems.append(f"{name} has signals of {shape[1]} samples. Expected {length}. Cut or resample them.")
    if (given := shape[2] if signals.ndim == 3 else 1) != channels:
        problems.append(f"{name} has {given} channels. Expected {channels}.")
    within = np.abs(signals.reshape(len(signals), -1)) <= np.finfo(np.float32).max
    if broken := np.flatnonzero(~within.all(axis=1)).tolist():
        shown = ", ".join(map(str, broken[:10])) + (", …" if len(broken) > 10 else "")
        problems.append(
            f"{name}: {len(broken)} signals hold NaN or infinity, at {shown}. Expected numbers below 3e38. Fix or "
            "remove them."
        )
    return problems


def _problems_of_labels(labels: np.ndarray | None, signals: np.ndarray, split: str) -> list[str]:
    if labels is None:
        return []
    if labels.shape != signals.shape[:1]:
        return [f"y_{split} has the shape {list(labels.shape)}. Expected [{len(signals)}], one label a signal."]
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        return [f"y_{split} is of type {labels.dtype} or below 0. Expected whole numbers from 0."]
    if labels.max() > np.iinfo(np.int32).max:
        return [f"y_{split} goes up to {labels.max()}. Expected the numbers of classes, from 0 to less than 2^31."]
    return []
