"""Words that are misspelt do not keep a dry run from looking at the rest."""

import textwrap

import pytest

from experiments_manager.settings.loading import load_despite_problems

GOOD = """
import keras
import numpy as np

hparams = {"units": 4}
loss = "mse"
learning_rate = 0.01


def dataset(split):
    return np.zeros((8, 2), "float32"), np.zeros((8, 1), "float32")


def augment(x):
    return x


def model(hparams):
    x = keras.Input((2,))
    return keras.Model(x, keras.layers.Dense(1, activation="relu")(x))
"""


def loaded(tmp_path, *changes):
    source = GOOD
    for old, new in changes:
        assert old in source
        source = source.replace(old, new)
    file = tmp_path / "mysettings_repaired.py"
    file.write_text(textwrap.dedent(source))
    return load_despite_problems(file)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"relu"', '"rellu"'),
        ("Dense(1, activation", "Dense(1, activaton"),
        ("keras.layers.Dense", "keras.layers.Dens"),
        ("def augment(x):\n    return x", "def augment(image):\n    return image"),
        ("Dense(1,", 'Dense(hparams["unit"],'),
        ("import numpy as np\n", ""),
        ("def augment(", "def augmnt("),
        ("def dataset(split)", "def get_dataset(splt)"),
    ],
)
def test_a_hook_with_one_misspelt_word_is_called_as_it_is_meant(tmp_path, old, new):
    settings, problems = loaded(tmp_path, (old, new))
    assert len(problems) == (2 if "get_dataset" in new else 1)
    model = settings.call("model")
    assert model.output_shape[-1] in (1, 4)
    assert settings.call("dataset", split="train")[0].shape == (8, 2)
    assert settings.call("augment", x=3) == 3


def test_a_value_that_a_layer_does_not_take_is_replaced_by_one_that_it_takes(tmp_path):
    settings, (problem,) = loaded(tmp_path, ("keras.layers.Dense(1", "keras.layers.Dense(-1"))
    assert "got -1" in problem.text
    assert settings.call("model").output_shape == (None, 8)


def test_the_user_s_own_file_is_as_before(tmp_path):
    settings, _ = loaded(tmp_path, ('"relu"', '"rellu"'))
    assert '"rellu"' in settings.file.read_text()
