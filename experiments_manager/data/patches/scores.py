"""How well predicted label maps agree with the true ones."""

from __future__ import annotations

import numpy as np

from experiments_manager.data.patches.pairs import IGNORED


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count pixels by true class (rows) and predicted class (columns), without those that are ignored.

    Args:
        labels: True classes, whole numbers of any shape; `IGNORED` does not count.
        predicted: Predicted classes of the same shape.
        classes: How many there are.

    Returns:
        int64 of shape [classes, classes]; matrices of several images may be added.
    """
    counted = labels != IGNORED
    pairs = labels[counted].astype(np.int64) * classes + predicted[counted]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """Return intersection over union of each class [classes]; NaN for one that neither truth nor prediction has."""
    hits = np.diag(confusion).astype(float)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def mean_iou(confusion: np.ndarray) -> float:
    """Return the mean of `class_iou` over the classes that are there."""
    return float(np.nanmean(class_iou(confusion)))
