"""What helps where a message of Keras 3 does not say it."""

from __future__ import annotations

import re

_REMEDIES = (
    (
        r"Cannot convert '(?P<name>[^']+)' to a mixed precision DTypePolicy",
        "The first parameter of a metric or layer is `dtype` in Keras 3, where it was `name`. Write "
        "`super().__init__(name=…)`.",
    ),
    (
        r"Argument\(s\) not recognized: \{'lr'",
        "Write `learning_rate=` for `lr=`.",
    ),
    (
        r"Could not locate (class|function) '(?P<name>[^']+)'",
        "Define it at the top level of the file, and put `@keras.saving.register_keras_serializable()` above it.",
    ),
)
"""Patterns in the text of an exception, and the sentence that follows it."""


def keras_remedy(error: BaseException) -> str | None:
    """Return the remedy for an exception of Keras', `None` where its own words will do."""
    text = str(error)
    return next((remedy for pattern, remedy in _REMEDIES if re.search(pattern, text)), None)
