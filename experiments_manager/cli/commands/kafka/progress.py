"""How far a sending is."""

from __future__ import annotations

from experiments_manager.common.display.progress import ProgressDisplay
from experiments_manager.common.display.quantities import format_bytes, format_duration
from experiments_manager.kafka.producing.production import Plan
from experiments_manager.kafka.producing.production import ProductionProgress as Sent


class SendingProgress:
    """Shows a sending on a stream.

    Args:
        display: Where.
        plan: What is sent.
        samples: How many samples an epoch has, if that is known.
    """

    def __init__(self, display: ProgressDisplay, plan: Plan, samples: int | None) -> None:
        self._display, self._plan = display, plan
        self._records = -(-samples // plan.samples_per_record) * plan.epochs if samples and plan.epochs else None
        self._before = (self._display.clock(), 0)
        self._rate = 0.0

    def __enter__(self) -> SendingProgress:
        return self

    def __exit__(self, *error: object) -> None:
        self._display.close()

    def tell(self, text: str) -> None:
        """Write a sentence."""
        self._display.say(text)

    def show(self, sent: Sent) -> None:
        """Show how far it is, if it is time to."""
        if not self._display.is_due():
            return
        now = self._display.clock()
        if now - self._before[0] >= 1.0:
            self._rate = (sent.samples - self._before[1]) / (now - self._before[0])
            self._before = (now, sent.samples)
        self._display.show(sent.topic, self._text(sent), done=sent.already_there + sent.records, total=self._records)

    def finish(self, sent: Sent, finished: bool) -> None:
        """Sum up."""
        self._display.close()
        if self._display.quiet:
            return
        partitions = f"{sent.partitions} partition{'s' * (sent.partitions != 1)}"
        text = (
            f"{'Sent' if finished else 'Stopped; sent'} to topic {sent.topic}, {partitions}: {sent.samples:,} samples "
            f"in {sent.records:,} records, {format_bytes(sent.bytes)}, {format_duration(sent.seconds)}, "
            f"{sent.rate:,.0f} samples/s"
        )
        self._display.say(text)

    def _text(self, sent: Sent) -> str:
        epochs = "" if self._plan.epochs is None else f"/{self._plan.epochs}"
        rate = self._rate or sent.rate
        parts = [f"epoch {sent.epoch}{epochs}", f"{sent.records:,} records acknowledged", f"{rate:,.0f} samples/s"]
        if self._records and sent.records and sent.seconds > 1:
            left = (self._records - sent.already_there - sent.records) * sent.seconds / sent.records
            parts.append(f"{format_duration(max(left, 0))} left")
        return "  ".join(parts)
