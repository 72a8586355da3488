"""Draws scenes with discs, rectangles and triangles, and writes them as image files with boxes and masks in a CSV file.

    python examples/detection/prepare_scenes.py [FOLDER]

Needs NumPy and Pillow, and no download. The folder gets the usual shape of such a data set, always the same:

    images/scene_0000.jpg …    128 x 128 pixels
    masks/scene_0000.png …     for each pixel, the number of the object that is seen there, or 0
    annotations.csv            image, class, xmin, ymin, xmax, ymax, mask, mask_value: a line for each object, in pixels
    categories.csv             name: the classes
    coco/  records/            what `data csv-to-coco` and `data coco-to-tfrecord` make of these

Running it again changes nothing. The folder appears whole or not at all.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from experiments_manager.data.detection import coco_to_tfrecord, csv_to_coco

SCENES, SIDE = 1500, 128
CLASSES = ["disc", "rectangle", "triangle"]
SCENES_DIR = Path("experiments") / "data" / "scenes"  # beside the runs, so that a resumed run finds it too


def prepare_scenes(folder: Path = SCENES_DIR, scenes: int = SCENES) -> Path:
    """Make sure that the folder holds the scenes, their COCO JSON and their TFRecord files, and return it."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{folder.name}_", dir=folder.parent))
    try:
        write_scenes(stage, scenes)
        tables = (stage / "annotations.csv", stage / "categories.csv")
        csv_to_coco(*tables, stage / "images", stage / "coco", mask_dir=stage / "masks")
        coco_to_tfrecord(stage / "coco", stage / "images", stage / "records", masks=True)
        stage.chmod(0o755)
        try:
            stage.rename(folder)
        except OSError:  # another process was faster
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return folder


def write_scenes(folder: Path, scenes: int) -> None:
    """Draw the images with their masks, and write the tables of their objects."""
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    rows = []
    for number in range(scenes):
        image, mask, objects = draw_scene(np.random.default_rng([7, number]))
        name, mask_name = f"scene_{number:04d}.jpg", f"scene_{number:04d}.png"
        image.save(folder / "images" / name, quality=92)
        mask.save(folder / "masks" / mask_name)
        rows += [[name, CLASSES[kind], *box, mask_name, value] for value, (kind, box) in enumerate(objects, start=1)]
    for file, table in (
        ("annotations.csv", [["image", "class", "xmin", "ymin", "xmax", "ymax", "mask", "mask_value"], *rows]),
        ("categories.csv", [["name"], *([name] for name in CLASSES)]),
    ):
        with (folder / file).open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream, lineterminator="\n").writerows(table)


def draw_scene(
    generator: np.random.Generator,
) -> tuple[Image.Image, Image.Image, list[tuple[int, tuple[int, int, int, int]]]]:
    """Draw one to five objects over a blurred, lined background; they hide little of each other.

    Returns:
        The scene, a mask with the number of the object that each pixel shows, and class and box of the objects.
    """
    image, mask = background(generator), Image.new("L", (SIDE, SIDE))
    objects: list[tuple[int, tuple[int, int, int, int]]] = []
    for _ in range(generator.integers(1, 6)):
        width, height = (generator.uniform(16, 52) * generator.uniform(0.8, 1.25, 2)).astype(int)
        left, top = (int(generator.integers(0, SIDE - side)) for side in (width, height))
        box = (left, top, left + int(width), top + int(height))
        if all(overlap(box, other) < 0.15 for _, other in objects):
            objects.append((int(generator.integers(len(CLASSES))), box))
            draw_object(image, mask, len(objects), *objects[-1], generator)
    noise = generator.normal(scale=6, size=(SIDE, SIDE, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)), mask, objects


def background(generator: np.random.Generator) -> Image.Image:
    """Draw coloured clouds with some lines over them, which are nothing to be found."""
    clouds = Image.fromarray(generator.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((SIDE, SIDE), Image.BICUBIC)
    pen = ImageDraw.Draw(clouds)
    for _ in range(generator.integers(2, 8)):
        colour = tuple(generator.integers(0, 256, 3).tolist())
        pen.line(generator.integers(0, SIDE, 4).tolist(), fill=colour, width=int(generator.integers(1, 4)))
    return clouds


def draw_object(
    image: Image.Image,
    mask: Image.Image,
    number: int,
    kind: int,
    box: tuple[int, int, int, int],
    generator: np.random.Generator,
) -> None:
    """Draw an object that just fills its box, in a colour that differs from what is there, and its number as a mask."""
    left, top, right, bottom = box
    under = np.asarray(image.crop(box)).mean(axis=(0, 1))
    colour = generator.integers(0, 256, 3)
    while np.abs(colour - under).max() < 80:
        colour = generator.integers(0, 256, 3)
    last_column, last_row = right - 1, bottom - 1  # Pillow's corners are inside
    tip = int(generator.integers(left, right)) if kind == 2 else left
    for canvas, fill in ((image, tuple(colour.tolist())), (mask, number)):
        pen = ImageDraw.Draw(canvas)
        if kind == 0:
            pen.ellipse((left, top, last_column, last_row), fill=fill)
        elif kind == 1:
            pen.rectangle((left, top, last_column, last_row), fill=fill)
        else:
            pen.polygon([(tip, top), (last_column, last_row), (left, last_row)], fill=fill)


def overlap(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """The part of the smaller box that the other covers."""
    width = max(0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / min(areas)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=SCENES_DIR, help="default: %(default)s")
    print(
        f"{SCENES} scenes with their COCO JSON and TFRecord files are in {prepare_scenes(parser.parse_args().folder)}."
    )
