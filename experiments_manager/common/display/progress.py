"""How far something is: a line that moves in place on a terminal, plain lines now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

REDRAW_SECONDS = 0.1
LINE_SECONDS = 10.0


class ProgressDisplay:
    """A bar with a text on a terminal, lines elsewhere, and sentences above either.

    It draws in the calling thread, and only when it is told something, so it takes next to no time from what it shows.
    The caller asks `is_due` before it makes a text. rich is imported by the first drawing.

    Args:
        stream: Where; standard error by default.
        quiet: Whether to show only sentences and not how far it is.
        line_seconds: The least time between two lines, where there is no terminal.
        clock: Tells the time in seconds.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        quiet: bool = False,
        line_seconds: float = LINE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = LastingStream(sys.stderr if stream is None else stream)
        self.quiet, self.clock = quiet, clock
        self.moves = is_terminal(self._stream)
        """Whether it moves in place."""
        self._interval = REDRAW_SECONDS if self.moves else line_seconds
        self._shown_at = clock()
        self._live: Live | None = None

    def __enter__(self) -> ProgressDisplay:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def is_due(self) -> bool:
        """Return whether it is time to show something."""
        return not self.quiet and self.clock() - self._shown_at >= self._interval

    def show(
        self,
        place: str,
        text: str,
        *,
        done: float = 0.0,
        total: float | None = None,
        bar: bool = True,
        below: Any = None,
    ) -> None:
        """Show how far it is.

        Args:
            place: What, or where in it.
            text: How it goes; on a terminal, what does not fit into the line is left out.
            done: How much is done.
            total: Of how much; `None` where nobody knows.
            bar: Whether there is a bar.
            below: What rich draws under the line, on a terminal.
        """
        if self.quiet:
            return
        self._shown_at = self.clock()
        if self.moves:
            self._draw(_line(place, text, done, total, bar), below)
        else:
            self.say("  ".join(part for part in (place, text) if part))

    def say(self, text: str) -> None:
        """Write a sentence on a line of its own, as it is."""
        if self._live is not None:
            self._live.console.print(text, markup=False)
        else:
            self._stream.write(f"{text}\n")
            self._stream.flush()

    def close(self) -> None:
        """Clear the line of the display."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _draw(self, line: Any, below: Any) -> None:
        from rich.console import Group
        from rich.live import Live

        if self._live is None:
            # What others write to a terminal goes above the line; what they write to a file stays theirs.
            redirect = is_terminal(sys.stdout)
            self._live = Live(
                console=_console(self._stream), auto_refresh=False, transient=True, redirect_stdout=redirect
            )
            self._live.start()
        self._live.update(line if below is None else Group(line, below), refresh=True)


def _console(stream: LastingStream) -> Console:
    from rich.console import Console

    return Console(file=stream, highlight=False, soft_wrap=True)


def _line(place: str, text: str, done: float, total: float | None, bar: bool) -> Any:
    from rich.progress_bar import ProgressBar
    from rich.table import Column, Table
    from rich.text import Text

    cells = [(Column(no_wrap=True), Text(place))] if place else []
    if bar:
        shown = ProgressBar(total=total, completed=done, pulse=total is None)
        cells.append((Column(ratio=1, min_width=8, max_width=40), shown))
    cells.append((Column(ratio=4, no_wrap=True), Text(text)))
    grid = Table.grid(*(column for column, _ in cells), padding=(0, 1, 0, 0), expand=True)
    grid.add_row(*(cell for _, cell in cells))
    return grid


def is_terminal(stream: Any) -> bool:
    """Return whether a stream is a terminal that can draw a line anew; what can merely be written to is none."""
    has = getattr(stream, "isatty", None)
    return has is not None and has() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


class LastingStream:
    """Writes to a stream until that fails, then to nowhere: a closed terminal must not stop a run."""

    def __init__(self, stream: TextIO) -> None:
        """Wrap a text stream."""
        self._stream = stream
        self._is_gone = False

    def write(self, text: str) -> int:
        """Write if the stream still takes it."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush if the stream still takes it."""
        self._try(self._stream.flush)

    def isatty(self) -> bool:
        """Return whether the stream is a terminal; what somebody has put in the place of one may not know."""
        return getattr(self._stream, "isatty", lambda: False)()

    def fileno(self) -> int:
        """Return number of the underlying file."""
        return self._stream.fileno()

    @property
    def encoding(self) -> str:
        """Encoding of the stream: tells rich which characters it may draw with."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def _try(self, action: Callable[[], object]) -> None:
        if self._is_gone:
            return
        try:
            action()
        except (OSError, ValueError):  # ValueError: the stream was closed.
            self._is_gone = True
