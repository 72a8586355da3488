"""The options of `serve`, which come from one table."""

import dataclasses
from pathlib import Path

import pytest

from experiments_manager import api
from experiments_manager.cli.main import run
from experiments_manager.serving.launch.serve_options import Engine, ServeOptions
from experiments_manager.serving.server.flag_table import LIMITS
from experiments_manager.settings.schema import SETTINGS


@pytest.fixture
def served(monkeypatch):
    """Gives the path and the options that `api.serve` hands on."""
    calls = []
    monkeypatch.setattr("experiments_manager.serving.launch.serve.serve", lambda *call: calls.append(call[:2]))

    def go(*words):
        assert run(["serve", *words]) == 0
        return calls[-1]

    return go


def test_without_options_the_defaults_of_the_table_count(served):
    assert served("runs/line") == (Path("runs/line"), ServeOptions())


def test_options_reach_the_server_with_their_types(served):
    words = ["--engine", "embedded", "--image", "a.sif", "--grpc-port", "9100", "--no-batching", "--gpu"]
    words += [
        "--idle-timeout-seconds",
        "2.5",
        "--max-in-flight",
        "0",
        "--model-name",
        "digits",
        "--prefer-tflite-model",
    ]
    _, options = served("runs/line", *words)
    assert options == ServeOptions(
        engine=Engine.EMBEDDED,
        image=Path("a.sif"),
        grpc_port=9100,
        batching=False,
        gpu=True,
        idle_timeout_seconds=2.5,
        max_in_flight=0,
        model_name="digits",
        prefer_tflite_model=True,
    )


@pytest.mark.parametrize("words", ["--grpc-port 0", "--max-connections 0", "--engine other", "--no-gpu"])
def test_values_out_of_bounds_and_unknown_options_are_refused(words, capsys):
    assert run(["serve", "runs/line", *words.split()]) == 2
    assert words.split()[0] in capsys.readouterr().err


def test_limits_are_flags_options_and_settings_of_one_name():
    options = {field.name for field in dataclasses.fields(ServeOptions)}
    assert set(LIMITS) <= options & set(SETTINGS)


def test_notebooks_name_an_engine_by_its_text(monkeypatch):
    calls = []
    monkeypatch.setattr("experiments_manager.serving.launch.serve.serve", lambda *call: calls.append(call[1]))
    api.serve("runs/line", engine="embedded", rest_port=0)
    assert calls == [ServeOptions(engine=Engine.EMBEDDED, rest_port=0)]
