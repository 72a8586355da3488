"""What the engine writes for TensorBoard by names that TensorBoard does not declare public.

`tests/compat/test_tensorboard.py` tests each function; where a new release fails there, look here for what to do. What
`board` changes in TensorBoard's pages is in `tensorboard_pages.py`, which takes a fifth of a second to import.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.summary import session_end_pb, session_start_pb
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tensorboard.plugins.text.summary_v2 import text_pb

__all__ = ["Event", "ProjectorConfig", "SessionLog", "Summary"]
"""Protocol buffers of event files. Missing: public names without importing TensorFlow. When a release breaks it:
`tf.compat.v1` has the first, the third and the last."""

_STATUSES = {"finished": api_pb2.STATUS_SUCCESS, "failed": api_pb2.STATUS_FAILURE}


def histogram_summary(name: str, values: np.ndarray) -> Summary:
    """Make the `Summary` of a histogram.

    Missing: `tensorboard.summary.v2` writes histograms by a writer of its own alone. When a release breaks it: write
    them by `tf.summary.histogram`.
    """
    return histogram_pb(name, values)


def text_summary(name: str, markdown: str) -> Summary:
    """Make the `Summary` of a text; as for `histogram_summary`."""
    return text_pb(name, markdown)


def hparams_summary(hparams: Mapping[str, bool | int | float | str]) -> Summary:
    """Make the `Summary` that is a row of the HParams page.

    It names no group, so that runs of the same name in different folders are rows of their own rather than an average.
    Missing: the public `tensorboard.plugins.hparams.api` makes a group of equal hyperparameters. When a release breaks
    it: use that, with a group's name of each run's own.
    """
    return _own(session_start_pb(hparams))


def run_end_summary(state: str) -> Summary:
    """Make the `Summary` that tells the HParams page how a run ended: `finished`, `failed` or another word."""
    return _own(session_end_pb(_STATUSES.get(state, api_pb2.STATUS_UNKNOWN)))


def _own(summary: Any) -> Summary:
    return Summary.FromString(summary.SerializeToString())  # the HParams plug-in makes TensorFlow's class of it
