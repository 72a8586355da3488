"""What a client of a federation keeps from one round to the next, as arrays that a checkpoint holds."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_OPTIMIZER, _LAYERS, _CALLBACKS, _PLAIN = "optimizer/", "layers/", "callbacks/", "plain"


@dataclasses.dataclass(frozen=True)
class Kept:
    """What a client goes on from; nothing in it is changed afterwards.

    Attributes:
        others: Variables of the optimizer and others that are no weights; nothing where each round begins anew.
        layers: Weights that stay at the client, by name.
        rate_scale: What the learning rate in `others` is multiplied with.
        position: Where the client is in its training data, where that does not follow from the round.
        callbacks: Attributes of each callback, plain data (JSON).
        callback_arrays: The larger arrays that these refer to.
        topics: What is read of topics (JSON), as a run keeps it in its manifest.
    """

    others: Sequence[np.ndarray] = ()
    layers: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    rate_scale: float = 1.0
    position: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    callbacks: Sequence[Mapping[str, Any]] = ()
    callback_arrays: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    topics: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.others or self.layers or self.position or self.callbacks or self.topics)

    @functools.cached_property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """All of it as arrays by name."""
        plain = {
            "rate_scale": self.rate_scale,
            "position": self.position,
            "callbacks": self.callbacks,
            "topics": self.topics,
        }
        return {
            **{f"{_OPTIMIZER}{number:06d}": value for number, value in enumerate(self.others)},
            **{f"{_LAYERS}{name}": value for name, value in self.layers.items()},
            **{f"{_CALLBACKS}{name}": value for name, value in self.callback_arrays.items()},
            _PLAIN: np.frombuffer(json.dumps(plain).encode(), np.uint8),
        }

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Kept:
        """Make the state of a client of what `arrays` returned."""
        plain = json.loads(np.asarray(arrays[_PLAIN], np.uint8).tobytes())
        return cls(
            others=[arrays[name] for name in sorted(arrays) if name.startswith(_OPTIMIZER)],
            layers=_below(arrays, _LAYERS),
            callback_arrays=_below(arrays, _CALLBACKS),
            **plain,
        )


def _below(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
