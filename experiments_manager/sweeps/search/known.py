"""What proposals are made from: results, as many of them as an algorithm is shown, and a seed for each proposal."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from experiments_manager.sweeps.search.spaces import Point

MOST_SHOWN = 250
"""Results that an algorithm is shown whose cost grows with them; the cost of a proposal is bounded by it."""
_SHARE_OF_BEST = 0.6


@dataclasses.dataclass(frozen=True)
class Known:
    """A result that proposals are made from."""

    number: int
    point: Point
    loss: float
    """Less is better."""


def proposal_seed(seed: int, number: int, repeat: int = 0) -> int:
    """Return the seed of one proposal, which differs from one trial to the next.

    Args:
        seed: Of the sweep.
        number: Of the trial.
        repeat: Counts the attempts to propose a point that was not tried yet.
    """
    words = [seed, number, repeat] if repeat else [seed, number]
    return int(np.random.SeedSequence(words).generate_state(1)[0] >> 1)


def shown_results(known: Sequence[Known]) -> list[Known]:
    """Choose the results that an algorithm is shown: the better ones and the newest, in their order."""
    if len(known) <= MOST_SHOWN:
        return list(known)
    most_best = int(_SHARE_OF_BEST * MOST_SHOWN)
    best = sorted(range(len(known)), key=lambda place: (known[place].loss, place))[:most_best]
    newest = [place for place in range(len(known) - 1, -1, -1) if place not in set(best)]
    return [known[place] for place in sorted([*best, *newest[: MOST_SHOWN - most_best]])]
