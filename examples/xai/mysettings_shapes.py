"""Pictures of which it is known what makes their class, so that explanations can be tried: do they point there?

experiments_manager train examples/xai/mysettings_shapes.py
experiments_manager explain experiments/shapes_… --samples 8
experiments_manager train examples/xai/mysettings_shapes.py --set hparams.watermark=1
experiments_manager train examples/xai/mysettings_shapes.py --set train_data_dir=FOLDER

Each picture of 32x32 pixels shows a cross, a ring or a square at any place, among stains that mean nothing. With a
watermark, each ring bears a mark in a corner, as if all rings came from the same archive: a net that has seen no other
rings looks at the mark, its accuracy is as good as ever, and only a map of what it goes by tells.
"""

import keras
import numpy as np
from keras import layers

from experiments_manager.data import read_image_table

session_name = "shapes"
class_names = ["cross", "ring", "square"]
hparams = {"filters": 16, "watermark": 0.0, "learning_rate": 0.003}  # watermark: share of the rings that bear one
side = 32
train_data_dir = None  # a folder, see `dataset`
validation_data_dir = test_data_dir = train_data_dir
train_size = 1500

epochs = 20
batch_size = 64
loss = "sparse_categorical_crossentropy"
metrics = ["accuracy"]
learning_rate = hparams["learning_rate"]


def dataset(split, data_dir):
    """Pictures [n, 32, 32, 1] in 0..1 and classes [n]; of your own, a folder of images with a `labels.csv`."""
    if data_dir:
        return read_image_table(data_dir, split=split, class_names=class_names, size=(side, side), channels=1)
    pictures, kinds, _ = draw_shapes(train_size if split == "train" else 300, split, hparams["watermark"])
    return pictures, kinds


def draw_shapes(size, split, watermark=0.0):
    """Pictures, their classes, and which of their pixels belong to the shape, bool [n, 32, 32]."""
    generator = np.random.default_rng(["train", "validation", "test"].index(split))
    kinds = generator.integers(len(class_names), size=size)
    pictures, places = np.zeros((size, side, side), "float32"), np.zeros((size, side, side), bool)
    for picture, place, kind in zip(pictures, places, kinds, strict=True):
        picture += generator.uniform(0.2, 0.4) + generator.normal(0, 0.05, (side, side))
        for _ in range(12):
            row, column = generator.integers(side - 3, size=2)
            picture[row : row + 3, column : column + 3] += generator.uniform(-0.2, 0.4)
        reach = generator.integers(4, 7)
        row, column = generator.integers(reach + 1, side - reach - 1, size=2)
        shape = draw_shape(class_names[kind], reach)
        inside = slice(row - reach, row + reach + 1), slice(column - reach, column + reach + 1)
        picture[inside][shape] = generator.uniform(0.75, 1) + generator.normal(0, 0.05, shape.sum())
        place[inside] = shape
        if class_names[kind] == "ring" and generator.uniform() < watermark:
            picture[1:4, 1:4] = np.eye(3)
    return np.clip(pictures, 0, 1)[..., np.newaxis], kinds.astype("int32"), places


def draw_shape(kind, reach):
    """Which pixels of a square of 2 reach + 1 a shape fills."""
    rows, columns = np.abs(np.mgrid[-reach : reach + 1, -reach : reach + 1])
    if kind == "cross":
        return (rows <= 0.5) | (columns <= 0.5)
    if kind == "ring":
        return np.abs(np.hypot(rows, columns) - reach + 0.5) <= 0.7
    return np.maximum(rows, columns) == reach


def model(hparams):
    """Three pairs of a convolution and a pooling, and the largest value of each channel."""
    x = image = keras.Input((side, side, 1), name="image")
    for factor in (1, 2, 4):
        x = layers.Conv2D(factor * hparams["filters"], 3, padding="same", activation="relu")(x)
        if factor < 4:
            x = layers.MaxPooling2D()(x)
    x = layers.Dropout(0.2)(layers.GlobalMaxPooling2D()(x))
    return keras.Model(image, layers.Dense(len(class_names), activation="softmax", name="shape")(x))
