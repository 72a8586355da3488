"""What a model answered, read from its samples: classes, masks, labels, values, series or pictures.

The shapes of targets and outputs tell which it is; nothing else is known of a user's model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from experiments_manager.events import Samples

OutputKind = Literal["classes", "masks", "labels", "values", "series", "pictures"]

IGNORED = (-1, 255)
"""True classes of pixels that do not count, where there is no such class."""


@dataclasses.dataclass(frozen=True)
class ModelOutput:
    """Targets of one head, and what the model makes of them; the first axis counts samples."""

    head: str
    kind: OutputKind
    truth: np.ndarray
    """Integers for classes [n] and masks [n, …]; 0 or 1 for labels [n, labels]; floats for the others [n, …]."""
    predicted: np.ndarray
    """Of the shape of `truth`."""
    class_names: tuple[str, ...] = ()
    """For classes, masks and labels."""
    probabilities: np.ndarray | None = None
    """For classes, [n, classes], where the outputs are such."""


def read_model_outputs(samples: Samples, class_names: Sequence[str] | None = None) -> list[ModelOutput]:
    """Find out what the heads of a model tell; a head whose outputs do not fit its targets is left out.

    Args:
        samples: Targets and outputs.
        class_names: Names of the classes; classes beyond these are called by their number.
    """
    answers = []
    for head, (truth, outputs) in _pairs(samples.y, samples.outputs).items():
        answer = _answer(head, truth, np.asarray(outputs), tuple(class_names or ()))
        if answer is not None:
            answers.append(answer)
    return answers


def _pairs(y: Any, outputs: Mapping[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Bring targets and outputs together, by name or, where there are no names, by order."""
    if isinstance(y, Mapping):
        if set(y) == set(outputs):
            return {head: (np.asarray(y[head]), outputs[head]) for head in outputs}
        y = [y[name] for name in sorted(y)] if len(y) == len(outputs) == 1 else []
    targets = list(y) if isinstance(y, (list, tuple)) else [] if y is None else [y]
    if len(targets) != len(outputs) or any(isinstance(target, (Mapping, list, tuple)) for target in targets):
        return {}
    return {head: (np.asarray(target), output) for (head, output), target in zip(outputs.items(), targets, strict=True)}


def _answer(head: str, truth: np.ndarray, outputs: np.ndarray, names: tuple[str, ...]) -> ModelOutput | None:
    truth, outputs = (
        array.astype(np.float32) if array.dtype.name == "bfloat16" else array for array in (truth, outputs)
    )
    usable = all(np.issubdtype(array.dtype, np.number) or array.dtype == bool for array in (truth, outputs))
    if not usable or outputs.ndim == 0 or truth.ndim == 0 or len(truth) != len(outputs) or not len(truth):
        return None
    if outputs.dtype.kind != "f":
        outputs = outputs.astype(np.float32)
    return (
        _chosen(head, truth, outputs, names) or _two_sided(head, truth, outputs, names) or _free(head, truth, outputs)
    )


def _chosen(head: str, truth: np.ndarray, scores: np.ndarray, names: tuple[str, ...]) -> ModelOutput | None:
    """Read one of several classes, for a sample or for each of its places."""
    if scores.ndim < 2 or scores.shape[-1] < 2:
        return None
    classes = scores.shape[-1]
    if truth.shape == scores.shape:
        if not _are_zero_or_one(truth):
            return None
        if not np.all(truth.sum(-1) == 1):
            named = _named(names, classes)
            return (
                ModelOutput(head, "labels", truth.astype(int), _above(scores).astype(int), named)
                if truth.ndim == 2
                else None
            )
        truth = truth.argmax(-1)
    elif truth.shape == (*scores.shape[:-1], 1):
        truth = truth[..., 0]
    kind: OutputKind = "classes" if truth.ndim == 1 else "masks"
    if truth.shape != scores.shape[:-1] or not _are_classes(truth, classes, IGNORED if kind == "masks" else ()):
        return None
    probable = scores.min() >= 0 and np.allclose(scores.sum(-1), 1.0, atol=0.02)
    predicted, probabilities = scores.argmax(-1), scores if probable and kind == "classes" else None
    return ModelOutput(head, kind, truth.astype(int), predicted, _named(names, classes), probabilities)


def _two_sided(head: str, truth: np.ndarray, scores: np.ndarray, names: tuple[str, ...]) -> ModelOutput | None:
    """Read yes or no, told by one number, for a sample or for each of its pixels."""
    if scores.ndim >= 2 and scores.shape[-1] == 1:
        scores = scores[..., 0]
    if truth.ndim == scores.ndim + 1 and truth.shape[-1] == 1:
        truth = truth[..., 0]
    if truth.shape != scores.shape or not _are_zero_or_one(truth) or truth.ndim == 2:
        return None
    if truth.dtype.kind == "f" and truth.min() == truth.max():
        return None
    predicted, named = _above(scores).astype(int), _named(names, 2)
    if truth.ndim > 1:
        return ModelOutput(head, "masks", truth.astype(int), predicted, named)
    probable = scores.min() >= 0 and scores.max() <= 1
    probabilities = np.stack([1 - scores, scores], -1) if probable else None
    return ModelOutput(head, "classes", truth.astype(int), predicted, named, probabilities)


def _free(head: str, truth: np.ndarray, outputs: np.ndarray) -> ModelOutput | None:
    """Read an output of numbers that are no scores of classes."""
    truth, outputs = (
        array[..., 0] if array.ndim > 1 and array.ndim == other.ndim + 1 and array.shape[-1] == 1 else array
        for array, other in ((truth, outputs), (outputs, truth))
    )
    if truth.shape != outputs.shape:
        return None
    kind: OutputKind = {1: "values", 2: "values", 3: "series"}.get(truth.ndim, "pictures")
    return ModelOutput(head, kind, truth.astype(np.float64), outputs.astype(np.float64))


def _are_classes(truth: np.ndarray, classes: int, others: Sequence[int]) -> bool:
    known = (truth == np.floor(truth)) & (truth >= 0) & (truth < classes)
    return bool(np.all(known | np.isin(truth, others)))


def _are_zero_or_one(values: np.ndarray) -> bool:
    return bool(np.all((values == 0) | (values == 1)))


def _above(scores: np.ndarray) -> np.ndarray:
    """Return whether probabilities are above a half, or logits above zero."""
    return scores > (0.5 if scores.min() >= 0 and scores.max() <= 1 else 0.0)


def _named(names: tuple[str, ...], classes: int) -> tuple[str, ...]:
    if classes == 2 and len(names) == 1:
        return f"not {names[0]}", names[0]
    if len(names) > classes:  # those of another head
        names = ()
    return (*names, *(str(number) for number in range(len(names), classes)))
