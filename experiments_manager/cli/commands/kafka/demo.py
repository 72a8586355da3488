"""`experiments_manager kafka demo`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

from experiments_manager.cli import options
from experiments_manager.common.console import warn
from experiments_manager.common.exit_codes import ExitCode

if TYPE_CHECKING:
    from experiments_manager.kafka.connection import BrokerConnection
    from experiments_manager.settings import Settings

SPLITS = ("validation", "train")


def demo(
    settings: options.SettingsFile,
    overrides: options.Overrides = [],  # noqa: B006  (typer copies it)
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Send, train and report without a broker, for a first try.

    The broker is part of this process and ends with it. It keeps about 5 MB a partition, in memory, so it is for small
    data; `python3 tools/kafka_broker.py start` starts a real one.
    """
    from experiments_manager import api
    from experiments_manager.cli.results import run_summary
    from experiments_manager.cli.training_session import start_engine
    from experiments_manager.common.signals import StopRequested, stop_signals
    from experiments_manager.kafka.producing.mock_cluster import mock_cluster
    from experiments_manager.kafka.topics import topic_name

    output = start_engine(json=json, debug=debug)
    loaded = api.load_settings(settings, overrides)
    topics = {split: topic_name(loaded.session_name, split) for split in SPLITS}
    try:
        with mock_cluster(list(topics.values())) as connection, stop_signals() as stop, stop.interruptible():
            if not quiet:
                warn(f"A broker for tests runs in this process at {connection.servers[0]}; it keeps 5 MB a partition.")
            sent = _send(loaded, connection, topics, stop, quiet)
            changes = _changes(connection, {split: topics[split] if split in sent else None for split in SPLITS})
            result = api.train(api.load_settings(settings, [*overrides, *changes]), quiet=quiet, command=sys.argv)
    except StopRequested:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    page = api.report(result.run_dir)
    if not quiet:
        warn(f"Report {page}")
    if output:
        output.write(run_summary(api.load_run(result.run_dir)) | {"topics": list(sent.values()), "report": str(page)})
    if result.state == "interrupted":
        raise typer.Exit(ExitCode.INTERRUPTED)


def _send(
    settings: Settings, connection: BrokerConnection, topics: dict[str, str], stop: Any, quiet: bool
) -> dict[str, dict[str, Any]]:
    """Send the splits that there are; return what became of each."""
    from experiments_manager.cli.commands.kafka.produce import send_split
    from experiments_manager.kafka.producing.production import Plan
    from experiments_manager.kafka.topics import Topics
    from experiments_manager.training.feeds.topics.sample_source import prepare, sample_source

    prepare(settings)
    sent = {}
    for split, topic in topics.items():
        source = sample_source(settings, split)
        if source is None:
            continue
        sent[split] = send_split(connection, source, Plan(topic), stop, quiet)
        kept = Topics(connection).range_of(topic).offsets
        records = sent[split]["records"]
        if kept < records:
            warn(
                f"The broker for tests kept the newest {kept:,} of {records:,} records of topic {topic}, "
                "about 5 MB a partition. For all of them, start a real one: python3 tools/kafka_broker.py start"
            )
    return sent


def _changes(connection: BrokerConnection, topics: dict[str, str | None]) -> list[str]:
    """Return the overrides with which a training reads these topics once, whatever the settings say of Kafka."""
    return [
        "consume_data_from_kafka=True",
        f"kafka_bootstrap_servers={list(connection.servers)}",
        f"kafka_topics={topics}",
        "kafka_mode=bounded",
        "kafka_start=earliest",
        "kafka_format=native",
        "kafka_options={}",
    ]
