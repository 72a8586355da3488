"""What the conversions share: arguments, how far they are, and what they made."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments_manager.common.console import warn

if TYPE_CHECKING:
    from experiments_manager.data.detection import SplitSummary
    from experiments_manager.data.detection.image_files import Progress

LINE_SECONDS = 10.0

ImageFolder = Annotated[Path, typer.Argument(metavar="IMAGES", help="Folder that the images' names are relative to.")]


@contextlib.contextmanager
def shown_progress(*, quiet: bool) -> Iterator[Progress | None]:
    """Give a function that shows how far it is: a bar on a terminal, a line every ten seconds elsewhere."""
    if quiet:
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bars

    console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
    if console.is_terminal and not console.is_dumb_terminal:
        with Bars(console=console, transient=True) as bars:
            tasks: dict[str, object] = {}

            def show(what: str, done: int, total: int) -> None:
                task = tasks.get(what)
                if task is None:
                    task = tasks[what] = bars.add_task(what, total=total)
                bars.update(task, completed=done)

            yield show
        return
    shown = time.monotonic()

    def tell(what: str, done: int, total: int) -> None:
        nonlocal shown
        if time.monotonic() - shown > LINE_SECONDS:
            shown = time.monotonic()
            warn(f"{what}: {done:,} of {total:,}")

    yield tell


def show_result(summaries: Mapping[str, SplitSummary], output: Path, *, json: bool, quiet: bool) -> None:
    """Tell what each split holds."""
    if not quiet:
        for split, summary in summaries.items():
            warn(f"{split}: {summary.images:,} images, {summary.boxes:,} boxes")
        warn(f"Written to {output}")
    if json:
        from experiments_manager.cli.results import as_line

        splits = {split: dataclasses.asdict(summary) for split, summary in summaries.items()}
        typer.echo(as_line({"output": str(output), "splits": splits}), nl=False)
