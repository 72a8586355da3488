"""The watchers of a run, as its settings choose them."""

import logging

import pytest

import experiments_manager as em
from experiments_manager.monitoring.watchers import MessagesOnly, watchers_of


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of the smallest kind, for its folder."""
    workspace = tmp_path_factory.mktemp("watchers")
    file = workspace / "mysettings_small.py"
    file.write_text(SMALL)
    return file, em.load_run(em.train(file, working_dir=workspace, quiet=True).run_dir)


SMALL = """
import keras
import numpy as np

epochs, batch_size, loss, learning_rate, tensorboard, figures, export = 1, 4, "mse", 0.1, False, False, False


def dataset(split):
    return np.zeros((4, 2)), np.zeros((4, 1))


def model():
    return keras.Sequential([keras.Input([2]), keras.layers.Dense(1)])
"""


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ({}, ["MetricsCsv", "MessagesOnly"]),
        ({"figures": True}, ["MetricsCsv", "Figures", "MessagesOnly"]),
        ({"profile": True}, ["MetricsCsv", "StepProfile", "MessagesOnly"]),
        ({"tensorboard": True}, ["MetricsCsv", "TensorBoardLogs", "Projector", "Images", "MessagesOnly"]),
        ({"tensorboard": True, "embeddings": []}, ["MetricsCsv", "TensorBoardLogs", "Images", "MessagesOnly"]),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else None,
)
def test_settings_tell_who_watches(trained, overrides, names):
    file, run = trained
    watchers = watchers_of(run, em.load_settings(file, overrides), quiet=True)
    assert [type(watcher).__name__ for watcher in watchers] == names


def test_the_terminal_shows_progress_unless_it_should_be_quiet(trained):
    file, run = trained
    assert not isinstance(watchers_of(run, em.load_settings(file))[-1], MessagesOnly)


def test_messages_are_read_also_in_a_quiet_run(caplog):
    with caplog.at_level(logging.WARNING):
        MessagesOnly().on_message("Version 5 was not published.")
    assert caplog.messages == ["Version 5 was not published."]
