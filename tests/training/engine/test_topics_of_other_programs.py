"""Training on records that other programs wrote, and on what only `dataset`'s hooks know how to read."""

import io
import json

import numpy as np
import pytest
import tensorflow as tf

from experiments_manager.kafka.topics import Topics
from tests.helpers.topics import send_bytes

pytestmark = pytest.mark.slow

NUMBERS = np.arange(64, dtype="float32")
X = np.stack([np.sin(NUMBERS), np.cos(NUMBERS), NUMBERS / 64], axis=1)
Y = X.sum(axis=1)


def as_json(x, y):
    return json.dumps({"features": x.tolist(), "target": float(y)}).encode()


def as_example(x, y):
    features = {
        "features": tf.train.Feature(float_list=tf.train.FloatList(value=x)),
        "target": tf.train.Feature(float_list=tf.train.FloatList(value=[y])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def as_avro(x, y):
    import fastavro

    fields = [{"name": "features", "type": {"type": "array", "items": "double"}}, {"name": "target", "type": "double"}]
    schema = fastavro.parse_schema({"type": "record", "name": "Sample", "fields": fields})
    file = io.BytesIO()
    fastavro.writer(file, schema, [{"features": x.tolist(), "target": float(y)}])
    return file.getvalue()


SOURCE = """
train = dataset
def dataset(split):
    if split == "validation":
        return train(split)
    number = np.arange(64, dtype="float32")
    x = np.stack([np.sin(number), np.cos(number), number / 64], axis=1)
    return x, x.sum(axis=1)
"""
HOOK = """
def kafka_decode(record):
    *x, y = np.frombuffer(record, "<f4")
    return np.array(x), np.float32(y)
"""


@pytest.mark.parametrize(
    ("write", "source", "overrides"),
    [
        (as_json, "", {"kafka_format": "json"}),
        (as_example, "", {"kafka_format": "example"}),
        (as_avro, "", {"kafka_format": "avro"}),
        (lambda x, y: np.append(x, y).astype("<f4").tobytes(), HOOK, {}),
    ],
    ids=["json", "example", "avro", "hook"],
)
def test_records_of_other_programs_train_like_the_arrays_themselves(
    kafka, kafka_broker, topic, experiment, write, source, overrides
):
    Topics(kafka).create(topic)
    send_bytes(kafka, topic, *(write(x, y) for x, y in zip(X, Y, strict=True)))
    fields = {"kafka_fields": {"x": "features", "y": "target"}} if overrides else {}
    from_topic = {
        "consume_data_from_kafka": True,
        "kafka_bootstrap_servers": [kafka_broker],
        "kafka_topics": {"train": topic, "validation": None},
    }
    plain = experiment(SOURCE, {"epochs": 2})
    read = experiment(SOURCE + source, {"epochs": 2, **from_topic, **overrides, **fields})
    assert read.result.metrics["loss"] == pytest.approx(plain.result.metrics["loss"], rel=1e-6)
