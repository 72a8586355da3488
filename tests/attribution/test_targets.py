"""What is explained is chosen from a model and its samples, and what cannot be explained is refused."""

import keras
import numpy as np
import pytest

from experiments_manager.attribution.errors import ExplainError
from experiments_manager.attribution.explanation import explain
from experiments_manager.attribution.targets import TargetOptions, choose_target
from experiments_manager.events import Samples


def net(shape, classes=3, dtype="float32", activation="softmax"):
    x = keras.Input(shape, dtype=dtype, name="x")
    flat = keras.layers.Flatten()(keras.ops.cast(x, "float32"))
    return keras.Model(x, keras.layers.Dense(classes, activation=activation, name="kind")(flat))


def samples_of(model, x, y):
    outputs = model(x)
    outputs = outputs if isinstance(outputs, dict) else {"kind": outputs}
    return Samples("validation", x, y, {name: np.asarray(output) for name, output in outputs.items()}, {})


def target(model, x, y, names=("x",), class_names=("a", "b", "c"), **target_options):
    return choose_target(model, samples_of(model, x, y), list(names), class_names, TargetOptions(**target_options))


TABLE = np.array([[1, 2], [3, 4], [5, 9]], np.float32)
CLASSES = np.array([0, 1, 2])


def test_by_default_the_class_is_what_the_model_tells_and_the_baseline_the_mean_of_each_feature():
    model = net((2,))
    found = target(model, TABLE, CLASSES)
    assert np.array_equal(found.question.classes, np.argmax(model(TABLE), axis=-1))
    np.testing.assert_allclose(found.question.baseline[1], [3, 5])
    assert not found.output.has_channels
    assert (found.input_name, found.head_name) == ("x", "kind")


@pytest.mark.parametrize("wanted", ["c", "2"])
def test_a_class_is_named_by_its_name_or_number(wanted):
    assert target(net((2,)), TABLE, CLASSES, class_name=wanted).question.classes.tolist() == [2, 2, 2]


def test_the_baseline_of_pictures_is_one_value_a_channel_or_the_number_that_is_given():
    x = np.random.default_rng(0).normal(size=(3, 6, 6, 2)).astype("float32")
    found = target(net((6, 6, 2)), x, CLASSES)
    assert found.output.has_channels
    np.testing.assert_allclose(found.question.baseline[2, 3, 1], x.mean(axis=(0, 1, 2)), rtol=1e-5)
    assert not target(net((6, 6, 2)), x, CLASSES, baseline="0").question.baseline.any()


def test_pictures_without_channels_and_series_with_channels_are_told_apart():
    x = np.zeros((3, 12, 12), np.float32)
    assert not target(net((12, 12)), x, CLASSES).output.has_channels
    x = np.zeros((3, 40, 2), np.float32)
    assert target(net((40, 2)), x, CLASSES).output.has_channels


def test_pictures_of_bytes_are_explained_where_the_model_takes_them_as_floats():
    x = np.random.default_rng(0).integers(255, size=(3, 6, 6, 3)).astype(np.uint8)
    assert target(net((6, 6, 3)), x, CLASSES).question.values.dtype == np.float32
    with pytest.raises(ExplainError, match="no input of floating point, got x \\(uint8\\)"):
        target(net((6, 6, 3), dtype="uint8"), x, CLASSES)


@pytest.mark.parametrize(("activation", "classes", "gives"), [("softmax", 3, "probabilities"), (None, 3, "logits")])
def test_it_is_known_whether_a_head_gives_probabilities(activation, classes, gives):
    assert target(net((2,), classes, activation=activation), TABLE, CLASSES).output.gives == gives


def test_a_segmentation_is_asked_for_the_largest_class_that_is_not_the_background():
    x = keras.Input((4, 4, 3))
    model = keras.Model(x, keras.layers.Softmax()(x))
    pictures = np.zeros((1, 4, 4, 3), np.float32)
    pictures[..., 0] = 1
    pictures[0, 0, :3] = [0, 9, 0]
    pictures[0, 1, :2] = [0, 0, 9]
    found = target(model, pictures, np.zeros((1, 4, 4), int))
    assert found.question.classes.tolist() == [1]
    assert found.question.regions[0].astype(int).tolist() == [[1, 1, 1, 0], [0] * 4, [0] * 4, [0] * 4]


def two_inputs():
    inputs = {"picture": keras.Input((4, 4, 1), name="picture"), "table": keras.Input((2,), name="table")}
    joined = keras.layers.Concatenate()([keras.layers.Flatten()(inputs["picture"]), inputs["table"]])
    outputs = {
        "kind": keras.layers.Dense(3, activation="softmax", name="kind")(joined),
        "price": keras.layers.Dense(1, name="price")(joined),
    }
    x = {"picture": np.ones((3, 4, 4, 1), np.float32), "table": TABLE}
    return keras.Model(inputs, outputs), x, {"kind": CLASSES, "price": np.array([1.5, 2, 3])}


def test_of_several_inputs_the_one_with_most_axes_is_explained_or_the_one_that_is_named():
    model, x, y = two_inputs()
    names = ["picture", "table"]
    assert target(model, x, y, names).input_name == "picture"
    found = target(model, x, y, names, input="table")
    assert (found.input_name, found.head_name) == ("table", "kind")
    assert np.array_equal(found.question.others[0], x["picture"])


@pytest.mark.parametrize(
    ("target_options", "said"),
    [
        ({"input": "pictuer"}, "no input 'pictuer'. Its inputs are picture, table. Did you mean"),
        ({"head": "kidn"}, "no head 'kidn'. Its heads are kind, price. Did you mean"),
        ({"head": "price"}, r"got price \(values\)"),
        ({"class_name": "d"}, "no class 'd'. Expected one of a, b, c"),
        ({"class_name": "3"}, "no class '3'"),
        ({"baseline": "median"}, "Unknown baseline 'median'. Expected `mean` or a number"),
        ({"baseline": "nan"}, "Unknown baseline 'nan'. Expected `mean` or a number"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(target_options, said):
    model, x, y = two_inputs()
    with pytest.raises(ExplainError, match=said):
        target(model, x, y, ["picture", "table"], **target_options)


def test_an_input_with_missing_values_is_refused_and_another_one_named():
    model, x, y = two_inputs()
    broken = x | {"table": np.array([[1, np.nan], [1, 2], [3, 4]], np.float32)}
    with pytest.raises(ExplainError, match="'table' holds NaN or infinity.* --input: picture"):
        target(model, broken, y, ["picture", "table"], input="table")


def test_sequences_of_whole_numbers_are_refused():
    x = keras.Input((5,), dtype="int32", name="x")
    embedded = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(7, 4)(x))
    model = keras.Model(x, keras.layers.Dense(3, activation="softmax")(embedded))
    tokens = np.ones((3, 5), np.int32)
    with pytest.raises(ExplainError, match=r"got x \(int32\). Words and whole numbers"):
        target(model, tokens, CLASSES)


def test_a_model_that_looks_its_floats_up_is_explained_by_methods_that_need_no_gradient():
    x = keras.Input((5,), name="x")
    embedded = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(7, 4)(x))
    model = keras.Model(x, keras.layers.Dense(3, activation="softmax")(embedded))
    tokens = np.arange(15).reshape(3, 5).astype(np.float32) % 7
    found = explain(target(model, tokens, CLASSES, baseline="0"))
    assert list(found.methods) == ["occlusion"]
    assert "no gradient of the score" in found.skipped["integrated-gradients"]
    assert "needs a convolution" in found.skipped["grad-cam"]


def test_a_method_that_is_named_must_go_together_with_the_model():
    one = target(net((2,)), TABLE, CLASSES)
    with pytest.raises(ExplainError, match="Grad-CAM needs a convolution"):
        explain(one, ["grad-cam"])
    with pytest.raises(ExplainError, match="Unknown method 'gradcam'. Expected some of .* Did you mean"):
        explain(one, ["gradcam"])


def test_a_regression_is_refused():
    model = net((2,), 1, activation=None)
    with pytest.raises(ExplainError, match=r"Only classifications and segmentations.* got kind \(values\)"):
        target(model, TABLE, np.array([0.5, 1.5, 2.5]))
