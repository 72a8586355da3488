"""The methods find what is known beforehand: of linear models, of planted patches, in one, two and three dimensions."""

import keras
import numpy as np
import pytest

from experiments_manager.attribution.errors import ExplainError
from experiments_manager.attribution.layer_calls import recorded_calls
from experiments_manager.attribution.methods.grad_cam import grad_cam, resized
from experiments_manager.attribution.methods.integrated_gradients import integrated_gradients
from experiments_manager.attribution.methods.occlusion import occlusion
from experiments_manager.attribution.methods.shapley import cells_of, shapley
from experiments_manager.attribution.scored_output import Question, ScoredOutput

pytestmark = pytest.mark.slow


def question_of(values, classes, regions=None, baseline=0.0, others=()):
    classes = np.asarray(classes, np.int32)
    regions = np.ones(len(values), np.float32) if regions is None else regions
    return Question(values, list(others), classes, regions, np.broadcast_to(np.float32(baseline), values.shape))


def scores(output, question, values=None):
    values = question.values if values is None else values
    return np.asarray(output.score(values, question.others, question.classes, question.regions))


def linear_model(weights, activation):
    """Two classes of a table: the log odds of class 1 are `weights · x`; `a layer` is a softmax of its own."""
    x = keras.Input((len(weights),), name="x")
    if activation == "softmax":
        layer = keras.layers.Dense(2, activation="softmax", name="y")
        kernel = np.stack([np.full(len(weights), 0.3), np.asarray(weights) + 0.3], axis=1)
    elif activation == "a layer":
        layer = keras.layers.Dense(2)
        model = keras.Model(x, keras.layers.Softmax(name="y")(layer(x)))
        layer.set_weights([np.stack([np.full(len(weights), 0.3), np.asarray(weights) + 0.3], axis=1), np.zeros(2)])
        return model
    else:
        layer, kernel = keras.layers.Dense(1, activation=activation, name="y"), np.asarray(weights)[:, np.newaxis]
    model = keras.Model(x, layer(x))
    layer.set_weights([kernel, np.zeros(kernel.shape[1])])
    return model


WEIGHTS = [2.0, -1.0, 0.0, 0.5]
TABLE = np.array([[1, 2, 3, 4], [0.5, -1, 7, 0], [30, 0, 0, -9]], np.float32)


@pytest.mark.parametrize(
    ("activation", "gives"), [(name, "probabilities") for name in ("softmax", "a layer", "sigmoid")]
)
@pytest.mark.parametrize("method", [integrated_gradients, occlusion, shapley])
def test_a_linear_model_is_told_exactly_also_where_it_is_sure(method, activation, gives):
    if method is shapley:
        pytest.importorskip("shap")
    model = linear_model(WEIGHTS, activation)
    baseline = np.array([1, 1, 1, 1], np.float32)
    output = ScoredOutput(model, np.float32(0), 0, 0, False, gives, batch=2)
    question = question_of(TABLE, [1, 1, 0], baseline=baseline)
    sign = np.array([[1], [1], [-1]])
    expected = sign * np.array(WEIGHTS) * (TABLE - baseline)
    probabilities = np.asarray(model(TABLE))
    np.testing.assert_allclose(method(output, question)(question), expected, rtol=1e-4, atol=1e-4)
    assert np.array_equal(model(TABLE), probabilities), "the model stays as it was"


def test_logits_are_told_as_what_they_are():
    model = linear_model(WEIGHTS, None)
    output = ScoredOutput(model, np.float32(0), 0, 0, False, "logits")
    question = question_of(TABLE, [1, 1, 1])
    expected = np.array(WEIGHTS) * TABLE
    maps = integrated_gradients(output, question)(question)
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-5)


def convolutional(axes, classes=3, seed=0):
    """A small net over that many axes of 8, with a channel."""
    keras.utils.set_random_seed(seed)
    convolution = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D, 3: keras.layers.Conv3D}[axes]
    x = keras.Input((*[8] * axes, 1), name="x")
    features = convolution(6, 3, padding="same", activation="relu", name="features")(x)
    flat = keras.layers.Flatten()(features)
    return keras.Model(x, keras.layers.Dense(classes, activation="softmax", name="kind")(flat))


@pytest.mark.parametrize(
    ("method", "axes"), [(integrated_gradients, 1), (integrated_gradients, 2), (integrated_gradients, 3), (shapley, 2)]
)
def test_maps_add_up_to_the_difference_of_the_scores_of_input_and_baseline(method, axes):
    if method is shapley:
        pytest.importorskip("shap")
    model = convolutional(axes)
    values = np.random.default_rng(1).normal(size=(3, *[8] * axes, 1)).astype("float32")
    output = ScoredOutput(model, values, 0, 0, True, batch=2)
    question = question_of(values, [0, 1, 2], baseline=0.2)
    expected = scores(output, question) - scores(output, question, np.array(question.baseline))
    found = method(output, question)(question)
    assert found.shape == (3, *[8] * axes)
    np.testing.assert_allclose(found.reshape(3, -1).sum(axis=1), expected, rtol=0.02, atol=0.01)


def patch_model(axes):
    """The log odds of class 1 are the sum of the input over positions 2 to 4 of each axis."""
    x = keras.Input((*[8] * axes, 1), name="x")
    layer = keras.layers.Dense(1, activation="sigmoid", name="kind")
    model = keras.Model(x, layer(keras.layers.Flatten()(x)))
    kernel = np.zeros([8] * axes)
    kernel[(slice(2, 5),) * axes] = 1
    layer.set_weights([kernel.reshape(-1, 1), np.zeros(1)])
    return model, kernel > 0


@pytest.mark.parametrize(
    ("method", "axes"),
    [(integrated_gradients, 2), (occlusion, 1), (occlusion, 2), (occlusion, 3), (shapley, 3)],
)
def test_a_planted_patch_is_found_where_it_is(method, axes):
    if method is shapley:
        pytest.importorskip("shap")
    model, planted = patch_model(axes)
    values = np.ones((1, *[8] * axes, 1), np.float32)
    output = ScoredOutput(model, values, 0, 0, True)
    question = question_of(values, [1])
    [found] = method(output, question)(question)
    assert found[planted].mean() > 2.5 * found[~planted].mean()
    assert np.unravel_index(found.argmax(), found.shape) in set(zip(*np.nonzero(planted), strict=True))


def test_occlusion_by_single_positions_tells_the_fall_of_each():
    model, planted = patch_model(2)
    values = np.full((1, 8, 8, 1), 3, np.float32)
    output = ScoredOutput(model, values, 0, 0, True)
    question = question_of(values, [1], baseline=1.0)
    found = occlusion(output, question, window=1)(question)
    np.testing.assert_allclose(found[0], 2.0 * planted, atol=1e-4)


def test_a_window_wider_than_a_table_hides_all_of_it():
    output, question = ScoredOutput(linear_model(WEIGHTS, "softmax"), TABLE, 0, 0, False), question_of(TABLE, [1, 1, 1])
    fall = scores(output, question) - scores(output, question, np.array(question.baseline))
    found = occlusion(output, question, window=8)(question)
    np.testing.assert_allclose(found, np.repeat(fall[:, np.newaxis], 4, axis=1), rtol=1e-5)


def test_windows_of_occlusion_reach_every_position_of_an_uneven_input():
    x = keras.Input((7, 5, 1))
    model = keras.Model(x, keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(x)))
    values = np.ones((1, 7, 5, 1), np.float32)
    output = ScoredOutput(model, values, 0, 0, True)
    found = occlusion(output, question_of(values, [0]), window=3)(question_of(values, [0]))
    assert np.isfinite(found).all()


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_grad_cam_shows_where_the_features_of_the_class_are(axes):
    convolution = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D, 3: keras.layers.Conv3D}[axes]
    pooling = {
        1: keras.layers.GlobalAveragePooling1D,
        2: keras.layers.GlobalAveragePooling2D,
        3: keras.layers.GlobalAveragePooling3D,
    }[axes]
    x = keras.Input((*[8] * axes, 1))
    first, last = convolution(1, 1, use_bias=False), keras.layers.Dense(1, activation="sigmoid")
    model = keras.Model(x, last(pooling()(first(x))))
    first.set_weights([np.ones((*[1] * axes, 1, 1))])
    last.set_weights([np.ones((1, 1)), np.zeros(1)])
    values = np.random.default_rng(0).normal(size=(2, *[8] * axes, 1)).astype("float32")
    output = ScoredOutput(model, values, 0, 0, True)
    question = question_of(values, [1, 0])
    found = grad_cam(output, question)(question)
    gradient = 1 / 8**axes
    np.testing.assert_allclose(found[0], gradient * np.maximum(values[0, ..., 0], 0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[1], gradient * np.maximum(-values[1, ..., 0], 0), rtol=1e-4, atol=1e-6)


def test_grad_cam_looks_into_nested_and_subclassed_models_and_leaves_them_as_they_were():
    inner_input = keras.Input((8, 8, 1))
    inner = keras.Model(inner_input, keras.layers.Conv2D(3, 3, activation="relu", name="inner")(inner_input))

    class Outer(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner, self.pool = inner, keras.layers.GlobalMaxPooling2D()
            self.out = keras.layers.Dense(2, activation="softmax")

        def call(self, x):
            return self.out(self.pool(self.inner(x)))

    model, values = Outer(), np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype("float32")
    before = np.asarray(model(values))
    output = ScoredOutput(model, values, 0, 0, True)
    question = question_of(values, [0, 1])
    assert grad_cam(output, question)(question).shape == (2, 8, 8)
    assert np.array_equal(model(values), before)
    assert "call" not in vars(inner.get_layer("inner"))


def segmentation_model():
    """Pixels of two classes by their brightness, after a layer of half the size."""
    x = keras.Input((8, 8, 1))
    small = keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="small")(x)
    large = keras.layers.Conv2DTranspose(4, 2, strides=2, activation="relu", name="large")(small)
    return keras.Model(x, keras.layers.Conv2D(3, 1, activation="softmax", name="mask")(large))


def test_a_segmentation_is_asked_for_the_region_of_its_class():
    keras.utils.set_random_seed(1)
    model = segmentation_model()
    values = np.random.default_rng(0).uniform(size=(2, 8, 8, 1)).astype("float32")
    regions = np.zeros((2, 8, 8), np.float32)
    regions[:, :2, :2] = 1
    output = ScoredOutput(model, values, 0, 0, True)
    question = question_of(values, [1, 2], regions)
    found = integrated_gradients(output, question)(question)
    expected = scores(output, question) - scores(output, question, np.array(question.baseline))
    np.testing.assert_allclose(found.sum((1, 2)), expected, rtol=0.02, atol=0.01)
    assert not found[:, 4:, 4:].any(), "out of sight of the region"
    assert grad_cam(output, question)(question).shape == (2, 8, 8)


def test_grad_cam_takes_the_coarsest_convolution_of_a_segmentation_or_the_one_that_is_named():
    keras.utils.set_random_seed(1)
    model = segmentation_model()
    values = np.random.default_rng(0).uniform(size=(1, 8, 8, 1)).astype("float32")
    output, question = ScoredOutput(model, values, 0, 0, True), question_of(values, [1], np.ones((1, 8, 8), np.float32))
    by_default = grad_cam(output, question)(question)
    np.testing.assert_array_equal(by_default, grad_cam(output, question, layer="small")(question))
    assert not np.array_equal(by_default, grad_cam(output, question, layer="large")(question))


def test_grad_cam_leaves_out_what_lies_on_the_way_to_another_head_or_from_another_input():
    keras.utils.set_random_seed(1)
    conv, pool = keras.layers.Conv2D, keras.layers.GlobalMaxPooling2D
    first, second = keras.Input((8, 8, 1)), keras.Input((8, 8, 1))
    one, other = conv(4, 3, name="one")(first), conv(4, 3, name="other")(second)
    kind = keras.layers.Dense(2, activation="softmax")(keras.layers.Concatenate()([pool()(one), pool()(other)]))
    decoded = conv(1, 3, name="decoded")(conv(4, 3, name="decoder")(one))
    model = keras.Model([first, second], [kind, decoded])
    values = list(np.random.default_rng(0).uniform(size=(2, 2, 8, 8, 1)).astype("float32"))
    for place, name in enumerate(("one", "other")):
        output = ScoredOutput(model, values, place, 0, True)
        question = question_of(values[place], [0, 1], others=[values[1 - place]])
        found = grad_cam(output, question)(question)
        np.testing.assert_array_equal(found, grad_cam(output, question, layer=name)(question))
        with pytest.raises(ExplainError, match=f"cannot look at layer 'decoder'.* channels: {name}"):
            grad_cam(output, question, layer="decoder")


def test_grad_cam_takes_what_follows_a_convolution_from_its_own_branch():
    keras.utils.set_random_seed(1)
    x = keras.Input((8, 8, 1))
    one, other = (keras.layers.Conv2D(4, 3, name=name)(x) for name in ("one", "other"))
    one = keras.layers.ReLU(name="one_relu")(one)
    other = keras.layers.LeakyReLU(name="other_relu")(other)
    pooled = keras.layers.GlobalMaxPooling2D()(keras.layers.Add()([one, other]))
    model = keras.Model(x, keras.layers.Dense(2, activation="softmax")(pooled))
    values = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype("float32")
    output, question = ScoredOutput(model, values, 0, 0, True), question_of(values, [0, 1])
    with recorded_calls(model) as calls:
        model(values)
    last = [call.layer.name for call in calls if isinstance(call.layer, keras.layers.Conv2D)][-1]
    found = grad_cam(output, question)(question)
    np.testing.assert_array_equal(found, grad_cam(output, question, layer=f"{last}_relu")(question))


def test_grad_cam_refuses_models_without_a_convolution_and_unknown_layers():
    output, question = ScoredOutput(linear_model(WEIGHTS, "softmax"), TABLE, 0, 0, False), question_of(TABLE, [1, 1, 1])
    with pytest.raises(ExplainError, match="needs a convolution over the 1 axes of the input; this model has none"):
        grad_cam(output, question)
    values = np.zeros((1, 8, 8, 1), np.float32)
    output, question = ScoredOutput(convolutional(2), values, 0, 0, True), question_of(values, [0])
    with pytest.raises(ExplainError, match="cannot look at layer 'feature'.* features"):
        grad_cam(output, question, layer="feature")


def test_maps_are_brought_to_another_size_by_straight_lines():
    assert resized(np.array([[1.0, 3.0]]), (4,))[0].tolist() == [1, 1.5, 2.5, 3]
    assert resized(np.array([[[2.0]]]), (2, 3)).tolist() == [[[2, 2, 2], [2, 2, 2]]]


def test_the_features_of_a_table_are_cells_each_and_those_of_a_picture_squares():
    table = ScoredOutput(None, TABLE, 0, 0, False)
    assert cells_of(table, TABLE).tolist() == [0, 1, 2, 3]
    picture = np.zeros((1, 12, 12, 3))
    cells = cells_of(ScoredOutput(None, picture, 0, 0, True), picture)
    assert cells.max() == 35
    assert (cells == 7).sum() == 4
    assert (cells[2:4, 2:4] == 7).all()


def test_the_other_inputs_of_a_model_stay_as_they_are():
    picture, table = keras.Input((4, 4, 1), name="picture"), keras.Input((2,), name="table")
    joined = keras.layers.Concatenate()([keras.layers.Flatten()(picture), table])
    layer = keras.layers.Dense(1, activation="sigmoid")
    model = keras.Model({"picture": picture, "table": table}, layer(joined))
    layer.set_weights([np.arange(18.0)[:, np.newaxis], np.zeros(1)])
    x = {"picture": np.ones((1, 4, 4, 1), np.float32), "table": np.array([[0.1, 0.2]], np.float32)}
    for place, (name, other, channels) in enumerate([("picture", "table", True), ("table", "picture", False)]):
        question = question_of(x[name], [1], others=[x[other]])
        found = integrated_gradients(ScoredOutput(model, x, place, 0, channels), question)(question)
        expected = (np.arange(16) if channels else np.array([16, 17])) * x[name].ravel()
        np.testing.assert_allclose(found.ravel(), expected, rtol=1e-4)
