"""Handwritten digits, from image files and a table of labels; a multi-layer perceptron or a small convolutional net.

experiments_manager train examples/classification/mysettings_digits.py
experiments_manager train examples/classification/mysettings_digits.py --set model_file=model_cnn.py
"""

from pathlib import Path

from prepare_digits import prepare_digits

from experiments_manager.data import read_image_table

session_name = "digits"
model_file = "model_mlp.py"
train_data_dir = validation_data_dir = test_data_dir = str(Path(__file__).parent / "data" / "digits")
class_names = [str(digit) for digit in range(10)]
hparams = {"hidden_units": 256, "filters": 32, "dropout": 0.4, "learning_rate": 0.002}

epochs = 100
batch_size = 64
early_stopping_patience = 30
loss = "sparse_categorical_crossentropy"
metrics = ["accuracy"]
learning_rate = hparams["learning_rate"]


def prepare_datasets():
    """Writes the image files, where they are missing."""
    if not Path(train_data_dir).is_dir():
        prepare_digits(Path(train_data_dir))


def dataset(split, data_dir):
    """Reads images [n, 8, 8, 1] in 0..1 and digits [n] of one split."""
    return read_image_table(data_dir, split=split, class_names=class_names, channels=1)
