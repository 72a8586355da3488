"""One hyperparameter as a sampler sees it that knows intervals, whole numbers and categories, and no `hp.…`.

hyperopt's distributions become three forms, each with a *latent* number that a sampler works on:

- categories: `hp.choice` and `hp.pchoice`, whose options have no order;
- whole numbers: `hp.randint`, `hp.uniformint`, and `hp.quniform` as multiples of its `q`;
- intervals: `hp.uniform`; the logarithm of `hp.loguniform` and `hp.qloguniform`; and the quantile of the normal
  distributions, which have no bounds, so that what is likely a priori takes most of the interval.
"""

from __future__ import annotations

import dataclasses
import math
from statistics import NormalDist

import numpy as np
from hyperopt.pyll.base import Apply, rec_eval

from experiments_manager.sweeps.search.spaces import Space, SpaceError, arguments

_TAIL = 1e-6
"""Share of a normal distribution that is left out at either end, beyond 4.75 standard deviations."""
_NORMAL = NormalDist()


@dataclasses.dataclass(frozen=True)
class Dimension:
    """One hyperparameter.

    Attributes:
        label: Its label.
        kind: The name of its distribution among hyperopt's; `switch` for `hp.choice` and `hp.pchoice`.
        low: Smallest latent number.
        high: Largest latent number.
        step: Of the values; 0 where they are continuous.
        mean: Of a normal distribution.
        spread: Its standard deviation.
        shares: Probabilities of the categories; none for a number.
    """

    label: str
    kind: str
    low: float
    high: float
    step: float = 0.0
    mean: float = 0.0
    spread: float = 1.0
    shares: tuple[float, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether the latent numbers are whole ones with an order."""
        return self.kind in ("quniform", "randint")

    def value(self, latent: float) -> float | int:
        """Return the value that a latent number stands for, as hyperopt gives it."""
        if self.shares or self.kind == "randint":
            return int(latent)
        if self.is_whole:
            return float(latent * self.step)
        number = float(latent)
        if self.kind.endswith("normal"):
            number = self.mean + self.spread * _NORMAL.inv_cdf(latent)
        if "log" in self.kind:
            number = math.exp(number)
        return float(np.round(number / self.step) * self.step) if self.step else number

    def latent(self, value: float) -> float | int:
        """Return the latent number of a value; of one outside, the nearest that there is."""
        if self.shares:
            return int(value)
        number = float(value)
        if "log" in self.kind:  # a quantised one may be 0
            number = math.log(max(number, 1e-300))
        if self.is_whole:
            number = round(number / (self.step or 1.0))
        elif self.kind.endswith("normal"):
            number = _NORMAL.cdf((number - self.mean) / self.spread)
        return min(max(number, self.low), self.high)

    def of_unit(self, unit: float) -> float | int:
        """Return the latent number at a quantile of the distribution, from 0 to 1."""
        if self.shares:
            place = int(np.searchsorted(np.cumsum(self.shares), unit, side="right"))
            return min(place, len(self.shares) - 1)
        if self.is_whole:
            return min(int(self.low + math.floor(unit * (self.high - self.low + 1))), int(self.high))
        return min(max(self.low + unit * (self.high - self.low), self.low), self.high)

    def unit(self, latent: float) -> float:
        """Return the quantile of the latent number of a number; of a whole one, the middle of its part."""
        if self.is_whole:
            return (latent - self.low + 0.5) / (self.high - self.low + 1)
        return (latent - self.low) / (self.high - self.low) if self.high > self.low else 0.5


def dimensions(space: Space) -> dict[str, Dimension]:
    """Return the hyperparameters of a space by label.

    Raises:
        SpaceError: The bounds of one depend on another, or its distribution is none of hyperopt's own.
    """
    switches = space.switches()
    return {label: _dimension(label, space.domain.params[label], label in switches) for label in space.labels}


def _dimension(label: str, node: Apply, is_switch: bool) -> Dimension:
    given, name = _constants(label, node), node.name
    if name == "categorical":
        shares = tuple(map(float, given["p"]))
        return Dimension(label, "switch", 0, len(shares) - 1, shares=shares)
    step = float(given.get("q", 0.0))
    if name == "randint":
        low, high = (given["low"], given["high"]) if given.get("high") is not None else (0, given["low"])
        size = int(high - low)
        if is_switch:
            return Dimension(label, "switch", 0, size - 1, shares=(1 / size,) * size)
        return Dimension(label, name, int(low), int(high) - 1)
    if name == "quniform":
        ends = (int(np.round(given[end] / step)) for end in ("low", "high"))
        return Dimension(label, name, *ends, step=step)
    if name in ("uniform", "loguniform", "qloguniform"):
        return Dimension(label, name, float(given["low"]), float(given["high"]), step=step)
    if name in ("normal", "qnormal", "lognormal", "qlognormal"):
        return Dimension(label, name, _TAIL, 1 - _TAIL, step, float(given["mu"]), float(given["sigma"]))
    raise SpaceError(
        f"this algorithm knows no distribution {name}. Expected one of hyperopt's `hp.…`. Choose `algorithm = 'tpe'`.",
        label,
    )


def _constants(label: str, node: Apply) -> dict[str, object]:
    if node.name == "categorical":
        return {"p": rec_eval(node.arg["p"])}
    given = arguments(node)
    if len(given) < sum(isinstance(argument, Apply) for argument in node.arg.values()):
        raise SpaceError(
            "its distribution depends on another hyperparameter. Expected constants, which this algorithm needs. Use "
            "`hp.choice` with a branch for each case, or choose `algorithm = 'random'`.",
            label,
        )
    return given
