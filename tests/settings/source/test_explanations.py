"""Exceptions of the user's code are told by the names that the code writes."""

import sys

import pytest

from experiments_manager.settings import SettingsError, load_settings
from experiments_manager.settings.source.explanations import missing_module_remedy


@pytest.fixture
def said(write):
    def said_of(text):
        with pytest.raises(SettingsError) as caught:
            load_settings(write(text))
        (problem,) = caught.value.problems
        return problem.text

    return said_of


@pytest.mark.parametrize(
    ("text", "what", "remedy"),
    [
        ("import os.path as p\np.jion('a')", "AttributeError: `p` has no `jion`", "Did you mean `p.join`?"),
        ("import os\nx = os.path.zzzzzz", "AttributeError: `os.path` has no `zzzzzz`", "Correct the name."),
        (
            "hparams = {'units': 3}\nx = hparams['unit']",
            "KeyError: `hparams` has no key 'unit'",
            "Did you mean 'units'?",
        ),
        ("table = {'a': 3}\nx = table['other']", "KeyError: `table` has no key 'other'", "It has 'a'."),
        ("table = {}\nx = table['other']", "KeyError: `table` has no key 'other'", "It is empty."),
        ("def f(t): return t['rates']\nf({'rate': 1})", "KeyError: `t` has no key 'rates'", "Did you mean 'rate'?"),
        ("x = {1: 2}[3]", "KeyError: 3", "Correct the line."),
        ("x = np.zeros(3)", "NameError: name 'np' is not defined", "Add `import numpy as np` above."),
        ("width = 3\nx = widht", "NameError: name 'widht' is not defined", "Did you mean `width`?"),
        ("x = epochs * 3", "NameError: name 'epochs' is not defined", "Assign it above this line: the settings"),
        ("x = rtzlpfr", "NameError: name 'rtzlpfr' is not defined", "Define it above this line."),
        ("epochs == 10", "NameError: name 'epochs' is not defined", "Did you mean `epochs = 10`?"),
        ("x = open('/nowhere.csv')", "FileNotFoundError: '/nowhere.csv' was not found", "Check the path."),
        (
            "x = open('a.csv')",
            "FileNotFoundError: 'a.csv' was not found",
            "is looked for from the working directory, /",
        ),
        ("x = int('many')", "ValueError: invalid literal for int() with base 10: 'many'", "Correct the line."),
        ("raise ValueError", "ValueError. Expected", "Correct the line."),
    ],
)
def test_it_is_said_what_is_missing_and_what_may_be_meant(said, text, what, remedy):
    told = said(text + "\n")
    assert told.startswith(f"executing this raised {what}")
    assert remedy in told


def test_a_name_of_keras_is_repeated_as_the_file_writes_it(said):
    told = said("import tensorflow as tf\nmetrics = [tf.keras.metrics.Acuracy()]\n")
    assert told.startswith("there is no such name in Keras or TensorFlow. Expected one of `tensorflow.keras.metrics`.")
    assert told.endswith("Did you mean `tf.keras.metrics.Accuracy`?")


@pytest.mark.parametrize(
    ("module", "remedy"),
    [
        ("sklearn.cluster", "Install 'scikit-learn', or put the module beside the settings file."),
        ("nowhere_at_all", "Install 'nowhere_at_all', or put the module beside the settings file."),
        ("experiments_manager.loses", "Correct the name: `experiments_manager` is there, and has no such module."),
        ("deeplearningtools.helpers", "Install that package, or copy the helpers"),
    ],
)
def test_a_missing_module_is_told_with_what_pip_installs(module, remedy, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert missing_module_remedy(module).startswith(remedy)
