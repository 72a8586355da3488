"""From a model and some samples to what is explained: which input, which head, which class."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments_manager.attribution.errors import ExplainError
from experiments_manager.attribution.scored_output import Question, ScoredOutput
from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.events import Samples
from experiments_manager.monitoring.model_outputs import ModelOutput, read_model_outputs
from experiments_manager.monitoring.plots.pictures import picture_input

_LARGEST = 64 * 2**20
"""Bytes of inputs, or of outputs, that go through the model together."""


@dataclasses.dataclass(frozen=True)
class TargetOptions:
    """What a user wants explained; `None` leaves the choice to us."""

    input: str | None = None
    """Name of the input; by default the one with most axes among those of floating point."""
    head: str | None = None
    """Name of the head; by default the first that tells classes."""
    class_name: str | None = None
    """Name or number of the class; by default what the model tells of each sample."""
    baseline: str = "mean"
    """What stands for nothing: `mean` of the samples (of pictures, signals and volumes one value a channel), or a
    number."""
    batch: int = 16


@dataclasses.dataclass(frozen=True)
class Target:
    """What is explained, and how that is called."""

    output: ScoredOutput
    question: Question
    input_name: str
    head_name: str
    class_names: tuple[str, ...]
    truth: np.ndarray
    """True classes of the samples, or of their places, int [n, …]."""


def choose_target(
    model: keras.Model,
    samples: Samples,
    input_names: Sequence[str],
    class_names: Sequence[str] | None,
    target_options: TargetOptions,
) -> Target:
    """Choose input, head, classes and baseline.

    Args:
        model: The model.
        samples: Inputs, targets and outputs.
        input_names: Name of each flattened input.
        class_names: Names of the classes.
        target_options: What the user wants.

    Raises:
        ExplainError: The model or its data cannot be explained so.
    """
    inputs = _floating_pictures(model, [np.asarray(part) for part in tf.nest.flatten(samples.x)])
    place = _chosen_input(inputs, input_names, target_options.input)
    answer = _chosen_head(samples, class_names, target_options.head)
    head = list(samples.outputs).index(answer.head)
    values = inputs[place]
    has_channels = values.ndim > 3 or (values.ndim == 3 and picture_input(values) is None)
    outputs = np.asarray(samples.outputs[answer.head], np.float32)
    batch = max(1, min(target_options.batch, _LARGEST // max(values[0].nbytes, outputs[0].nbytes, 1)))
    output = ScoredOutput(model, samples.x, place, head, has_channels, batch=batch)
    if not (output.squashing or _are_probabilities(outputs)):
        output = dataclasses.replace(output, gives="logits")
    classes, regions = _classes(answer, target_options.class_name)
    others = inputs[:place] + inputs[place + 1 :]
    question = Question(values, others, classes, regions, _baseline(values, output, target_options.baseline))
    return Target(output, question, input_names[place], answer.head, answer.class_names, answer.truth)


def _floating_pictures(model: keras.Model, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Turn pictures of bytes into floats, where the model does so with its inputs by itself."""
    own = [str(tensor.dtype) for tensor in getattr(model, "inputs", None) or ()]
    if len(own) != len(inputs):
        return inputs
    return [
        part.astype(np.float32) if part.dtype.kind in "iu" and part.ndim > 3 and "float" in dtype else part
        for part, dtype in zip(inputs, own, strict=True)
    ]


def _chosen_input(inputs: Sequence[np.ndarray], names: Sequence[str], wanted: str | None) -> int:
    if wanted is not None and wanted not in names:
        hint = did_you_mean(wanted, names)
        raise ExplainError(f"The model has no input {wanted!r}. Its inputs are {', '.join(names)}. {hint}".rstrip())
    floats = [number for number, part in enumerate(inputs) if part.dtype.kind == "f" and part.ndim > 1]
    kinds = ", ".join(f"{name} ({part.dtype})" for name, part in zip(names, inputs, strict=True))
    if wanted is not None:
        place = list(names).index(wanted)
        if place not in floats:
            raise ExplainError(
                f"Input {wanted!r} cannot be explained: expected numbers of floating point, got {kinds}. What lies "
                "between words or whole numbers is no input; train on what they are embedded to, or name another input."
            )
    elif not floats:
        raise ExplainError(
            f"The model has no input of floating point, got {kinds}. Words and whole numbers, such as the tokens of a "
            "sequence, cannot be explained: what lies between them is no input."
        )
    else:
        place = max(floats, key=lambda number: (inputs[number].ndim, -number))
    if not np.isfinite(inputs[place]).all():
        others = [names[number] for number in floats if np.isfinite(inputs[number]).all()]
        remedy = f"Name another one by --input: {', '.join(others)}." if others else "Fill in what is missing."
        raise ExplainError(f"Input {names[place]!r} holds NaN or infinity, so that no gradient is known. {remedy}")
    return place


def _chosen_head(samples: Samples, class_names: Sequence[str] | None, wanted: str | None) -> ModelOutput:
    heads = list(samples.outputs)
    if wanted is not None and wanted not in heads:
        hint = did_you_mean(wanted, heads)
        raise ExplainError(f"The model has no head {wanted!r}. Its heads are {', '.join(heads)}. {hint}".rstrip())
    answers = [answer for answer in read_model_outputs(samples, class_names) if wanted in (None, answer.head)]
    usable = [answer for answer in answers if answer.kind in ("classes", "masks")]
    if usable:
        return usable[0]
    got = ", ".join(f"{answer.head} ({answer.kind})" for answer in answers) or "outputs that do not fit their targets"
    raise ExplainError(
        f"Only classifications and segmentations can be explained. Expected a head with one score a class and targets "
        f"that are classes, got {got}."
    )


def _classes(answer: ModelOutput, wanted: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the class that is asked of each sample, and where."""
    predicted = answer.predicted
    number = None if wanted is None else _number_of(wanted, answer.class_names)
    if answer.kind == "classes":
        classes = predicted if number is None else np.full(len(predicted), number)
        return classes.astype(np.int32), np.ones(len(predicted), np.float32)
    flat = predicted.reshape(len(predicted), -1)
    if number is None:  # the largest that is not the first, which is mostly the background
        counts = np.stack([np.sum(flat == kind, axis=1) for kind in range(len(answer.class_names))], axis=1)
        counts[:, 0] = 0
        classes = counts.argmax(axis=1)
    else:
        classes = np.full(len(predicted), number)
    regions = (predicted == classes.reshape(-1, *[1] * (predicted.ndim - 1))).astype(np.float32)
    regions[~regions.any(axis=tuple(range(1, regions.ndim)))] = 1  # predicted nowhere: asked for everywhere
    return classes.astype(np.int32), regions


def _number_of(wanted: str, names: Sequence[str]) -> int:
    if wanted in names:
        return list(names).index(wanted)
    if wanted.isdecimal() and int(wanted) < len(names):
        return int(wanted)
    hint = did_you_mean(wanted, names)
    raise ExplainError(f"There is no class {wanted!r}. Expected one of {', '.join(names)}. {hint}".rstrip())


def _are_probabilities(outputs: np.ndarray) -> bool:
    if outputs.min() < 0 or outputs.max() > 1:
        return False
    return outputs.ndim == 1 or outputs.shape[-1] == 1 or bool(np.allclose(outputs.sum(-1), 1, atol=0.02))


def _baseline(values: np.ndarray, output: ScoredOutput, wanted: str) -> np.ndarray:
    if wanted == "mean":
        axes = tuple(range(values.ndim - 1)) if output.has_channels else (0,)
        filler: Any = values.mean(axis=axes, keepdims=True, dtype=np.float64)
        if values.ndim == 3 and not output.has_channels:
            filler = filler.mean()
    else:
        try:
            filler = float(wanted)
        except ValueError:
            filler = math.nan
        if not math.isfinite(filler):
            raise ExplainError(f"Unknown baseline {wanted!r}. Expected `mean` or a number.")
    return np.broadcast_to(np.asarray(filler, values.dtype), values.shape)
