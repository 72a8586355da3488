"""Which images are for training, and which are not."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

from experiments_manager.common.tables.problems import DataFileError

DEFAULT_SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def split_images(names: Sequence[str], shares: Mapping[str, float] = DEFAULT_SHARES, seed: int = 0) -> dict[str, str]:
    """Put each image into a split, with all of its boxes.

    The order follows from a hash of the seed and the name alone: it is the same on all machines, whatever the order of
    the names, and few images change their split when others come.

    Args:
        names: The images.
        shares: Share of each split; they add up to 1.
        seed: Another one gives other splits.

    Returns:
        The split of each image.

    Raises:
        DataFileError: The shares do not add up to 1, or a split gets no image.
    """
    if not shares or any(not 0 < share <= 1 for share in shares.values()) or not math.isclose(sum(shares.values()), 1):
        shown = ", ".join(f"{split}={share:g}" for split, share in shares.items())
        raise DataFileError(f"The shares of the splits are {shown or 'none'}. Expected numbers that add up to 1.")
    ordered = sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    found: dict[str, str] = {}
    upto, first = 0.0, 0
    for split, share in shares.items():
        upto += share
        last = round(upto * len(ordered))
        if first == last:
            raise DataFileError(
                f"The split {split!r} gets no image: {len(ordered)} images, of which it gets {share:.0%}. "
                "Expected at least one. Give it a larger share, or leave it out."
            )
        found.update(dict.fromkeys(ordered[first:last], split))
        first = last
    return {name: found[name] for name in names}
