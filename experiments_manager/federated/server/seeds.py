"""Python's and NumPy's global generators, the same in each run of a round."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator

import numpy as np

_ALONE = threading.RLock()
"""Held while the generators, which all threads share, are seeded."""


@contextlib.contextmanager
def seeded(seed: int, *place: int) -> Iterator[None]:
    """Seed both generators for a part of a round, and put them back afterwards.

    Strategies draw from them whom to ask and which noise to add; so what they draw depends on the seed and the round,
    and not on what was drawn before. One thread at a time draws.

    Args:
        seed: The run's seed.
        place: Numbers that name the part: the round, the try, and what is done.
    """
    with _ALONE:
        before = random.getstate(), np.random.get_state()
        words = np.random.SeedSequence([number % 2**64 for number in (seed, *place)]).generate_state(8)
        random.seed(int.from_bytes(words.tobytes(), "little"))
        np.random.seed(words)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
