"""Random generators of Python's and NumPy's that are objects: their state, read and put back."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

HostGenerator = random.Random | np.random.Generator | np.random.RandomState
_MAKERS = {"Random": random.Random, "RandomState": np.random.RandomState, "SystemRandom": random.SystemRandom}
_SEEDS = "seed_sequence"
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
    bits = generator.bit_generator
    return type(bits).__name__, bits.state | _seeds_of(bits)


def _seeds_of(bits: np.random.BitGenerator) -> dict[str, Any]:
    """Return what `spawn` goes by, which is no part of NumPy's own state of a generator."""
    seeds = getattr(bits, "seed_seq", None)  # since NumPy 1.25, as is `spawn` of a generator
    return {_SEEDS: seeds.state} if isinstance(seeds, np.random.SeedSequence) else {}


def advance_spawning(seeds: np.random.SeedSequence, spawned: int) -> bool:
    """Bring a sequence of seeds to where it has spawned so many; return whether it is there."""
    missing = spawned - seeds.n_children_spawned
    if missing > 0:
        seeds.spawn(missing)
    return missing >= 0


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
        generator.bit_generator.state = {name: part for name, part in state.items() if name != _SEEDS}
        return _spawns_as(generator.bit_generator, state.get(_SEEDS))
    return True


def _spawns_as(bits: np.random.BitGenerator, wanted: dict[str, Any] | None) -> bool:
    """Bring what a generator spawns to where it was; return whether that is so."""
    seeds = getattr(bits, "seed_seq", None)
    if wanted is None or not isinstance(seeds, np.random.SeedSequence):
        return True
    if wanted["n_children_spawned"] == seeds.n_children_spawned == 0:
        return True  # one without a seed, too, whose draws follow from its state alone
    is_same = all(repr(seeds.state[name]) == repr(wanted[name]) for name in ("entropy", "spawn_key", "pool_size"))
    return is_same and advance_spawning(seeds, wanted["n_children_spawned"])


def made_generator(kind: str, state: Any) -> HostGenerator:
    """Make a generator of this kind and state.

    Raises:
        ValueError: If the kind is unknown.
    """
    if kind in _BIT_GENERATORS:
        seeds = np.random.SeedSequence(**state[_SEEDS]) if _SEEDS in state else None
        made: HostGenerator = np.random.Generator(getattr(np.random, kind)(seeds))
    elif kind in _MAKERS:
        made = _MAKERS[kind]()
    else:
        raise ValueError(f"Expected a random generator of Python's or NumPy's, got {kind!r}.")
    set_generator_state(made, kind, state)
    return made
