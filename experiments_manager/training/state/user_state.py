"""The user's state: what their objects hold, written into checkpoints and put back in place.

Before the first step, what is reachable (`user_objects.py`) is looked at. A checkpoint holds what is small, and what
has changed since; what has changed and cannot be written is a reason why a resume is not exact, and has a name.

Python that produces the data runs ahead of the steps. What it alone can see is therefore written as it was when the
pass through the data was opened: a resume reads from there, and it comes to be what it was.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from experiments_manager.training.state.looks import UNSEEN, is_comparable, is_large, is_opaque, look
from experiments_manager.training.state.plain_restore import Unpacker
from experiments_manager.training.state.plain_state import (
    LIVE,
    NotSerializableError,
    Packer,
    TracedValueError,
)
from experiments_manager.training.state.plain_values import is_users
from experiments_manager.training.state.threads import variables_of_threads
from experiments_manager.training.state.user_objects import Slot, UserObjects

PREFIX = "user/"
"""Begins the names of tensors in a checkpoint that belong to the user's state."""
OPENING = "user/opening/"
_SMALL = 200
"""Characters of a look up to which a value is written although it has not changed."""
_LONG = 0.002
"""Seconds from which a look at a value that has never changed takes long."""
_TEXTS = ("__text__", "__path__")
_SHARE = 100
"""Such a look may take one part in so many of the time."""
_OF_A_THREAD = "changes while training runs, and is a variable of a thread, which starts anew"
_OF_A_LATE_MODULE = "changes, and its module came while training ran: import it where the settings file begins"
_ORDER_OF_A_SET = (
    "changes, and holds a set that would give its elements in another order if it was filled again: take a dictionary "
    "(`dict.fromkeys(…)`)"
)
_WATCHED = ("callbacks", "model", "loss", "metrics")
"""Roots whose objects decide how training goes on, even where they cannot be looked into."""


@dataclasses.dataclass(frozen=True)
class Roots:
    """Where the walk begins, by name."""

    training: Mapping[str, Any]
    """What the loop calls: callbacks, model, loss, metrics."""
    opening: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What is called to open a pass through the training data."""
    reading: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Python that reads the training data, ahead of the steps."""
    others: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Further hooks, and the validation data."""


@dataclasses.dataclass(frozen=True)
class Saved:
    """Values of slots, as plain data (JSON)."""

    values: list[list[Any]]
    """Name of the holder, name of the part (`None`: all of it), value."""
    gone: list[list[Any]]
    """Names of holders and parts that are no more."""

    def to_json(self) -> dict[str, Any]:
        """Return the state of the user's objects as plain data."""
        return dataclasses.asdict(self)


class UserState:
    """What is reachable from the user's objects.

    Args:
        roots: Where to begin.
        modules: The user's.
        in_state: Says of a variable whether it is part of the state of the run anyway.
        overrides: Settings that were changed from outside; where they are others than before, what followed from the
            settings is not put back.
        reads_in_parallel: Whether several threads read the training data.
        modules_now: Gives the user's modules again, with those that were imported since.
    """

    def __init__(
        self,
        roots: Roots,
        modules: Collection[types.ModuleType],
        in_state: Callable[[Any], bool],
        overrides: Mapping[str, Any],
        *,
        reads_in_parallel: bool = False,
        modules_now: Callable[[], Collection[types.ModuleType]] = tuple,
    ) -> None:
        self._modules, self._named = modules_now, {module.__name__ for module in modules}
        self._in_state, self._reads_in_parallel = in_state, reads_in_parallel
        asked = {name: value for name, value in overrides.items() if not name.endswith("data_dir")}
        self._overrides = json.loads(json.dumps(asked, default=str))
        named_modules = {module.__name__: module for module in modules}
        everything = {**roots.training, **roots.opening, **roots.reading, **roots.others, **named_modules}
        self._objects = UserObjects(everything, modules)
        self._paths = {id(holder): path for path, holder in self._objects.holders.items()}
        trained, opened, read = (
            UserObjects(part, modules, follow_globals=True).keys()
            for part in (roots.training, roots.opening, roots.reading)
        )
        self._read, self._read_alone, self._at_opening = read, read - trained, read | opened
        self._base: dict[str, str] = {}
        self._changed: set[str] = set()
        self._costs: dict[str, tuple[float, float]] = {}
        self._last: dict[str, str] = {}
        self._opening: tuple[Saved, dict[str, tf.Tensor], dict[str, str]] | None = None
        self._reasons: dict[str, str] = {}
        self._elsewhere: dict[tuple[str, bool], str] = {}
        self._looked, self._cost, self._looked_at = -1e9, 0.0, set()
        for path, error in self._objects.unseen.items():
            self._reasons[path] = f"cannot be looked into: {error}"
        self._first = {slot.path: slot for slot, _ in self._objects.slots()}
        for slot, value in self._objects.slots():
            self._base[slot.path] = text = self._look(slot, value)
            is_watched = slot.path.startswith(_WATCHED) or slot.key in trained
            if is_opaque(text) and is_watched and is_told(slot):
                self._reasons[slot.path] = "cannot be looked into, so no checkpoint can hold what it remembers"
        self._look_elsewhere()
        self._costs = {path: (cost, 0.0) for path, (cost, _) in self._costs.items()}  # the first one after it is due

    @property
    def reasons(self) -> list[str]:
        """Why a resume is not exact, as far as that was found."""
        return [f"{path} {why}" for path, why in self._reasons.items()]

    def look(self) -> None:
        """Look for what has changed and cannot be written, unless that would take more than a part of the time."""
        if time.monotonic() - self._looked > _SHARE * self._cost:
            self.capture()

    def capture(self) -> tuple[dict[str, Any], dict[str, tf.Tensor]]:
        """Return the state as plain data (JSON), and tensors by name."""
        began = time.perf_counter()
        packer = Packer(PREFIX, self._in_state, self._objects.names)
        seen: dict[str, str] = {}
        saved = self._packed(packer, lambda slot: True, seen)
        self._look_elsewhere()
        plain: dict[str, Any] = {"now": saved.to_json(), "base": self._base, "overrides": self._overrides}
        tensors = dict(packer.tensors)
        if self._opening is not None:
            self._compare_with_opening(seen)
            plain["opening"], tensors = self._opening[0].to_json(), tensors | self._opening[1]
            plain["reads"] = self._reading_changes(seen)
        self._looked, self._cost = time.monotonic(), time.perf_counter() - began
        return plain, tensors

    def opens_pass(self) -> None:
        """Take note that a pass through the training data begins."""
        self.has_read()
        self._opening = None
        if self._at_opening:
            packer, seen = Packer(OPENING, self._in_state, self._objects.names), {}
            saved = self._packed(packer, lambda slot: slot.key in self._at_opening, seen)
            self._opening = saved, dict(packer.tensors), seen

    def has_read(self) -> None:
        """Look for what changed while the pass was read, before anything else happens."""
        if self._opening is not None and self._read:
            self._compare_with_opening(
                {slot.path: self._look(slot, value) for slot, value in self._objects.slots() if slot.key in self._read}
            )

    def closes_pass(self) -> None:
        """Take note that it is over."""
        self._opening = None

    def has_been_looked_at(self) -> None:
        """Take note that what changed since `opens_pass` changed because somebody looked at the data."""
        self._looked_at = {
            slot.path for slot, value in self._objects.slots() if self._look(slot, value) != self._base.get(slot.path)
        }

    def put_back_looks(self) -> None:
        """Put back what looking at a first batch changed."""
        if self._opening is not None:
            saved, tensors, _ = self._opening
            plain = {"base": self._base, "overrides": self._overrides}
            self._put_back(saved, plain, tensors, lambda slot: slot.path in self._looked_at)

    def put_back_opening(self, plain: Mapping[str, Any], tensors: Mapping[str, tf.Tensor]) -> None:
        """Put back what was there when the pass was opened that the state is from, if it is from within one."""
        if "opening" in plain:
            self._put_back(Saved(**plain["opening"]), plain, tensors, lambda slot: True)

    def put_back(self, plain: Mapping[str, Any], tensors: Mapping[str, tf.Tensor]) -> None:
        """Put back what `capture` gave, all but what reading the data brings about itself."""
        replays = "opening" in plain
        self._put_back(
            Saved(**plain["now"]), plain, tensors, lambda slot: not (replays and slot.key in self._read_alone)
        )

    def _look_elsewhere(self) -> None:
        """Name what changes where no checkpoint reaches: variables of threads, modules that came while training ran."""
        for path, value in variables_of_threads(self._objects.is_own):
            self._name_if_changed(path, value, _OF_A_THREAD)
        late = [module for module in self._modules() if module.__name__ not in self._named]
        for slot, value in UserObjects({module.__name__: module for module in late}, late).slots() if late else ():
            if id(slot.holder) not in self._paths:
                self._name_if_changed(slot.path, value, _OF_A_LATE_MODULE, content=slot.name is None)

    def _name_if_changed(self, path: str, value: Any, why: str, *, content: bool = False) -> None:
        try:
            text = look(value, self._in_state, self._objects.names, content=content)
        except Exception:  # whatever the code of others raises
            text = UNSEEN
        if self._elsewhere.setdefault((path, content), text) != text:
            self._reasons[path] = why

    def _look(self, slot: Slot, value: Any) -> str:
        cost, when = self._costs.get(slot.path, (0.0, 0.0))
        may_wait = cost > _LONG and slot.path not in self._changed and not isinstance(value, Iterator)
        if may_wait and time.monotonic() - when < _SHARE * cost:
            return self._last[slot.path]
        began = time.thread_time()
        try:
            text = look(value, self._in_state, self._objects.names, content=slot.name is None)
        except Exception:  # whatever the code of others raises
            text = UNSEEN
        self._costs[slot.path] = time.thread_time() - began, time.monotonic()
        self._last[slot.path] = text
        if text != self._base.get(slot.path, text):
            self._changed.add(slot.path)
        return text

    def _packed(self, packer: Packer, is_wanted: Callable[[Slot], bool], seen: dict[str, str]) -> Saved:
        """Pack what is small or has changed; note the looks of all that is wanted in `seen`."""
        values: list[list[Any]] = []
        for slot, value in self._objects.slots():
            if not is_wanted(slot):
                continue
            seen[slot.path] = text = self._look(slot, value)
            changed = text != self._base.get(slot.path)
            if not changed and is_large(text):
                continue
            packer.loses_order = False
            try:
                packed = packer.content(value) if slot.name is None else packer.attribute(value)
            except TracedValueError:
                continue
            except Exception as error:  # whatever the code of others raises
                if changed and is_told(slot):
                    self._reasons[slot.path] = f"changes while training runs, and no checkpoint can hold it: it {error}"
                continue
            if changed and packer.loses_order and is_told(slot):
                self._reasons[slot.path] = _ORDER_OF_A_SET
            if LIVE not in (packed, packed["value"] if isinstance(packed, dict) and "value" in packed else None):
                values.append([self._paths[id(slot.holder)], slot.name, packed, changed])
        gone = [slot for path, slot in self._first.items() if path not in seen and is_wanted(slot)]
        return Saved(values, [[self._paths[id(slot.holder)], slot.name] for slot in gone if slot.name is not None])

    def _reading_changes(self, seen: Mapping[str, str]) -> bool:
        """Return whether reading has changed anything since the pass was opened."""
        alone = (slot.path for slot, _ in self._objects.slots() if slot.key in self._read_alone)
        return any(seen.get(path) != self._opening[2].get(path) for path in alone)

    def _compare_with_opening(self, seen: Mapping[str, str]) -> None:
        """Name what both the reader of the data and others can see, and what changed within a pass."""
        before, concerned = self._opening[2], self._read - self._read_alone
        concerned = self._read if self._reads_in_parallel else concerned
        for slot, _ in self._objects.slots():
            path = slot.path
            if slot.key in concerned and path in seen and seen[path] != before.get(path):
                self._reasons[path] = (
                    "changes within a pass through the training data, whose Python reads it ahead of the steps"
                )

    def _put_back(
        self,
        saved: Saved,
        plain: Mapping[str, Any],
        tensors: Mapping[str, tf.Tensor],
        is_wanted: Callable[[Slot], bool],
    ) -> None:
        unpacker = Unpacker(tensors, self._objects.objects)
        written = set()
        for path, name, packed, changed in saved.values:
            holder = self._objects.holders.get(path)
            slot = Slot.of(path, holder, name) if holder is not None else None
            written.add(slot.path if slot else path)
            wanted = slot is not None and is_wanted(slot) and self._is_due(slot.path, packed, changed, plain)
            try:
                if slot is None and changed:
                    raise NotSerializableError("it is not there any more")
                if name is not None:
                    value = unpacker.unpack(packed)
                if wanted and name is None:
                    unpacker.put(packed, holder)
                elif wanted:
                    slot.set(value)
            except Exception as error:  # whatever the code of others raises, and bytes that others look at
                self._reasons[slot.path if slot else path] = f"could not be put back: {error}"
        for path, name in saved.gone:
            holder = self._objects.holders.get(path)
            if holder is not None and is_wanted(slot := Slot.of(path, holder, name)):
                with contextlib.suppress(AttributeError, ValueError):
                    slot.remove()
        self._compare_with_former(plain, written)

    def _is_due(self, path: str, packed: Any, changed: bool, plain: Mapping[str, Any]) -> bool:
        """Return whether a value is to be put back that may be another one in this process from the start."""
        fresh, base = self._base.get(path), plain["base"].get(path)
        if fresh is None or base is None or fresh == base:
            return True
        if plain["overrides"] != self._overrides:
            return False  # what was asked for now
        value = packed["value"] if isinstance(packed, dict) and "__at__" in packed else packed
        is_text = isinstance(value, str) or (isinstance(value, dict) and not value.keys().isdisjoint(_TEXTS))
        return changed or not is_text  # such as a path, which is another one on another machine

    def _compare_with_former(self, plain: Mapping[str, Any], written: Collection[str]) -> None:
        """Name what is too large to be written unless it changes, and is another one than in the process before."""
        for path, base in plain["base"].items():
            fresh = self._base.get(path)
            differs = is_comparable(base) and fresh not in (None, base) and path not in written
            if differs and plain["overrides"] == self._overrides:
                self._reasons.setdefault(path, "is another one than it was when the run began")


def is_told(slot: Slot) -> bool:
    """Return whether it is said what of it cannot be written: Keras' own callbacks begin again as they always did."""
    return not isinstance(slot.holder, keras.callbacks.Callback) or is_users(type(slot.holder))
