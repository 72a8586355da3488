"""`predict` for a model of several inputs, which is trained, exported and served by the embedded server."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments_manager import api
from experiments_manager.cli.main import run
from experiments_manager.runs import create_run
from experiments_manager.runs.serving_setup import ServingSetup, write_serving_setup
from tests.helpers import running_servers as running

SETTINGS = """
import keras
import numpy as np

loss, learning_rate, epochs, batch_size = "mse", 1e-30, 1, 4
session_name = "sum"
tensorboard = figures = False
hparams = {"form": "tuple"}

def dataset(split):
    if split == "test":
        return None
    zeta, alpha = np.arange(6, dtype="float32")[:, None], np.arange(100, 106, dtype="float32")[:, None]
    forms = {
        "tuple": (zeta, alpha),
        "list": [zeta, alpha],
        "dict": {"alpha": alpha, "zeta": zeta},
        "more": {"alpha": alpha, "beta": alpha, "zeta": zeta},
        "three": (zeta, alpha, alpha),
        "one": zeta,
        "other": {"alpha": alpha, "beta": zeta},
    }
    return forms[hparams["form"]], zeta

def model():
    zeta, alpha = keras.Input((1,), name="zeta"), keras.Input((1,), name="alpha")
    y = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", name="y")(10 * zeta + alpha)
    return keras.Model([zeta, alpha], y)
"""

Y = [[10 * zeta + alpha] for zeta, alpha in zip(range(6), range(100, 106), strict=True)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: Any, tensorflow: Any) -> Any:
    """The settings file, and a run of it whose model is exported."""
    folder = tmp_path_factory.mktemp("parts")
    file = folder / "mysettings_sum.py"
    file.write_text(SETTINGS)
    return file, api.train(file, working_dir=folder / "runs", quiet=True)


@pytest.fixture(scope="module")
def server(trained: Any) -> Iterator[Any]:
    _, result = trained
    flags = [f"--model_base_path={result.exported_model.parent}", "--model_name=sum"]
    with running.running_server(flags) as server:
        yield server


@pytest.fixture
def predict(trained: Any, server: Any, tmp_path: Path) -> Callable[..., Any]:
    """Asks the server with the settings' validation data in one of its forms; gives the exit code and the outputs."""
    file, _ = trained
    numbers = itertools.count()

    def ask(form: str, source: str = "") -> Any:
        number = next(numbers)
        given = tmp_path / f"{number}" / file.name
        given.parent.mkdir()
        given.write_text(SETTINGS + source)
        made = create_run(tmp_path / "runs", "sum", run_name=f"sum{number}")
        made.start(settings_file=given, overrides=api.load_settings(given, [f"hparams.form={form}"]).overrides)
        write_serving_setup(made.path, ServingSetup("127.0.0.1", server.grpc, 8501, "sum"))
        code = run(["predict", str(made.path), "--quiet", "--output", str(made.path / "out.npz")])
        return code, np.load(made.path / "out.npz")["y"].tolist() if code == 0 else None

    return ask


@pytest.mark.parametrize("form", ["tuple", "list", "dict", "more"])
def test_parts_go_to_inputs_by_their_keys_else_in_the_order_of_the_models_inputs(
    form: str, predict: Callable[..., Any]
) -> None:
    assert predict(form) == (0, Y)


def test_names_in_the_settings_say_the_order(predict: Callable[..., Any]) -> None:
    swapped = [[10 * alpha + zeta] for zeta, alpha in zip(range(6), range(100, 106), strict=True)]
    assert predict("tuple", 'input_names = ["alpha", "zeta"]\n') == (0, swapped)


@pytest.mark.parametrize(("form", "got"), [("three", "3 parts"), ("one", "1 part"), ("other", "the parts alpha, beta")])
def test_parts_that_do_not_fit_are_told_with_the_right_names(
    form: str, got: str, predict: Callable[..., Any], capfd: Any
) -> None:
    assert predict(form) == (2, None)
    expected = f"x of the validation split does not fit the served model. Expected its inputs alpha, zeta, got {got}."
    error = capfd.readouterr().err
    assert expected in error
    assert "Traceback" not in error


def test_a_version_is_warmed_up_with_each_part_at_its_own_input(trained: Any) -> None:
    import tensorflow as tf

    from experiments_manager.export.warmup_file import WARMUP_FILE
    from experiments_manager.protocol import messages, tensors

    _, result = trained
    record = next(tf.data.TFRecordDataset(str(result.exported_model / WARMUP_FILE)).as_numpy_iterator())
    inputs = messages.PredictionLog.FromString(record).predict_log.request.inputs
    assert {name: tensors.to_array(value).tolist() for name, value in inputs.items()} == {
        "alpha": [[100.0]],
        "zeta": [[0.0]],
    }
