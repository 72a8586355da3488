"""Everything that is wrong is said in one go, each thing once, and nothing that only follows from another."""

import subprocess
import sys
from pathlib import Path

import pytest

from experiments_manager.settings import SettingsError, load_settings

REQUIRED = "loss = 'mse'\nlearning_rate = 0.1\ndef dataset(split): pass\ndef model(): pass\n"


@pytest.fixture
def found(write):
    """The problems of a file, as pairs of place and name."""

    def problems_in(text, overrides=(), complete=True):
        with pytest.raises(SettingsError) as caught:
            load_settings(write(text, complete=complete), overrides)
        return [(problem.place.removeprefix("mysettings_case.py:"), problem.name) for problem in caught.value.problems]

    return problems_in


def in_a_process_of_its_own(path, overrides=()):
    """Loads a file where TensorFlow is not there yet; gives the problems, and whether it came."""
    code = (
        "import sys\n"
        "from experiments_manager.settings import SettingsError, load_settings\n"
        f"try:\n    load_settings({str(path)!r}, {list(overrides)!r})\n"
        "except SettingsError as error:\n    print(error)\n"
        "print('tensorflow' in sys.modules or 'keras' in sys.modules)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=path.parent)
    *problems, came = ended.stdout.splitlines()
    return [problem.split(": ")[:2] for problem in problems], came == "True"


def test_problems_of_every_kind_come_together(found):
    text = """\
    batchsize = 10
    epochs = "many"
    gpus = "0"
    hparams = {"units": 3}
    loss = 3
    ratio = hparams["units"] / 0
    model_file = "nowhere.py"

    def dataset(splitt):
        return splitt
    """
    assert found(text, ["nosuch=3", "units=many", "random_seed=x"], complete=False) == [
        ("1", "batchsize"),
        ("1", "learning_rate"),
        ("2", "epochs"),
        ("3", "gpus"),
        ("5", "loss"),
        ("6", "ZeroDivisionError"),
        ("7", "model_file"),
        ("9", "dataset"),
        ("override", "nosuch"),
        ("override", "random_seed"),
        ("override", "units"),
    ]


def test_of_a_misspelt_name_it_is_said_that_its_value_will_not_do_either(write):
    text = "batchsize = '32'\nepoch = 3\nlerning_rate = 'fast'\n" + REQUIRED.replace("learning_rate = 0.1\n", "")
    with pytest.raises(SettingsError) as caught:
        load_settings(write(text, complete=False))
    batch_size, learning_rate, epochs = caught.value.problems
    either = (
        "nothing here uses it. Its value does not fit, either. Expected int of 1 or more, got '32'. Write 32. Did you"
    )
    assert either in batch_size.text
    assert (
        "Its value does not fit, either. Got 'fast'. Did you mean `learning_rate` by `lerning_rate`"
        in learning_rate.text
    )
    assert epochs.text.endswith("nothing here uses it. Did you mean `epochs`?")


def test_literals_are_checked_although_the_file_imports_tensorflow_which_is_not_waited_for(write):
    text = """
import keras
from tensorflow.keras import layers
import numpy as np

size: int = -3
batch_size, (epochs, export) = size * 2, ("1" + "0", 3 and "x")
keep_checkpoints = 2
keep_checkpoints -= 4
hparams = {"rates": [0.1, 0.2], "bad": {1: 2}}
hparams["more"] = 3
ema_momentum = float(len(hparams["rates"]))
on_nan = f"{'st'}{'art'}"
log_every_steps = np.int64(-3)
if keras.backend.backend() == "tensorflow":
    grpc_port = 70000
rest_port = 0
loss = keras.losses.MeanSquaredError()

class Layer(layers.Layer):
    def call(self, x): return x
"""
    path = write(text.strip() + "\nlearning_rate = 'fast'\ndef dataset(): pass\ndef model(): pass\n", complete=False)
    found, came = in_a_process_of_its_own(path, ["nosuch=3"])
    assert not came
    assert [name for _, name in found] == [
        "batch_size",
        "epochs",
        "export",
        "keep_checkpoints",
        "hparams",
        "ema_momentum",
        "on_nan",
        "log_every_steps",
        "rest_port",
        "learning_rate",
        "nosuch",
    ]


def test_what_surrounds_tensorflow_is_executed_without_it(write):
    write("import tensorflow as tf\nSIZE = 3\n", "with_tensorflow.py", complete=False)
    write("def half(x):\n    return x / 0\n", "without_it.py", complete=False)
    text = """
import keras
import with_tensorflow
from with_tensorflow import SIZE
import no_such_package
import no_other_package
from without_it import half

class Net(keras.Model): pass

def schedule(): return keras.optimizers.schedules.CosineDecay(0.1, 100)

batchsize = SIZE
learning_rate = schedule()
width = half(3)
epochs = "many"
"""
    path = write(text.strip() + "\nloss = Net()\ndef dataset(): pass\ndef model(): pass\n", complete=False)
    found, came = in_a_process_of_its_own(path)
    assert found == [
        ["mysettings_case.py:4", "no_such_package"],
        ["mysettings_case.py:5", "no_other_package"],
        ["mysettings_case.py:12", "batchsize"],
        ["mysettings_case.py:15", "epochs"],
        ["without_it.py:2", "ZeroDivisionError"],
    ]
    assert not came


def test_a_sound_source_is_executed_once_and_whole(write, tmp_path):
    with pytest.raises(SettingsError):
        load_settings(write("with open('trace', 'a') as file: file.write('x')\nepochs = [3][0] - len('four')\n"))
    assert Path("trace").read_text() == "x"


@pytest.mark.parametrize(
    "follows",
    [
        "twice = epochs * 2.5\n",
        "for number in range(epochs): pass\n",
        "def half(): return epochs / 2\nhalves = half()\n",
        "learning_rate = 1 / epochs\n",
        "hparams = {'n': epochs}\nwidth = hparams['n'] + 1\n",
    ],
)
def test_an_error_that_follows_from_a_wrong_value_is_not_told(found, follows):
    assert found("epochs = 'many'\n" + follows) == [("1", "epochs")]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("batchsize = 3\nsteps = 100 // batch_size\n", [("1", "batchsize")]),
        (
            "steps = learning_rate / 2\n" + REQUIRED.replace("learning_rate =", "learningrate ="),
            [("1", "learning_rate")],
        ),
        (
            "import tensorflow_addons as tfa\nloss = tfa.losses.X()\nx = loss.y\n",
            [("1", "tensorflow_addons"), ("2", "tfa.losses.X")],
        ),
        ("import no_such_package as n\nepochs = n.three\nloss = n.loss\n", [("1", "no_such_package")]),
        ("from no_such_package import *\nepochs = three\n", [("1", "no_such_package")]),
        ("values = open('none.csv').read()\nepochs = len(values)\nbatch_size = epochs\n", [("1", "FileNotFoundError")]),
        ("grpc_port = 'x'\nrest_port = 9000\n", [("1", "grpc_port")]),
        ("grpc_port = 1 / 0\nrest_port = 9000\n", [("1", "ZeroDivisionError")]),
    ],
)
def test_an_error_that_follows_from_another_is_not_told(found, text, told):
    assert found(text, complete="def dataset" not in text) == told


def test_assignments_that_fail_by_themselves_are_all_told(found):
    text = "import math\nx = np.zeros(3)\ny = x + 1\nz = math.sqroot(3)\nhparams = {'a': {1: 2}}\nb = hparams['b']\n"
    assert found(text + "w = int('many')\nv = open('none.csv')\nu = 1 / 0\n") == [
        ("2", "NameError"),
        ("4", "AttributeError"),
        ("5", "hparams"),
        ("6", "KeyError"),
        ("7", "ValueError"),
        ("8", "FileNotFoundError"),
    ]


def test_of_a_file_that_is_not_python_at_all_only_that_is_said(found, write):
    write("", "mysettings_case.py", complete=False).write_bytes(b"PK\x03\x04\x00\x00")
    with pytest.raises(SettingsError) as caught:
        load_settings("mysettings_case.py", ["nosuch=3", "epochs=x"])
    assert [problem.name for problem in caught.value.problems] == ["syntax", "epochs"]


def test_values_after_an_exception_are_still_read(found):
    text = "raise ValueError('x')\nepochs = 'many'\nhparams = {'a': 1}\nhparams['b'] = 2\n"
    assert found(text, ["a=x", "b=3", "c=3"]) == [
        ("1", "ValueError"),
        ("2", "epochs"),
        ("override", "a"),
        ("override", "c"),
    ]


def test_the_problems_of_a_model_file_come_with_the_others(found, write):
    write("import nowhere\nimport keras\nkeras.backend.learning_phase()\ndef modell(): pass\n", "model_a.py", False)
    text = "model_file = 'model_' + 'a.py'\nepochs = 'many'\n" + REQUIRED.replace("def model(): pass", "")
    assert found(text, ["nosuch=3"], complete=False) == [
        ("model_a.py:1", "model"),
        ("model_a.py:1", "nowhere"),
        ("model_a.py:3", "keras.backend.learning_phase"),
        ("2", "epochs"),
        ("override", "nosuch"),
    ]


def test_a_model_file_that_cannot_be_executed_is_reported_beside_the_values(found, write):
    write("x = 1 / 0\ndef model(): pass\n", "model_a.py", complete=False)
    text = "model_file = str('model_a.py')\nepochs = int('3') / 2\n" + REQUIRED.replace("def model(): pass", "")
    assert found(text, complete=False) == [("model_a.py:1", "ZeroDivisionError"), ("2", "epochs")]


def test_beside_a_syntax_error_all_is_said_that_the_rest_shows(found):
    text = """\
    class_names = ["a",
    batchsize = 3
    epochs = "many"
    hparams = {"units": 3}
    loss = "mse"

    def dataset(splitt)
        return split

    def metrics(modl):
        return []
    """
    assert found(text, ["units=many", "nosuch=3", "epochs"], complete=False) == [
        ("1", "learning_rate"),
        ("1", "model"),
        ("1", "syntax"),
        ("2", "batchsize"),
        ("3", "epochs"),
        ("10", "metrics"),
        ("override", "epochs"),
        ("override", "nosuch"),
        ("override", "units"),
    ]


def test_an_override_is_unknown_where_not_even_the_unreadable_lines_have_its_name(found):
    text = "hparams = {'units': 3\n"
    assert found(text, ["units=4", "nosuch=3"]) == [("1", "syntax"), ("override", "nosuch")]


@pytest.mark.parametrize(
    "broken",
    [
        "def dataset(split):\nreturn 1\n",
        "@functools.cache\ndef dataset(split)\n    return 1\n",
        "def dataset(split):\n    if split\n        return 1\n    return 2\n",
        "def dataset(split):\n    return [1, 2\n",
        "def dataset(split):\n    '''Gives it.\n    return 1\n",
        "def dataset(split):\n    return 1\n  return 2\n",
        "return 3\ndataset = 3 +\n",
        "if True\n    dataset = 3\nelse:\n    dataset = 4\n",
    ],
)
def test_what_a_syntax_error_hides_is_not_called_missing(found, broken):
    text = "loss = 'mse'\nlearning_rate = 0.1\ndef model(): pass\n" + broken
    assert [name for _, name in found(text, complete=False)] == ["syntax"]


def test_what_is_no_problem_of_the_file_is_said_although_there_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError) as caught:
        load_settings("mysettings_none.py", ["epochs=many", "q"])
    assert [problem.name for problem in caught.value.problems] == ["file", "epochs", "q"]


@pytest.mark.parametrize(
    "text",
    [
        "epochs = 'many'\nif len('abc') == 3:\n    epochs = 3\n",
        "epochs = 'many'\nfor epochs in [3]: pass\n",
        "epochs = 'many'\ndef reset():\n    global epochs\n    epochs = 3\nreset()\n",
        "epochs = 'many'\nglobals()['epochs'] = 3\n",
        "epochs = 'many'\nexec('epochs = 3')\n",
        "epochs = 'many'\ntry:\n    epochs = int(epochs)\nexcept ValueError:\n    epochs = 3\n",
        "epochs = 'many'\nprint(epochs := 3)\n",
        "epochs = 'many'\ndel epochs\n",
        "epochs = 'many'\nfrom my_values import *\n",
        "epochs = 'many'\nfrom my_values import epochs\n",
        "epochs = 'many'\nwith open(__file__) as file:\n    epochs = len(file.read(3))\n",
        "def len(x): return 3\nepochs = len([])\n",
        "class_names = ['a', 'a']\nclass_names.pop()\n",
        "names = class_names = ['a', 'a']\nnames.pop()\n",
        "class_names = ['a', 'a']\ndef tidy(): class_names.pop()\ntidy()\n",
        "class_names = ['a', 'a']\nfor name in class_names[:1]: class_names.remove(name)\n",
        "class_names = ['a', 'a']\nimport bisect\nbisect.insort(class_names, 'b')\ndel class_names[0]\n",
        "hparams = {'a': {1: 2}}\nhparams['a'] = 3\n",
        "hparams = {'a': {1: 2}}\nhparams.update(a=3)\n",
        "hparams = {'a': {1: 2}, 'b': 3}\nhparams['a'].clear()\n",
        "max_message_bytes = 2 ** 31 - 1\nmax_in_flight = 10 ** 5\n",
    ],
)
def test_a_sound_file_is_never_refused_for_what_its_source_seems_to_say(write, text):
    write("epochs = 3\n", "my_values.py", complete=False)
    assert load_settings(write(text)).has("model")


@pytest.mark.parametrize(
    ("text", "override"),
    [
        ("hparams = {}\nhparams.update(units=3)\n", "units=4"),
        ("hparams = {}\ndef fill(): hparams['units'] = 3\nfill()\n", "units=4"),
        ("hparams = dict(units=3)\n", "units=4"),
        ("hparams = {k: 3 for k in ['units']}\n", "units=4"),
        ("from my_values import hparams\n", "units=4"),
        ("epochs = 'many'\n", "epochs=4"),
    ],
)
def test_an_override_is_never_refused_for_what_the_source_seems_to_say(write, text, override):
    write("hparams = {'units': 3}\n", "my_values.py", complete=False)
    settings, (name, _, value) = load_settings(write(text), [override]), override.partition("=")
    assert {**settings.hparams, "epochs": settings.epochs}[name] == int(value)
