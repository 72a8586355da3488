"""Draws the pictures of this example: a few hundred specimens in a folder for each class, more of some than of others.

    python examples/images/prepare_specimens.py [FOLDER]

Nothing is downloaded. FOLDER/<class>/*.jpg are pictures of different sizes, as cameras give them.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

PICTURES_DIR = Path("experiments") / "data" / "specimens"
COLOURS = {"flower": (220, 110, 160), "gear": (130, 130, 145), "leaf": (80, 150, 60), "star": (215, 175, 60)}
"""Mean red, green and blue of each class; specimens differ."""
PICTURES = {"flower": 160, "gear": 90, "leaf": 60, "star": 40}


def prepare_pictures(folder, pictures=PICTURES):
    """Writes all pictures; the folder appears whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{folder.name}_", dir=folder.parent))
    generator = np.random.default_rng(0)
    try:
        for name, count in pictures.items():
            (stage / name).mkdir()
            for number in range(count):
                draw_picture(name, generator).save(stage / name / f"{name}_{number:03d}.jpg", quality=88)
        stage.chmod(0o755)
        stage.rename(folder)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def draw_picture(name, generator):
    """One specimen anywhere in a picture of 90 to 200 pixels, before a background of two colours, with noise."""
    width, height = generator.integers(90, 201, size=2)
    ramp = np.linspace(0, 1, height)[:, np.newaxis, np.newaxis]
    colours = generator.uniform(0, 255, size=(2, 1, 1, 3))
    pixels = np.broadcast_to(colours[0] * ramp + colours[1] * (1 - ramp), (height, width, 3))
    picture = Image.fromarray(pixels.astype("uint8"))
    radius = min(width, height) * generator.uniform(0.3, 0.45)
    centre = np.array([width, height]) / 2 + generator.normal(scale=0.05 * radius, size=2)
    corners = outline(name, generator) * radius + centre
    colour = tuple(int(part) for part in generator.normal(COLOURS[name], 30).clip(0, 255))
    ImageDraw.Draw(picture).polygon([tuple(corner) for corner in corners], fill=colour)
    blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.8)), float)
    return Image.fromarray((blurred + generator.normal(scale=8, size=blurred.shape)).clip(0, 255).astype("uint8"))


def outline(name, generator):
    """The outline [n, 2] of a specimen of radius 1, turned by any angle."""
    angles = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    radius = {
        "flower": 0.75 + 0.25 * np.cos(6 * angles),
        "gear": 0.85 + 0.15 * np.sign(np.cos(12 * angles)),
        "leaf": 1 / np.hypot(np.cos(angles), np.sin(angles) / 0.45),
        "star": 0.4 + 0.6 * (np.abs((angles * 5 / (2 * np.pi)) % 1 - 0.5) * 2) ** 1.5,
    }[name]
    turned = angles + generator.uniform(0, 2 * np.pi)
    points = radius[:, np.newaxis] * np.column_stack([np.cos(turned), np.sin(turned)])
    return points * generator.uniform(0.85, 1.15, size=2)


if __name__ == "__main__":
    prepare_pictures(Path(sys.argv[1] if len(sys.argv) > 1 else PICTURES_DIR))
