"""The decoder of a topic, by what the settings say; `tf.train.Example` records are parsed a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from experiments_manager.common.error_text import reason
from experiments_manager.kafka.errors import RecordError, TopicError
from experiments_manager.kafka.formats.decoders import Fields, advice, field_decoder, hook_decoder
from experiments_manager.kafka.reading.decoding import Decoder
from experiments_manager.kafka.records.record_format import TopicFormat
from experiments_manager.kafka.records.structure import ArraySpec, Structure
from experiments_manager.settings import Settings


def decoder_for(settings: Settings, load: Callable[[], Mapping[int, Structure]], first: Sequence[bytes]) -> Decoder:
    """Return the decoder that the settings name.

    Args:
        settings: The experiment.
        load: Gives the structures that are stored beside the topic.
        first: Values of its first records, from which the structure of other programs' records follows.

    Raises:
        TopicError: The records are of another format, or no structure is stored.
    """
    if settings.has("kafka_decode"):
        return hook_decoder(lambda record: settings.call("kafka_decode", record=record), first)
    if settings.kafka_format == "native":
        return TopicFormat(load(), load)
    if settings.kafka_format == "example":
        return ExampleFormat(first, settings.kafka_fields)
    return field_decoder(settings.kafka_format, first, settings.kafka_fields, settings.kafka_schema_registry)


_DTYPES = {"int64_list": tf.int64, "float_list": tf.float32, "bytes_list": tf.string}


class ExampleFormat:
    """Decodes records that are `tf.train.Example`, one sample each.

    A feature that has one value in each of the first records is a scalar, one that has `n` has the shape `[n]`, and the
    dimension is open where their numbers differ.

    Args:
        first_records: Values of the first records of the topic; the structure follows from them.
        fields: Which features make up a sample, as `kafka_fields`.

    Attributes:
        structure: What each sample looks like.

    Raises:
        TopicError: None of the records is an Example that has these features.
    """

    def __init__(self, first_records: Sequence[bytes | None], fields: Mapping[str, Any] | None = None) -> None:
        if not first_records:
            raise TopicError("The topic holds no records. Expected one at least, to see what its samples are like.")
        wanted, examples, problem = Fields(fields), [], "They have no values."
        for record in filter(None, first_records):
            try:
                features = _features(record)
                self._fields = wanted = wanted.of_record(list(features))
                examples.append(features)
            except RecordError as error:
                problem = str(error)
        if not examples:
            said = advice("example", first_records)
            raise TopicError(f"None of the first {len(first_records)} records can be decoded. {problem} {said}".strip())
        specs = {name: _spec([features[name] for features in examples]) for name in self._fields.names}
        self.structure = Structure.of_spec(self._fields.sample(specs))
        self._parsers = {
            name: tf.io.RaggedFeature(tf.as_dtype(spec.dtype), row_splits_dtype=tf.int64)
            if None in spec.shape[1:]
            else tf.io.FixedLenFeature(spec.shape[1:], tf.as_dtype(spec.dtype))
            for name, spec in specs.items()
        }

    def decode(self, records: Sequence[bytes]) -> tuple[Any, np.ndarray]:
        """Return the samples of records, in their order; as `RecordFormat.decode`.

        Raises:
            RecordError: A record is malformed or does not fit the structure; `find_bad` tells which.
        """
        if not records:
            raise RecordError("No records to decode. Expected at least one.")
        try:
            parsed = tf.io.parse_example(np.array(records, object), self._parsers)
        except (tf.errors.InvalidArgumentError, TypeError, ValueError) as error:
            raise RecordError(f"The record is no Example like the others: {reason(error)[:300]}") from error
        arrays = {name: _rows(value) for name, value in parsed.items()}
        return self._fields.sample(arrays), np.ones(len(records), np.int64)


def _features(record: bytes) -> dict[str, tuple[str, int]]:
    """Return the kind of values and their number for each feature of an Example."""
    try:
        example = tf.train.Example.FromString(record)
    except DecodeError as error:
        raise RecordError(f"The record is no Example: it begins with {bytes(record[:20])!r}.") from error
    kinds = {name: (feature.WhichOneof("kind"), feature) for name, feature in example.features.feature.items()}
    return {name: (kind, len(getattr(feature, kind).value)) for name, (kind, feature) in kinds.items() if kind}


def _spec(found: list[tuple[str, int]]) -> ArraySpec:
    """Return what a feature looks like that has these kinds and numbers of values; the first kind counts."""
    lengths = {length for kind, length in found if kind == found[0][0]}
    sizes = () if lengths == {1} else (lengths.pop(),) if len(lengths) == 1 else (None,)
    return ArraySpec((None, *sizes), _DTYPES[found[0][0]].name)


def _rows(value: Any) -> np.ndarray:
    """Return the values of a feature; one array a sample where their numbers differ."""
    if not isinstance(value, tf.RaggedTensor):
        return value.numpy()
    flat, splits = value.values.numpy(), value.row_splits.numpy()
    lengths = np.diff(splits)
    if (lengths == lengths[0]).all():
        return flat.reshape(len(lengths), lengths[0])
    rows = np.empty(len(lengths), object)
    for index, row in enumerate(np.split(flat, splits[1:-1])):
        rows[index] = row
    return rows
