"""Labelled volumes from class folders of NumPy files and TIFF stacks."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from experiments_manager.common.installation import install_command
from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.common.tables.problems import DataFileError, refuse

VOLUME_FILES = (".npy", ".npz", ".tif", ".tiff")


def read_volumes(
    folder: Path | str,
    class_names: Sequence[str],
    *,
    shape: tuple[int, int, int] | None = None,
    channels: int = 1,
    standardize: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Read volumes that lie in a folder for each class.

    All volumes are held in memory: 4 bytes a voxel and channel.

    Args:
        folder: Holds folders that are called like the classes, with a file for each volume: `.npy`, `.npz` with one
            array, or a TIFF stack (`.tif`, `.tiff`, which needs the package tifffile), numbers of shape
            [depth, height, width] or [depth, height, width, channels].
        class_names: A volume's label is the index of its folder in this list.
        shape: Depth, height and width that each volume must have; `None` demands that all are like the first.
        channels: Channels that each volume must have.
        standardize: Shift and scale each volume to mean 0 and standard deviation 1.

    Returns:
        Volumes, `float32` of shape [volumes, depth, height, width, channels], class by class and then by name, and
        labels, `int32` of shape [volumes].

    Raises:
        DataFileError: Folders are missing, empty or no class, or files are unreadable, of other shapes or types, or
            hold NaN; all of these at once.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataFileError(f"{folder} does not exist. Expected a folder with the folders {', '.join(class_names)}.")
    files, problems = _find_files(folder, class_names)
    with ThreadPoolExecutor() as threads:
        volumes = list(threads.map(lambda file: _read_volume(file[0], channels), files))
    read = [volume for volume in volumes if isinstance(volume, np.ndarray)]
    wanted = shape or (read[0].shape[:3] if read else ())
    for (file, _), volume in zip(files, volumes, strict=True):
        name = file.relative_to(folder)
        if isinstance(volume, str):
            problems.append(f"{name} {volume}")
        elif volume.shape[:3] != tuple(wanted):
            like = "" if shape else " as the first one"
            problems.append(f"{name} has the shape {_shown(volume.shape[:3])}. Expected {_shown(wanted)}{like}.")
    refuse(f"{folder}: {problem}" for problem in problems)
    stacked = np.stack(volumes)
    return _standardized(stacked) if standardize else stacked, np.array([label for _, label in files], np.int32)


def _find_files(folder: Path, class_names: Sequence[str]) -> tuple[list[tuple[Path, int]], list[str]]:
    """Find the volumes with their labels, and what is wrong with the folders."""
    problems, files = [], []
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.name.startswith(".") and entry.name not in class_names:
            hint = did_you_mean(entry.name, class_names) or "Add it to class_names, or remove it."
            problems.append(f"the folder {entry.name} is no class. Expected {', '.join(class_names)}. {hint}")
    for label, name in enumerate(class_names):
        if not (folder / name).is_dir():
            problems.append(f"there is no folder {name}. Expected one for each class.")
            continue
        found = [
            file
            for file in sorted((folder / name).iterdir())
            if file.suffix.lower() in VOLUME_FILES and not file.name.startswith(".")
        ]
        files += [(file, label) for file in found]
        if not found:
            problems.append(f"the folder {name} holds no volume. Expected files {', '.join(VOLUME_FILES)}.")
    return files, problems


def _read_volume(file: Path, channels: int) -> np.ndarray | str:
    """Return a volume, `float32` [depth, height, width, channels], or what is wrong with it."""
    try:
        array = _load_tiff(file) if file.suffix.lower().startswith(".tif") else _load_numpy(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, struct.error, LookupError) as error:
        what = (
            "Install it, or write the file otherwise" if "imagecodecs" in str(error) else "Write it again, or remove it"
        )
        return f"cannot be read: {str(error).rstrip('.')}. {what}."
    if array.dtype.kind not in "fiub":
        return f"is of type {array.dtype}. Expected numbers."
    if array.ndim == 3:
        array = array[..., np.newaxis]
    if array.ndim != 4 or array.shape[3] != channels:
        wanted = f"[depth, height, width{f', {channels}' if channels > 1 else ''}]"
        return f"has the shape {_shown(array.shape)}. Expected {wanted}."
    if not array.size:
        return "is empty. Write it again, or remove it."
    if not np.isfinite(array).all():
        return f"holds NaN or infinity in {np.count_nonzero(~np.isfinite(array))} voxels. Fix or remove it."
    return array.astype(np.float32)


def _load_numpy(file: Path) -> np.ndarray:
    loaded = np.load(file, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded as archive:
        if len(archive.files) != 1:
            raise ValueError(f"it holds the arrays {', '.join(archive.files) or 'none'}, expected one")
        return archive[archive.files[0]]


def _load_tiff(file: Path) -> np.ndarray:
    try:
        import tifffile
    except ImportError as error:
        raise DataFileError(
            f"{file}: TIFF stacks are read by tifffile, which is missing. Run: {install_command('images')}"
        ) from error
    try:
        with tifffile.TiffFile(file) as tiff:
            first, *others = tiff.series
            if first.ndim == 3 and "S" in first.axes:
                raise ValueError("it is one picture with colours, expected a stack of slices")
            if first.ndim == 2 and others:  # slices that were appended one by one
                if any(other.shape != first.shape for other in others):
                    raise ValueError("its slices have different sizes")
                return np.stack([slices.asarray() for slices in tiff.series])
            if any(other.shape == first.shape for other in others):
                raise ValueError(f"it holds {len(tiff.series)} stacks, expected one")
            return first.asarray()
    except tifffile.TiffFileError as error:
        raise ValueError(str(error)) from error


def _standardized(volumes: np.ndarray) -> np.ndarray:
    """Bring each volume and channel to mean 0 and standard deviation 1; a constant one becomes 0."""
    for volume in volumes:  # sums of float32 lose what a voxel adds, and one volume at a time needs less memory
        mean = volume.mean(axis=(0, 1, 2), dtype=np.float64)
        volume -= mean.astype(np.float32)
        rest = volume.mean(axis=(0, 1, 2), dtype=np.float64)  # of rounding the mean
        deviation = np.sqrt(np.square(volume, dtype=np.float64).mean(axis=(0, 1, 2)) - rest**2)
        is_constant = deviation <= np.abs(mean) * np.finfo(np.float32).eps
        volume[..., is_constant] = 0
        volume /= np.where(is_constant, 1, deviation).astype(np.float32)
    return volumes


def _shown(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "nothing"
