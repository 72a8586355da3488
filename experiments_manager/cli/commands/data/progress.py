"""What the conversions share: arguments, how far they are, and what they made."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments_manager.common.console import warn
from experiments_manager.common.display.progress import ProgressDisplay

if TYPE_CHECKING:
    from experiments_manager.data.detection import SplitSummary
    from experiments_manager.data.detection.image_files import Progress

ImageFolder = Annotated[Path, typer.Argument(metavar="IMAGES", help="Folder that the images' names are relative to.")]


@contextlib.contextmanager
def shown_progress(*, quiet: bool) -> Iterator[Progress]:
    """Give a function that shows how far it is: a bar on a terminal, a line every ten seconds elsewhere."""
    with ProgressDisplay(quiet=quiet) as display:

        def show(what: str, done: int, total: int) -> None:
            if display.is_due():
                display.show(what, f"{done:,} of {total:,}", done=done, total=total)

        yield show


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
