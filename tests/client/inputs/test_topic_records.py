"""Which part of a topic's samples goes to which input of a model."""

import numpy as np
import pytest

from experiments_manager.client.inputs import topic_records
from experiments_manager.client.inputs.request_sample import SourceError
from experiments_manager.client.model_info import ModelInfo, TensorInfo
from experiments_manager.kafka.errors import RecordError
from experiments_manager.kafka.records.record_format import RecordFormat
from experiments_manager.kafka.records.structure import Structure

FLOATS = TensorInfo(np.dtype("float32"), (None, 3))
WORDS = TensorInfo(np.dtype(object), (None,))
ONE = ModelInfo("one", 1, {"x": FLOATS}, {})
TWO = ModelInfo("two", 1, {"x": FLOATS, "word": WORDS}, {})
EITHER = ModelInfo("either", 1, {"x": FLOATS, "word": WORDS}, {}, frozenset(["word"]))

X = np.arange(6, dtype="float32").reshape(2, 3)
TEXTS = np.array([b"a", b"b"], object)


class Message:
    def __init__(self, value):
        self._value = value

    def value(self):
        return self._value


@pytest.fixture
def decode(monkeypatch):
    """Encodes a batch, and decodes it for a model."""

    def decoded(batch, info, samples_per_record=1):
        form = RecordFormat(Structure.of(batch))
        monkeypatch.setattr(topic_records, "load_structures", lambda *_: {form.structure.id: form.structure})
        records = topic_records.TopicRecords(None, "topic", info)
        return records.decode([Message(value) for value in form.encode(batch, samples_per_record)])

    return decoded


@pytest.mark.parametrize("batch", [X, (X, TEXTS), ((X,), TEXTS), {"other": X}, ({"x": X}, TEXTS), {"x": X, "y": TEXTS}])
def test_one_part_goes_to_the_only_input_and_a_dictionary_by_names(decode, batch):
    inputs, counts = decode(batch, ONE)
    assert list(inputs) == ["x"]
    assert np.array_equal(inputs["x"], X)
    assert counts.tolist() == [1, 1]


def test_several_inputs_take_the_parts_of_their_names(decode):
    inputs, counts = decode({"word": TEXTS, "x": X}, TWO, samples_per_record=2)
    assert inputs["word"].tolist() == [b"a", b"b"]
    assert counts.tolist() == [2]


def test_an_input_with_a_value_of_its_own_may_be_missing(decode):
    assert list(decode((X,), EITHER)[0]) == ["x"]
    assert set(decode({"x": X, "word": TEXTS}, EITHER)[0]) == {"x", "word"}


def test_numbers_become_the_inputs_type_where_that_keeps_their_kind(decode):
    assert decode(X.astype("float64"), ONE)[0]["x"].dtype == np.float32


@pytest.mark.parametrize(
    ("batch", "info"),
    [
        (X[:, :2], ONE),
        (X[:, :, None], ONE),
        (X.astype("complex64"), ONE),
        (TEXTS, ONE),
        (X, TWO),
        (((X, TEXTS), TEXTS), TWO),
        ({"x": X, "wrd": TEXTS}, TWO),
        ({"x": {"deep": X}, "word": TEXTS}, TWO),
    ],
)
def test_what_does_not_fit_is_refused_with_both_sides(decode, batch, info):
    with pytest.raises(SourceError, match=r"(?s)The model takes: x \(float32 \[any, 3\]\).*A sample holds:  x"):
        decode(batch, info)


def test_records_of_another_structure_that_became_known_later_are_decoded(monkeypatch):
    forms = [RecordFormat(Structure.of(batch)) for batch in (X, {"x": X})]
    known = [forms[0].structure]
    monkeypatch.setattr(topic_records, "load_structures", lambda *_: {one.id: one for one in known})
    records = topic_records.TopicRecords(None, "topic", ONE)
    newer = [Message(value) for value in forms[1].encode({"x": X})]
    with pytest.raises(RecordError, match="has another structure"):
        RecordFormat(known[0]).decode([one.value() for one in newer])
    known.append(forms[1].structure)
    assert np.array_equal(records.decode(newer)[0]["x"], X)
