"""`experiments_manager data`: one file a verb."""

from __future__ import annotations

import typer

from experiments_manager.cli.commands.data.coco_to_tfrecord import coco_to_tfrecord
from experiments_manager.cli.commands.data.csv_to_coco import csv_to_coco

data = typer.Typer(
    help="Convert data sets, and check all of them on the way.", no_args_is_help=True, rich_markup_mode=None
)
for command in (csv_to_coco, coco_to_tfrecord):
    data.command()(command)
