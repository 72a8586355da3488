"""Samples to the bytes of records, and back."""

import dataclasses
import itertools
import struct

import ml_dtypes
import numpy as np
import pytest

from experiments_manager.kafka.errors import RecordError
from experiments_manager.kafka.reading.decoding import find_bad
from experiments_manager.kafka.records.buffers import ALIGNMENT
from experiments_manager.kafka.records.composite import Ragged, Sparse
from experiments_manager.kafka.records.record_format import MAGIC, MOST_ASKED, RecordFormat, TopicFormat
from experiments_manager.kafka.records.structure import ArraySpec, Leaf, Structure

NUMBERS = ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
OF_ML_DTYPES = ["bfloat16", "float8_e5m2", "float8_e4m3fn", "int4", "uint4"]
DTYPES = [
    *map(np.dtype, [*NUMBERS, "bool", "complex64", "complex128"]),
    *(np.dtype(getattr(ml_dtypes, n)) for n in OF_ML_DTYPES),
]


def objects(*values):
    array = np.empty(len(values), object)
    for index, value in enumerate(values):
        array[index] = value
    return array


def numbers(dtype, *shape):
    return np.random.default_rng(7).integers(0, 7, shape).astype(dtype)


def assert_same(one, other):
    """Compares two arrays, also arrays of arrays."""
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    if one.dtype == object:
        for left, right in zip(one.ravel(), other.ravel(), strict=True):
            assert_same(left, right) if isinstance(left, np.ndarray) else None
            np.testing.assert_array_equal(left, right)
    else:
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("samples_per_record", [1, 3, 100])
def test_every_dtype_comes_back_as_it_was(dtype, samples_per_record):
    batch = (numbers(dtype, 10, 3, 2), numbers(dtype, 10))
    form = RecordFormat(Structure.of(batch))
    (x, y), counts = form.decode(form.encode(batch, samples_per_record))
    assert_same(x, batch[0])
    assert_same(y, batch[1])
    assert counts.sum() == 10
    assert counts[:-1].tolist() == [samples_per_record] * (len(counts) - 1)


def test_every_dtype_that_tensorflow_has_is_taken_from_its_tensors(tensorflow):
    names = [*NUMBERS, "bool", "complex64", "complex128", *OF_ML_DTYPES]
    batch = {name: tensorflow.constant(np.array([[0], [1], [1]]).astype(name)) for name in names} | {
        "string": tensorflow.constant([b"a", b"", b"\xff\0"])
    }
    form = RecordFormat(Structure.of(batch))
    decoded, _ = form.decode(form.encode(batch))
    for name, tensor in batch.items():
        assert_same(decoded[name], tensor.numpy())
        assert tensorflow.convert_to_tensor(decoded[name]).dtype == tensor.dtype


STRINGS = np.dtype(object)


def values_of(dtype, count):
    """As many values of a dtype, some of them equal; texts of different lengths."""
    return objects(*(b"t" * (i % 4) for i in range(count))) if dtype.kind == "O" else numbers(dtype, count)


@pytest.mark.parametrize("dtype", [*DTYPES, STRINGS], ids=str)
@pytest.mark.parametrize("samples_per_record", [1, 3])
@pytest.mark.parametrize("inner", [(), (2,), (0,)], ids=str)
def test_ragged_arrays_of_every_dtype_come_back_as_they_were(dtype, samples_per_record, inner):
    outer, rows = np.array([2, 0, 3, 1], np.int64), np.array([3, 0, 1, 2, 0, 4], np.int64)
    deep = Ragged(values_of(dtype, 10 * int(np.prod(inner))).reshape(10, *inner), (outer, rows))
    flat = Ragged(values_of(dtype, 6), (outer,))
    form = RecordFormat(Structure.of((deep, flat)))
    decoded, _ = form.decode(form.encode((deep, flat), samples_per_record))
    for array, expected in zip(decoded, (deep, flat), strict=True):
        assert_same(array.values, expected.values)
        for level, of_expected in zip(array.row_lengths, expected.row_lengths, strict=True):
            assert_same(level, of_expected)


@pytest.mark.parametrize("dtype", [*DTYPES, STRINGS], ids=str)
@pytest.mark.parametrize("samples_per_record", [1, 3])
@pytest.mark.parametrize("open_dims", [False, True])
def test_sparse_arrays_of_every_dtype_come_back_as_they_were(dtype, samples_per_record, open_dims):
    indices = np.array([[0, 1, 2], [0, 3, 0], [2, 0, 0], [3, 3, 2], [3, 2, 0]], np.int64)
    batch = (Sparse(indices, values_of(dtype, 5), (4, 4, 3)), np.arange(4))
    form = RecordFormat(Structure.of(batch, open_dims))
    (decoded, _), _ = form.decode(form.encode(batch, samples_per_record))
    assert_same(decoded.indices, indices)
    assert_same(decoded.values, batch[0].values)
    assert decoded.shape == (4, 4, 3)


def test_sparse_values_are_sorted_by_sample():
    batch = Sparse(np.array([[1, 0], [0, 1]]), np.array([5, 6]), (2, 2))
    form = RecordFormat(Structure.of(batch))
    assert form.decode(form.encode(batch))[0].values.tolist() == [6, 5]


def test_the_bytes_of_ragged_and_sparse_arrays_are_those_of_the_documentation():
    ragged = Ragged(np.array([1, 2, 3], "uint8"), (np.array([2]), np.array([1, 2])))
    sparse = Sparse(np.array([[0, 4, 1]]), np.array([7], "uint8"), (1, 5, 2))
    structure = Structure.of((ragged, sparse))
    [record] = RecordFormat(structure).encode((ragged, sparse))
    sizes = (8, 3, 16, 1)
    assert record == struct.pack(
        "<BBHI 4I I I 2I 3B 2q B", MAGIC, 1, 1, structure.id, *sizes, 2, 1, 1, 2, 1, 2, 3, 4, 1, 7
    )


@pytest.mark.parametrize(
    "batch",
    [
        Ragged(np.zeros(3), (np.array([1, 2]),)),
        Ragged(np.zeros(3, "float32"), (np.array([1, 1]), np.array([1, 2]))),
        Ragged(np.zeros(3, "float32"), (np.array([1, 1]),)),
        Sparse(np.array([[0, 0]]), np.zeros(1, "float32"), (2, 3)),
        np.zeros([2, 3], "float32"),
    ],
    ids=["dtype", "rank", "lengths", "sparse", "dense"],
)
def test_what_is_not_ragged_in_this_way_is_refused(batch):
    form = RecordFormat(Structure.of(Ragged(np.zeros(3, "float32"), (np.array([1, 2]),))))
    with pytest.raises(RecordError, match=r"Expected x \(\?\) float32 ragged, got"):
        form.encode(batch)


@pytest.mark.parametrize("place", [[0, 0, 3], [0, 5, 0], [0, -1, 0]])
def test_sparse_values_outside_of_their_shape_make_a_bad_record(place):
    batch = Sparse(np.array([place]), np.zeros(1), (1, 5, 3))
    form = RecordFormat(Structure.of(batch))
    with pytest.raises(RecordError, match="outside of its shape"):
        form.decode(form.encode(batch))


@pytest.mark.parametrize("samples_per_record", [1, 2])
def test_strings_of_any_length_come_back_as_bytes(samples_per_record):
    texts = objects(b"", "Gr\u00fc\u00dfe".encode(), b"\0\0", b"x" * 70000, b"last")
    batch = (texts, np.stack([texts, texts[::-1]], axis=1), np.arange(5.0))
    form = RecordFormat(Structure.of(batch))
    decoded, _ = form.decode(form.encode(batch, samples_per_record))
    for array, expected in zip(decoded, batch, strict=True):
        assert_same(array, expected)


def test_text_is_written_as_utf8():
    batch = np.array(["a", "\u00fc"])
    form = RecordFormat(Structure.of(batch))
    assert_same(form.decode(form.encode(batch))[0], objects(b"a", "\u00fc".encode()))


@pytest.mark.parametrize("samples_per_record", [1, 2, 5])
def test_samples_of_different_shapes_come_back_each_in_its_own(samples_per_record):
    shapes = [(1, 2), (3, 2), (0, 4), (3, 2), (2, 0)]
    x = objects(*(numbers("float32", *shape) for shape in shapes))
    words = objects(*(objects(*[b"w" * (i + size) for i in range(size)]) for size in (2, 0, 1, 3, 1)))
    form = RecordFormat(Structure.of((np.zeros([1, 1, 1], np.float32), np.array([["a"]])), open_dims=True))
    (decoded, decoded_words), _ = form.decode(form.encode((x, words), samples_per_record))
    assert_same(decoded, x)
    assert_same(decoded_words, words)


def test_samples_of_an_open_dimension_that_agree_are_one_array():
    batch = numbers("int32", 4, 5)
    form = RecordFormat(Structure.of(batch, open_dims=True))
    assert_same(form.decode(form.encode(batch))[0], batch)


def test_batches_of_different_shapes_of_one_structure_are_decoded_together():
    form = RecordFormat(Structure.of(numbers("int32", 1, 1), open_dims=True))
    records = form.encode(numbers("int32", 2, 3), 2) + form.encode(numbers("int32", 1, 4), 1)
    decoded, counts = form.decode(records)
    assert [sample.shape for sample in decoded] == [(3,), (3,), (4,)]
    assert counts.tolist() == [2, 1]


def test_records_of_different_sizes_may_take_turns():
    rows = Ragged(np.arange(12), (np.array([2, 1, 0, 3, 4, 2]),))
    batch = (numbers("int16", 6, 2), objects(*(b"t" * i for i in range(6))), rows)
    form = RecordFormat(Structure.of(batch))
    pairs, ones = form.encode(batch, 2), form.encode(batch)
    (x, texts, ragged), counts = form.decode([pairs[0], ones[2], ones[3], pairs[2]])
    assert_same(x, batch[0])
    assert_same(texts, batch[1])
    assert_same(ragged.values, rows.values)
    assert ragged.row_lengths[0].tolist() == rows.row_lengths[0].tolist()
    assert counts.tolist() == [2, 1, 1, 2]
    assert form.decode([ones[5], pairs[0], ones[4]])[0][1].tolist() == [b"ttttt", b"", b"t", b"tttt"]


def test_empty_arrays_have_their_place():
    batch = (np.zeros([3, 0, 2], np.float32), np.arange(3))
    form = RecordFormat(Structure.of(batch))
    (x, y), _ = form.decode(form.encode(batch))
    assert_same(x, batch[0])
    assert_same(y, batch[1])


def test_the_bytes_are_those_of_the_documentation():
    batch = (np.array([[1, 2, 3]], "float32"), np.array([7], "int64"))
    structure = Structure.of(batch)
    [record] = RecordFormat(structure).encode(batch)
    assert record == struct.pack("<BBHI3fq", MAGIC, 1, 1, structure.id, 1, 2, 3, 7)


def test_the_bytes_of_strings_are_those_of_the_documentation():
    batch = (objects(b"ab", b"c"), np.array([1, 2], "uint8"))
    structure = Structure.of(batch)
    [record] = RecordFormat(structure).encode(batch, 2)
    assert record == struct.pack("<BBHI I II BB 3s", MAGIC, 1, 2, structure.id, 3, 2, 1, 1, 2, b"abc")


def test_big_endian_and_strided_arrays_are_written_like_others():
    plain = np.arange(12, dtype=np.float32).reshape(4, 3)
    form = RecordFormat(Structure.of(plain))
    assert form.encode(plain.astype(">f4")) == form.encode(plain) == form.encode(np.asfortranarray(plain))


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ((np.zeros([2, 4], "float32"), np.zeros(2)), "Expected x (3) float32, got (4,) float32"),
        ((np.zeros([2, 3]), np.zeros(2)), "Expected x (3) float32, got (3,) float64"),
        ((np.zeros([2, 3], "float32"), np.zeros(3)), "different numbers of samples: x 2, y 3"),
    ],
)
def test_samples_that_do_not_fit_are_refused(batch, said):
    form = RecordFormat(Structure.of((np.zeros([2, 3], "float32"), np.zeros(2))))
    with pytest.raises(RecordError) as refused:
        form.encode(batch)
    assert said in str(refused.value)


def test_the_bad_records_among_good_ones_are_found_with_their_reasons():
    batch = (np.zeros([4, 3], "float32"), objects(b"a", b"b", b"c", b"d"))
    form = RecordFormat(Structure.of(batch))
    good = form.encode(batch)
    other = RecordFormat(Structure.of(np.zeros([1, 3]))).encode(np.zeros([1, 3]))
    records = [good[0], b"{}", good[1][:-1], None, *other, good[2] + b"!", b"", good[3]]
    reasons = find_bad(form.decode, records)
    assert list(reasons) == [1, 2, 3, 4, 5, 6]
    assert "does not begin like" in reasons[1]
    assert "another structure" in reasons[4]
    with pytest.raises(RecordError):
        form.decode(records[:2])


def test_a_wide_column_is_not_copied_and_a_narrow_one_keeps_no_records_in_memory():
    batch = (numbers("float32", 4, 100), np.arange(4))
    form = RecordFormat(Structure.of(batch))
    (x, y), _ = form.decode(form.encode(batch))
    assert_same(x, batch[0])
    assert x.base.nbytes == x.nbytes + y.nbytes + 4 * 8 + ALIGNMENT
    assert y.base.nbytes == y.nbytes


def test_values_that_lie_across_words_are_aligned_when_they_are_read():
    batch = (numbers("uint8", 4, 3), numbers("float64", 4, 100))
    form = RecordFormat(Structure.of(batch))
    (_, y), _ = form.decode(form.encode(batch))
    assert_same(y, batch[1])
    assert y.flags.aligned


def test_no_damage_to_a_record_ends_in_anything_but_a_record_error():
    words = objects(objects(b"ab"), objects(b"c", b""))
    batch = (objects(numbers("float32", 2), numbers("float32", 3)), words, np.array([True, False]))
    form = RecordFormat(
        Structure.of((np.zeros([1, 1], "float32"), np.array([["a"]]), np.array([True])), open_dims=True)
    )
    [record] = form.encode(batch, 2)
    bad = set()
    for place, value in itertools.product(range(len(record)), (0, 1, 127, 255)):
        damaged = bytearray(record)
        damaged[place] = value
        bad |= set(find_bad(form.decode, [bytes(damaged), bytes(damaged[:place])]))
    assert bad == {0, 1}


def batch(first, count=2, columns=3, dtype="float32"):
    x = np.arange(first, first + count * columns, dtype=dtype).reshape(count, columns)
    return {"a": x, "b": np.arange(count)}


OPEN = Structure.of_spec({"a": ArraySpec((None, None), "float32"), "b": ArraySpec((None,), "int64")})
NEWEST = Structure.of(batch(0))
SWAPPED = Structure.of(dict(reversed(batch(0).items())))
OTHER_DTYPE = Structure.of(batch(0, dtype="float64"))
OTHER_WIDTH = Structure.of(batch(0, columns=4))


def topic(*structures, **options):
    return TopicFormat({structure.id: structure for structure in structures}, **options)


def records(structure, *batches):
    return [record for one in batches for record in RecordFormat(structure).encode(one)]


def test_the_structure_of_a_topic_is_the_newest_one():
    assert topic(OPEN, NEWEST).structure == NEWEST
    assert topic(NEWEST, OPEN).structure == OPEN


@pytest.mark.parametrize("older", [OPEN, SWAPPED], ids=["open", "other order of keys"])
def test_records_of_an_older_structure_that_fits_are_decoded_among_the_others(older):
    mixed = records(NEWEST, batch(0)) + records(older, batch(10)) + records(NEWEST, batch(20))
    samples, counts = topic(older, NEWEST).decode(mixed)
    np.testing.assert_array_equal(samples["a"], np.concatenate([batch(first)["a"] for first in (0, 10, 20)]))
    assert samples["a"].dtype == np.float32
    assert samples["b"].tolist() == [0, 1] * 3
    assert counts.tolist() == [1] * 6


def test_records_of_several_structures_may_take_turns():
    first, second = records(NEWEST, batch(0, 4)), records(SWAPPED, batch(100, 4))
    wide = RecordFormat(NEWEST).encode(batch(200, 3), 3)
    mixed = [first[0], second[0], *wide, second[1], first[1], second[2], first[2]]
    samples, counts = topic(SWAPPED, NEWEST).decode(mixed)
    assert samples["a"][:, 0].tolist() == [0, 100, 200, 203, 206, 103, 3, 106, 6]
    assert samples["b"].tolist() == [0, 0, 0, 1, 2, 1, 1, 2, 2]
    assert counts.tolist() == [1, 1, 3, 1, 1, 1, 1]


def test_a_topic_may_hold_records_of_an_older_structure_alone():
    samples, _ = topic(OPEN, NEWEST).decode(records(OPEN, batch(5)))
    np.testing.assert_array_equal(samples["a"], batch(5)["a"])


def test_samples_of_an_older_structure_fit_by_the_shape_that_they_have():
    older = records(OPEN, batch(0), batch(0, columns=4))
    bad = find_bad(topic(OPEN, NEWEST).decode, older)
    assert list(bad) == [2, 3]
    assert "Expected x/a (3) float32" in bad[2]


def test_samples_whose_shapes_differ_are_taken_by_a_newest_structure_that_is_open():
    samples, _ = topic(OTHER_WIDTH, OPEN).decode(records(OTHER_WIDTH, batch(0, columns=4)) + records(OPEN, batch(0)))
    assert [sample.shape for sample in samples["a"]] == [(4,), (4,), (3,), (3,)]


@pytest.mark.parametrize("other", [OTHER_DTYPE, OTHER_WIDTH, Structure.of(batch(0)["a"])], ids=str)
def test_records_of_a_structure_that_does_not_fit_are_bad(other):
    whole = batch(0, dtype=other.leaves[0].dtype, columns=other.leaves[0].shape[0])
    mixed = records(NEWEST, batch(0)) + records(other, whole if len(other.leaves) == 2 else whole["a"])
    bad = find_bad(topic(other, NEWEST).decode, mixed)
    assert list(bad) == [2, 3]
    assert all("another structure" in reason and str(other) in reason for reason in bad.values())


def test_records_of_a_structure_that_the_topic_does_not_have_are_bad():
    bad = find_bad(topic(NEWEST).decode, [*records(NEWEST, batch(0)), *records(OPEN, batch(0)), b"{}", b"", None])
    assert list(bad) == [2, 3, 4, 5, 6]
    assert f"got {OPEN.id:08x}" in bad[2]
    assert "does not begin like" in bad[4]


def test_a_structure_that_was_stored_since_is_asked_for_once():
    asked = []

    def reload():
        asked.append(1)
        return {NEWEST.id: NEWEST, SWAPPED.id: SWAPPED}

    form = topic(NEWEST, reload=reload)
    for _ in range(2):
        samples, _ = form.decode(records(NEWEST, batch(0)) + records(SWAPPED, batch(10)))
        assert samples["a"][:, 0].tolist() == [0, 3, 10, 13]
        assert list(find_bad(form.decode, records(OPEN, batch(0)))) == [0, 1]
    assert len(asked) == 2
    assert form.structure == NEWEST


def test_structures_are_not_asked_for_without_end():
    asked = []
    form = topic(NEWEST, reload=lambda: asked.append(1) or {})
    [record, _] = records(NEWEST, batch(0))
    others = [record[:4] + number.to_bytes(4, "little") + record[8:] for number in range(2 * MOST_ASKED)]
    assert len(find_bad(form.decode, [b"{%d: 1234}" % number for number in range(1000, 2000)])) == 1000
    assert asked == []
    assert len(find_bad(form.decode, others)) == len(others)
    assert len(asked) == MOST_ASKED


def test_a_topic_without_a_structure_is_refused():
    with pytest.raises(RecordError, match="no structure.*Set kafka_format"):
        TopicFormat({})


def test_ragged_and_sparse_samples_of_an_older_structure_are_joined_with_the_newest_ones():
    def batch_of(inner, width):
        rows = Ragged(np.arange(2 * inner).reshape(2, inner), (np.array([0, 2]),))
        return rows, Sparse(np.array([[0, width - 1]]), np.array([7]), (2, width))

    older = Structure.of(batch_of(3, 4))
    newest = dataclasses.replace(older, leaves=(older.leaves[0], Leaf("y", "int64", (None,), sparse=True)), record=b"")
    mixed = records(older, batch_of(3, 4)) + records(newest, batch_of(3, 5))
    (x, y), _ = topic(older, newest).decode(mixed)
    assert x.row_lengths[0].tolist() == [0, 2, 0, 2]
    assert y.shape == (4, 5)
    assert y.indices.tolist() == [[0, 3], [2, 4]]
    other = Structure.of(batch_of(2, 4))
    assert list(
        find_bad(topic(other, newest).decode, records(newest, batch_of(3, 4)) + records(other, batch_of(2, 4)))
    ) == [
        2,
        3,
    ]
