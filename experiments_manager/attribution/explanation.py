"""Explaining samples: maps by several methods, and what each of these is worth."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments_manager.attribution.errors import ExplainError
from experiments_manager.attribution.map_quality import (
    Curves,
    curve_meter,
    random_order,
    random_weights,
    rank_correlation,
)
from experiments_manager.attribution.methods.grad_cam import grad_cam
from experiments_manager.attribution.methods.integrated_gradients import integrated_gradients
from experiments_manager.attribution.methods.occlusion import occlusion
from experiments_manager.attribution.methods.shapley import shapley
from experiments_manager.attribution.scored_output import Explainer
from experiments_manager.attribution.targets import Target
from experiments_manager.common.suggestions import did_you_mean

logger = logging.getLogger(__name__)

METHODS: dict[str, Callable[..., Explainer]] = {
    "integrated-gradients": integrated_gradients,
    "grad-cam": grad_cam,
    "occlusion": occlusion,
    "shap": shapley,
}
RANDOM = "random order"


@dataclasses.dataclass(frozen=True)
class MethodResult:
    """The maps of one method, and what they are worth."""

    maps: np.ndarray
    """Floats [samples, …], one a position of the input."""
    curves: Curves
    sanity: float
    """Rank correlation of its maps with those of the model with random weights; near 0 is good."""


@dataclasses.dataclass(frozen=True)
class Explanation:
    """The maps of all methods for some samples, and what could not be computed."""

    target: Target
    methods: dict[str, MethodResult]
    random: Curves
    """The curves of a random order, which each method must beat."""
    skipped: dict[str, str]
    """Methods that do not go together with this model, and why."""


@dataclasses.dataclass(frozen=True)
class MethodOptions:
    """How the methods work; `None` leaves it to them."""

    steps: int = 32
    """Points of the integration of integrated gradients."""
    layer: str | None = None
    """The layer that Grad-CAM looks at."""
    window: int | None = None
    """Side of the window of occlusion."""
    seed: int = 0
    """Of random weights, random order, and the permutations of `shap`."""


def explain(
    target: Target,
    methods: Sequence[str] | None = None,
    options: MethodOptions | None = None,
    tell: Callable[[str], None] = logger.info,
) -> Explanation:
    """Explain by each method, and measure what that is worth.

    Args:
        target: What is explained.
        methods: Names of methods; by default all but `shap`, those left out that do not go together with the model.
        options: How they work.
        tell: Called with what is being done.

    Raises:
        ExplainError: A method is unknown, or one that was named does not go together with the model.
    """
    options = options or MethodOptions()
    chosen = [name for name in METHODS if name != "shap"] if methods is None else list(dict.fromkeys(methods))
    for name in chosen:
        if name not in METHODS:
            hint = did_you_mean(name, METHODS)
            raise ExplainError(f"Unknown method {name!r}. Expected some of {', '.join(METHODS)}. {hint}".rstrip())
    output, question = target.output, target.question
    explainers, skipped = {}, {}
    for name in chosen:
        try:
            explainers[name] = METHODS[name](output, question, **_options_of(name, options))
        except ExplainError as error:
            if methods is not None:
                raise
            skipped[name] = str(error)
    if not explainers:
        raise ExplainError("\n".join(skipped.values()))
    maps, others, results = {}, {}, {}
    for name, explainer in explainers.items():
        tell(f"{name}: maps of {len(question)} samples")
        maps[name] = explainer(question)
    with random_weights(output.model, options.seed):
        for name, explainer in explainers.items():
            tell(f"{name}: the same with random weights")
            others[name] = explainer(question)
    measure = curve_meter(output, question)
    for name, found in maps.items():
        tell(f"{name}: insertion and deletion")
        results[name] = MethodResult(found, measure(question, found), rank_correlation(found, others[name]))
    unknowing = random_order(next(iter(maps.values())), options.seed)
    return Explanation(target, results, measure(question, unknowing), skipped)


def _options_of(name: str, options: MethodOptions) -> dict[str, Any]:
    return {
        "integrated-gradients": {"steps": options.steps},
        "grad-cam": {"layer": options.layer},
        "occlusion": {"window": options.window},
        "shap": {"seed": options.seed},
    }[name]
