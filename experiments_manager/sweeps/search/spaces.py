"""The search space: hyperopt's expressions by name, the points in it, and the overrides that a point stands for.

hyperopt keeps a point as values by *label* (the first argument of `hp.uniform("label", …)`; for `hp.choice` the number
of the option). A trial needs values by *name* of a setting or a key of `hparams`. An option of a choice may be a
dictionary: then its names are set only where that option is chosen, which makes the space conditional.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hyperopt import Trials, space_eval
from hyperopt.base import Domain
from hyperopt.exceptions import DuplicateLabel, InvalidAnnotatedParameter
from hyperopt.pyll.base import Apply, Literal, as_apply, dfs, rec_eval

from experiments_manager.settings.types import plain_value

Point = dict[str, float | int]
"""Value by label; labels of branches that are not chosen are missing."""
_CASTS = ("int", "float")


class SpaceError(ValueError):
    """A space that cannot be searched; `key` is the name in it that is to blame, where that is known."""

    def __init__(self, text: str, key: str | None = None) -> None:
        super().__init__(text)
        self.key = key


class Space:
    """A search space.

    Args:
        given: Expressions of `hp`, constants, and nests of both, by name.

    Raises:
        SpaceError: It cannot be searched.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = dict(given)
        wrong = [key for key in self.given if not isinstance(key, str)]
        if wrong:
            raise SpaceError(f"a key of `space` is no text. Expected names of settings or hparams, got {wrong[0]!r}.")
        try:
            self.graph = as_apply(self.given)
            self.domain = Domain(_no_objective, self.graph, pass_expr_memo_ctrl=False)
        except DuplicateLabel as error:
            raise SpaceError(
                f"the label {str(error)!r} is given twice. Expected a label of its own for each `hp.…`. Rename one.",
            ) from error
        except (InvalidAnnotatedParameter, TypeError, ValueError) as error:
            raise SpaceError(f"hyperopt cannot read this space: {error}. Expected expressions of `hp`.") from error
        self.labels = tuple(sorted(self.domain.params))
        if not self.labels:
            raise SpaceError("nothing varies in it. Expected at least one expression such as `hp.uniform(…)`.")
        self.names = tuple(dict.fromkeys(_names(self.graph)))
        text = str(self.graph)
        self.digest = hashlib.sha256(text.encode()).hexdigest()[:12]

    def overrides(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values by name that a point stands for, in Python's own types."""
        found: dict[str, Any] = {}
        for name, value in space_eval(self.graph, dict(point)).items():
            _add(found, name, value)
        return found

    def switches(self) -> set[str]:
        """Return the labels that choose among options: those of `hp.choice` and `hp.pchoice`."""
        nodes = [node for node in dfs(self.graph) if node.name == "switch"]
        return {node.pos_args[0].arg["label"].obj for node in nodes}

    def point_by(self, choose: Callable[[str], float | int]) -> Point:
        """Return the point that somebody chooses who is asked for each label, of the chosen branches alone."""
        found: Point = {}
        _ask_for_labels(self.graph, choose, found)
        return {label: found[label] for label in sorted(found)}

    def sample(self, seed: int) -> Point:
        """Draw a point at random, from the priors."""
        from hyperopt import rand

        document = rand.suggest([0], self.domain, Trials(), seed)[0]
        return point_of(document["misc"]["vals"])

    def point_for(self, overrides: Mapping[str, Any]) -> Point | None:
        """Find the point that stands for these values by name; `None` where the space does not hold them.

        Names that are missing in `overrides` are an obstacle only where the space has no way to leave them open.
        """
        found = next(_solutions(self.graph, dict(overrides)), None)
        if found is None or set(self.overrides(found)) != set(overrides):
            return None
        return found

    def grid(self) -> Iterator[Point]:
        """Give every point of a space that consists of choices and bounded integers, in a fixed order."""
        yield from _grid(self.graph)

    def grid_size(self) -> int:
        """Count the points of the grid.

        Raises:
            SpaceError: A part of the space is continuous.
        """
        continuous = [label for label in self.labels if _steps(self.domain.params[label]) is None]
        if continuous:
            raise SpaceError(
                f"a grid needs finitely many values. Expected `hp.choice`, `hp.randint`, `hp.quniform` or "
                f"`hp.uniformint`, got {self.domain.params[continuous[0]].name} for {continuous[0]!r}.",
                continuous[0],
            )
        return sum(1 for _ in self.grid())


def point_of(vals: Mapping[str, list[Any]]) -> Point:
    """Return a point as plain numbers from what hyperopt keeps of it."""
    return {label: plain_value(values[0]) for label, values in sorted(vals.items()) if len(values)}


def _ask_for_labels(node: Apply, choose: Callable[[str], float | int], found: Point) -> None:
    if node.name == "hyperopt_param":
        label = node.arg["label"].obj
        if label not in found:
            found[label] = choose(label)
    elif node.name == "switch":
        _ask_for_labels(node.pos_args[0], choose, found)
        chosen = found[node.pos_args[0].arg["label"].obj]
        _ask_for_labels(node.pos_args[1 + int(chosen)], choose, found)
    else:
        for item in node.inputs():
            _ask_for_labels(item, choose, found)


def _no_objective(values: Any) -> float:
    raise RuntimeError("hyperopt is asked for proposals only")


def _plain(value: Any) -> Any:
    value = plain_value(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def _add(found: dict[str, Any], name: str, value: Any) -> None:
    """Add a value, or what a branch with names of its own holds."""
    if isinstance(value, dict):
        for inner, item in value.items():
            _add(found, inner, item)
    else:
        found[name] = _plain(value)


def _is_dict(node: Apply) -> bool:
    return node.name == "dict"


def _names(node: Apply) -> Iterator[str]:
    """Yield the names that a point may set."""
    for name, item in node.named_args:
        branches = item.pos_args[1:] if item.name == "switch" else [item]
        inner = [branch for branch in branches if _is_dict(branch)]
        if len(inner) < len(branches):
            yield name
        for branch in inner:
            yield from _names(branch)


def _solutions(node: Apply, target: Any) -> Iterator[Point]:
    """Yield the points at which a part of the space gives a value."""
    if isinstance(node, Literal):
        if node.obj == target and isinstance(node.obj, bool) == isinstance(target, bool):
            yield {}
    elif _is_dict(node):
        yield from _solutions_of_names(list(node.named_args), target)
    elif node.name == "switch":
        label = node.pos_args[0].pos_args[0].obj
        for number, branch in enumerate(node.pos_args[1:]):
            yield from ({label: number, **inner} for inner in _solutions(branch, target))
    elif node.name == "hyperopt_param":
        if _may_be(node.pos_args[1], target):
            yield {node.pos_args[0].obj: target}
    elif node.name in _CASTS:
        yield from _solutions(node.pos_args[0], target)
    elif node.name == "pos_args" and isinstance(target, (list, tuple)) and len(target) == len(node.pos_args):
        yield from _solutions_of_items(list(node.pos_args), list(target))


def _solutions_of_names(items: list[tuple[str, Apply]], target: Mapping[str, Any]) -> Iterator[Point]:
    if not isinstance(target, Mapping):
        return
    if not items:
        yield {}
        return
    (name, node), *rest = items
    branches = node.pos_args[1:] if node.name == "switch" else [node]
    # a branch with names of its own looks for them among all; a plain one for its own name
    for number, branch in enumerate(branches):
        if not _is_dict(branch) and name not in target:
            continue
        value = target if _is_dict(branch) else target[name]
        chosen = {node.pos_args[0].pos_args[0].obj: number} if node.name == "switch" else {}
        for first in _solutions(branch, value):
            yield from ({**chosen, **first, **others} for others in _solutions_of_names(rest, target))


def _solutions_of_items(nodes: list[Apply], targets: list[Any]) -> Iterator[Point]:
    if not nodes:
        yield {}
        return
    for first in _solutions(nodes[0], targets[0]):
        yield from ({**first, **others} for others in _solutions_of_items(nodes[1:], targets[1:]))


def _may_be(distribution: Apply, target: Any) -> bool:
    """Return whether a distribution can give a number."""
    if isinstance(target, bool) or not isinstance(target, (int, float)):
        return False
    low, high = bounds(distribution)
    return (low is None or target >= low - 1e-12) and (high is None or target <= high + 1e-12)


def arguments(distribution: Apply) -> dict[str, float]:
    """Return the arguments of a distribution by their names, as far as they are constants."""
    bound = distribution.arg
    return {name: node.obj for name, node in bound.items() if isinstance(node, Literal)}


def bounds(distribution: Apply) -> tuple[float | None, float | None]:
    """Return the smallest and the largest value of a distribution, `None` where it has none."""
    given = arguments(distribution)
    if distribution.name == "uniform":
        return given["low"], given["high"]
    if distribution.name == "quniform":  # whose ends are rounded too
        low, high = (round(given[end] / given["q"]) * given["q"] for end in ("low", "high"))
        return low, high
    if distribution.name == "loguniform":
        return math.exp(given["low"]), math.exp(given["high"])
    if distribution.name == "qloguniform":
        low, high = (round(math.exp(given[end]) / given["q"]) * given["q"] for end in ("low", "high"))
        return low, high
    if distribution.name == "randint":
        low, high = given.get("low", 0), given.get("high")
        return (0, low - 1) if high is None else (low, high - 1)
    return None, None


def _steps(distribution: Apply) -> list[float] | None:
    """Return all values of a distribution, or `None` where they cannot be counted."""
    given = arguments(distribution)
    if distribution.name == "categorical":
        return list(range(len(given["p"]) if "p" in given else _length(distribution.arg["p"])))
    if distribution.name == "randint":
        low, high = bounds(distribution)
        return list(range(int(low), int(high) + 1))
    if distribution.name == "quniform":
        first, last = (round(given[end] / given["q"]) for end in ("low", "high"))
        return [number * given["q"] for number in range(first, last + 1)]
    return None


def _length(node: Apply) -> int:
    return len(rec_eval(node))


def _grid(node: Apply) -> Iterator[Point]:
    if node.name == "hyperopt_param":
        yield from ({node.pos_args[0].obj: value} for value in _steps(node.pos_args[1]))
    elif node.name == "switch":
        label = node.pos_args[0].pos_args[0].obj
        for number, branch in enumerate(node.pos_args[1:]):
            yield from ({label: number, **inner} for inner in _grid(branch))
    elif isinstance(node, Literal):
        yield {}
    else:
        yield from _product([*node.pos_args, *(item for _, item in node.named_args)])


def _product(nodes: list[Apply]) -> Iterator[Point]:
    if not nodes:
        yield {}
        return
    for first in _grid(nodes[0]):
        yield from ({**first, **others} for others in _product(nodes[1:]))
