"""From the settings to the feed of a topic, and what run.json keeps of it: the range or the start, fixed once."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from experiments_manager.common.jsonable import to_jsonable
from experiments_manager.kafka.connection import BrokerConnection
from experiments_manager.kafka.errors import TopicError
from experiments_manager.kafka.reading.reader import load_structures, read_range, removed_error
from experiments_manager.kafka.reading.rotation import Position
from experiments_manager.kafka.topics import TopicRange, Topics, topic_name
from experiments_manager.settings import Settings
from experiments_manager.settings.value_checks import milliseconds
from experiments_manager.training.errors import DataError
from experiments_manager.training.feeds import array_feed
from experiments_manager.training.feeds.feed import Feed
from experiments_manager.training.feeds.topics.example_records import decoder_for
from experiments_manager.training.feeds.topics.topic_feed import TopicFeed
from experiments_manager.training.feeds.topics.topic_source import TopicSource, read_all

logger = logging.getLogger(__name__)

_PEEKED_BYTES = 2**25
_PEEKED_RECORDS = 100
"""Records that are looked at before training, to know what they hold."""
_NAMED_BY = 60
"""Characters of the run's folder in its name within a group; a commit holds some twenty of these names."""


class _InMemory:
    """The samples of a topic that fit into memory; a checkpoint says that all of them were read."""

    source: TopicSource

    def saved(self, position: dict[str, Any]) -> None:
        """Commit the end of the range to the consumer group."""
        self.source.commit(self.source.ends)

    def close(self) -> None:
        """Leave the group."""
        self.source.close()


class TopicArrays(_InMemory, array_feed.ArrayFeed):
    """An `ArrayFeed` whose arrays come from a topic."""


class AugmentedTopicArrays(_InMemory, array_feed.AugmentedFeed):
    """An `AugmentedFeed` whose arrays come from a topic."""


def topic_of(settings: Settings, split: str) -> str | None:
    """Return the topic from which a split comes; `None` where it comes from `dataset`."""
    if not settings.consume_data_from_kafka:
        return None
    if split in settings.kafka_topics or split == "test":
        return settings.kafka_topics.get(split)
    return topic_name(settings.session_name, split)


def topic_feed(
    settings: Settings,
    split: str,
    topic: str,
    run: Any = None,
    *,
    steps_per_epoch: int | None = None,
    augment: Callable[..., Any] | None = None,
    follow: bool = True,
    seed: int | None = None,
) -> Feed:
    """Return the feed of a topic.

    Args:
        settings: The experiment.
        split: `train`, `validation` or `test`.
        topic: Its topic.
        run: Keeps what of the topic is read, so that a resume reads the same; may be `None`.
        steps_per_epoch: Batches in an epoch.
        augment: The hook, or `None`.
        follow: Whether a live topic is followed, and the run told what is read; else it ends where it ends now.
        seed: Of the order of the samples; by default that of the settings.

    Raises:
        TopicError: The topic is missing, holds nothing, or not what the run began with.
    """
    connection = BrokerConnection(settings.kafka_bootstrap_servers, settings.kafka_options)
    kept = _kept(settings, connection, topic, split, run, follow)
    source = _source(settings, connection, topic, split, kept, run)
    common = {"split": split, "batch_size": settings.batch_size, "seed": settings.random_seed if seed is None else seed}
    shuffles = settings.shuffle and split == "train" and not source.is_live
    if kept["cached"] is not False and not source.is_live and follow:
        # What was in memory once is so in a resume: another way of reading would give another order.
        arrays = _cached(source, sys.maxsize if kept["cached"] else settings.kafka_cache, settings, split)
        if kept["cached"] is None:
            kept["cached"] = arrays is not None
            _keep(run if follow else None, split, kept)
        if arrays is not None:
            options = {**common, "shuffle": shuffles, "steps_per_epoch": steps_per_epoch}
            if augment is not None:
                feed = AugmentedTopicArrays(arrays, augment=augment, **options)
            else:
                feed = TopicArrays(arrays, **options)
            feed.source, feed.topic = source, topic
            return feed
    buffer = settings.kafka_shuffle_buffer if shuffles else 0
    return TopicFeed(source, steps_per_epoch=steps_per_epoch, shuffle=buffer, augment=augment, **common)


def keep_ranges(settings: Settings, run: Any) -> None:
    """Let a run keep what it reads of its topics, before any of them is read."""
    connection = BrokerConnection(settings.kafka_bootstrap_servers, settings.kafka_options)
    for split in ("train", "validation"):
        if (topic := topic_of(settings, split)) is not None:
            _kept(settings, connection, topic, split, run, True)


def _kept(
    settings: Settings, connection: BrokerConnection, topic: str, split: str, run: Any, follow: bool
) -> dict[str, Any]:
    """Return what of the topic is read: as run.json has it, else as the settings say and the topic is now."""
    topics = Topics(connection)
    known = (run.manifest.get("kafka") or {}).get(split) if run is not None else None
    try:
        now, topic_id = topics.range_of(topic), topics.id_of(topic)
    except TopicError as error:
        if split == "validation" and split not in settings.kafka_topics and "not found" in str(error):
            hint = "To validate on what `dataset` returns, set kafka_topics = {'validation': None}."
            raise TopicError(f"{error} {hint}") from error
        raise
    is_live = settings.kafka_mode == "live" and split == "train" and follow
    if known is not None and known["topic"] == topic:
        if follow and known["mode"] != ("live" if is_live else "bounded"):
            raise TopicError(
                f"kafka_mode: the run was started with {known['mode']!r}, and its place in topic {topic} belongs to "
                f"that. Expected the same, got {settings.kafka_mode!r}. Start a new run."
            )
        _require_same(known, now, topic_id, is_live or known["ends"] is None)
        if follow and split == "train":
            _tell_of_other_start(known, settings.kafka_start)
        return known if follow or known["ends"] is not None else {**known, "ends": _ends(now), "cached": False}
    start = {number: bounds[0] for number, bounds in now.bounds.items()}
    if split == "train" and settings.kafka_start == "latest":
        start = {number: bounds[1] for number, bounds in now.bounds.items()}
    elif split == "train" and settings.kafka_start != "earliest":
        start |= topics.offsets_at(topic, milliseconds(settings.kafka_start))
    ends = None if is_live else {number: bounds[1] for number, bounds in now.bounds.items()}
    if follow and ends is not None and all(start[number] >= end for number, end in ends.items()):
        raise TopicError(
            f"Topic {topic} holds no record{' from kafka_start on' if split == 'train' else ''}. Expected at least "
            "one. Produce it first (experiments_manager kafka produce SETTINGS), or set kafka_mode = 'live'."
        )
    kept = {
        "topic": topic,
        "topic_id": topic_id,
        "mode": "live" if is_live else "bounded",
        "start": {str(number): offset for number, offset in start.items()},
        "ends": None if is_live else _ends(now),
        "cached": None,
    }
    if split == "train":
        kept["kafka_start"] = to_jsonable(settings.kafka_start)
    if is_live and run is not None:
        kept["member"] = _member_name(run.path.name)
    _keep(run if follow else None, split, kept)
    return kept


def _tell_of_other_start(known: Mapping[str, Any], wanted: Any) -> None:
    """Say that a run which goes on does not begin elsewhere, where that is asked for."""
    began = known.get("kafka_start", to_jsonable(wanted))  # earlier releases did not keep it
    names = ("earliest", "latest")
    same = began == wanted if began in names or wanted in names else milliseconds(began) == milliseconds(wanted)
    if not same:
        logger.warning(
            "kafka_start: the run began to read topic %s at %r and goes on with that; %r has no effect. Start a new "
            "run to begin there.",
            known["topic"],
            began,
            to_jsonable(wanted),
        )


def _member_name(folder: str) -> str:
    """Return a name in a group that no other run has, wherever its folder is; brokers want short and plain ones."""
    return f"{re.sub(r'[^A-Za-z0-9._-]', '_', folder)[:_NAMED_BY]}-{uuid.uuid4().hex[:12]}"


def _ends(now: TopicRange) -> dict[str, int]:
    return {str(number): end for number, (_, end) in now.bounds.items()}


def _keep(run: Any, split: str, kept: Mapping[str, Any]) -> None:
    if run is not None:
        run.update(kafka={**(run.manifest.get("kafka") or {}), split: dict(kept)})


def _require_same(known: Mapping[str, Any], now: TopicRange, topic_id: str | None, is_live: bool) -> None:
    """Raise where the topic is not the one with which the run began.

    Raises:
        TopicError: It was made again, retention removed a part of the range, or partitions were added to it.
    """
    topic = known["topic"]
    if topic_id and known["topic_id"] and topic_id != known["topic_id"]:
        raise TopicError(
            f"Topic {topic} was deleted and made again since the run began. Expected the topic {known['topic_id']}, "
            f"got {topic_id}. Start a new run."
        )
    if is_live:
        return
    start, ends = _numbers(known["start"]), _numbers(known["ends"])
    if len(now.bounds) != len(start):
        raise TopicError(
            f"Topic {topic} has other partitions than when the run began. Expected {len(start)}, got "
            f"{len(now.bounds)}. Start a new run, which reads all of them; live runs take up new ones."
        )
    for number, end in ends.items():
        first, last = now.bounds[number]
        if start[number] < end and not (first <= start[number] and end <= last):
            raise removed_error(topic, number, start[number], first, last)


def _numbers(offsets: Mapping[str, int]) -> dict[int, int]:
    return {int(number): offset for number, offset in offsets.items()}


def _source(
    settings: Settings, connection: BrokerConnection, topic: str, split: str, kept: Mapping[str, Any], run: Any
) -> TopicSource:
    is_native = settings.kafka_format == "native" and not settings.has("kafka_decode")
    peeked = _first_values(connection, topic, 1 if is_native else _PEEKED_RECORDS)
    decoder = decoder_for(settings, lambda: load_structures(connection, topic), peeked)
    per_record = _samples_per_record(decoder, peeked)
    if kept["ends"] is None and settings.kafka_group is not None and per_record > 1:
        raise TopicError(
            f"kafka_group: the records of topic {topic} hold {per_record} samples each, and a partition may be given "
            "away in the middle of one. Expected one sample a record. Produce the topic without --samples-per-record, "
            "or set kafka_group = None."
        )
    return TopicSource(
        connection,
        topic,
        decoder,
        Position(_numbers(kept["start"])),
        None if kept["ends"] is None else _numbers(kept["ends"]),
        samples_per_record=per_record,
        partition_wait=settings.kafka_partition_wait,
        idle_timeout=settings.kafka_idle_timeout,
        max_bad=settings.kafka_max_bad,
        group=run.path.name if run is not None and split == "train" else None,
        shared_group=settings.kafka_group if run is not None and split == "train" else None,
        sends_bad=not kept.get("of_chief"),
        member=kept.get("member") or (run.path.name if run is not None else None),
    )


def _first_values(connection: BrokerConnection, topic: str, most: int) -> list[bytes]:
    """Return the values of some of the first records of each partition."""
    bounds = Topics(connection).range_of(topic).bounds
    first = {number: (start, min(end, start + most)) for number, (start, end) in bounds.items()}
    values: list[bytes] = []
    with read_range(connection, TopicRange(topic, first)) as reader:
        for records in reader:
            values += [value for value in records.values if value is not None]
            if sum(map(len, values)) > _PEEKED_BYTES:
                break
    return values


def _samples_per_record(decoder: Any, peeked: list[bytes]) -> int:
    for value in peeked:
        with contextlib.suppress(ValueError):
            return int(decoder.decode([value])[1][0])
    return 1


def _cached(source: TopicSource, most_bytes: int, settings: Settings, split: str) -> Any:
    """Return the range as arrays if it fits into memory, else `None`."""
    sizes = [leaf.size * leaf.numpy_dtype.itemsize for leaf in source.leaves if not leaf.is_string]
    if source.expected_samples * sum(sizes) > most_bytes:
        return None
    arrays = read_all(source, most_bytes)
    if arrays is None:
        logger.info("Topic %s is larger than kafka_cache and is read again in each epoch.", source.topic)
        return None
    try:
        return array_feed.as_arrays(arrays, split, allow_nan=settings.allow_nan)
    except DataError as error:
        raise DataError(str(error).replace("dataset:", f"topic {source.topic}:", 1)) from error
