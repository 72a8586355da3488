"""The fields of a record that make up a sample."""

import pytest

from experiments_manager.kafka.errors import RecordError, TopicError
from experiments_manager.kafka.formats.fields import Fields

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
