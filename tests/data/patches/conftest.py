"""Folders of images and label maps."""

import numpy as np
import pytest
import tifffile
from PIL import Image


@pytest.fixture
def write_pair(tmp_path):
    """Writes an image and a label map `[height, width]` into `images/` and `labels/` of a folder, which it gives."""

    def write(name, labels, image_ending=".png", label_ending=".png", image=None):
        labels = np.asarray(labels)
        if image is None:
            image = np.arange(labels.size * 3, dtype=np.uint8).reshape(*labels.shape, 3)
        for part, pixels, ending in (("images", image, image_ending), ("labels", labels, label_ending)):
            (tmp_path / part).mkdir(exist_ok=True)
            file = tmp_path / part / f"{name}{ending}"
            if ending == ".tif":
                tifffile.imwrite(file, pixels)
            elif ending == ".npy":
                np.save(file, pixels)
            else:
                Image.fromarray(pixels.astype(np.uint8)).save(file)
        return tmp_path

    return write


@pytest.fixture
def quarters():
    """A label map of 40x60 pixels: class 0, but 1 at the top left, 2 in five pixels, and 255 in the last row."""
    labels = np.zeros((40, 60), np.uint8)
    labels[:20, :30] = 1
    labels[30, 50:55] = 2
    labels[-1] = 255
    return labels
