"""What TensorFlow's errors in the midst of training mean to the user."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from experiments_manager.common.error_text import reason
from experiments_manager.settings import UserCodeError
from experiments_manager.training.errors import DataError, DivergedError, TrainingError
from experiments_manager.training.feeds.feed import Shape
from experiments_manager.training.setup.boundary import quoted_place
from experiments_manager.training.setup.experiment import Experiment

_FROM_PYTHON = ("PyFunc", "generator", "numpy_function", "py_function", "Traceback (most recent call last)")


@contextlib.contextmanager
def translating_errors(experiment: Experiment) -> Iterator[None]:
    """Inside, an error of TensorFlow's becomes one that says where training stood and what helps.

    Raises:
        DataError: If the user's pipeline failed.
        TrainingError: If memory ran out, or an operation failed.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise TrainingError(_out_of_memory(experiment)) from error
    except tf.errors.OutOfRangeError as error:
        raise DataError(
            "dataset: the pipeline ended before the number of batches that it announces "
            f"({experiment.train.steps}). Correct its `assert_cardinality`, or set `steps_per_epoch`.",
            place=experiment.settings.location("dataset"),
        ) from error
    except tf.errors.OpError as error:
        text = str(error.message)
        where = f"{_place(experiment)} (batch: {Shape.of(experiment.train.spec).text})"
        topic = experiment.train.topic
        if topic is not None and any(word in text for word in _FROM_PYTHON):
            raise DataError(f"kafka_topics: the samples of topic {topic} failed {where}: {reason(text)}.") from error
        if any(word in text for word in _FROM_PYTHON):
            raise DataError(
                f"dataset: the pipeline failed {where}: {reason(text)}. Fix the function or generator that raises it.",
                experiment.settings.location("dataset"),
            ) from error
        settings = experiment.settings
        place = quoted_place(settings, error)
        said = f"An operation failed {where}: {reason(text)}."
        if place is not None:
            raise UserCodeError("training", place, error, said) from error
        raise TrainingError(
            f"training: {said} Check that shapes and labels of the data match the model and the loss.",
            settings.location("model"),
        ) from error


def diverged(experiment: Experiment, step: int) -> DivergedError:
    """Return what is raised where the loss is not finite after a step."""
    return DivergedError(
        f"loss: it is NaN or infinite after step {step} (batch: {Shape.of(experiment.train.spec).text}). "
        "Expected a finite number. Lower `learning_rate`, set `gradient_clip_norm`, or look for such values in the "
        "data.",
        step,
    )


def _place(experiment: Experiment) -> str:
    progress = experiment.state.progress
    return f"in epoch {progress.epoch + 1} after step {progress.global_step}"


def _out_of_memory(experiment: Experiment) -> str:
    size, parts = experiment.settings.batch_size, 2
    return (
        f"Memory ran out {_place(experiment)} with batch_size = {size} "
        f"(batch: {Shape.of(experiment.train.spec).text}). "
        f"Set `batch_size = {max(1, size // parts)}` and `gradient_accumulation_steps = {parts}`, which trains "
        "the same with half the memory, or use `mixed_precision`."
    )
