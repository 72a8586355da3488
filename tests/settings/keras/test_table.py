"""The table of names is what the installed Keras and TensorFlow offer."""

import subprocess
import sys
from pathlib import Path

import keras
import pytest

from experiments_manager.settings.keras import table as tables
from experiments_manager.settings.keras.table import keras_table

ROOT = Path(__file__).parents[3]
ROOMS = {
    "activation": keras.activations,
    "constraint": keras.constraints,
    "initializer": keras.initializers,
    "loss": keras.losses,
    "metric": keras.metrics,
    "optimizer": keras.optimizers,
    "regularizer": keras.regularizers,
}


@pytest.mark.slow
def test_the_table_is_what_the_tool_makes_of_the_installed_releases():
    command = [sys.executable, ROOT / "tools" / "make_keras_table.py", "--check"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr.splitlines()[-1:]


def resolves(kind, name):
    """Whether Keras knows the name; a class that needs arguments, or is abstract, is known all the same."""
    try:
        return ROOMS[kind].get(name) is not None
    except (TypeError, KeyError):
        return True
    except (ValueError, NotImplementedError) as error:
        return "Could not interpret" not in str(error) and "Could not locate" not in str(error)


@pytest.mark.parametrize("kind", list(ROOMS))
def test_keras_resolves_each_text_and_no_misspelt_one(kind):
    names = keras_table().strings(kind)
    assert len(names) >= 10
    assert [name for name in sorted(names) if not resolves(kind, name)] == []
    assert not any(resolves(kind, f"{name}q") for name in list(names)[:5])


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("layers.Dense", {"units": 3}),
        ("layers.Conv2D", {"filters": 2, "kernel_size": 3}),
        ("layers.LSTM", {"units": 2}),
        ("layers.Dropout", {"rate": 0.1}),
        ("optimizers.Adam", {}),
        ("losses.Huber", {}),
        ("metrics.AUC", {}),
        ("callbacks.EarlyStopping", {}),
        ("regularizers.L2", {}),
    ],
)
def test_what_a_signature_lacks_keras_refuses(name, given):
    room, _, kind = name.partition(".")
    offered = getattr(getattr(keras, room), kind)
    signature = keras_table().signature(f"keras.{name}")
    assert signature.required == set(given)
    assert "no_such" not in signature.names
    offered(**given)
    with pytest.raises((TypeError, ValueError)):
        offered(**given, no_such=1)


def test_of_other_releases_nothing_is_claimed(monkeypatch):
    tables.keras_table.cache_clear()
    monkeypatch.setattr(tables, "_installed", lambda package: "2.15.0")
    assert keras_table() is None
    tables.keras_table.cache_clear()
