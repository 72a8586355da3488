"""The data of an experiment: the `dataset` hook called for a split, or its topic, and the feed that suits it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from experiments_manager.common.errors import UserError
from experiments_manager.common.generators import states_of
from experiments_manager.settings import Settings
from experiments_manager.training.errors import DataError
from experiments_manager.training.feeds.factory import make_feed
from experiments_manager.training.feeds.feed import Feed
from experiments_manager.training.feeds.pipelines import python_of
from experiments_manager.training.feeds.stream_feed import StreamFeed
from experiments_manager.training.feeds.topics.topic_setup import topic_feed, topic_of
from experiments_manager.training.hook_calls import hook_error, located_at_hook, seeded
from experiments_manager.training.seeds import derive, reseed_for_pipeline
from experiments_manager.training.setup.boundary import at_work
from experiments_manager.training.state.reachable import generators_of
from experiments_manager.training.state.user_state import Roots, UserState

logger = logging.getLogger(__name__)

_NOT_THERE = (FileNotFoundError, NotADirectoryError, tf.errors.NotFoundError)


def prepare_datasets(settings: Settings, run: Any) -> None:
    """Call the hook that comes before the data."""
    with seeded(settings, "prepare_datasets"), at_work(settings, "prepare_datasets"):
        if settings.has("prepare_datasets"):
            settings.call("prepare_datasets", run=run)


def train_and_validation(settings: Settings, run: Any, follow: bool, trains_here: bool) -> tuple[Feed, Feed | None]:
    """Return the data to train and to validate on."""
    prepare_datasets(settings, run)
    if trains_here:
        train = feed_for(settings, "train", run if follow else None, follow=follow)
    else:
        train = data_like_training(settings)
    if train is None:
        raise DataError(
            "dataset: there is no training data. Expected arrays, a `tf.data.Dataset` or a `keras.utils.PyDataset` "
            'for the split "train", got None.'
        )
    validation = feed_for(settings, "validation", run if follow else None, follow=follow)
    return train, validation


def feed_for(
    settings: Settings, split: str, run: Any = None, *, follow: bool = True, seed: int | None = None
) -> Feed | None:
    """Return the feed of a split: of its topic, or the one that suits what the `dataset` hook returns.

    Args:
        settings: Checked settings.
        split: `train`, `validation` or `test`.
        run: The run, which keeps what it reads of a topic.
        follow: Whether a live topic is followed; else it ends where it ends now.
        seed: Of the order of the samples; by default that of the settings.
    """
    topic = topic_of(settings, split)
    if topic is None:
        return dataset_feed(settings, split, seed=seed)
    training = split == "train"
    augment = _augment(settings) if training and settings.has("augment") else None
    steps = _epoch_steps(settings, training)
    return topic_feed(settings, split, topic, run, steps_per_epoch=steps, augment=augment, follow=follow, seed=seed)


def dataset_feed(settings: Settings, split: str, *, seed: int | None = None) -> Feed | None:
    """Call the `dataset` hook for a split and make the feed that suits its result."""
    training = split == "train"

    def build(number: int) -> Any:
        # Validation comes in the same order each time: its sums then have the same last bits.
        reseed_for_pipeline(derive(settings.random_seed, "dataset", split, number if training else 0))
        hook = "test_data" if split == "test" and settings.has("test_data") else "dataset"
        before = states_of(generators_of(settings.user_modules))
        data = settings.call(hook, split=split, epoch=number)
        drawn.update(
            name
            for name, state in states_of(generators_of(settings.user_modules)).items()
            if state != before.get(name, state)
        )
        if not untouched:
            untouched.append(_state_of_reader(settings, data))
        return data

    drawn: set[str] = set()
    untouched: list[UserState] = []
    with located_at_hook(settings, "dataset"), at_work(settings, "dataset"):
        feed = make_feed(
            build,
            split=split,
            batch_size=settings.batch_size,
            seed=settings.random_seed if seed is None else seed,
            steps_per_epoch=_epoch_steps(settings, training),
            likely_steps=_steps_from_size(settings, training),
            shuffle=settings.shuffle and training,
            augment=_augment(settings) if training and settings.has("augment") else None,
            rebuild=settings.rebuild_dataset,
            varies=settings.asks_for("dataset", "epoch"),
            allow_nan=settings.allow_nan,
        )
    if isinstance(feed, StreamFeed):
        feed.built_with(sorted(drawn))
    if feed is not None:
        untouched[0].has_been_looked_at()
        feed.forget_looks = untouched[0].put_back_looks
    return feed


def _state_of_reader(settings: Settings, data: Any) -> UserState:
    """Return what the Python that reads data can reach, as it is before anybody has looked at the data."""
    python = python_of(data) if isinstance(data, tf.data.Dataset) else [data]
    reading = {"data": tuple(python)} if isinstance(data, tf.data.Dataset | keras.utils.PyDataset) and python else {}
    modules = settings.user_modules if reading else []
    state = UserState(Roots({}, reading=reading), modules, lambda variable: True, {})
    state.opens_pass()
    return state


def _epoch_steps(settings: Settings, training: bool) -> int | None:
    return (settings.steps_per_epoch if training else settings.validation_steps) or None


def _steps_from_size(settings: Settings, training: bool) -> int | None:
    """Return the batches by the number of samples, which only helps where a pipeline cannot tell its own length."""
    size = settings.train_size if training else settings.validation_size
    return size // settings.batch_size or None if size else None


def _augment(settings: Settings) -> Callable[..., Any]:
    changes_both = settings.asks_for("augment", "y")

    def augment(x: Any, y: Any, seed: tf.Tensor) -> Any:
        changed = settings.call("augment", x=x, y=y, seed=seed)
        if changes_both and changed is not None and not isinstance(changed, tuple):
            text = f"it asks for y. Expected `(x, y)`, got {type(changed).__name__}. Return both."
            raise hook_error(settings, "augment", text)
        if not changes_both and isinstance(changed, tuple) and not isinstance(x, tuple):
            text = "it does not ask for y. Expected x alone, got a tuple. Return x, or add the parameter `y`."
            raise hook_error(settings, "augment", text)
        return changed if changes_both and changed is not None else (changed, y)

    return augment


def data_like_training(settings: Settings) -> Feed:
    """Return the training data, or else the validation data once more: what batches look like where there is none.

    The clients of a federation have the data, and its server needs none.

    Raises:
        DataError: There is neither.
        UserCodeError: The hook raised for another reason than that a file is not there.
    """
    missing = "`dataset` returned None"
    for split in ("train", "validation"):
        try:
            feed = feed_for(settings, split)
        except UserError as error:
            if not any(isinstance(cause, _NOT_THERE) for cause in _causes(error)):
                raise
            feed, missing = None, str(error)
        if feed is not None:
            if split == "validation":
                logger.info("There is no training data here; the validation data says what batches look like.")
            return feed
    raise DataError(
        "dataset: there is neither training nor validation data, so the server of the federation cannot know what "
        f'batches look like. Expected data for the split "validation", got none: {missing}. Return some for a call '
        "without a client's number (`partition` is None): the server evaluates the global model on it."
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
