import pytest

from experiments_manager.common.suggestions import edit_distance, nearest_name, probable_typo


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [("", "abc", 3), ("loss", "loss", 0), ("loss", "lsos", 1), ("loss", "los", 1), ("kitten", "sitting", 3)],
)
def test_the_distance_counts_letters_and_swaps(one, other, distance):
    assert edit_distance(one, other) == distance
    assert edit_distance(other, one) == distance


def test_a_hint_is_generous_and_a_refusal_is_strict():
    assert nearest_name("datest", ["dataset", "loss"]) == "dataset"
    assert probable_typo("datset", ["dataset", "loss"]) == "dataset"
    assert nearest_name("dtst", ["dataset", "data"]) is None
    assert (nearest_name("X", ["x"]), nearest_name("y", ["x"])) == ("x", None)
    assert nearest_name("val_stepps", ["validation_steps", "val_steps"]) == "val_steps"
    assert probable_typo("class_list", ["class_names"]) is None
    assert probable_typo("gpu", ["gpus"]) is None


def test_capitals_and_underscores_do_not_count():
    assert probable_typo("BatchSize", ["batch_size"]) == "batch_size"
