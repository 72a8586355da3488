"""Draws the scenes of this example: shapes of grass, bricks and gravel on photographs of scikit-learn and scikit-image.

    python examples/segmentation/prepare_materials.py [FOLDER]

Nothing is downloaded. The folder gets train/, validation/ and test/, each with images/ (JPEG) and labels/ (PNG):
0 background, 1 grass, 2 bricks, 3 gravel, and 255 (ignored) where the scene has no data. The splits have other
photographs, and other parts of the pictures of grass, bricks and gravel. There are few photographs to learn from what
is none of these materials, so the scenes of training show them in other colours and sizes, and as many shapes again
of pieces of photographs, which are background, half of them in the colours of the materials.
"""

import functools
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

SCENES_DIR = Path("experiments") / "data" / "materials"
PHOTOGRAPHS = {
    "train": [
        "china.jpg",
        "flower.jpg",
        "chelsea.png",
        "motorcycle_left.png",
        "hubble_deep_field.jpg",
        "camera.png",
        "retina.jpg",
        "coins.png",
        "moon.png",
        "page.png",
        "cell.png",
        "text.png",
    ],
    "validation": ["coffee.png", "ihc.png"],
    "test": ["astronaut.png", "rocket.jpg"],
}
MATERIALS = {"grass.png": (90, 130, 60), "brick.png": (150, 85, 65), "gravel.png": (105, 110, 150)}
"""Pictures of the classes 1, 2 and 3, which are grey, and the mean red, green and blue that they get."""
SMALLER = {"brick.png": 3}
"""How many times smaller a picture is shown, so that a shape holds several bricks."""
COLUMNS = {"train": (0, 300), "validation": (300, 400), "test": (400, 512)}
"""Which part of a material's picture, which is 512 pixels wide, each split may use."""
SCENES = {"train": 100, "validation": 2, "test": 4}
LARGEST = 60
"""Radius of the largest shape, in pixels."""
CORNERS = {"disc": 40, "box": 4, "triangle": 3}
IGNORED = 255


def prepare_scenes(folder, scenes=SCENES, size=(480, 640)):
    """Writes all scenes; the folder appears whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{folder.name}_", dir=folder.parent))
    try:
        for seed, (split, count) in enumerate(scenes.items()):
            for part in ("images", "labels"):
                (stage / split / part).mkdir(parents=True)
            generator = np.random.default_rng(seed)
            for number in range(count):
                image, labels = draw_scene(split, number, size, generator)
                Image.fromarray(image).save(stage / split / "images" / f"scene_{number:02d}.jpg", quality=90)
                Image.fromarray(labels).save(stage / split / "labels" / f"scene_{number:02d}.png")
        stage.chmod(0o755)
        stage.rename(folder)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


@functools.cache
def read_picture(name):
    """Reads a picture that lies in the package that ships it."""
    import skimage
    import sklearn.datasets

    for folder in (Path(skimage.__file__).parent / "data", Path(sklearn.datasets.__file__).parent / "images"):
        if (folder / name).is_file():
            return Image.open(folder / name).convert("RGB")
    raise FileNotFoundError(f"{name} is shipped by neither scikit-image nor scikit-learn. Install both.")


def draw_scene(split, number, size, generator):
    """Gives an image [height, width, 3] with about twenty shapes, and its labels [height, width]."""
    height, width = size
    photographs, is_training = PHOTOGRAPHS[split], split == "train"
    photograph = read_picture(photographs[number % len(photographs)])
    image = part_of(photograph, size, generator, smallest=0.2 if is_training else 0.5)
    if is_training:
        image = in_other_colours(image, generator)
    labels = Image.new("L", (width, height), 0)
    fills = 2 * len(MATERIALS) if is_training else len(MATERIALS)  # those after the materials are something else
    for _ in range(generator.integers(15, 26) * fills // len(MATERIALS)):
        fill = int(generator.integers(fills))
        place = tuple((generator.uniform((0, 0), (width, height)) - LARGEST).astype(int).tolist())
        mask = Image.new("L", (2 * LARGEST, 2 * LARGEST), 0)
        corners = outline(generator.uniform(25, LARGEST), generator) + LARGEST
        ImageDraw.Draw(mask).polygon([tuple(corner) for corner in corners], fill=255)
        if fill < len(MATERIALS):
            image.paste(cover(list(MATERIALS)[fill], COLUMNS[split], generator), place, mask)
            labels.paste(1 + fill, place, mask)
        else:
            image.paste(other(photographs, generator), place, mask)
            labels.paste(0, place, mask)
    pixels, classes = np.array(image), np.array(labels)
    rows, columns = np.mgrid[:height, :width]
    without_data = columns < rows * generator.uniform(0, 0.2)  # as at the edge of a satellite's track
    pixels[without_data], classes[without_data] = 0, IGNORED
    return pixels, classes


def part_of(photograph, size, generator, smallest=0.5, largest=1.0):
    """A part of a photograph, mirrored or not, so that two scenes on one photograph differ."""
    whole = np.array(photograph.size)
    part = whole * generator.uniform(smallest, largest)
    corner = generator.uniform((0, 0), whole - part)
    image = photograph.resize(size[::-1], Image.Resampling.BILINEAR, box=(*corner, *(corner + part)))
    return ImageOps.mirror(image) if generator.integers(2) else image


def in_other_colours(image, generator):
    """A picture with its channels exchanged or not, a negative or not, in another light and tint."""
    image = np.asarray(image) / 255
    if generator.random() < 0.5:
        image = image[..., generator.permutation(3)]
    if generator.random() < 0.2:
        image = 1 - image
    image = image ** generator.uniform(0.6, 1.6) * generator.uniform(0.5, 1.4, size=3)
    return Image.fromarray((255 * image).clip(0, 255).astype("uint8"))


def other(photographs, generator):
    """A piece of a photograph, in any colours or in those of a material."""
    photograph = read_picture(photographs[generator.integers(len(photographs))])
    piece = part_of(photograph, (2 * LARGEST, 2 * LARGEST), generator, smallest=0.08, largest=0.6)
    if generator.integers(2):
        return in_other_colours(piece, generator)
    return tinted(np.asarray(piece.convert("L")), list(MATERIALS)[generator.integers(len(MATERIALS))], generator)


def outline(radius, generator):
    """The corners [n, 2] of a disc, a box or a triangle around 0, turned by any angle."""
    count = generator.choice(list(CORNERS.values()))
    angles = generator.uniform(0, 2 * np.pi) + np.arange(count) * 2 * np.pi / count
    return radius * np.column_stack([np.cos(angles), np.sin(angles)])


def cover(material, columns, generator):
    """A material in a tint that is never the same, so that colour alone does not tell what it is."""
    smaller = SMALLER.get(material, 1)
    texture = np.asarray(read_picture(material).convert("L"))[::smaller, columns[0] : columns[1] : smaller]
    texture = np.roll(texture, generator.integers(texture.shape), axis=(0, 1))
    repeats = [-(-2 * LARGEST // side) for side in texture.shape]
    return tinted(np.tile(texture, repeats)[: 2 * LARGEST, : 2 * LARGEST], material, generator)


def tinted(grey, material, generator):
    """A grey picture [height, width] in about the colour of a material."""
    tint = generator.normal(MATERIALS[material], 15) * generator.uniform(0.7, 1.3)
    coloured = grey[..., np.newaxis] / max(grey.mean(), 20) * tint.clip(10)
    return Image.fromarray(coloured.clip(0, 255).astype("uint8"))


if __name__ == "__main__":
    prepare_scenes(Path(sys.argv[1] if len(sys.argv) > 1 else SCENES_DIR))
