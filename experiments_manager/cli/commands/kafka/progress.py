"""How far a sending is: a bar in place on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from experiments_manager.common.quantities import format_bytes, format_duration
from experiments_manager.kafka.producing.production import Plan
from experiments_manager.kafka.producing.production import Progress as Sent
from experiments_manager.monitoring.progress_bar import LastingStream

REDRAW_SECONDS = 0.1
LINE_SECONDS = 10.0


class SendingProgress:
    """Shows a sending on a stream.

    Args:
        stream: Where.
        plan: What is sent.
        samples: How many samples an epoch has, if that is known.
        quiet: Whether to show only sentences and not how far it is.
    """

    def __init__(self, stream: TextIO, plan: Plan, samples: int | None, *, quiet: bool = False) -> None:
        self._console = Console(file=LastingStream(stream), highlight=False, soft_wrap=True)
        self._plan, self._quiet = plan, quiet
        total = samples * plan.epochs if samples and plan.epochs else None
        self._records = -(-samples // plan.samples_per_record) * plan.epochs if samples and plan.epochs else None
        self._moves = not quiet and self._console.is_terminal and not self._console.is_dumb_terminal
        self._bar = Progress(
            TextColumn(plan.topic, markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=8, max_width=40)),
            TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True)),
            console=self._console,
            auto_refresh=False,
            transient=True,
        )
        self._task = self._bar.add_task("", total=self._records if total else None, text="")
        self._shown = time.monotonic()
        self._before = (self._shown, 0)
        self._rate = 0.0

    def __enter__(self) -> SendingProgress:
        if self._moves:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._moves:
            self._bar.stop()

    def tell(self, text: str) -> None:
        """Write a sentence."""
        self._console.print(text, markup=False)

    def show(self, sent: Sent) -> None:
        """Show how far it is, if it is time to."""
        now = time.monotonic()
        if self._quiet or now - self._shown < (REDRAW_SECONDS if self._moves else LINE_SECONDS):
            return
        self._shown = now
        if now - self._before[0] >= 1.0:
            self._rate = (sent.samples - self._before[1]) / (now - self._before[0])
            self._before = (now, sent.samples)
        if self._moves:
            self._bar.update(self._task, completed=sent.already_there + sent.records, text=self._text(sent))
            self._bar.refresh()
        else:
            self._console.print(f"{sent.topic}: {self._text(sent)}", markup=False)

    def finish(self, sent: Sent, finished: bool) -> None:
        """Sum up."""
        if self._moves:
            self._bar.stop()
        if self._quiet:
            return
        partitions = f"{sent.partitions} partition{'s' * (sent.partitions != 1)}"
        text = (
            f"{'Sent' if finished else 'Stopped; sent'} to topic {sent.topic}, {partitions}: {sent.samples:,} samples "
            f"in {sent.records:,} records, {format_bytes(sent.bytes)}, {format_duration(sent.seconds)}, "
            f"{sent.rate:,.0f} samples/s"
        )
        self._console.print(text, markup=False)

    def _text(self, sent: Sent) -> str:
        epochs = "" if self._plan.epochs is None else f"/{self._plan.epochs}"
        rate = self._rate or sent.rate
        parts = [f"epoch {sent.epoch}{epochs}", f"{sent.records:,} records acknowledged", f"{rate:,.0f} samples/s"]
        if self._records and sent.records and sent.seconds > 1:
            left = (self._records - sent.already_there - sent.records) * sent.seconds / sent.records
            parts.append(f"{format_duration(max(left, 0))} left")
        return "  ".join(parts)
