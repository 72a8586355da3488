"""Names of what is served."""

import pytest
import tensorflow as tf

from experiments_manager.export.servable import ExportError, input_names_of, servable_from_model

PAIR = (tf.fill([4, 2], 1.0), tf.fill([4, 2], 2.0))


@pytest.fixture
def model():
    """Makes a model of inputs with these names; `None` leaves the name to Keras."""
    import keras

    def make(*names):
        inputs = [keras.Input([2], name=name) for name in names]
        return keras.Model(inputs, keras.layers.Concatenate(name="y")(inputs) if len(inputs) > 1 else inputs[0] * 2)

    return make


@pytest.mark.parametrize(
    ("given", "served"),
    [
        ([None], ["input"]),
        (["x"], ["x"]),
        (["zeta", "alpha"], ["zeta", "alpha"]),
        ([None, None], ["input_0", "input_1"]),
        ([None, "mask"], ["input_0", "mask"]),
        (["input_1", None], ["input_0", "input_1"]),
    ],
)
def test_inputs_have_the_users_names_or_plain_ones_that_are_the_same_in_every_process(given, served, model):
    assert input_names_of(model(*given), PAIR[: len(given)]) == served


def test_wanted_names_come_first_and_there_are_as_many_as_inputs(model):
    assert input_names_of(model("zeta", "alpha"), PAIR, ["a", "b"]) == ["a", "b"]
    with pytest.raises(ExportError, match="input_names: 1 names for 2 tensors. Expected 2"):
        input_names_of(model("zeta", "alpha"), PAIR, ["a"])


def test_each_part_of_a_batch_is_tried_at_its_own_input(model):
    servable = servable_from_model(model("zeta", "alpha"), PAIR, model_name="m")
    probe = servable.probe((PAIR, None), 1)
    assert {name: value.numpy().tolist() for name, value in probe.items()} == {"zeta": [[1, 1]], "alpha": [[2, 2]]}
    assert servable(probe)["y"].numpy().tolist() == [[1, 1, 2, 2]]
