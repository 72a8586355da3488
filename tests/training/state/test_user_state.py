"""What users' objects hold, written and put back in other objects of the same kind; or named."""

import collections
import collections.abc
import contextvars
import enum
import functools
import itertools
import json
import queue
import sqlite3
import sys
import threading
import types
import weakref
from array import array

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments_manager.training.state.user_state import Roots, UserState


class Held(types.SimpleNamespace):
    """Holds the object that is looked at, and another that stays where it is."""


class Phase(enum.Enum):
    WARM = 1
    COLD = 2


class Calm:
    rate = 1


class Eager(Calm):
    rate = 2


class Rule(collections.abc.Sized):
    def __len__(self):
        return 0

    def factor(self):
        return 1


def doubled(self):
    return 2


class Other:
    def __hash__(self):
        return 1


def moved(iterator, steps):
    for _ in range(steps):
        next(iterator)


KEPT = {
    "a context variable": (
        lambda held: contextvars.ContextVar("steps", default=0),
        lambda held: held.value.set(held.value.get() + 7),
        lambda held: held.value.get(),
    ),
    "what a thread keeps": (
        lambda held: threading.local(),
        lambda held: vars(held.value).update(steps=7, losses=[1, 2]),
        lambda held: vars(held.value),
    ),
    "a weak dictionary": (
        lambda held: weakref.WeakKeyDictionary({held.other: 1}),
        lambda held: held.value.update({held.other: 7}),
        lambda held: held.value[held.other],
    ),
    "a weak set": (
        lambda held: weakref.WeakSet(),
        lambda held: held.value.add(held.other),
        lambda held: held.other in held.value,
    ),
    "a mutable table": (
        lambda held: tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, 0.0),
        lambda held: held.value.insert(tf.constant([3, 1], tf.int64), tf.constant([0.5, 2.0])),
        lambda held: held.value.lookup(tf.constant([1, 2, 3], tf.int64)).numpy().tolist(),
    ),
    "an array of Python's": (
        lambda held: array("d", [1]),
        lambda held: held.value.append(7.5),
        lambda held: held.value.tolist(),
    ),
    "bytes that another looks at": (
        lambda held: (raw := bytearray(4), memoryview(raw)[1:3]),
        lambda held: held.value[0].__setitem__(2, 7),
        lambda held: [held.value[0].__setitem__(1, 9), bytes(held.value[1])],
    ),
    "bytes that an attribute holds and another looks at": (
        lambda held: types.SimpleNamespace(raw=(raw := bytearray(4)), view=memoryview(raw)),
        lambda held: held.value.view.__setitem__(2, 7),
        lambda held: [held.value.raw.__setitem__(1, 9), bytes(held.value.view)],
    ),
    "a bytearray and an array of Python's that are new": (
        lambda held: [],
        lambda held: held.value.extend([bytearray(b"ab"), array("f", [7.5])]),
        lambda held: held.value,
    ),
    "a bytearray": (lambda held: bytearray(2), lambda held: held.value.append(7), lambda held: bytes(held.value)),
    "a queue": (
        lambda held: queue.Queue(),
        lambda held: held.value.put(7),
        lambda held: (list(held.value.queue), held.value.unfinished_tasks),
    ),
    "a dictionary of users": (
        lambda held: collections.UserDict(n=0),
        lambda held: held.value.update(n=7),
        lambda held: dict(held.value),
    ),
    "an attribute of an enumeration": (
        lambda held: Phase.WARM,
        lambda held: setattr(Phase.COLD, "entered", 7),
        lambda held: getattr(Phase.COLD, "entered", None),
    ),
    "its class": (
        lambda held: Calm(),
        lambda held: setattr(held.value, "__class__", Eager),
        lambda held: held.value.rate,
    ),
    "a number of Keras' own": (
        lambda held: keras.layers.Dropout(0.5),
        lambda held: setattr(held.value, "rate", 0.25),
        lambda held: held.value.rate,
    ),
    "a private global name": (
        lambda held: globals().update(__private=0),
        lambda held: globals().update(__private=7),
        lambda held: globals()["__private"],
    ),
    "a method of its class": (
        lambda held: _with_method(),
        lambda held: setattr(Rule, "factor", doubled),
        lambda held: held.value.factor(),
    ),
    "a new namespace": (
        lambda held: types.SimpleNamespace(parts=[types.SimpleNamespace(a=0)]),
        lambda held: held.value.parts.append(types.SimpleNamespace(a=7)),
        lambda held: held.value.parts,
    ),
    "a sequence of seeds": (
        lambda held: np.random.SeedSequence(3),
        lambda held: held.value.spawn(7),
        lambda held: held.value.spawn(1)[0].generate_state(2).tolist(),
    ),
    "a window into an array": (
        lambda held: types.SimpleNamespace(ring=np.zeros(9), window=None),
        lambda held: vars(held.value).update(window=held.value.ring[2:5]),
        lambda held: [held.value.ring.__setitem__(3, 7), held.value.window.tolist()],
    ),
    "the id of an object": (
        lambda held: {},
        lambda held: held.value.update({id(held.other): 7}),
        lambda held: held.value.get(id(held.other)),
    ),
    "an iterator that takes long to look at": (
        lambda held: zip(range(100_000), itertools.chain.from_iterable([[1, 2]] * 50_000), strict=True),
        lambda held: moved(held.value, 7),
        lambda held: next(held.value),
    ),
    "a sum that goes on": (
        lambda held: itertools.accumulate(range(10)),
        lambda held: moved(held.value, 4),
        lambda held: next(held.value),
    ),
    "a large array that changed before the first look": (
        lambda held: np.zeros(3_000_000),
        lambda held: held.value.__setitem__(5, 7),
        lambda held: held.value[:9].tolist(),
    ),
}
SAID = {
    "a database": (
        lambda: sqlite3.connect(":memory:"),
        lambda value: value.execute("create table losses (value real)"),
        "cannot be looked into",
    ),
    "a cache whose counts are read": (
        lambda: cached(),
        lambda value: value(3),
        "changes while training runs, and no checkpoint can hold it: it is a functools._lru_cache_wrapper",
    ),
    "a masked array": (
        lambda: np.ma.masked_array(np.zeros(3), mask=[0, 1, 0]),
        lambda value: value.__setitem__(1, 3),
        "it is a masked array",
    ),
}


def _with_method():
    Rule.factor = _FACTOR
    return Rule()


_FACTOR = Rule.factor


def cached():
    @functools.lru_cache
    def factor(number):
        return number / (1 + factor.cache_info().misses)

    return factor


def looked_at(make):
    held = Held(other=Other())
    held.value = make(held)
    module = sys.modules[__name__]
    return held, UserState(Roots({"callbacks": [held, Eager, Phase]}), [module], lambda variable: False, {})


@pytest.mark.parametrize(("make", "change", "read"), KEPT.values(), ids=KEPT)
def test_what_it_holds_comes_back_in_its_place(make, change, read):
    held, state = looked_at(make)
    before = held.value
    state.capture()
    change(held)
    plain, tensors = state.capture()
    expected = read(held)
    if hasattr(Phase.COLD, "entered"):
        Phase.COLD.entered = 0
    fresh, other = looked_at(make)
    other.put_back(json.loads(json.dumps(plain)), tensors)
    assert (read(fresh), state.reasons, other.reasons) == (expected, [], [])
    assert held.value is before


@pytest.mark.parametrize(("make", "change", "words"), SAID.values(), ids=SAID)
def test_what_no_checkpoint_can_hold_is_named(make, change, words):
    held, state = looked_at(lambda held: make())
    change(held.value)
    state.capture()
    assert any("callbacks[0].value" in reason and words in reason for reason in state.reasons)


def counts_for_itself(asked, answered):
    count = 0
    while True:
        value = asked.get()
        if value is None:
            return
        count += 1
        answered.put(count)


def counts_elsewhere(asked, answered):
    while True:
        value = asked.get()
        if value is None:
            return
        answered.put(value)


@pytest.mark.parametrize("work", [counts_for_itself, counts_elsewhere])
def test_what_a_thread_keeps_in_its_variables_is_named(work):
    asked, answered = queue.Queue(), queue.Queue()
    thread = threading.Thread(target=work, args=(asked, answered), daemon=True)
    thread.start()
    ask = lambda number: (asked.put(number), answered.get())  # noqa: E731
    ask(1)
    _, state = looked_at(lambda held: 0)
    state.capture()
    assert state.reasons == []
    ask(2)
    state.capture()
    told = list(state.reasons)
    asked.put(None)
    thread.join()
    expected = "counts_for_itself().count changes while training runs, and is a variable of a thread"
    assert len(told) == (work is counts_for_itself)
    assert all(expected in reason for reason in told)


def test_a_module_that_comes_while_training_runs_is_named_if_what_it_holds_changes():
    late = types.ModuleType("late")
    exec("losses, limit = [], 3\ndef mean(): return sum(losses) / limit", vars(late))
    modules = [sys.modules[__name__]]
    state = UserState(Roots({"callbacks": [Held()]}), modules, lambda variable: False, {}, modules_now=lambda: modules)
    modules = [*modules, late]
    state.capture()
    assert state.reasons == []
    late.losses.append(1.0)
    state.capture()
    assert [reason.partition(" ")[0] for reason in state.reasons] == ["late.losses"]
