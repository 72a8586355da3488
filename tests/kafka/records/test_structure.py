"""The structure of samples, and the record that describes it."""

import json
import zlib

import numpy as np
import pytest

from experiments_manager.kafka.errors import RecordError
from experiments_manager.kafka.records.structure import ArraySpec, Leaf, Structure

BATCH = ({"image": np.zeros([4, 28, 28, 1], np.uint8), "caption": np.array(["a"] * 4)}, np.zeros(4, np.int64))


def test_a_structure_knows_dtype_and_shape_of_each_leaf_without_the_batch():
    assert Structure.of(BATCH).leaves == (
        Leaf("x/image", "uint8", (28, 28, 1)),
        Leaf("x/caption", "string", ()),
        Leaf("y", "int64", ()),
    )


def test_the_structure_record_is_what_the_documentation_shows():
    documented = {
        "format": 1,
        "nest": {"tuple": [{"dict": [["image", 0], ["caption", 1]]}, 2]},
        "leaves": [
            {"name": "x/image", "dtype": "uint8", "shape": [28, 28, 1]},
            {"name": "x/caption", "dtype": "string", "shape": []},
            {"name": "y", "dtype": "int64", "shape": []},
        ],
    }
    assert json.loads(Structure.of(BATCH).record) == documented


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros([2, 3]),
        (np.zeros([2, 3]),),
        ([np.zeros([2, 3]), (np.zeros([2]), None)], {"a": np.zeros([2], bool)}, np.zeros(2)),
    ],
)
def test_a_nest_is_the_same_after_its_record_was_read(batch):
    structure = Structure.of(batch)
    read = Structure.from_record(structure.record)
    assert read == structure
    assert read.id == structure.id
    np.testing.assert_equal(read.pack(read.flatten(batch)), batch)


def test_the_id_is_that_of_the_bytes_another_program_stored():
    text = json.dumps(json.loads(Structure.of(BATCH).record), indent=4).encode()
    assert Structure.from_record(text).id == zlib.crc32(text) != Structure.of(BATCH).id


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "format 2. Expected 1"),
        ({"nest": {"tuple": [0, 0]}}, "each leaf once"),
        ({"nest": {"set": [0, 1, 2]}}, "malformed"),
        ({"leaves": [{"name": "x", "dtype": "float31", "shape": []}], "nest": 0}, "float31"),
        ({"leaves": [{"name": "x", "dtype": "float32", "shape": [-1]}], "nest": 0}, "shape"),
        ({"leaves": [{"name": "x", "dtype": "float32", "shape": [], "scale": 2}], "nest": 0}, "scale"),
        ({"leaves": [{"name": "x", "dtype": "float32", "shape": [], "sparse": True}], "nest": 0}, "sparse"),
        ({"leaves": [{"name": "x", "dtype": "float32", "shape": [3], "ragged": 1}], "nest": 0}, "ragged"),
        ({"leaves": [{"name": "x", "dtype": "float32", "shape": [2**40]}], "nest": 0}, "larger than a record"),
    ],
)
def test_a_malformed_structure_record_is_refused(change, said):
    record = json.loads(Structure.of(BATCH).record) | change
    with pytest.raises(RecordError, match=said):
        Structure.from_record(json.dumps(record).encode())


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 100000, b"[]", b"7", b"\xff"])
def test_what_is_no_structure_record_is_refused(text):
    with pytest.raises(RecordError, match="malformed"):
        Structure.from_record(text)


def test_samples_that_are_nested_differently_are_refused():
    with pytest.raises(RecordError, match=r"Expected x/image \(28, 28, 1\) uint8"):
        Structure.of(BATCH).flatten(BATCH[0])


def test_the_order_of_a_dictionarys_keys_does_not_matter():
    one, other = np.zeros([2, 1]), np.ones([2, 5])
    values = Structure.of({"a": one, "b": other}).flatten({"b": other, "a": one})
    assert values[0] is one
    assert values[1] is other


def test_a_specification_gives_the_structure_that_its_batches_have():
    spec = (
        {"image": ArraySpec((None, 28, 28, 1), "uint8"), "caption": ArraySpec((4,), "string")},
        ArraySpec((None,), "int64"),
    )
    assert Structure.of_spec(spec) == Structure.of(BATCH)


def test_a_size_that_a_specification_leaves_open_differs_from_sample_to_sample():
    assert Structure.of_spec(ArraySpec((None, None, 3), "bfloat16")).leaves == (Leaf("x", "bfloat16", (None, 3)),)


def test_the_element_spec_of_a_dataset_is_taken_as_it_is(tensorflow):
    data = tensorflow.data.Dataset.from_tensor_slices(BATCH)
    assert Structure.of_spec(data.batch(2).element_spec) == Structure.of(BATCH)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (ArraySpec((), "float32"), "x is a single value"),
        ((ArraySpec((None,), "float32"), ArraySpec((None,), "variant")), "y cannot be sent: it is of dtype variant"),
        ({"a": 7}, "x/a is 7. Expected an array of known rank"),
        (None, "at least one array"),
    ],
)
def test_a_specification_without_arrays_of_a_batch_is_refused(spec, said):
    with pytest.raises(RecordError, match=said):
        Structure.of_spec(spec)
