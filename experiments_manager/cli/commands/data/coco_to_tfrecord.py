"""`experiments_manager data coco-to-tfrecord`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments_manager.cli import options
from experiments_manager.cli.commands.data.progress import ImageFolder, show_result, shown_progress


def coco_to_tfrecord(
    coco: Annotated[Path, typer.Argument(metavar="COCO", help="A COCO JSON file, or a folder of them, one a split.")],
    images: ImageFolder,
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="New folder for TFRecord files and the label map.")],
    masks: Annotated[
        bool, typer.Option("--masks", help="Write the masks of the objects too; each must have a segmentation.")
    ] = False,
    shards: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Files of each split. By default some 128 MiB make a file.")
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Convert COCO JSON and images to TFRecord.

    The keys are those of the TensorFlow object detection API. Annotations and images are checked first:
    all that is wrong is told at once, and nothing is written.
    """
    from experiments_manager.cli.quiet_tensorflow import silence_startup_logs
    from experiments_manager.data.detection import tfrecords

    if not debug:
        silence_startup_logs()
    with shown_progress(quiet=quiet) as progress:
        summaries = tfrecords.coco_to_tfrecord(coco, images, output, masks=masks, shards=shards, progress=progress)
    show_result(summaries, output, json=json, quiet=quiet)
