"""Records and structures that are damaged, or made to do damage: always a `RecordError`, and never much memory."""

import io
import json
import struct
import tracemalloc

import fastavro
import numpy as np
import pytest

from experiments_manager.kafka.errors import RecordError
from experiments_manager.kafka.formats.decoders import field_decoder
from experiments_manager.kafka.reading.decoding import find_bad
from experiments_manager.kafka.records.composite import Ragged, Sparse
from experiments_manager.kafka.records.record_format import MAGIC, RecordFormat, TopicFormat
from experiments_manager.kafka.records.structure import ArraySpec, Leaf, Structure

ROUNDS = 1500
MOST_BYTES = 2**20
"""What decoding one small record may take at any time, far below the gigabytes that a damaged one may claim."""


def objects(*values):
    array = np.empty(len(values), object)
    for index, value in enumerate(values):
        array[index] = value
    return array


def everything():
    """A batch of two samples that has each kind of leaf, and its structure."""
    batch = {
        "fixed": np.arange(6, dtype="float32").reshape(2, 3),
        "flag": np.array([True, False]),
        "text": objects(b"ab", b""),
        "open": objects(np.zeros([2, 3], "int16"), np.zeros([1, 3], "int16")),
        "wide": objects(np.ones([1, 2]), np.ones([2, 2])),
        "words": objects(objects(b"a", b"bc"), objects()),
        "ragged": Ragged(np.arange(4.0), (np.array([2, 1]), np.array([1, 2, 1]))),
        "tokens": Ragged(objects(b"x", b"yz"), (np.array([0, 2]),)),
        "sparse": Sparse(np.array([[0, 1], [1, 4]]), np.array([1, 2]), (2, 5)),
        "marks": Sparse(np.array([[1, 0, 0]]), objects(b"m"), (2, 1, 3)),
    }
    spec = {key: ArraySpec((None, *leaf.shape), leaf.dtype, leaf.ragged, leaf.sparse) for key, leaf in {
        "fixed": Leaf("", "float32", (3,)), "flag": Leaf("", "bool", ()), "text": Leaf("", "string", ()),
        "open": Leaf("", "int16", (None, 3)), "wide": Leaf("", "float64", (None, None)),
        "words": Leaf("", "string", (None,)), "ragged": Leaf("", "float64", (None, None), ragged=2),
        "tokens": Leaf("", "string", (None,), ragged=1), "sparse": Leaf("", "int64", (5,), sparse=True),
        "marks": Leaf("", "string", (None, 3), sparse=True),
    }.items()}  # fmt: skip
    return batch, Structure.of_spec(spec)


def damaged(record, rounds, seed=3):
    """Yields records with a bit, a byte or a number changed, cut off, spliced, lengthened; and bytes by chance."""
    random = np.random.default_rng(seed)
    yield b""
    for place in range(len(record)):
        yield record[:place]
    for _ in range(rounds):
        bad = bytearray(record)
        for _ in range(random.integers(1, 4)):
            place = int(random.integers(len(bad)))
            change = random.integers(5)
            if change == 0:
                bad[place] ^= 1 << int(random.integers(8))
            elif change == 1:
                bad[place] = int(random.integers(256))
            elif change == 2:
                number = random.choice([0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1])
                bad[place : place + 4] = int(number).to_bytes(4, "little")
            elif change == 3:
                bad[place:place] = random.bytes(int(random.integers(1, 9)))
            else:
                del bad[place : place + int(random.integers(1, 9))]
        yield bytes(bad)
        yield record[:8] + random.bytes(int(random.integers(0, 2 * len(record))))
        yield random.bytes(int(random.integers(0, 64)))


def require_harmless(decode, bad):
    """Decodes damaged input; it either succeeds or raises `RecordError`, and takes little memory."""
    refused = 0
    tracemalloc.start()
    try:
        for one in bad:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            try:
                decode(one)
            except RecordError as error:
                refused += 1
                assert str(error)
            assert tracemalloc.get_traced_memory()[1] - before < MOST_BYTES, one
    finally:
        tracemalloc.stop()
    return refused


@pytest.mark.parametrize("samples_per_record", [1, 2])
def test_damaged_records_are_refused_without_harm(samples_per_record):
    batch, structure = everything()
    form = RecordFormat(structure)
    record = form.encode(batch, samples_per_record)[0]
    refused = require_harmless(lambda bad: form.decode([bad]), damaged(record, ROUNDS))
    assert refused > ROUNDS


def test_damaged_records_among_good_ones_are_the_only_bad_ones():
    batch, structure = everything()
    form = TopicFormat({structure.id: structure})
    good = RecordFormat(structure).encode(batch, 2)[0]
    some = [bad for bad in damaged(good, 30) if find_bad(form.decode, [bad])]
    mixed = [record for bad in some for record in (good, bad)]
    assert list(find_bad(form.decode, mixed)) == list(range(1, len(mixed), 2))


def test_a_record_of_many_samples_without_bytes_takes_no_memory():
    structure = Structure.of({"a": np.zeros([1, 0, 3]), "b": np.zeros([1, 0], "bool")})
    record = struct.pack("<BBHI", MAGIC, 1, 65535, structure.id)
    refused = require_harmless(lambda records: RecordFormat(structure).decode(records), [[record] * 100])
    assert refused == 0, "65,535 samples of nothing are what it says"


@pytest.mark.parametrize("leaf", ["open", "words", "ragged", "tokens", "sparse", "marks", "text"])
def test_sizes_that_no_record_can_hold_are_refused(leaf):
    batch, structure = everything()
    structure = Structure.of_spec(
        ArraySpec(
            (None, *(found := next(one for one in structure.leaves if one.name == f"x/{leaf}")).shape),
            found.dtype,
            found.ragged,
            found.sparse,
        )
    )
    form = RecordFormat(structure)
    [record] = form.encode(batch[leaf], 2)
    claims = [record[:place] + b"\xff" * 4 + record[place + 4 :] for place in range(8, len(record) - 3)]
    assert require_harmless(lambda bad: form.decode([bad]), claims) > 0


def test_damaged_structures_are_refused_without_harm():
    text = everything()[1].record
    assert require_harmless(Structure.from_record, damaged(text, ROUNDS // 3)) > ROUNDS // 3


@pytest.mark.parametrize("change", [b"null", b"-1", b"1e9", b'"3"', b"[]", b"9" * 30, b"true", b"NaN"])
def test_structures_whose_values_are_of_another_kind_are_refused_without_harm(change):
    text = everything()[1].record
    places = [place for place in range(len(text)) if text[place : place + 1].isdigit()]
    changed = [text[:place] + change + text[place + 1 :] for place in places]

    def use(bad):
        form = RecordFormat(Structure.from_record(bad))
        form.decode([struct.pack("<BBHI", MAGIC, 1, 1, form.structure.id) + bytes(200)])

    assert require_harmless(use, changed) > 0


def test_damaged_json_is_refused_without_harm():
    record = json.dumps({"x": {"a": [1.5, 2], "b": "text"}, "y": 3, "sample_weight": 0.5}).encode()
    decoder = field_decoder("json", [record])
    assert require_harmless(lambda bad: decoder.decode([bad]), damaged(record, ROUNDS)) > ROUNDS


@pytest.mark.parametrize("codec", ["null", "deflate"])
def test_damaged_avro_is_refused_without_harm(codec):
    fields = [
        {"name": "x", "type": {"type": "array", "items": "float"}},
        {"name": "t", "type": ["null", "string", "bytes"]},
        {"name": "y", "type": {"type": "map", "values": "long"}},
    ]
    stream = io.BytesIO()
    rows = [{"x": [0.5, 1.5], "t": "text", "y": {"a": 1}}] * 2
    fastavro.writer(stream, {"type": "record", "name": "r", "fields": fields}, rows, codec)
    decoder = field_decoder("avro", [stream.getvalue()], fields={"x": ["x", "t"], "y": "y"})
    refused = require_harmless(lambda bad: decoder.decode([bad]), damaged(stream.getvalue(), ROUNDS // 3))
    assert refused > ROUNDS // 3
