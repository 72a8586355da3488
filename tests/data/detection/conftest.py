"""A tiny data set: three images with boxes, as tables and image files."""

import numpy as np
import pytest
from PIL import Image

ANNOTATIONS = """image,class,xmin,ymin,xmax,ymax
a.jpg,cat,2,4,20,30
a.jpg,dog,10,0,40,20
b.png,dog,0,0,32,24
c.png,,,,,
"""


@pytest.fixture
def write(tmp_path):
    """Writes the data set below a folder, with what the test puts in the place of files; gives the folder."""

    def write(annotations=ANNOTATIONS, categories="name\ncat\ndog\n", **images):
        (tmp_path / "images").mkdir(exist_ok=True)
        pictures = {"a.jpg": (40, 30), "b.png": (32, 24), "c.png": (16, 16)}
        for name, (width, height) in pictures.items():
            pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name)
        for name, text in (("annotations.csv", annotations), ("categories.csv", categories)):
            content = text if isinstance(text, bytes) else text.encode()
            (tmp_path / name).write_bytes(content)
        return tmp_path

    return write
