"""Writes the 1,797 handwritten digits that ship inside scikit-learn as image files with a table of labels.

    python examples/classification/prepare_digits.py [FOLDER]

Needs scikit-learn and Pillow, and no download. The folder gets the usual shape of such a data set:

    digit_0000.png …    8x8 pixels, grey
    labels.csv          columns file, label, split: train, validation or test, stratified by label and always the same

Running it again changes nothing. The folder appears whole or not at all.
"""

from __future__ import annotations

import argparse
import csv
import re
import shutil
import sys
import tempfile
from pathlib import Path

DIGITS = 1797
DEFAULT_FOLDER = Path(__file__).resolve().parent / "data" / "digits"


def prepare_digits(folder: Path = DEFAULT_FOLDER) -> Path:
    """Make sure that the folder holds the whole data set, and return it.

    Args:
        folder: Where the images and `labels.csv` go. What is missing there is written; what is whole is left alone.

    Raises:
        FileExistsError: The folder holds something that is not this data set.
    """
    if is_complete(folder):
        return folder
    if folder.exists() and not all(is_ours(path) for path in folder.iterdir()):
        raise FileExistsError(f"{folder} holds other files. Name a folder that is new or empty.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{folder.name}_", dir=folder.parent))
    try:
        write_images_and_table(stage)
        stage.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            stage.rename(folder)
        except OSError:  # Another process was faster: fine, if what it wrote is whole.
            if not is_complete(folder):
                raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return folder


def is_complete(folder: Path) -> bool:
    """Return whether the table and every image are there."""
    return (folder / "labels.csv").is_file() and len(list(folder.glob("digit_*.png"))) == DIGITS


def is_ours(path: Path) -> bool:
    """Return whether this script wrote the file, so that it may be replaced."""
    if path.name == "labels.csv":
        return path.read_bytes().startswith(b"file,label,split\ndigit_0000.png,")
    return re.fullmatch(r"digit_\d{4}\.png", path.name) is not None


def write_images_and_table(folder: Path) -> None:
    """Write all images, then the table of their labels, into an existing folder."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    splits = stratified_splits(digits.target)
    rows = []
    for number, (pixels, label, split) in enumerate(zip(digits.images, digits.target, splits, strict=True)):
        file = f"digit_{number:04d}.png"
        Image.fromarray(np.round(pixels * (255 / 16)).astype(np.uint8)).save(folder / file)
        rows.append([file, int(label), split])
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as table:
        csv.writer(table, lineterminator="\n").writerows([["file", "label", "split"], *rows])


def stratified_splits(labels: object) -> list[str]:
    """Return the split of each row: 20 % test, 10 % validation, the rest train, in equal shares of each label.

    Args:
        labels: Integer array of shape [rows].
    """
    import numpy as np
    from sklearn.model_selection import train_test_split

    rows = np.arange(len(labels))
    rest, test = train_test_split(rows, test_size=360, stratify=labels, random_state=0)
    _, validation = train_test_split(rest, test_size=180, stratify=labels[rest], random_state=0)
    splits = np.full(len(labels), "train", dtype=object)
    splits[validation] = "validation"
    splits[test] = "test"
    return splits.tolist()


def main() -> int:
    """Parse the command line and say what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT_FOLDER, help="default: %(default)s")
    folder = parser.parse_args().folder
    if is_complete(folder):
        print(f"{folder} holds all {DIGITS} digits already.")
        return 0
    try:
        prepare_digits(folder)
    except ImportError as error:
        print(f"{error}. This script needs two packages: pip install scikit-learn pillow", file=sys.stderr)
        return 2
    except OSError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"Wrote {DIGITS} images of 8x8 pixels and labels.csv to {folder}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
