"""`experiments_manager kafka produce`."""

from __future__ import annotations

import contextlib
import enum
import re
import shlex
import socket
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments_manager.cli import options
from experiments_manager.cli.commands.kafka.options import Servers, connection_of
from experiments_manager.common.console import warn
from experiments_manager.common.display.quantities import format_bytes, format_duration
from experiments_manager.common.errors import CommandLineError
from experiments_manager.common.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from experiments_manager.common.display.progress import ProgressDisplay
    from experiments_manager.kafka.connection import BrokerConnection
    from experiments_manager.kafka.producing.production import Plan, ProductionProgress
    from experiments_manager.settings import Settings

ENDLESS = "endless"


class ProducedSplits(str, enum.Enum):
    """The splits that `kafka produce` sends."""

    TRAIN = "train"
    VALIDATION = "validation"
    BOTH = "both"


def produce(
    settings: options.SettingsFile,
    overrides: options.Overrides = [],  # noqa: B006  (typer copies it)
    split: Annotated[
        ProducedSplits | None, typer.Option(help="Which data are sent: both, by default; with --topic, train.")
    ] = None,
    epochs: Annotated[
        str, typer.Option(metavar="N|endless", help="How often the data are sent; of both splits, those of train.")
    ] = "1",
    topic: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Send there, instead of to kafka_topics or SESSION_NAME[PROC_ID].SPLIT."),
    ] = None,
    partitions: Annotated[int, typer.Option(min=1, metavar="P", help="Partitions of a topic that is made.")] = 1,
    servers: Servers = None,
    proc_id: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Number of this producer among several; its topics and its records bear it."
        ),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(metavar="HZ", help="Send so many samples a second; as fast as possible by default.")
    ] = None,
    samples_per_record: Annotated[
        int, typer.Option(min=1, max=65535, metavar="N", help="Samples that share a record.")
    ] = 1,
    resume: Annotated[
        bool, typer.Option("--resume", help="Send only what an earlier, interrupted call of this command did not.")
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Send the samples of `dataset` to Kafka topics.

    Ctrl-C stops it when all that was sent has arrived; --resume goes on from there.
    """
    from experiments_manager import api
    from experiments_manager.cli.training_session import start_engine
    from experiments_manager.common.signals import StopRequested, stop_signals
    from experiments_manager.kafka.connection import confluent_kafka

    splits = _splits(split, topic)
    count = _epochs(epochs)
    if rate is not None and not 0 < rate < float("inf"):
        raise CommandLineError(f"Invalid --rate. Expected a number above 0, got {rate:g}. Correct it, or leave it out.")
    output = start_engine(json=json, debug=debug)
    confluent_kafka()
    loaded = api.load_settings(settings, overrides)
    plans = {
        name: _plan(loaded, name, topic, proc_id)(
            # Validation data do not grow: one of each is enough where both are sent.
            epochs=1 if name == "validation" and len(splits) == 2 else count,
            partitions=partitions,
            samples_per_record=samples_per_record,
            rate=rate,
            resume=resume,
        )
        for name in splits
    }
    results: list[dict[str, Any]] = []
    state = "failed"
    try:
        with stop_signals() as stop:
            _send_all(loaded, connection_of(loaded, servers), plans, stop, results, quiet)
        state = "finished" if all(result["finished"] for result in results) else "interrupted"
    except StopRequested:
        state = "interrupted"
    finally:
        if output:
            output.write({"state": state, "topics": results})
    if state == "interrupted":
        arguments = [*sys.argv[1:], *([] if resume else ["--resume"])]
        warn(f"To go on: {shlex.join(['experiments_manager', *arguments])}")
        raise typer.Exit(ExitCode.INTERRUPTED)


def _send_all(
    settings: Settings,
    connection: BrokerConnection,
    plans: dict[str, Plan],
    stop: Any,
    results: list[dict[str, Any]],
    quiet: bool,
) -> None:
    """Send one split after the other."""
    from experiments_manager.kafka.topics import Topics

    with stop.interruptible():
        Topics(connection).names()  # before TensorFlow is imported: an address that is wrong shows soon
        from experiments_manager.training.feeds.topics.sample_source import prepare, sample_source

        prepare(settings)
    for split, plan in plans.items():
        with stop.interruptible():
            source = sample_source(settings, split)
        if source is None:
            _no_data(settings, split, alone=len(plans) == 1)
            continue
        results.append(send_split(connection, source, plan, stop, quiet))
        if not results[-1]["finished"]:
            return


def send_split(
    connection: BrokerConnection, source: Any, plan: Plan, stop: Callable[[], bool], quiet: bool
) -> dict[str, Any]:
    """Send a split, show how far it is, and return what became of it."""
    from experiments_manager.common.display.progress import ProgressDisplay
    from experiments_manager.kafka.producing.production import Production

    with SendingProgress(ProgressDisplay(quiet=quiet), plan, source.samples) as display:
        production = Production(connection, source, plan, should_stop=stop, tell=display.tell, show=display.show)
        run = production.producer.run
        if plan.resume:
            display.tell(
                f"{run.arrived:,} records of producer {run.name} are in topic {plan.topic} already."
                if run.last
                else f"No record of producer {run.name} is in topic {plan.topic}: all samples are sent."
            )
        finished = production.run()
        display.finish(production.progress, finished)
        return _result(production.progress, finished)


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

    def show(self, sent: ProductionProgress) -> None:
        """Show how far it is, if it is time to."""
        if not self._display.is_due():
            return
        now = self._display.clock()
        if now - self._before[0] >= 1.0:
            self._rate = (sent.samples - self._before[1]) / (now - self._before[0])
            self._before = (now, sent.samples)
        self._display.show(sent.topic, self._text(sent), done=sent.already_there + sent.records, total=self._records)

    def finish(self, sent: ProductionProgress, finished: bool) -> None:
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

    def _text(self, sent: ProductionProgress) -> str:
        epochs = "" if self._plan.epochs is None else f"/{self._plan.epochs}"
        rate = self._rate or sent.rate
        parts = [f"epoch {sent.epoch}{epochs}", f"{sent.records:,} records acknowledged", f"{rate:,.0f} samples/s"]
        if self._records and sent.records and sent.seconds > 1:
            left = (self._records - sent.already_there - sent.records) * sent.seconds / sent.records
            parts.append(f"{format_duration(max(left, 0))} left")
        return "  ".join(parts)


def _result(progress: ProductionProgress, finished: bool) -> dict[str, Any]:
    return {
        "topic": progress.topic,
        "partitions": progress.partitions,
        "finished": finished,
        "samples": progress.samples,
        "records": progress.records,
        "records_before": progress.already_there,
        "bytes": progress.bytes,
        "seconds": progress.seconds,
        "rate": progress.rate,
    }


def _splits(split: ProducedSplits | None, topic: str | None) -> list[str]:
    if split is ProducedSplits.BOTH and topic is not None:
        raise CommandLineError(
            "--topic names one topic. Expected --split train or --split validation with it, got both. Send one split "
            "after the other, or name the topics in the setting `kafka_topics`."
        )
    chosen = split or (ProducedSplits.TRAIN if topic is not None else ProducedSplits.BOTH)
    # The few samples of the validation come first: whoever trains live needs them, and `endless` has no end.
    return ["validation", "train"] if chosen is ProducedSplits.BOTH else [chosen.value]


def _epochs(text: str) -> int | None:
    if text == ENDLESS:
        return None
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise CommandLineError(f"Invalid --epochs. Expected a number from 1 on or `{ENDLESS}`, got {text}. Correct it.")


def _plan(settings: Settings, split: str, topic: str | None, proc_id: int | None) -> Callable[..., Plan]:
    import functools

    from experiments_manager.kafka.producing.production import Plan
    from experiments_manager.kafka.topics import topic_name

    place = "" if proc_id is None else proc_id
    name = topic or settings.kafka_topics.get(split) or topic_name(settings.session_name, split, place)
    host = re.sub(r"[^A-Za-z0-9._-]", "_", socket.gethostname()) or "host"
    return functools.partial(Plan, name, producer=host if proc_id is None else str(proc_id))


def _no_data(settings: Settings, split: str, *, alone: bool) -> None:
    if alone or split == "train":
        from experiments_manager.training.errors import DataError

        raise DataError(
            f"dataset: there are no {split} data to send. Expected arrays, a `tf.data.Dataset` or a "
            f'`keras.utils.PyDataset` for the split "{split}", got None.',
            settings.location("dataset"),
        )
    with contextlib.suppress(OSError):
        warn(f"There are no {split} data, so none are sent.")
