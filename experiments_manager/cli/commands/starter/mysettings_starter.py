"""A starter experiment: which of three spirals does a point lie on?

Train it as it stands, then put your own data and model in the place of these:

    experiments_manager train THIS_FILE                          (--set epochs=20 changes a setting for one run)
    experiments_manager evaluate RUN_FOLDER                      (draws a confusion matrix, too)
    experiments_manager check THIS_FILE --dry-run                (one batch through everything; nothing is written)

`experiments_manager settings` explains all names that an experiment may define, and `… settings NAME` one of them.
"""

import keras
import numpy as np

# What you want to vary. These values show in the run folder's name and in `experiments_manager runs`.
hparams = {"hidden_units": 32, "learning_rate": 0.01, "noise": 0.3}

epochs = 100
batch_size = 50
early_stopping_patience = 20  # epochs without improvement; the best weights are kept
# monitor = "val_accuracy"    # what "improvement" and "best" mean; the validation loss by default
# random_seed = 42            # the same seed gives the same run

class_names = ["red", "green", "blue"]
loss = "sparse_categorical_crossentropy"
metrics = ["accuracy"]
learning_rate = hparams["learning_rate"]
# optimizer = "adamw"         # Adam by default


def dataset(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the data of `train`, `validation` or `test`; the engine shuffles arrays and cuts them into batches.

    A `tf.data.Dataset` of batches or a `keras.utils.PyDataset` will do as well.

    Returns:
        Points, float32 [600, 2], and the class of each, int64 [600].
    """
    generator = np.random.default_rng(["train", "validation", "test"].index(split))
    classes = generator.integers(3, size=600)
    radius = generator.uniform(0.1, 1.0, size=600)
    angle = 4.0 * radius + classes * 2 * np.pi / 3 + generator.normal(scale=hparams["noise"], size=600)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return points.astype("float32"), classes


def model(hparams: dict) -> keras.Model:
    """Build the model. Hooks like this one ask by name for what they need: `hparams`, `settings`, `class_names`, …"""
    point = keras.Input((2,), name="point")
    hidden = keras.layers.Dense(hparams["hidden_units"], activation="gelu")(point)
    hidden = keras.layers.Dense(hparams["hidden_units"], activation="gelu")(hidden)
    return keras.Model(point, keras.layers.Dense(len(class_names), activation="softmax", name="colour")(hidden))
