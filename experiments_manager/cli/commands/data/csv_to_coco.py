"""`experiments_manager data csv-to-coco`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments_manager.cli import options
from experiments_manager.cli.commands.data.progress import ImageFolder, show_result, shown_progress
from experiments_manager.common.errors import CommandLineError


def csv_to_coco(
    annotations: Annotated[
        Path,
        typer.Argument(
            metavar="ANNOTATIONS",
            help="CSV file: image, class, xmin, ymin, xmax, ymax, in pixels, and optionally mask, mask_value, split.",
        ),
    ],
    categories: Annotated[Path, typer.Argument(metavar="CATEGORIES", help="CSV file: name, and optionally id.")],
    images: ImageFolder,
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="New folder for one COCO JSON file a split.")],
    mask_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the masks. By default IMAGES."),
    ] = None,
    split: Annotated[
        list[str],
        typer.Option(
            "--split",
            metavar="NAME=SHARE",
            help="Share of the images. By default train=0.8, validation=0.1, test=0.1, or the column `split`.",
        ),
    ] = [],  # noqa: B006  (typer copies it)
    seed: Annotated[int, typer.Option(metavar="N", help="Another one gives other splits.")] = 0,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Convert boxes in CSV to COCO JSON, split by image.

    A column `mask` names image files of the objects' masks, `mask_value` the value of their pixels there.
    Tables, images, boxes and masks are checked first: all that is wrong is told at once, and nothing is written.
    """
    from experiments_manager.data.detection import conversion

    shares = _shares(split)
    with shown_progress(quiet=quiet) as progress:
        summaries = conversion.csv_to_coco(
            annotations,
            categories,
            images,
            output,
            mask_dir=mask_dir,
            shares=shares or None,
            seed=seed,
            progress=progress,
        )
    show_result(summaries, output, json=json, quiet=quiet)


def _shares(given: list[str]) -> dict[str, float]:
    shares = {}
    for text in given:
        name, _, share = text.partition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            shares[name] = 0.0
        if not name.isidentifier() or not 0 < shares[name] <= 1:
            raise CommandLineError(f"Invalid --split. Expected NAME=SHARE such as train=0.8, got {text}. Correct it.")
    return shares
