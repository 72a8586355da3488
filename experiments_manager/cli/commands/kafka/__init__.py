"""`experiments_manager kafka`: one file a verb."""

from __future__ import annotations

import typer

from experiments_manager.cli.commands.kafka.demo import demo
from experiments_manager.cli.commands.kafka.inspect import inspect
from experiments_manager.cli.commands.kafka.produce import produce

kafka = typer.Typer(
    help="Send samples to Kafka topics, and look at what topics hold.", no_args_is_help=True, rich_markup_mode=None
)
for command in (produce, inspect, demo):
    kafka.command()(command)
