import dataclasses
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor, TimeoutError

import numpy as np
import pytest

from experiments_manager.protocol.status import Code, ServingError


@pytest.fixture
def load(saved_models):
    from experiments_manager.serving.models.saved_model import LoadedModel

    loaded = []

    def load(path):
        loaded.append(LoadedModel.load(path))
        return loaded[-1]

    yield load
    for model in loaded:
        model.close()


def run(model, signature="serving_default", **inputs):
    found = model.signatures[signature]
    return model.run(found, found.check_inputs(inputs), tuple(found.outputs))


X = np.array([[1, 2, 3], [4, 5, 6]], np.float32)


def test_a_model_of_tensorflow_2_gives_what_its_functions_give(load, saved_models):
    model = load(saved_models.linear)
    np.testing.assert_array_equal(run(model, x=X)["y"], 2 * X + 1)
    twice = run(model, "twice", x=X)
    np.testing.assert_array_equal(twice["y"], 2 * (2 * X + 1))
    np.testing.assert_array_equal(twice["total"], [6, 15])


def test_outputs_without_dimensions_are_arrays_too(load, tmp_path):
    import tensorflow as tf

    module = tf.Module()
    spec = [tf.TensorSpec([None, 3], tf.float32, name="x")]
    module.serve = tf.function(lambda x: {"sum": tf.reduce_sum(x), "word": tf.constant("six")}, input_signature=spec)
    tf.saved_model.save(module, str(tmp_path), signatures=module.serve.get_concrete_function())
    found = run(load(tmp_path), x=X)
    assert {name: (array.dtype, array.shape, array.item()) for name, array in found.items()} == {
        "sum": (np.float32, (), 21),
        "word": (object, (), b"six"),
    }


def test_only_the_outputs_that_are_asked_for_are_given(load, saved_models):
    model = load(saved_models.linear)
    assert list(model.run(model.signatures["twice"], {"x": X}, ("total",))) == ["total"]


def test_tables_are_filled_from_the_files_that_come_with_the_model(load, saved_models):
    model = load(saved_models.words)
    found = run(model, word=saved_models.as_strings("two", "zero", "ten"))
    assert found["number"].tolist() == [2, 0, -1]
    assert found["loud"].tolist() == [b"two!", b"zero!", b"ten!"]


def test_a_model_of_tensorflow_1_with_reference_variables_runs(load, saved_models):
    model = load(saved_models.examples)
    np.testing.assert_array_equal(run(model, x=np.array([[3, 4]], np.float32))["scores"], [[3, 8]])


def test_a_model_saved_as_text_runs_too(load, saved_models, tmp_path):
    from google.protobuf import text_format
    from tensorflow.core.protobuf import saved_model_pb2

    shutil.copytree(saved_models.linear, tmp_path / "1")
    binary = tmp_path / "1" / "saved_model.pb"
    text = text_format.MessageToString(saved_model_pb2.SavedModel.FromString(binary.read_bytes()))
    (tmp_path / "1" / "saved_model.pbtxt").write_text(text)
    binary.unlink()
    np.testing.assert_array_equal(run(load(tmp_path / "1"), x=X)["y"], 2 * X + 1)


def test_signatures_tell_types_shapes_and_methods(load, saved_models):
    signature = load(saved_models.mixed).signatures["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"
    assert {name: (spec.dtype, spec.shape) for name, spec in signature.inputs.items()} == {
        "flag": ("bool", (2,)),
        "small": ("uint8", (2,)),
    }
    assert not signature.batchable
    linear = load(saved_models.linear)
    assert sorted(linear.signatures) == ["serving_default", "twice"]
    assert linear.signatures["twice"].batchable
    assert linear.signatures["twice"].inputs["x"].shape == (None, 3)


def test_two_versions_with_one_graph_share_it_and_keep_their_own_variables(load, saved_models):
    first, second = load(saved_models.linear), load(saved_models.steeper)
    assert first._graph is second._graph
    np.testing.assert_array_equal(run(second, x=X)["y"], 5 * X + 1)
    first.close()
    np.testing.assert_array_equal(run(second, x=X)["y"], 5 * X + 1)


def test_what_tensorflow_refuses_comes_as_its_code_and_reason(load, saved_models):
    with pytest.raises(ServingError, match="a bad word") as refused:
        run(load(saved_models.words), word=saved_models.as_strings("bad"))
    assert refused.value.code == Code.INVALID_ARGUMENT


def test_what_tensorflow_refuses_is_told_also_where_it_quotes_what_is_no_text(load, saved_models):
    word = saved_models.as_strings("bad", "")
    word[1] = b"\xff\xfe"
    with pytest.raises(ServingError, match="(?s)a bad word.*\N{REPLACEMENT CHARACTER}") as refused:
        run(load(saved_models.words), word=word)
    assert refused.value.code == Code.INVALID_ARGUMENT


def test_a_model_that_was_closed_says_so(load, saved_models):
    model = load(saved_models.linear)
    model.close()
    with pytest.raises(ServingError, match="not served any more") as refused:
        run(model, x=X)
    assert refused.value.code == Code.UNAVAILABLE


def test_calls_go_on_while_another_one_is_prepared(load, saved_models, monkeypatch):
    from experiments_manager.serving.models import saved_model

    model = load(saved_models.linear)
    run(model, x=X)
    preparing, go_on, make = threading.Event(), threading.Event(), saved_model._Callable.make

    def slow(*arguments):
        preparing.set()
        assert go_on.wait(10)
        return make(*arguments)

    monkeypatch.setattr(saved_model._Callable, "make", slow)
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(run, model, "twice", x=X)
        try:
            assert preparing.wait(10)
            np.testing.assert_array_equal(pool.submit(run, model, x=X).result(5)["y"], 2 * X + 1)
        finally:
            go_on.set()
        np.testing.assert_array_equal(other.result(10)["total"], [6, 15])


def test_more_combinations_of_outputs_than_are_prepared_are_answered_alike(load, saved_models, monkeypatch):
    from experiments_manager.serving.models import saved_model

    monkeypatch.setattr(saved_model, "MAX_CALLABLES", 0)
    model = load(saved_models.linear)
    twice = model.signatures["twice"]
    for outputs in (("total",), ("y",), ("y", "total")):
        assert model.run(twice, {"x": X}, list(outputs)).keys() == set(outputs)
    np.testing.assert_array_equal(model.run(twice, {"x": X}, ("total",))["total"], [6, 15])


def test_closing_waits_for_the_calls_that_are_running(load, saved_models):
    model = load(saved_models.linear)
    signature = model.signatures["serving_default"]
    model.prepare(signature)
    key = ("serving_default", ("y",))
    running, go_on, call = threading.Event(), threading.Event(), model._callables[key]

    def slow(*arguments):
        running.set()
        assert go_on.wait(10)
        return call.function(*arguments)

    model._callables[key] = dataclasses.replace(call, function=slow)
    with ThreadPoolExecutor(2) as pool:
        answer = pool.submit(run, model, x=X)
        assert running.wait(10)
        closing = pool.submit(model.close)
        with pytest.raises(TimeoutError):
            closing.result(0.1)
        go_on.set()
        closing.result(10)
    np.testing.assert_array_equal(answer.result()["y"], 2 * X + 1)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            {"x": X.astype(np.float64)},
            r"Expects arg\[0\] to be float but double is provided: input x \(serving_default_x:0\)",
        ),
        ({}, r"input size does not match signature: 0!=1 len\(\{\}\) != len\(\{x\}\)\. .*Missing but required: \{x\}"),
        ({"x": X, "z": X}, r"input size does not match signature: 2!=1 .*Sent extra: \{z\}"),
        ({"z": X}, r"input tensor alias not found in signature: z\. Inputs expected to be in the set \{x\}\."),
    ],
)
def test_inputs_of_other_names_or_types_are_refused(load, saved_models, inputs, message):
    with pytest.raises(ServingError, match=message) as refused:
        load(saved_models.linear).signatures["serving_default"].check_inputs(inputs)
    assert refused.value.code == Code.INVALID_ARGUMENT


@pytest.fixture
def images(load, tmp_path):
    """A convolution of images [?,8,8,1], inside a function of the graph."""
    import tensorflow as tf

    module = tf.Module()
    kernel = tf.ones([3, 3, 1, 2])
    module.serve = tf.function(
        lambda image: {"y": tf.nn.conv2d(image, kernel, 1, "VALID")},
        input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.float32, name="image")],
    )
    tf.saved_model.save(module, str(tmp_path / "images"), signatures=module.serve)
    return load(tmp_path / "images")


@pytest.mark.parametrize("shape", [(), (8,), (8, 8), (8, 8, 1), (1, 1, 8, 8, 1)])
def test_a_rank_for_which_a_convolution_would_end_the_process_is_refused(images, shape):
    signature = images.signatures["serving_default"]
    with pytest.raises(ServingError, match=r"does not fit the signature: expected \[\?,8,8,1\], got") as refused:
        signature.check_inputs({"image": np.zeros(shape, np.float32)})
    assert refused.value.code == Code.INVALID_ARGUMENT


def test_images_of_another_size_are_computed_where_the_convolution_can(images):
    signature = images.signatures["serving_default"]
    given = signature.check_inputs({"image": np.ones((2, 5, 9, 1), np.float32)})
    assert images.run(signature, given, ("y",))["y"].shape == (2, 3, 7, 2)
    given = signature.check_inputs({"image": np.ones((2, 8, 8, 3), np.float32)})
    with pytest.raises(ServingError) as refused:
        images.run(signature, given, ("y",))
    assert refused.value.code == Code.INVALID_ARGUMENT


@pytest.mark.parametrize(("x", "code"), [(X[0], Code.INVALID_ARGUMENT), (X, Code.ABORTED)])
def test_what_a_kernel_says_of_a_shape_that_the_signature_does_not_have_is_the_requests_fault(
    load, saved_models, monkeypatch, x, code
):
    import tensorflow as tf

    from experiments_manager.serving.models import saved_model

    def abort(*inputs):
        raise tf.errors.AbortedError(None, None, "oneDNN could not create a primitive descriptor")

    model = load(saved_models.linear)
    signature = model.signatures["serving_default"]
    monkeypatch.setattr(saved_model._Callable, "make", lambda *made: saved_model._Callable(abort, ("x",), ()))
    with pytest.raises(ServingError, match="could not create") as refused:
        model.run(signature, signature.check_inputs({"x": x}), ("y",))
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("names", "message"),
    [(["z"], "output tensor alias not found in signature: z"), (["y", "y"], "duplicate output tensor alias: y")],
)
def test_outputs_that_do_not_exist_or_come_twice_are_refused(load, saved_models, names, message):
    with pytest.raises(ServingError, match=message):
        load(saved_models.linear).signatures["twice"].select_outputs(names)


@pytest.mark.parametrize(
    ("damage", "code", "message"),
    [
        (lambda path: (path / "saved_model.pb").unlink(), Code.NOT_FOUND, "Could not find SavedModel .pb or .pbtxt"),
        (
            lambda path: (path / "saved_model.pb").write_bytes(b"\xff" * 100),
            Code.DATA_LOSS,
            "Can't parse .*saved_model.pb as binary proto",
        ),
        (
            lambda path: (path / "saved_model.pb").rename(path / "saved_model.pbtxt"),
            Code.DATA_LOSS,
            "Can't parse .*saved_model.pbtxt as text proto",
        ),
        (
            lambda path: (path / "saved_model.pb").write_bytes(b""),
            Code.NOT_FOUND,
            "matching supplied tags: { serve }",
        ),
        (lambda path: shutil.rmtree(path / "variables"), Code.NOT_FOUND, "The variables of .* are missing"),
        (
            lambda path: next(path.glob("variables/*.data*")).write_bytes(b""),
            Code.OUT_OF_RANGE,
            "Loading .* failed",
        ),
        (
            lambda path: next(path.glob("variables/*.data*")).unlink(),
            Code.NOT_FOUND,
            r"Loading .* failed: .*variables\.data-00000-of-00001; No such file or directory",
        ),
    ],
)
def test_a_version_that_is_damaged_or_not_whole_is_not_loaded(load, saved_models, tmp_path, damage, code, message):
    from experiments_manager.serving.models.saved_model import LoadError

    path = saved_models.publish(saved_models.linear, tmp_path, 1)
    damage(path)
    with pytest.raises(LoadError, match=message) as failed:
        load(path)
    assert failed.value.code == code
