"""A folder of pictures for each class: a few hundred JPEG files, and a net that was trained before, if there is one.

experiments_manager train examples/images/mysettings_specimens.py
experiments_manager train examples/images/mysettings_specimens.py --set train_data_dir=my_pictures
experiments_manager train examples/images/mysettings_specimens.py --set 'hparams_ext={"weights": "mobilenet.h5"}'

Given weights of keras.applications, training has two stages: first the net stays as it is, and only the layer upon it
learns; then all is tuned, a hundredth as fast. Without, everything learns from the first step.
"""

from pathlib import Path

import keras
import tensorflow as tf
from prepare_specimens import PICTURES_DIR, prepare_pictures

from experiments_manager.data import balanced_class_weights, read_image_folders
from experiments_manager.models.finetuning import classification_metrics, pretrained_backbone, two_stages

session_name = "specimens"
train_data_dir = str(PICTURES_DIR)  # a folder of images for each class, see README.md
validation_data_dir = test_data_dir = train_data_dir
class_names = ["flower", "gear", "leaf", "star"]  # the folders
hparams = {
    "net": "MobileNetV2",  # of keras.applications
    "size": 64,
    "alpha": 0.35,  # width of the net
    "dropout": 0.2,
    "learning_rate": 0.003,
    "frozen_epochs": 10,
}
hparams_ext = {"weights": None}  # a file of weights of the net, without the top
size, weights = hparams["size"], hparams_ext["weights"]

epochs = 40
batch_size = 16
early_stopping_patience = None
ema_momentum = 0.95
loss = "sparse_categorical_crossentropy"
metrics = classification_metrics(class_names, top=2)


def prepare_datasets():
    """Draws pictures, where none are given."""
    if not Path(train_data_dir).exists():
        prepare_pictures(Path(train_data_dir))


def dataset(split, data_dir):
    """Pictures [n, size, size, 3] in 0..1, and their classes [n]."""
    found = read_split(split, data_dir)
    return found.images, found.labels


def read_split(split, data_dir):
    """Pictures, classes and names of the files."""
    return read_image_folders(data_dir, split, (size, size), class_names=class_names)


def class_weight():
    """Each class counts as much as any other, however few pictures it has."""
    return balanced_class_weights(read_split("train", train_data_dir).labels, len(class_names))


def augment(x, y, seed):
    """Mirrors a picture, shows a part of it, and changes its light."""
    seeds = tf.unstack(tf.random.split(seed, 4))
    x = tf.image.stateless_random_flip_left_right(x, seeds[0])
    part = int(0.85 * size)
    x = tf.image.resize(tf.image.stateless_random_crop(x, (part, part, 3), seeds[1]), (size, size))
    x = tf.image.stateless_random_contrast(tf.image.stateless_random_brightness(x, 0.1, seeds[2]), 0.8, 1.2, seeds[3])
    return tf.clip_by_value(x, 0, 1), y


def learning_rate(steps_per_epoch):
    """A first and a second stage where the net was trained before; else a fall along half a cosine."""
    first, frozen = hparams["learning_rate"], hparams["frozen_epochs"] * steps_per_epoch
    if weights:
        return two_stages(first, first / 100, frozen)
    return keras.optimizers.schedules.CosineDecay(first, epochs * steps_per_epoch)


def model():
    """Probabilities of the classes for a picture [size, size, 3] in 0..1."""
    picture = keras.Input((size, size, 3), name="picture")
    steps = -(-len(read_split("train", train_data_dir).labels) // batch_size)
    x = pretrained_backbone(
        picture,
        hparams["net"],
        alpha=hparams["alpha"],
        weights=weights,
        frozen_steps=hparams["frozen_epochs"] * steps,
    )
    x = keras.layers.Dropout(hparams["dropout"])(x)
    return keras.Model(picture, keras.layers.Dense(len(class_names), activation="softmax", name="classes")(x))
