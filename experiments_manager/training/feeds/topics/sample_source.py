"""The samples that a settings module declares, for sending them to a topic: always those of its `dataset` hook."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from experiments_manager.kafka.errors import RecordError
from experiments_manager.kafka.records.structure import Structure
from experiments_manager.settings import Settings
from experiments_manager.training.errors import DataError
from experiments_manager.training.feeds.array_feed import as_arrays
from experiments_manager.training.feeds.indexed_feed import IndexedFeed
from experiments_manager.training.feeds.pipelines import is_random, without_endless_repeat
from experiments_manager.training.feeds.topics.composites import from_tensors
from experiments_manager.training.hook_calls import located_at_hook, seeded
from experiments_manager.training.seeds import derive, reseed_for_pipeline

_BYTES_AT_ONCE = 2**20


class SampleSource:
    """The samples of a split, epoch by epoch in the order in which the hook gives them: not shuffled, not augmented.

    Args:
        structure: What each of them looks like.
        samples: How many an epoch has, where that is known and the same for all.
        batches: Gives the batches of an epoch, nests of arrays.
    """

    def __init__(self, structure: Structure, samples: int | None, batches: Callable[[int], Iterator[Any]]) -> None:
        self.structure, self.samples, self._batches = structure, samples, batches

    def epoch(self, number: int) -> Iterator[Any]:
        """Yield the batches of an epoch, counted from 0."""
        return self._batches(number)


def prepare(settings: Settings) -> None:
    """Call the hook `prepare_datasets`, where there is one, as a training does before it asks for data."""
    with located_at_hook(settings, "dataset"), seeded(settings, "prepare_datasets"):
        if settings.has("prepare_datasets"):
            settings.call("prepare_datasets", run=None)


def sample_source(settings: Settings, split: str) -> SampleSource | None:
    """Call the `dataset` hook for a split, as a training would, and return what it holds.

    A pipeline whose passes differ is built again for each epoch, after reseeding with `(seed, epoch)`.

    Args:
        settings: Checked settings; whether they consume from Kafka makes no difference.
        split: `train` or `validation`.

    Returns:
        The samples; `None` where the hook has none for the split.

    Raises:
        DataError: The samples cannot be sent.
        UserCodeError: The hook raised.
    """

    def build(number: int) -> Any:
        reseed_for_pipeline(derive(settings.random_seed, "dataset", split, number if split == "train" else 0))
        return settings.call("dataset", split=split, epoch=number)

    with located_at_hook(settings, "dataset"):
        data = build(0)
        if data is None:
            return None
        try:
            if isinstance(data, tf.data.Dataset):
                return _of_pipeline(settings, split, data, build)
            if isinstance(data, keras.utils.PyDataset):
                return _of_indexed(settings, split, data)
            return _of_arrays(as_arrays(data, split, allow_nan=settings.allow_nan))
        except RecordError as error:
            raise DataError(f"dataset: the {split} split cannot be sent. {error}") from error


def _of_arrays(arrays: Any) -> SampleSource:
    nest = tf.nest.map_structure(lambda leaf: None if leaf is None else leaf.numpy(), arrays)
    leaves = [leaf for leaf in tf.nest.flatten(nest) if leaf is not None]
    samples = len(leaves[0])
    width = sum(leaf.itemsize * leaf[:1].size for leaf in leaves)
    step = max(1, min(10_000, _BYTES_AT_ONCE // max(1, width)))

    def batches(number: int) -> Iterator[Any]:
        for start in range(0, samples, step):
            yield tf.nest.map_structure(lambda leaf: None if leaf is None else leaf[start : start + step], nest)  # noqa: B023

    return SampleSource(Structure.of(next(batches(0))), samples, batches)


def _of_indexed(settings: Settings, split: str, data: keras.utils.PyDataset) -> SampleSource:
    steps = settings.steps_per_epoch if split == "train" else settings.validation_steps
    feed = IndexedFeed(data, split=split, seed=settings.random_seed, shuffle=False, steps_per_epoch=steps or None)
    structure = Structure.of(tf.nest.map_structure(lambda leaf: leaf.numpy(), feed.sample_batch()))

    def batches(number: int) -> Iterator[Any]:
        if number:
            data.on_epoch_end()
        yield from feed.as_dataset().as_numpy_iterator()

    return SampleSource(structure, None, batches)


def _of_pipeline(
    settings: Settings, split: str, first: tf.data.Dataset, build: Callable[[int], tf.data.Dataset]
) -> SampleSource:
    steps = settings.steps_per_epoch if split == "train" else settings.validation_steps
    differs = settings.rebuild_dataset and (is_random(first) or settings.asks_for("dataset", "epoch"))

    never_ends = without_endless_repeat(first).cardinality() == tf.data.INFINITE_CARDINALITY
    if never_ends and not steps:
        setting = "steps_per_epoch" if split == "train" else "validation_steps"
        raise DataError(
            f"dataset: the {split} pipeline never ends. Expected a number of batches for an epoch, got none. "
            f"Set `{setting}`, or remove `.repeat()`."
        )
    lasting: list[Iterator[Any]] = []
    unread = [first]

    def batches(number: int) -> Iterator[Any]:
        if never_ends:  # the next epoch goes on where this one ends
            if number == 0 or not lasting:
                lasting[:] = [_arrays(first)]
            return itertools.islice(lasting[0], steps)
        dataset = unread.pop() if number == 0 and unread else build(number) if differs else first
        return _arrays(without_endless_repeat(dataset))

    return SampleSource(Structure.of_spec(first.element_spec), None, batches)


def _arrays(dataset: tf.data.Dataset) -> Iterator[Any]:
    """Return the batches as arrays; ragged and sparse ones in the form that records hold."""
    if all(isinstance(spec, tf.TensorSpec) for spec in tf.nest.flatten(dataset.element_spec)):
        return dataset.as_numpy_iterator()
    return map(from_tensors, dataset)
