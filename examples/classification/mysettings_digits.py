"""Handwritten digits, from image files and a table of labels; a multi-layer perceptron or a small convolutional net.

experiments_manager train examples/classification/mysettings_digits.py
experiments_manager train examples/classification/mysettings_digits.py --set model_file=model_cnn.py
"""

import runpy

from experiments_manager.data import find_upwards, read_image_table

session_name = "digits"
model_file = "model_mlp.py"
class_names = [str(digit) for digit in range(10)]
hparams = {"hidden_units": 256, "filters": 32, "dropout": 0.4, "learning_rate": 0.002}

epochs = 100
batch_size = 64
early_stopping_patience = 30
loss = "sparse_categorical_crossentropy"
metrics = ["accuracy"]
learning_rate = hparams["learning_rate"]


def dataset(split):
    """Reads images [n, 8, 8, 1] in 0..1 and digits [n] of one split; writes the files first if they are missing."""
    prepare_digits = runpy.run_path(str(find_upwards("tools/prepare_digits.py", near=__file__)))["prepare_digits"]
    return read_image_table(prepare_digits(), split=split, class_names=class_names, channels=1)
