"""Parts in noisy volumes: a small net of convolutions in three dimensions tells what a slice does not show.

experiments_manager train examples/volumes/mysettings_solids.py
experiments_manager train examples/volumes/mysettings_solids.py --set hparams.view=slice
experiments_manager train examples/volumes/mysettings_solids.py --set train_data_dir=FOLDER

Each volume of 24x24x24 voxels, as a scanner makes it, holds one part, anyhow turned: a solid ball, a hollow one, a
hollow one with a hole in its wall, or a ring. A hole is seldom in the slice that one happens to look at.
"""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from experiments_manager.data import read_volumes

session_name = "solids"
class_names = ["solid", "hollow", "pierced", "ring"]
hparams = {"side": 24, "view": "volume", "filters": 16, "noise": 0.3, "learning_rate": 0.003}  # view: volume or slice
side = hparams["side"]
train_data_dir = None  # a folder, see `dataset`
validation_data_dir = test_data_dir = train_data_dir
train_size = 1000

epochs = 20
batch_size = 32
loss = "sparse_categorical_crossentropy"
metrics = ["accuracy"]
learning_rate = hparams["learning_rate"]


def dataset(split, data_dir):
    """Volumes [n, 24, 24, 24, 1], or their middle slices [n, 24, 24, 1], and classes [n].

    A folder of your own holds `train`, `validation` and `test`, each with a folder for each class.
    """
    if data_dir:
        volumes, kinds = read_volumes(Path(data_dir) / split, class_names, shape=(side, side, side))
    else:
        size = train_size if split == "train" else 300
        volumes, kinds = draw_solids(size, ["train", "validation", "test"].index(split))
    return (volumes[:, side // 2] if hparams["view"] == "slice" else volumes), kinds


def augment(x, seed):
    """Mirrors a volume in any of its directions, by chance; its class stays."""
    mirrored = tf.random.stateless_uniform([], seed, maxval=2 ** (x.shape.rank - 1), dtype=tf.int32)
    for direction in range(x.shape.rank - 1):
        x = tf.cond(mirrored // 2**direction % 2 == 1, lambda x=x, at=direction: tf.reverse(x, [at]), lambda x=x: x)
    return x


def draw_solids(size, seed):
    """Draws parts of any place, size and direction, with noise; voxels are scaled to mean 0 and deviation 1."""
    generator = np.random.default_rng(seed)
    kinds = generator.integers(len(class_names), size=size)
    volumes = np.empty((size, side, side, side, 1), "float32")
    for volume, kind in zip(volumes, kinds, strict=True):
        noise = generator.normal(scale=hparams["noise"], size=(side, side, side))
        volume[..., 0] = draw_solid(class_names[kind], generator) + noise
        volume -= volume.mean()
        volume /= volume.std()
    return volumes, kinds.astype("int32")


def draw_solid(kind, generator):
    """Which voxels a part fills, 0 or 1."""
    grid = (np.stack(np.mgrid[:side, :side, :side], axis=-1) + 0.5) / side - 0.5
    points = grid - generator.uniform(-0.06, 0.06, 3)
    axis = generator.normal(size=3)
    along = points @ (axis / np.linalg.norm(axis))  # height above the plane through the middle
    distance = np.linalg.norm(points, axis=-1)
    across = np.sqrt(np.maximum(distance**2 - along**2, 0))
    radius, wall = generator.uniform(0.3, 0.4), generator.uniform(0.09, 0.13)
    if kind == "ring":
        return np.hypot(across - radius + wall, along) < wall
    filled = distance < radius
    if kind != "solid":
        filled &= distance > radius - wall
    if kind == "pierced":
        filled &= ~((across < generator.uniform(0.14, 0.2)) & (along > 0))
    return filled


def model(hparams):
    """Three pairs of a convolution and a pooling, one more of each, and the class of what is left."""
    dimensions = 2 if hparams["view"] == "slice" else 3
    convolution = {2: layers.Conv2D, 3: layers.Conv3D}[dimensions]
    pooling = {2: layers.MaxPooling2D, 3: layers.MaxPooling3D}[dimensions]
    x = image = keras.Input((side,) * dimensions + (1,), name=hparams["view"])
    for factor in (0.5, 1, 2):
        x = convolution(int(factor * hparams["filters"]), 3, padding="same", activation="relu")(x)
        x = pooling()(x)
    x = convolution(4 * hparams["filters"], 3, padding="same", activation="relu")(x)
    x = layers.Dropout(0.2)(layers.Flatten()(pooling()(x)))
    return keras.Model(image, layers.Dense(len(class_names), activation="softmax", name="kind")(x))
