"""Records of a Kafka topic as requests: which part of them goes to which input of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments_manager.client.errors import ClientError
from experiments_manager.client.inputs.request_sample import Sample, SourceError
from experiments_manager.client.model_info import ModelInfo, fitted, listed
from experiments_manager.kafka.answering.session import MessageBatch
from experiments_manager.kafka.connection import BrokerConnection
from experiments_manager.kafka.errors import RecordError
from experiments_manager.kafka.reading.reader import load_structures
from experiments_manager.kafka.records.record_format import TopicFormat
from experiments_manager.kafka.records.structure import Leaf, Structure


class TopicRequest(Sample):
    """A request made of some records.

    Attributes:
        batch: The records.
        counts: How many samples each of them holds.
        answers: How many answers are expected: one a record.
    """

    def __init__(self, inputs: Mapping[str, Any], batch: MessageBatch, counts: np.ndarray) -> None:
        first = batch.messages[0]
        super().__init__(f"{first.partition()}:{first.offset()}", inputs)
        self.batch, self.counts = batch, counts
        self.answers = len(batch.messages)
        self._stops = counts.cumsum().tolist()

    def part(self, arrays: Mapping[str, np.ndarray], index: int) -> dict[str, np.ndarray]:
        """Return the samples of one record among those of all."""
        stop = self._stops[index]
        return {name: array[stop - int(self.counts[index]) : stop] for name, array in arrays.items()}

    def alone(self, batch: MessageBatch) -> TopicRequest:
        """Return the request of a batch of one of the records."""
        index = self.batch.messages.index(batch.messages[0])
        return TopicRequest(self.part(self, index), batch, self.counts[index : index + 1])


class TopicRecords:
    """Decodes records, and gives their parts to the model's inputs.

    Args:
        connection: How to reach the broker.
        topic: The topic.
        info: The model.

    Raises:
        TopicError: No structure is stored for the topic.
        SourceError: The newest structure does not fit the model.
    """

    def __init__(self, connection: BrokerConnection, topic: str, info: ModelInfo) -> None:
        self._topic, self._info = topic, info
        self._format = TopicFormat(load_structures(connection, topic), lambda: load_structures(connection, topic))
        newest = self._format.structure
        self._names = {newest.id: self._names_of(newest)}

    def request(self, batch: MessageBatch) -> TopicRequest:
        """Return the request of records of one structure.

        Raises:
            RecordError: A record cannot be decoded, or its samples do not fit the model's inputs.
        """
        try:
            inputs, counts = self.decode(batch.messages)
        except ClientError as error:
            raise RecordError(str(error)) from error
        return TopicRequest(inputs, batch, counts)

    def decode(self, messages: Sequence[Any]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return the model's inputs, and how many samples each record holds.

        Args:
            messages: Records of one structure.

        Raises:
            RecordError: A record cannot be decoded.
            ClientError: The samples do not fit the model's inputs.
        """
        values = [message.value() for message in messages]
        if None in values:
            raise RecordError("The record has no value.")
        form = self._format.format_of(values[0])
        nest, counts = form.decode(values)
        number = form.structure.id
        if number not in self._names:
            self._names[number] = self._names_of(form.structure)
        leaves = form.structure.flatten(nest)
        inputs = {
            name: fitted(name, _one_array(leaves[leaf]), self._info) for name, leaf in self._names[number].items()
        }
        return inputs, counts

    def _names_of(self, structure: Structure) -> dict[str, int]:
        """Return the number of the leaf for each input."""
        info, nest = self._info, structure.nest
        x = nest[0] if isinstance(nest, tuple) else nest
        names: dict[str, Any] = {}
        if isinstance(x, dict) and len(x) == 1 == len(info.required):
            x = next(iter(x.values()))
        elif isinstance(x, dict):
            names = {name: x[name] for name in info.inputs if isinstance(x.get(name), int)}
        if isinstance(x, tuple | list) and len(x) == 1:
            x = x[0]
        if isinstance(x, int) and len(info.required) == 1:
            names = {next(iter(info.required)): x}
        if not set(info.required) <= set(names) or any(
            not _fits(structure.leaves[leaf], name, info) for name, leaf in names.items()
        ):
            raise SourceError(
                f"The records of topic {self._topic} do not fit the model {info.name}, version {info.version}.\n"
                f"  The model takes: {listed(info.inputs)}\n"
                f"  A sample holds:  {structure}\n"
                "Expected `x` of one part for a model with one input, else a dictionary by the names of the inputs. "
                "Produce the topic so, or serve a model that takes it."
            )
        return names


def _fits(leaf: Leaf, name: str, info: ModelInfo) -> bool:
    """Return whether samples of a leaf may go to an input: rank, sizes and kind of values."""
    expected = info.inputs[name]
    if leaf.is_string != (expected.dtype == object):
        return False
    if expected.shape is not None:
        sizes = zip(leaf.shape, expected.shape[1:], strict=False)
        if len(leaf.shape) + 1 != len(expected.shape) or any(None not in pair and pair[0] != pair[1] for pair in sizes):
            return False
    try:
        fitted(name, np.zeros(0, leaf.numpy_dtype), info)
    except ClientError:
        return False
    return True


def _one_array(values: np.ndarray) -> np.ndarray:
    """Return samples as one array.

    Raises:
        RecordError: They differ in shape.
    """
    if values.dtype != object or values.ndim != 1 or not isinstance(values[0], np.ndarray):
        return values
    if len({sample.shape for sample in values}) > 1:
        raise RecordError("The samples of a record differ in shape. Expected one shape in each record.")
    return np.stack(list(values))
