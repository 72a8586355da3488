"""Processes that read other data than the chief are told so."""

import types

import numpy as np
import pytest

from experiments_manager.training.errors import DataError, TrainingError
from experiments_manager.training.hosts.team import ALONE
from experiments_manager.training.setup import same_data
from experiments_manager.training.setup.same_data import agree_on_topics, require_same_data


def feed(values, steps=3, kind="arrays"):
    batch = (np.asarray(values, "float32"), None)
    return types.SimpleNamespace(steps=steps, kind=kind, sample_batch=lambda: batch)


def compared(mine, others):
    """What comes of comparing the data of two processes."""
    given = []
    require_same_data(types.SimpleNamespace(size=2, gather=lambda value: given.append(value) or [value]), others, None)
    team = types.SimpleNamespace(size=2, gather=lambda value: [value, given.pop(0)])
    return require_same_data(team, mine, None)


def test_the_same_data_is_accepted():
    assert compared(feed([1, 2]), feed([1, 2])) is None


def test_other_values_and_other_numbers_of_batches_are_refused():
    with pytest.raises(TrainingError, match="different data"):
        compared(feed([1, 2]), feed([1, 3]))
    with pytest.raises(TrainingError, match=r"different numbers of batches.*\[3\] in the chief and \[4\] in worker 1"):
        compared(feed([1, 2]), feed([1, 2], steps=4))


def test_data_by_chance_is_told():
    assert "some samples count twice" in compared(feed([1], kind="inexact"), feed([2], kind="inexact"))


class Manifest:
    """A run that keeps fields."""

    def __init__(self, **fields):
        self.manifest = fields

    def update(self, **fields):
        self.manifest |= fields


def test_all_read_the_range_that_the_chief_keeps_and_it_alone_sends_bad_records_on(monkeypatch):
    kept = {"train": {"topic": "numbers", "ends": {"0": 5}}}
    monkeypatch.setattr(same_data, "keep_ranges", lambda settings, run: run.update(kafka=kept))
    settings = types.SimpleNamespace(consume_data_from_kafka=True, kafka_mode="bounded")
    chief, other = Manifest(), Manifest()
    agree_on_topics(types.SimpleNamespace(size=2, is_chief=True, chiefs=lambda value: value), settings, chief)
    agree_on_topics(types.SimpleNamespace(size=2, is_chief=False, chiefs=lambda value: kept), settings, other)
    assert chief.manifest["kafka"] == kept
    assert other.manifest["kafka"] == {"train": {**kept["train"], "of_chief": True}}


def test_a_live_topic_is_refused():
    settings = types.SimpleNamespace(consume_data_from_kafka=True, kafka_mode="live")
    with pytest.raises(DataError, match="kafka_mode: a live topic cannot be read by several processes"):
        agree_on_topics(types.SimpleNamespace(size=2), settings, Manifest())


def test_one_process_compares_nothing():
    assert require_same_data(ALONE, feed([1]), None) is None
