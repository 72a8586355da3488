"""What batches look like where there is no training data: on the server of a federation, whose clients have it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import tensorflow as tf

from experiments_manager.common.errors import UserError
from experiments_manager.settings import Settings
from experiments_manager.training.errors import DataError
from experiments_manager.training.feeds.feed import Feed

logger = logging.getLogger(__name__)

_NOT_THERE = (FileNotFoundError, NotADirectoryError, tf.errors.NotFoundError)


def data_like_training(settings: Settings, feed_for: Callable[[Settings, str], Feed | None]) -> Feed:
    """Return the training data, or else the validation data once more.

    Args:
        settings: Checked settings.
        feed_for: Returns the data of a split.

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
