"""Which decoder the records of a topic need, as the settings say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments_manager.kafka.reading.decoding import Decoder
from experiments_manager.kafka.records.structure import Structure
from experiments_manager.kafka.records.topic_format import TopicFormat
from experiments_manager.settings import Settings
from experiments_manager.training.feeds.topics.example_records import make_decoder


def decoder_for(settings: Settings, load: Callable[[], Mapping[int, Structure]], first: Sequence[bytes]) -> Decoder:
    """Return the decoder that the settings name.

    Args:
        settings: The experiment.
        load: Gives the structures that are stored beside the topic.
        first: Values of its first records, from which the structure of other programs' records follows.

    Raises:
        TopicError: The records are of another format, or no structure is stored.
    """
    hook: Callable[[bytes], Any] | None = None
    if settings.has("kafka_decode"):

        def hook(record: bytes) -> Any:
            return settings.call("kafka_decode", record=record)

    if hook is None and settings.kafka_format == "native":
        return TopicFormat(load(), load)
    return make_decoder(
        settings.kafka_format,
        fields=settings.kafka_fields,
        registry=settings.kafka_schema_registry,
        hook=hook,
        first_records=first,
    )
