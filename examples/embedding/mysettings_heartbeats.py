"""Heartbeats without labels: a denoising auto-encoder finds the kinds of beats by itself.

experiments_manager train examples/embedding/mysettings_heartbeats.py
experiments_manager train examples/embedding/mysettings_heartbeats.py --set train_data_dir=beats.npz

The net squeezes a disturbed beat of 128 samples into a code of a few numbers, and draws the clean beat from them. So
the code holds what makes the beat, and not how it was disturbed: beats of one kind lie together, which TensorBoard's
Projector shows. The kinds are never seen in training.
"""

import keras
import numpy as np

from experiments_manager.data import read_signals

session_name = "heartbeats"
class_names = ["normal", "ventricular", "atrial", "paced", "infarct"]
hparams = {"length": 128, "code": 8, "filters": 16, "learning_rate": 0.003, "wander": 0.4, "noise": 0.1}
length = hparams["length"]
train_data_dir = None  # an archive, see `read_beats`
validation_data_dir = test_data_dir = train_data_dir

epochs = 25
batch_size = 64
loss = "mean_squared_error"
learning_rate = hparams["learning_rate"]
embeddings = ["code"]


def dataset(split, data_dir):
    """Disturbed beats [n, 128, 1], and the clean ones as targets."""
    beats, _ = read_beats(split, data_dir)
    return disturb(beats, hparams, ["train", "validation", "test"].index(split)), beats


def read_beats(split, data_dir=None):
    """Clean beats, float32 [n, 128, 1], and their kinds [n]; drawn, where no file is given.

    A file is a NumPy archive of `x_<split>` [n, 128], each beat scaled to about -1..1, and `y_<split>` [n] of whole
    numbers, which are needed only to measure how well the codes tell the kinds apart.
    """
    if data_dir:
        return read_signals(data_dir, split, length=length)
    return draw_beats(1500 if split == "train" else 500, ["train", "validation", "test"].index(split))


def disturb(beats, hparams, seed):
    """Adds noise and the slow wander of a baseline, as breathing makes it."""
    generator, time = np.random.default_rng(100 + seed), np.linspace(0, 1, length)
    disturbed = beats + generator.normal(scale=hparams["noise"], size=beats.shape)
    for frequency in (0.5, 1):
        heights = generator.normal(scale=hparams["wander"], size=(len(beats), 1))
        waves = heights * np.sin(2 * np.pi * (frequency * time + generator.uniform(size=(len(beats), 1))))
        disturbed += waves[..., np.newaxis]
    return disturbed.astype("float32")


# Each wave of a beat: its middle and width in parts of the beat, and its height.
WAVES = {
    "normal": [(0.25, 0.030, 0.15), (0.40, 0.012, 1.0), (0.43, 0.012, -0.25), (0.68, 0.050, 0.30)],
    "ventricular": [(0.40, 0.060, 1.0), (0.62, 0.080, -0.45)],
    "atrial": [(0.12, 0.020, -0.15), (0.30, 0.012, 0.9), (0.33, 0.012, -0.3), (0.52, 0.040, 0.25)],
    "paced": [(0.33, 0.004, 0.8), (0.42, 0.050, -0.9), (0.68, 0.060, 0.35)],
    "infarct": [(0.25, 0.030, 0.15), (0.39, 0.012, -0.45), (0.42, 0.012, 0.6), (0.52, 0.080, 0.45)],
}


def draw_beats(size, seed):
    """Draws beats that differ in height, width and place, as those of several people do."""
    generator = np.random.default_rng(seed)
    time, kinds = np.linspace(0, 1, length), generator.integers(len(class_names), size=size)
    beats = np.zeros((size, length))
    for beat, kind in zip(beats, kinds, strict=True):
        scale, stretch, shift = generator.normal(1, 0.12), generator.normal(1, 0.08), generator.normal(0, 0.01)
        for middle, width, height in WAVES[class_names[kind]]:
            place = 0.4 + (middle - 0.4) * stretch + shift
            beat += scale * height * generator.normal(1, 0.1) * np.exp(-(((time - place) / width) ** 2) / 2)
    return beats[..., np.newaxis].astype("float32"), kinds.astype("int32")


def model(hparams):
    """Three convolutions down to the code, and three up from it."""
    filters = hparams["filters"]
    beat = keras.Input((length, 1), name="beat")
    x = beat
    for factor in (1, 2, 2):
        x = keras.layers.Conv1D(factor * filters, 7, strides=2, padding="same", activation="relu")(x)
    code = keras.layers.Dense(hparams["code"], name="code")(keras.layers.Flatten()(x))
    x = keras.layers.Reshape((length // 8, 2 * filters))(keras.layers.Dense(length // 8 * 2 * filters)(code))
    for factor in (2, 1):
        x = keras.layers.Conv1DTranspose(factor * filters, 7, strides=2, padding="same", activation="relu")(x)
    return keras.Model(beat, keras.layers.Conv1DTranspose(1, 7, strides=2, padding="same", name="drawn")(x))
