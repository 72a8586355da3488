"""Which decoder the records of a topic need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from experiments_manager.kafka.decoding import Decoder
from experiments_manager.kafka.record_format import RecordFormat
from experiments_manager.kafka.structure import Structure
from experiments_manager.settings import Settings


def decoder_for(
    settings: Settings, topic: str, load: Callable[[], Mapping[int, Structure]], first: Sequence[bytes]
) -> Decoder:
    """Return the decoder that the settings name.

    Args:
        settings: The experiment.
        topic: For messages.
        load: Gives the structures that are stored beside the topic.
        first: Values of its first records.
    """
    return RecordFormat(list(load().values())[-1])
