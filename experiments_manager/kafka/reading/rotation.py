"""The order in which records of several partitions are read: they take turns, one record each.

So the order follows from what the partitions hold, and not from when a broker sent it: whoever reads the same records
again, or goes on at a position, has the same order. It is also the order in which our producer wrote them.
"""

from __future__ import annotations

import bisect
import dataclasses
import time
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Position:
    """A place between two records of a topic.

    Attributes:
        offsets: The next offset of each partition.
        turn: The partition whose turn it is; the next one after it where it has nothing more.
    """

    offsets: Mapping[int, int]
    turn: int = 0

    def to_json(self) -> dict:
        """Return plain data that `from_json` takes."""
        return {"offsets": {str(number): offset for number, offset in self.offsets.items()}, "turn": self.turn}

    @classmethod
    def from_json(cls, data: Mapping) -> Position:
        """Make a position of what `to_json` returned."""
        return cls({int(number): offset for number, offset in data["offsets"].items()}, data["turn"])


@dataclasses.dataclass(frozen=True)
class FetchedRecords:
    """Some records in the order in which they are read.

    Attributes:
        values: Value of each record; `None` where it has none.
        partitions: Partition of each.
        offsets: Offset of each in its partition.
        start: The place before the first.
        end: The place after the last.
    """

    values: list[bytes | None]
    partitions: list[int]
    offsets: list[int]
    start: Position
    end: Position

    def position_after(self, count: int) -> Position:
        """Return the place after the first `count` records."""
        if count >= len(self.offsets):
            return self.end
        offsets = dict(self.start.offsets)
        for partition, offset in zip(self.partitions[:count], self.offsets[:count], strict=True):
            offsets[partition] = offset + 1
        return Position(offsets, self.partitions[count])


class _Partition:
    """What one partition has sent and whose turn has not come."""

    def __init__(self, offset: int) -> None:
        self.seen = offset
        self.offsets: list[int] = []
        self.values: list[bytes | None] = []
        self.is_finished = self.is_at_end = self.is_passed_over = False

    def next_offset(self) -> int:
        return self.offsets[0] if self.offsets else self.seen


class Rotation:
    """Brings records of several partitions into their order.

    Args:
        start: Where reading begins.
        patience: Seconds for which a partition that is at its end holds up the others; `None`: for ever. One that was
            passed over takes its turns again when it has something.
    """

    def __init__(self, start: Position, patience: float | None = None) -> None:
        self._partitions = {number: _Partition(offset) for number, offset in sorted(start.offsets.items())}
        self._turn, self._patience = start.turn, patience
        self._held_up_since: float | None = None
        self._last = Position(dict(start.offsets), start.turn)

    @property
    def position(self) -> Position:
        """The place after what was taken last."""
        return self._last

    @property
    def partitions(self) -> list[int]:
        """The partitions that take part."""
        return list(self._partitions)

    @property
    def is_finished(self) -> bool:
        """Whether every partition is finished and nothing waits."""
        return all(part.is_finished and not part.values for part in self._partitions.values())

    @property
    def holds_back(self) -> bool:
        """Whether records wait for another partition's turn."""
        return any(part.values for part in self._partitions.values())

    def seen(self, partition: int) -> int:
        """Return the offset up to which a partition has sent."""
        return self._partitions[partition].seen

    def waiting_bytes(self, partition: int) -> int:
        """Return about how much of a partition waits for its turn, going by its last record."""
        waiting = self._partitions[partition].values
        return len(waiting) * len(waiting[-1] or b"") if waiting else 0

    def join(self, partition: int, offset: int) -> None:
        """Let a further partition take part."""
        self._partitions[partition] = _Partition(offset)
        self._partitions = dict(sorted(self._partitions.items()))
        self._last = Position({**self._last.offsets, partition: offset}, self._last.turn)

    def add(self, partition: int, offsets: list[int], values: list[bytes | None], next_offset: int) -> None:
        """Take what a partition has sent; what it had sent before is left out.

        Args:
            partition: Its number.
            offsets: Of the records, ascending.
            values: Their values.
            next_offset: Where the partition goes on after them.
        """
        part = self._partitions[partition]
        fresh = bisect.bisect_left(offsets, part.seen) if offsets and offsets[0] < part.seen else 0
        if fresh:
            offsets, values = offsets[fresh:], values[fresh:]
        part.offsets += offsets
        part.values += values
        part.seen = max(part.seen, next_offset)
        if values:
            part.is_at_end = part.is_passed_over = False

    def at_end(self, partition: int) -> None:
        """Note that a partition holds nothing more at present."""
        self._partitions[partition].is_at_end = True

    def finish(self, partition: int) -> None:
        """Note that a partition will send nothing more."""
        self._partitions[partition].is_finished = True

    def take(self, *, whole_rounds: bool = False) -> FetchedRecords | None:
        """Return all records whose turn has come.

        Args:
            whole_rounds: Leave what is not one record of each partition, since more will come at once.
        """
        values: list[bytes | None] = []
        partitions: list[int] = []
        offsets: list[int] = []
        start = self._last
        while order := self._in_turn():
            parts = [self._partitions[number] for number in order]
            rounds = min(len(part.values) for part in parts)
            if rounds == 0:  # the first of them, up to the one that holds up the others
                ready = next(index for index, part in enumerate(parts) if not part.values)
                if (whole_rounds and ready) or (ready == 0 and not self._passes_over(parts)):
                    break
                order, parts, rounds = order[:ready], parts[:ready], 1
            if order:
                self._take_rounds(parts, rounds, (values, offsets))
                partitions += order * rounds
                self._turn, self._held_up_since = order[-1] + 1, None
        if not values:
            return None
        self._last = Position({number: part.next_offset() for number, part in self._partitions.items()}, self._turn)
        return FetchedRecords(values, partitions, offsets, start, self._last)

    def _in_turn(self) -> list[int]:
        """Return the partitions that hold up the others or have something, the one whose turn it is first."""
        numbers = [
            number
            for number, part in self._partitions.items()
            if part.values or not (part.is_finished or part.is_passed_over)
        ]
        first = next((index for index, number in enumerate(numbers) if number >= self._turn), 0)
        return numbers[first:] + numbers[:first]

    def _passes_over(self, parts: list[_Partition]) -> bool:
        """Pass over the first partition if it is at its end and has held up the others for long enough."""
        if self._patience is None or not parts[0].is_at_end or not any(part.values for part in parts):
            return False
        now = time.monotonic()
        self._held_up_since = self._held_up_since or now
        if now - self._held_up_since < self._patience:
            return False
        parts[0].is_passed_over, self._held_up_since = True, None
        return True

    @staticmethod
    def _take_rounds(parts: list[_Partition], rounds: int, into: tuple[list, list]) -> None:
        """Move one record of each partition in turn, `rounds` times."""
        width = len(parts)
        if width == 1 and rounds == len(parts[0].values):
            for target, name in zip(into, ("values", "offsets"), strict=True):
                target += getattr(parts[0], name)
                setattr(parts[0], name, [])
            return
        for target, name in zip(into, ("values", "offsets"), strict=True):
            taken: list = [None] * (width * rounds)
            for index, part in enumerate(parts):
                waiting = getattr(part, name)
                taken[index::width] = waiting[:rounds]
                del waiting[:rounds]
            target += taken
