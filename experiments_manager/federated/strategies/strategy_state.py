"""What a strategy keeps from round to round, as plain values and arrays, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy

from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.strategies.plain_values import Arrays, NotPlain, decoded, encoded, opaque_owner


class Beginning:
    """A strategy as it was built: what did not change since is a setting, or follows from one, and is not state."""

    def __init__(self, strategy: Strategy) -> None:
        self._values: dict[str, Any] = {}
        self._objects: dict[str, tuple[Any, list[int]]] = {}
        self._note("", strategy, set())

    def _note(self, path: str, owner: Any, seen: set[int]) -> None:
        seen.add(id(owner))
        for name, value in vars(owner).items():
            where = f"{path}.{name}"
            self._objects[where] = value, _items(value)
            arrays = Arrays(where.lstrip("."))
            try:
                self._values[where] = (encoded(value, arrays), arrays)
            except NotPlain:
                if _has_attributes(value) and not hasattr(value, "state_dict") and id(value) not in seen:
                    self._note(where, value, seen)

    def has(self, where: str, plain: Any, arrays: Arrays) -> bool:
        """Return whether an attribute had this value."""
        if where not in self._values:
            return False
        before, arrays_before = self._values[where]
        return before == plain and arrays_before == arrays

    def is_object(self, where: str, value: Any) -> bool:
        """Return whether an attribute was this very object, which a strategy that is built anew has by itself."""
        before, items = self._objects.get(where, (None, []))
        return before is value and items == _items(value)


def _items(value: Any) -> list[int]:
    """Return which objects a container holds."""
    if isinstance(value, dict):
        return [id(item) for pair in value.items() for item in pair]
    return [id(item) for item in value] if isinstance(value, (list, tuple, set)) else []


def state_of(strategy: Strategy, beginning: Beginning | None = None) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return what a strategy keeps, as what JSON can hold and as arrays by their key in it.

    Attributes of the strategy, of strategies in it and of objects in it are taken as they are: numbers, strings, lists,
    tuples, sets, dictionaries, arrays, records of Flower, random generators, and whatever has `state_dict` and
    `load_state_dict`. Functions and objects that were there from the beginning are not stored: a strategy that is
    built from the same settings has them.

    Args:
        strategy: Any strategy.
        beginning: The strategy when it was built; only what changed since is stored then, so that options may be others
            after a resume.

    Raises:
        FederationError: It keeps something that cannot be stored.
    """
    arrays: dict[str, np.ndarray] = {}
    return {"strategy": _object_state("", strategy, beginning, arrays, [])}, arrays


def _object_state(
    path: str, owner: Any, beginning: Beginning | None, arrays: dict[str, np.ndarray], owners: list[int]
) -> dict[str, Any]:
    attributes = {}
    for name, value in vars(owner).items():
        where = f"{path}.{name}"
        own = Arrays(where.lstrip("."))
        try:
            plain = encoded(value, own)
        except NotPlain as problem:
            kept = _kept_object(where, value, beginning, arrays, [*owners, id(owner)], problem)
            if kept is not None:
                attributes[name] = kept
            continue
        if beginning is None or not beginning.has(where, plain, own):
            attributes[name] = plain
            arrays.update(own)
    return {"object": type(owner).__name__, "attributes": attributes}


def _kept_object(
    where: str,
    value: Any,
    beginning: Beginning | None,
    arrays: dict[str, np.ndarray],
    owners: list[int],
    problem: NotPlain,
) -> dict[str, Any] | None:
    same = beginning is None or beginning.is_object(where, value)
    if same and hasattr(value, "state_dict") and hasattr(value, "load_state_dict"):
        own = Arrays(where.lstrip("."))
        try:
            plain = encoded(value.state_dict(), own)
        except NotPlain as inner:
            raise _not_stored(where, inner) from inner
        arrays.update(own)
        return {"loaded": plain}
    if same and _has_attributes(value) and id(value) not in owners:
        return _object_state(where, value, beginning, arrays, owners)
    if same and (beginning is not None or callable(value)):
        return None
    raise _not_stored(where, problem)


def _not_stored(where: str, problem: NotPlain) -> FederationError:
    return FederationError(
        f"The strategy keeps something that cannot be stored, so the federation could not be resumed: "
        f"{where.lstrip('.')} holds {problem}. Expected numbers, strings, lists, dictionaries or NumPy arrays. "
        "Keep it in one of these, or make it when the strategy is built."
    )


def _has_attributes(value: Any) -> bool:
    """Tell objects whose attributes are state from functions, classes, modules and what belongs to other libraries."""
    return isinstance(value, Strategy) or (
        hasattr(value, "__dict__") and not callable(value) and opaque_owner(value) is None
    )


def restore(strategy: Strategy, plain: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Give a strategy that was built from the same settings what `state_of` returned.

    Raises:
        FederationError: The state is that of another strategy.
    """
    try:
        _restore_object("the strategy", strategy, plain["strategy"], arrays)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FederationError(
            f"The state of the strategy cannot be read: {error!r}. Expected what was stored by this release. "
            "Start the federation anew, or resume it with the release that it was started with."
        ) from error


def _restore_object(where: str, owner: Any, plain: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    if plain["object"] != type(owner).__name__:
        raise FederationError(
            f"The state that was stored is not that of {where}. Expected {type(owner).__name__}, got "
            f"{plain['object']}. Resume the federation with the strategy that it was started with, or start it anew."
        )
    for name, value in plain["attributes"].items():
        if isinstance(value, dict) and "object" in value:
            _restore_object(name, getattr(owner, name), value, arrays)
        elif isinstance(value, dict) and "loaded" in value:
            getattr(owner, name).load_state_dict(decoded(value["loaded"], arrays))
        else:
            setattr(owner, name, decoded(value, arrays, getattr(owner, name, None)))
