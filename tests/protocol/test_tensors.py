"""Tensors in messages: the same as TensorFlow's, and a sentence for everything malformed."""

from __future__ import annotations

import functools
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments_manager.protocol import messages, tensors, varints
from experiments_manager.protocol.tensors import TensorError

NUMBERS = [
    [
        "float32",
        "float64",
        "int32",
        "uint8",
        "int16",
        "int8",
        "complex64",
        "int64",
        "bool",
        "uint16",
        "complex128",
        "float16",
        "uint32",
        "uint64",
    ],
    ["bfloat16", "float8_e5m2", "float8_e4m3fn", "int4", "uint4"],
]
CLASSES = {"standard": messages.standard, "raw": messages.raw}


drawn = functools.partial(
    settings, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
"""The same examples in each run, however slow the machine is."""


@pytest.fixture(scope="module")
def tf() -> Any:
    import tensorflow

    return tensorflow


def numpy_dtype(name: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name)) if name in NUMBERS[1] else np.dtype(name)


def samples(name: str) -> list[np.ndarray]:
    """A scalar, an empty array, a matrix with the type's extremes, one that is not contiguous."""
    dtype = numpy_dtype(name)
    base = np.array([0, 1, 2, 3, 1, 0], np.int8)
    if dtype.kind in "iu" and name not in ("int4", "uint4"):
        limits = np.iinfo(dtype)
        base = np.array([limits.min, limits.max, 0, 1, 127, 128 if limits.max > 128 else 5], dtype)
    elif dtype.kind in "fc":
        base = np.array([-1.5, np.inf, np.nan, 3.25, 0, -0.0])
    values = base.astype(dtype).reshape(2, 3)
    return [values[1, 1], values[:0], values, values.T, np.broadcast_to(values, (4, 2, 3))]


def bits(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array).tobytes()


@pytest.mark.parametrize("classes", CLASSES.values(), ids=CLASSES)
@pytest.mark.parametrize("typed", [False, True], ids=["content", "typed"])
@pytest.mark.parametrize("name", NUMBERS[0] + NUMBERS[1])
def test_numbers_arrive_as_they_were(name: str, typed: bool, classes: Any, tf: Any) -> None:
    for array in samples(name):
        proto = tensors.to_proto(array, classes.TensorProto(), typed=typed)
        read = tensors.to_array(classes.TensorProto.FromString(proto.SerializeToString()))
        assert (read.dtype, read.shape, bits(read)) == (array.dtype, array.shape, bits(array))
        theirs = tf.make_tensor_proto(0)
        theirs.ParseFromString(proto.SerializeToString())
        assert bits(tf.make_ndarray(theirs)) == bits(array)


@pytest.mark.parametrize("classes", CLASSES.values(), ids=CLASSES)
@pytest.mark.parametrize("name", NUMBERS[0] + NUMBERS[1])
def test_numbers_from_tensorflow_are_read(name: str, classes: Any, tf: Any) -> None:
    for array in samples(name):
        # A list of one value keeps TensorFlow from taking `tensor_content`.
        for proto in (tf.make_tensor_proto(array), tf.make_tensor_proto(array.ravel()[:1], shape=array.shape)):
            if array.size == 0 and proto.tensor_shape.dim[0].size != 0:
                continue
            read = tensors.to_array(classes.TensorProto.FromString(proto.SerializeToString()))
            expected = tf.make_ndarray(proto)
            assert (read.dtype, read.shape, bits(read)) == (expected.dtype, expected.shape, bits(expected))
            assert bits(tensors.to_array(proto)) == bits(expected)


@pytest.mark.parametrize("classes", CLASSES.values(), ids=CLASSES)
def test_strings_are_bytes(classes: Any, tf: Any) -> None:
    for array in (np.array([["a", "bé"], ["", "d"]]), np.array([b"\x00\xff", b""], object), np.array("one")):
        proto = tensors.to_proto(array, classes.TensorProto())
        theirs = tf.make_tensor_proto(0)
        theirs.ParseFromString(proto.SerializeToString())
        expected = np.vectorize(lambda s: s if isinstance(s, bytes) else s.encode(), otypes=[object])(array)
        for read in (tensors.to_array(proto), tf.make_ndarray(theirs)):
            assert read.shape == array.shape
            assert read.tolist() == expected.tolist()


def test_strings_in_the_content_are_read_as_tensorflow_reads_them(tf: Any) -> None:
    proto = messages.TensorProto(dtype=7, tensor_content=bytes([1, 0, 2]) + b"abc")
    proto.tensor_shape.dim.add(size=3)
    assert tensors.to_array(proto).tolist() == [b"a", b"", b"bc"]
    parsed = tf.io.parse_tensor(proto.SerializeToString(), tf.string)
    assert parsed.numpy().tolist() == [b"a", b"", b"bc"]


def test_other_byte_orders_are_turned_round() -> None:
    for typed in (False, True):
        read = tensors.to_array(tensors.to_proto(np.array([1, 2, 300], ">i4"), typed=typed))
        assert read.tolist() == [1, 2, 300]


@pytest.mark.parametrize("held", [0, 1, 2])
def test_missing_values_repeat_the_last_as_in_tensorflow(held: int, tf: Any) -> None:
    proto = messages.TensorProto(dtype=1, float_val=[5.0, 7.0][:held])
    for size in (2, 2):
        proto.tensor_shape.dim.add(size=size)
    expected = tf.io.parse_tensor(proto.SerializeToString(), tf.float32).numpy()
    assert tensors.to_array(proto).tolist() == expected.tolist()
    assert (
        tensors.to_array(messages.raw.TensorProto.FromString(proto.SerializeToString())).tolist() == expected.tolist()
    )


def test_unpacked_values_are_read_by_the_raw_classes_too() -> None:
    head = messages.TensorProto(dtype=1)
    head.tensor_shape.dim.add(size=2)
    unpacked = b"".join(b"\x2d" + np.float32(value).tobytes() for value in (1.5, 2.5))
    for data in (head.SerializeToString() + unpacked, unpacked + head.SerializeToString()):
        assert tensors.to_array(messages.raw.TensorProto.FromString(data)).tolist() == [1.5, 2.5]
        assert tensors.to_array(messages.TensorProto.FromString(data)).tolist() == [1.5, 2.5]
    packed = messages.TensorProto(float_val=[3.5]).SerializeToString()
    with pytest.raises(TensorError, match="packed in part"):
        tensors.to_array(messages.raw.TensorProto.FromString(head.SerializeToString() + packed + unpacked[:5]))


def test_another_field_that_is_malformed_gets_a_sentence_where_values_are_unpacked() -> None:
    head = messages.standard.TensorProto(dtype=1, tensor_shape={"dim": [{"size": 2}]}).SerializeToString()
    unpacked, malformed = b"\x2d" + np.float32(1).tobytes(), b"\x3a\x01\x80"  # one number, and an int_val that is none
    with pytest.raises(TensorError, match="^The tensor's values are malformed: "):
        tensors.to_array(messages.raw.TensorProto.FromString(head + unpacked + malformed))


def test_an_array_may_be_changed_where_a_copy_was_asked_for() -> None:
    proto = tensors.to_proto(np.zeros(3, np.float32))
    assert not tensors.to_array(proto).flags.writeable
    assert tensors.to_array(proto, copy=True).flags.writeable


def tensor(dtype: int, shape: list[int], **fields: Any) -> Any:
    proto = messages.TensorProto(dtype=dtype, **fields)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (tensor(0, []), r"type DT_INVALID cannot be sent. Expected one of DT_FLOAT"),
        (tensor(11, [1], tensor_content=b"a"), "type DT_QINT8 cannot be sent"),
        (tensor(20, []), "type DT_RESOURCE cannot be sent"),
        (tensor(101, []), "no tensor of data type 101"),
        (tensor(1, [2, -1], float_val=[1]), r"shape \[2,-1\] has a negative dimension"),
        (tensor(1, [2], float_val=[1, 2, 3]), r"holds 3 values. Expected 2, for the shape \[2\]"),
        (tensor(1, [2], tensor_content=b"1234567"), "has 7 bytes. Expected 8, for 2 elements of DT_FLOAT"),
        (tensor(1, [1 << 62, 1 << 62], float_val=[1]), "only tensors of at most 67108864 bytes are filled up"),
        (tensor(7, [1 << 40]), "only tensors of at most"),
        (tensor(1, [1 << 62], tensor_content=b"1234"), "has 4 bytes. Expected"),
        (tensor(1, [1] * 300, float_val=[1]), "NumPy has no array with the tensor's 300 dimensions"),
        (tensor(1, [0, 1 << 62, 1 << 62]), "NumPy has no array"),
        (tensor(4, [1], int_val=[300]), "int_val holds 300. Expected 0 to 255 in DT_UINT8"),
        (tensor(6, [1], int_val=[-129]), "Expected -128 to 127 in DT_INT8"),
        (tensor(29, [1], int_val=[8]), "Expected -8 to 7 in DT_INT4"),
        (tensor(19, [1], half_val=[1 << 16]), "half_val holds 65536"),
        (tensor(7, [2], tensor_content=b"\x01"), "does not hold the lengths of 2 strings"),
        (tensor(7, [1], tensor_content=b"\x05a"), "has 2 bytes. Expected 6"),
        (tensor(7, [2], tensor_content=b"\xff" * 10 + b"\x01\x01"), "malformed"),
    ],
)
def test_malformed_messages_get_a_sentence(proto: Any, message: str) -> None:
    with pytest.raises(TensorError, match=message):
        tensors.to_array(proto)
    with pytest.raises(TensorError, match=message):
        tensors.to_array(messages.raw.TensorProto.FromString(proto.SerializeToString()))


def test_an_unknown_rank_is_refused() -> None:
    proto = messages.TensorProto(dtype=1)
    proto.tensor_shape.unknown_rank = True
    with pytest.raises(TensorError, match="rank is unknown"):
        tensors.to_array(proto)


@pytest.mark.parametrize(
    ("field", "payload", "message"),
    [
        ("float_val", b"12345", "float_val has 5 bytes. Expected a multiple of 4"),
        ("int64_val", b"\x80", "end within a number"),
        ("int64_val", b"\x80" * 11 + b"\x01", "longer than ten bytes"),
    ],
)
def test_malformed_packed_fields_get_a_sentence(field: str, payload: bytes, message: str) -> None:
    proto = messages.raw.TensorProto(dtype={"float_val": 1, "int64_val": 9}[field], **{field: [payload]})
    proto.tensor_shape.dim.add(size=1)
    with pytest.raises(TensorError, match=message):
        tensors.to_array(proto)


@pytest.mark.parametrize("value", [np.array([1], "datetime64[s]"), np.array([object()]), np.zeros(1, "V4")])
def test_arrays_that_are_no_tensors_are_refused(value: np.ndarray) -> None:
    with pytest.raises(TensorError, match="tensors? of"):
        tensors.to_proto(value)


@drawn(max_examples=300)
@given(st.binary(max_size=60))
def test_no_bytes_do_more_than_raise_a_tensor_error(data: bytes) -> None:
    for classes in CLASSES.values():
        try:
            proto = classes.TensorProto.FromString(data)
        except Exception as error:  # protobuf's DecodeError has no public base
            assert type(error).__name__ == "DecodeError"
            continue
        try:
            assert isinstance(tensors.to_array(proto, fill_limit=1 << 20), np.ndarray)
        except TensorError as error:
            assert str(error).endswith(".")


@drawn(max_examples=300)
@given(
    st.integers(0, 35),
    st.lists(st.one_of(st.integers(-2, 4), st.integers(-(1 << 63), (1 << 63) - 1)), max_size=4),
    st.binary(max_size=20),
    st.lists(st.integers(-(1 << 31), (1 << 31) - 1), max_size=3),
)
def test_no_tensor_does_more_than_raise_a_tensor_error(
    dtype: int, shape: list[int], content: bytes, numbers: list[int]
) -> None:
    proto = tensor(dtype, shape, tensor_content=content, int_val=numbers, half_val=numbers, int64_val=numbers)
    for classes in CLASSES.values():
        try:
            read = tensors.to_array(classes.TensorProto.FromString(proto.SerializeToString()), fill_limit=1 << 20)
        except TensorError as error:
            assert str(error).endswith(".")
        else:
            assert list(read.shape) == shape


@drawn(max_examples=200)
@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1)))
def test_varints_are_those_of_protobuf(values: list[int]) -> None:
    written = varints.encode(np.array(values, np.int64))
    assert messages.raw.TensorProto(int64_val=[written] if written else []).SerializeToString() == (
        messages.TensorProto(int64_val=values).SerializeToString()
    )
    assert varints.decode(written).view(np.int64).tolist() == values


def test_large_tensors_take_no_python_numbers() -> None:
    image = np.random.default_rng(0).random((1, 64, 64, 3), np.float32)
    proto = tensors.to_proto(image, messages.raw.TensorProto(), typed=True)
    assert list(proto.float_val) == [image.tobytes()]
    read = tensors.to_array(messages.raw.TensorProto.FromString(proto.SerializeToString()))
    np.testing.assert_array_equal(read, image)
    assert read.base is not None  # a view of the message's bytes
