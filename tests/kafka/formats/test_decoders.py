"""Decoding the records of other programs: JSON, and those that a hook reads."""

import datetime
import json
import re

import ml_dtypes
import numpy as np
import pytest

from experiments_manager.common.errors import UserError
from experiments_manager.kafka.errors import RecordError, TopicError
from experiments_manager.kafka.formats.decoders import Fields, field_decoder, hook_decoder
from experiments_manager.kafka.reading.decoding import find_bad


def records(*rows):
    return [json.dumps(row).encode() for row in rows]


def of_json(*rows, first=None, fields=None):
    """Decodes rows by what the first of them say."""
    decoder = field_decoder("json", records(*(rows[:first] if first else rows)), fields=fields)
    return decoder, decoder.decode(records(*rows))[0]


def test_the_dtypes_of_json_follow_from_its_values():
    row = {"n": 3, "r": 0.5, "t": "Grüße", "b": True, "v": [1, 2], "m": [[0.5, 1], [2, 3], [4, 5]], "w": ["a", "b"]}
    decoder, x = of_json(row, row, fields={"x": list(row)})
    assert [str(leaf) for leaf in decoder.structure.leaves] == [
        "x/n () int64",
        "x/r () float32",
        "x/t () string",
        "x/b () bool",
        "x/v (2) int64",
        "x/m (3, 2) float32",
        "x/w (2) string",
    ]
    assert {name: array.shape for name, array in x.items()} == {
        "n": (2,), "r": (2,), "t": (2,), "b": (2,), "v": (2, 2), "m": (2, 3, 2), "w": (2, 2),
    }  # fmt: skip
    assert {name: array.dtype.name for name, array in x.items()} == {
        "n": "int64", "r": "float32", "t": "object", "b": "bool", "v": "int64", "m": "float32", "w": "object",
    }  # fmt: skip
    assert x["t"][0] == "Grüße".encode()
    assert x["w"].tolist() == [[b"a", b"b"]] * 2
    np.testing.assert_array_equal(x["m"][1], row["m"])


def test_samples_have_inputs_targets_and_weights_in_the_order_of_the_records():
    _, (x, y, weight) = of_json(*({"x": [i, 2.5 * i], "y": i, "sample_weight": 0.5} for i in range(5)))
    assert x[:, 1].tolist() == [0, 2.5, 5, 7.5, 10]
    assert y.tolist() == list(range(5))
    assert weight.dtype == np.float32


def test_a_field_that_is_whole_in_one_record_and_not_in_another_has_float32():
    decoder, x = of_json({"x": 3}, {"x": 3.5}, {"x": 4})
    assert x.tolist() == [3, 3.5, 4]
    assert decoder.structure.leaves[0].dtype == "float32"


def test_lists_whose_lengths_differ_among_the_first_records_have_an_open_dimension():
    decoder, x = of_json({"x": [1, 2]}, {"x": [3]}, {"x": [4, 5, 6]}, first=2)
    assert decoder.structure.leaves[0].shape == (None,)
    assert [sample.tolist() for sample in x] == [[1, 2], [3], [4, 5, 6]]
    assert decoder.decode(records({"x": [1, 2]}, {"x": [3, 4]}))[0].shape == (2, 2)


def test_objects_within_an_object_are_dictionaries_of_inputs():
    _, (x, _) = of_json({"x": {"a": 1, "b": [2.0, 3.0]}, "y": 0}, {"x": {"b": [4, 5], "a": 6}, "y": 1})
    assert x["a"].tolist() == [1, 6]
    assert x["b"].tolist() == [[2, 3], [4, 5]]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b"{", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100000, "no JSON"),
        (b'{"y":0,"x":' + b'{"x":' * 400 + b"1" + b"}" * 401, "Expected x (2) float32, got {'x': {'x': "),
        (b"7", "Expected an object of fields"),
        (b'{"y": 1}', "no field 'x'. It has y."),
        (b'{"x": null, "y": 1}', "'x' is null"),
        (b'{"x": [1, 2, 3], "y": 1}', "Expected x (2) float32, got [1, 2, 3]"),
        (b'{"x": [1, "a"], "y": 1}', "got [1, 'a']"),
        (b'{"x": [1e300, 0], "y": 1}', "Expected x (2) float32"),
        (b'{"x": {"a": 1}, "y": 1}', "got {'a': 1}"),
        (b'{"x": [1, 2], "y": 1.5}', "got 1.5. The first records held whole numbers: write them like 3.0"),
        (b'{"x": [1, 2], "y": 9223372036854775808}', "Expected y () int64, got 9223372036854775808"),
        (b'{"x": [1, 2], "y": 1' + b"0" * 60 + b"}", "Expected y () int64"),
        (None, "no value"),
    ],
)
def test_a_record_that_does_not_fit_is_bad_and_the_others_are_good(bad, said):
    good = records({"x": [1.5, 2.5], "y": 1}, {"x": [3, 4.5], "y": 2})
    decoder = field_decoder("json", good)
    reasons = find_bad(decoder.decode, [good[0], bad, good[1]])
    assert list(reasons) == [1]
    assert said in reasons[1]
    assert decoder.decode(good)[0][1].tolist() == [1, 2]


def test_first_records_that_cannot_be_read_are_left_out():
    decoder = field_decoder("json", [b"{", None, b'{"x": 1}', b'{"x": "a"}', b"[]"])
    assert [str(leaf) for leaf in decoder.structure.leaves] == ["x () int64"]


def test_records_that_are_nested_without_end_are_refused():
    deep = b'{"x":' * 400 + b"1" + b"}" * 400
    with pytest.raises(TopicError, match="nested more than 32 deep"):
        field_decoder("json", [deep])


@pytest.mark.parametrize("format", ["json", "avro"])
def test_a_topic_without_records_does_not_show_what_its_samples_are_like(format):
    with pytest.raises(TopicError, match="holds no records"):
        field_decoder(format, [])


@pytest.mark.parametrize(("first", "looks"), [(b"\n\x05", "example"), (b"Obj\x01", "avro"), (b"\xe5\x01", "native")])
def test_a_wrong_format_is_refused_with_the_format_that_it_looks_like(first, looks):
    with pytest.raises(TopicError, match=re.escape(f"They look like kafka_format = '{looks}'")):
        field_decoder("json", [None, first, first])


def test_fields_that_no_record_has_are_refused_with_those_that_it_has():
    with pytest.raises(TopicError, match="no field 'x'. It has age, label. Name the fields"):
        field_decoder("json", records({"age": 1, "label": 2}))


def test_an_unknown_format_is_refused():
    with pytest.raises(TopicError, match="Expected json or avro, got 'xml'"):
        field_decoder("xml", [b"<a/>"])


def test_a_hook_returns_a_sample_without_a_batch_dimension():
    def decode(record):
        numbers = np.frombuffer(record, np.uint8)
        return {"pixels": numbers[:-1].reshape(2, 2), "text": "t"}, int(numbers[-1]), 0.5

    decoder = hook_decoder(decode, [bytes(range(5))])
    (x, y, weight), counts = decoder.decode([bytes(range(5)), bytes(range(5, 10))])
    assert x["pixels"].tolist() == [[[0, 1], [2, 3]], [[5, 6], [7, 8]]]
    assert x["pixels"].dtype == np.uint8
    assert x["text"].tolist() == [b"t", b"t"]
    assert y.tolist() == [4, 9]
    assert weight.dtype == np.float32
    assert counts.tolist() == [1, 1]


@pytest.mark.parametrize("dtype", [np.float64, np.complex64, np.int8, np.bool_, ml_dtypes.bfloat16, ml_dtypes.int4])
def test_the_arrays_of_a_hook_keep_their_dtype(dtype):
    decoder = hook_decoder(lambda record: np.array([0, 1], dtype), [b"a"])
    assert decoder.decode([b"a", b"b"])[0].dtype == dtype


def test_a_tensor_of_a_hook_is_an_array(tensorflow):
    decoder = hook_decoder(lambda record: tensorflow.io.decode_raw(record, "uint8"), [b"ab"])
    assert decoder.decode([b"ab", b"cd"])[0].tolist() == [[97, 98], [99, 100]]


def test_an_error_in_a_hook_makes_a_bad_record_and_names_the_line():
    def decode(record):
        return json.loads(record)["value"]

    line = decode.__code__.co_firstlineno + 1
    decoder = hook_decoder(decode, [b'{"value": [1, 2]}'])
    reasons = find_bad(decoder.decode, [b'{"value": [3, 4]}', b"{", b"{}"])
    assert list(reasons) == [1, 2]
    assert f"{__file__}:{line}: JSONDecodeError" in reasons[1]
    assert f"{__file__}:{line}: KeyError: 'value'" in reasons[2]


def test_an_error_that_names_its_place_already_is_left_as_it_is():
    def decode(record):
        raise UserError("settings.py:7: kafka_decode raised KeyError: 'a'")

    with pytest.raises(TopicError, match=r"can be decoded\. settings\.py:7: kafka_decode raised KeyError: 'a'"):
        hook_decoder(decode, [b"a"])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (datetime.date(2020, 1, 1), "of type date"),
        ([[1], [2, 3]], "different lengths"),
        ((), "at least one array"),
    ],
)
def test_what_no_array_can_hold_is_refused(value, said):
    with pytest.raises(TopicError, match=said):
        hook_decoder(lambda record: value, [b"a"])


RECORD = {"age": 41, "height": 1.8, "label": 1, "importance": 0.5}


@pytest.mark.parametrize(
    ("chosen", "sample"),
    [
        ({"x": "age"}, 41),
        ({"x": "age", "y": "label"}, (41, 1)),
        ({"x": ["age", "height"], "y": "label"}, ({"age": 41, "height": 1.8}, 1)),
        ({"x": {"years": "age"}, "y": ["label"]}, ({"years": 41}, {"label": 1})),
        ({"x": "age", "sample_weight": "importance"}, (41, None, 0.5)),
        ({"x": "age", "y": "label", "sample_weight": "importance"}, (41, 1, 0.5)),
    ],
)
def test_a_name_gives_a_value_and_several_names_a_dictionary(chosen, sample):
    assert Fields(chosen).of_record(list(RECORD)).sample(RECORD) == sample


@pytest.mark.parametrize("record", [{"x": 1}, {"x": 1, "y": 2}, {"x": 1, "y": 2, "sample_weight": 3}])
def test_by_default_the_fields_are_called_like_the_parts_and_only_x_is_needed(record):
    fields = Fields().of_record(["other", *record])
    assert fields.sample(record | {"other": 0}) == (tuple(record.values()) if len(record) > 1 else 1)


@pytest.mark.parametrize("chosen", [None, {"x": "weight", "y": "label"}])
def test_a_missing_field_is_named_together_with_those_that_are_there(chosen):
    with pytest.raises(RecordError) as refused:
        Fields(chosen).of_record(list(RECORD))
    missing = "'weight'" if chosen else "'x'"
    said = f"no field {missing}. It has age, height, label, importance. Name the fields that you want in kafka_fields."
    assert said in str(refused.value)


def test_a_field_that_a_later_record_lacks_is_named():
    fields = Fields().of_record(["x", "y"])
    with pytest.raises(RecordError, match=r"no field 'y'\. It has x\."):
        fields.sample({"x": 1})


def test_a_field_that_is_null_is_named():
    with pytest.raises(RecordError, match="'y' is null"):
        Fields({"x": "a", "y": "y"}).sample({"a": 1, "y": None})


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"y": "a"}, "Expected 'x'"),
        ({"x": "a", "z": "b"}, "'z'"),
        ({"x": 7}, "x is wrong.*got 7"),
        ({"x": []}, "x is"),
    ],
)
def test_a_choice_that_makes_no_sample_is_refused(chosen, said):
    with pytest.raises(TopicError, match=said):
        Fields(chosen)
