"""Places between the samples of a topic, and samples on their way to training that know theirs."""

from __future__ import annotations

import dataclasses
from typing import Any

from experiments_manager.kafka.reading.decoding import Samples
from experiments_manager.kafka.reading.rotation import Position


@dataclasses.dataclass(frozen=True)
class SamplePosition:
    """A place between two samples of a topic.

    Attributes:
        records: The place between two records at which reading goes on.
        skip: Samples after it that were used already.
        window: Number of the shuffled window that begins there.
        records_read: Records before it that were read; of a bounded topic in this pass.
        bad: Those of them that could not be decoded.
    """

    records: Position
    skip: int = 0
    window: int = 0
    records_read: int = 0
    bad: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` takes."""
        return {**dataclasses.asdict(self), "records": self.records.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SamplePosition:
        """Read what `to_json` gave."""
        return cls(**{**data, "records": Position.from_json(data["records"])})


@dataclasses.dataclass
class Chunk:
    """Some samples on their way to training.

    Attributes:
        leaves: Their arrays.
        first: Number of the first sample since the reader began; negative where it was used before.
        start: The place before it.
        samples: To find a place inside, where they are in the order of the topic; `None` in a shuffled window.
    """

    leaves: list[Any]
    count: int
    first: int
    start: SamplePosition
    samples: Samples | None
    nbytes: int

    def place(self, taken: int) -> SamplePosition:
        """Return the place after so many samples of the reader."""
        inside = taken - self.first
        if self.samples is None or inside == 0:
            return dataclasses.replace(self.start, skip=self.start.skip + inside)
        records, skip = self.samples.place(inside)
        read = int((self.samples.ends <= inside).sum())
        bad = sum(index < read for index in self.samples.bad)
        return SamplePosition(records, skip, records_read=self.start.records_read + read, bad=self.start.bad + bad)
