"""Random generators of Python's and NumPy's that are objects: their state, read and put back."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

HostGenerator = random.Random | np.random.Generator | np.random.RandomState
_MAKERS = {"Random": random.Random, "RandomState": np.random.RandomState, "SystemRandom": random.SystemRandom}
_BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


def generator_state(generator: HostGenerator) -> tuple[str, Any]:
    """Return the kind of a generator and its state: numbers, arrays, tuples and dictionaries.

    A `random.SystemRandom` has none: it draws from the system.
    """
    if isinstance(generator, random.SystemRandom):
        return "SystemRandom", None
    if isinstance(generator, random.Random):
        return "Random", generator.getstate()
    if isinstance(generator, np.random.RandomState):
        return "RandomState", generator.get_state(legacy=False)
    return type(generator.bit_generator).__name__, generator.bit_generator.state


def states_of(generators: Mapping[str, HostGenerator]) -> dict[str, str]:
    """Return the states as texts, to be compared."""
    with np.printoptions(threshold=sys.maxsize):
        return {name: repr(generator_state(generator)) for name, generator in generators.items()}


def set_generator_state(generator: Any, kind: str, state: Any) -> bool:
    """Put a state back into a generator; return whether it is of that kind."""
    if not isinstance(generator, HostGenerator) or generator_state(generator)[0] != kind:
        return False
    if kind == "Random":
        generator.setstate(state)
    elif kind == "RandomState":
        generator.set_state(state)
    elif kind != "SystemRandom":
        generator.bit_generator.state = state
    return True


def made_generator(kind: str, state: Any) -> HostGenerator:
    """Make a generator of this kind and state.

    Raises:
        ValueError: If the kind is unknown.
    """
    if kind in _BIT_GENERATORS:
        made: HostGenerator = np.random.Generator(getattr(np.random, kind)())
    elif kind in _MAKERS:
        made = _MAKERS[kind]()
    else:
        raise ValueError(f"Expected a random generator of Python's or NumPy's, got {kind!r}.")
    set_generator_state(made, kind, state)
    return made
