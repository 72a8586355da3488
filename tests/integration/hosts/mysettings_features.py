"""An experiment with all that has to be the same on several hosts, on data of two kinds."""

import keras
import numpy as np
import tensorflow as tf

session_name = "features"
hparams = {"data": "pipeline"}
epochs = 3
batch_size = 24
loss = "sparse_categorical_crossentropy"
learning_rate = 0.05
metrics = ["accuracy"]
class_weight = {0: 1.0, 1: 3.0}
ema_momentum = 0.9
gradient_clip_norm = 0.2
reduce_lr_patience = 1
early_stopping_patience = None
strategy = "MultiWorkerMirroredStrategy"
checkpoint_every_steps = 7
tensorboard = export = figures = False


def samples(split):
    random = np.random.default_rng(0 if split == "train" else 1)
    x = random.normal(size=(154 if split == "train" else 61, 3)).astype("float32")
    return x, (x[:, 0] + x[:, 1] ** 2 > 1).astype("int32")


class Batches(keras.utils.PyDataset):
    def __init__(self, split):
        super().__init__()
        self.arrays = samples(split)

    def __len__(self):
        return -(-len(self.arrays[0]) // batch_size)

    def __getitem__(self, index):
        return tuple(array[index * batch_size : (index + 1) * batch_size] for array in self.arrays)


def dataset(split):
    if hparams["data"] == "indexed":
        return Batches(split)
    of_unknown_length = tf.data.Dataset.from_tensor_slices(samples(split)).filter(lambda x, y: x[0] > -10.0)
    return of_unknown_length.batch(batch_size)


def model(hparams):
    inputs = keras.Input((3,), name="x")
    hidden = keras.layers.Dense(16, activation="relu")(inputs)
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="y")(hidden))
