"""How well groups that were found agree with those that are true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from math import comb


def adjusted_rand_index(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Return the adjusted Rand index of two groupings of the same things: 1 for equal ones, about 0 for chance.

    Hubert and Arabie, Comparing partitions (1985).
    """
    pairs = comb(len(first), 2)
    both = sum(comb(count, 2) for count in Counter(zip(first, second, strict=True)).values())
    in_first = sum(comb(count, 2) for count in Counter(first).values())
    in_second = sum(comb(count, 2) for count in Counter(second).values())
    expected = in_first * in_second / pairs if pairs else 0.0
    highest = (in_first + in_second) / 2
    return 1.0 if highest == expected else (both - expected) / (highest - expected)
