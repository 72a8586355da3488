"""Answers as records of a topic, or as a table of those to a topic; without a broker."""

from types import SimpleNamespace

import numpy as np
import pytest

from experiments_manager.client.client import Prediction
from experiments_manager.client.errors import ClientError
from experiments_manager.client.inputs.topic_records import TopicRequest
from experiments_manager.client.outputs import topic
from experiments_manager.client.outputs.topic import FileAnswers, TopicWriter


def test_an_output_without_an_entry_for_each_record_never_goes_into_a_table_of_them():
    records = [SimpleNamespace(partition=lambda: 0, offset=lambda: 0)] * 2
    request = TopicRequest({"x": np.zeros((2, 1))}, SimpleNamespace(messages=records), np.array([1, 1]))
    outputs = Prediction({"y": np.zeros((2, 1)), "names": np.array(["cat", "dog", "owl"], object)}, 7, 0.1, b"")
    with pytest.raises(ClientError, match=r"The output names of version 7 has the shape \[3\] for 2 samples"):
        FileAnswers(session=None, writer=None)(request, outputs)


def test_samples_of_files_with_any_name_go_to_a_topic(monkeypatch):
    sent = []
    producer = SimpleNamespace(produce=lambda *given, **more: sent.append(more["headers"]), poll=lambda seconds: 0)
    monkeypatch.setattr(topic, "confluent_kafka", lambda: SimpleNamespace(Producer=lambda config: producer))
    monkeypatch.setattr(topic, "producer_config", lambda connection: {})
    records = SimpleNamespace(topic="answers", partitions=1, encode=lambda outputs, counts: [b"record"])
    TopicWriter(None, records).write("caf\udce9.png", 7, Prediction({"y": np.zeros((1, 1))}, 7, 0.1, b""))
    assert dict(sent[0]) == {"sample": rb"caf\udce9.png", "model_version": b"7"}
