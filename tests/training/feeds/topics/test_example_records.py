"""Kafka records that are `tf.train.Example`."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from experiments_manager.kafka.errors import TopicError
from experiments_manager.kafka.reading.decoding import find_bad
from experiments_manager.training.feeds.topics.example_records import ExampleFormat, decoder_for


def example(**values):
    """An Example as other programs write it; the kind of a feature follows from its values."""
    lists = {
        int: lambda given: tf.train.Feature(int64_list=tf.train.Int64List(value=given)),
        float: lambda given: tf.train.Feature(float_list=tf.train.FloatList(value=given)),
        bytes: lambda given: tf.train.Feature(bytes_list=tf.train.BytesList(value=given)),
    }
    features = {name: lists[type(given[0])](given) for name, given in values.items()}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


RECORDS = [example(x=[0.5, float(i)], y=[i], words=[b"w"] * i, name=[b"n%d" % i]) for i in (1, 2, 3)]


def test_one_value_is_a_scalar_and_several_are_a_vector():
    decoder = ExampleFormat(RECORDS)
    assert [str(leaf) for leaf in decoder.structure.leaves] == ["x (2) float32", "y () int64"]
    (x, y), counts = decoder.decode(RECORDS)
    np.testing.assert_array_equal(x, [[0.5, 1], [0.5, 2], [0.5, 3]])
    assert x.dtype == np.float32
    assert y.tolist() == [1, 2, 3]
    assert counts.tolist() == [1, 1, 1]


def test_features_are_chosen_by_name():
    decoder = ExampleFormat(RECORDS[:1], {"x": ["name", "x"], "y": "y"})
    (x, y), _ = decoder.decode(RECORDS)
    assert x["name"].tolist() == [b"n1", b"n2", b"n3"]
    assert x["x"].shape == (3, 2)
    assert y.shape == (3,)


def test_features_with_different_numbers_of_values_have_an_open_dimension():
    decoder = ExampleFormat(RECORDS, {"x": "words"})
    assert [str(leaf) for leaf in decoder.structure.leaves] == ["x (?) string"]
    rows, _ = decoder.decode(RECORDS)
    assert [row.tolist() for row in rows] == [[b"w"], [b"w"] * 2, [b"w"] * 3]
    assert decoder.decode(RECORDS[1:2])[0].tolist() == [[b"w", b"w"]]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (example(x=[0.5, 1.0, 2.0], y=[1]), "Key: x"),
        (example(x=[1, 2], y=[1]), "Data types don't match"),
        (example(x=[0.5, 1.0]), "Feature: y (data type: int64) is required"),
        (RECORDS[0][:-3], "Example"),
        (b"{}", "Example"),
        (b"", "is required"),
        (None, "no value"),
    ],
    ids=["too many values", "other kind", "missing", "cut off", "JSON", "empty", "none"],
)
def test_a_record_that_does_not_fit_is_bad_and_the_others_are_good(bad, said):
    decoder = ExampleFormat([bad, *RECORDS] if bad in (None, b"{}") else RECORDS)
    reasons = find_bad(decoder.decode, [RECORDS[0], bad, RECORDS[1]])
    assert list(reasons) == [1]
    assert said in reasons[1]
    assert len(reasons[1]) < 500


def test_fields_that_no_record_has_are_refused_with_those_that_it_has():
    with pytest.raises(TopicError) as refused:
        ExampleFormat([example(age=[1], label=[2])], {"x": "height"})
    assert "no field 'height'. It has " in str(refused.value)


def test_a_wrong_format_is_refused_with_the_format_that_it_looks_like():
    with pytest.raises(TopicError, match="They look like kafka_format = 'json'"):
        ExampleFormat([json.dumps({"x": 1}).encode()])


def test_other_formats_and_hooks_go_the_way_without_tensorflow():
    def decoder(records, hook=None):
        settings = SimpleNamespace(kafka_format="json", kafka_fields={}, kafka_schema_registry=None)
        settings.has, settings.call = lambda name: hook is not None, lambda name, record: hook(record)
        return decoder_for(settings, dict, records)

    assert decoder([b'{"x": 1}']).decode([b'{"x": 2}'])[0].tolist() == [2]
    assert decoder([b"abc"], hook=len).decode([b"ab"])[0].tolist() == [2]


def test_damaged_records_are_bad_and_never_anything_worse():
    random = np.random.default_rng(5)
    decoder = ExampleFormat(RECORDS, {"x": ["x", "words"], "y": "y"})
    bad = [RECORDS[1][:place] for place in range(len(RECORDS[1]))] + [random.bytes(40) for _ in range(50)]
    for _ in range(300):
        flipped = bytearray(RECORDS[1])
        flipped[random.integers(len(flipped))] ^= 1 << int(random.integers(8))
        bad.append(bytes(flipped))
    reasons = find_bad(decoder.decode, bad)
    assert len(reasons) > 200
    good = [record for index, record in enumerate(bad) if index not in reasons]
    assert decoder.decode([*good, *RECORDS])[1].sum() == len(good) + len(RECORDS)
