"""The warm-up requests that stand in every version, read with TensorFlow Serving's own message classes."""

import numpy as np
import pytest
import tensorflow as tf

from experiments_manager.export import warmup_file
from experiments_manager.export.servable import servable_from_model
from experiments_manager.export.warmup_file import WARMUP_FILE, warmup_requests, write_warmup_requests


@pytest.fixture(scope="module")
def prediction_log():
    return pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2").PredictionLog


@pytest.fixture
def read(prediction_log):
    """Reads the `PredictRequest`s of a SavedModel's warm-up file."""

    def requests(saved_model):
        records = tf.data.TFRecordDataset(str(saved_model / WARMUP_FILE)).as_numpy_iterator()
        logs = [prediction_log.FromString(record) for record in records]
        assert all(log.WhichOneof("log_type") == "predict_log" for log in logs)
        return [log.predict_log.request for log in logs]

    return requests


@pytest.mark.slow
def test_every_version_holds_validation_samples_as_requests(experiment, read, settle):
    trained = experiment("export = True\n", {"epochs": 2, "learning_rate": 0.01}, should_stop=settle)
    x = np.random.default_rng(16).normal(size=(16, 3)).astype("float32")  # the validation data
    versions = [path for path in trained.run.exports_dir.iterdir() if path.name.isdigit()]
    assert len(versions) == 2
    for version in versions:
        one, several = read(version)
        np.testing.assert_array_equal(tf.make_ndarray(one.inputs["position"]), x[:1])
        np.testing.assert_array_equal(tf.make_ndarray(several.inputs["position"]), x[:8])
        assert (one.model_spec.name, one.model_spec.signature_name) == ("mysettings_curve", "serving_default")


@pytest.mark.slow
def test_a_version_answers_its_own_warmup_requests(experiment, read):
    trained = experiment("export = True\n", {"epochs": 1})
    loaded = tf.saved_model.load(str(trained.result.exported_model))
    for request in read(trained.result.exported_model):
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        outputs = loaded.signatures[request.model_spec.signature_name](**inputs)
        assert outputs["height"].shape[0] == inputs["position"].shape[0]


@pytest.fixture(scope="module")
def servable(tensorflow):
    import keras

    model = keras.Sequential([keras.Input([4], name="x"), keras.layers.Dense(2, name="y")])
    return servable_from_model(model, tf.zeros([3, 4]), model_name="m")


def test_a_batch_smaller_than_asked_for_is_sent_as_it_is(servable):
    shapes = [request["x"].shape.as_list() for request in warmup_requests(servable, tf.ones([3, 4]))]
    assert shapes == [[1, 4], [3, 4]]


def test_large_samples_are_sent_one_at_a_time(servable, monkeypatch):
    monkeypatch.setattr(warmup_file, "MAX_BYTES", 100)
    assert [len(request["x"]) for request in warmup_requests(servable, tf.ones([32, 4]))] == [1]


def test_a_function_of_a_fixed_number_of_samples_gets_that_number(servable):
    import keras

    function = tf.function(lambda x: {"y": x * 2}, input_signature=[tf.TensorSpec([4, 2], tf.float32, name="x")])
    from experiments_manager.export.servable import servable_from_hook

    fixed = servable_from_hook(function, keras.Sequential([]), model_name="m", where="here")
    assert [request["x"].shape.as_list() for request in warmup_requests(fixed, tf.ones([9, 2]))] == [[4, 2]]


@pytest.mark.parametrize(
    "value", [np.float32([[1.5]]), np.array([[b"a", b"\xff\x00"]]), np.int64([2**40]), np.array([True, False])]
)
def test_any_type_and_length_is_written_as_protobuf_reads_it(value, tmp_path, read):
    write_warmup_requests(tmp_path, [{"größe": tf.constant(value), "b": tf.zeros([70_000])}], "n" * 300, "other")
    [request] = read(tmp_path)
    np.testing.assert_array_equal(tf.make_ndarray(request.inputs["größe"]), value)
    assert tf.make_ndarray(request.inputs["b"]).shape == (70_000,)
    assert (request.model_spec.name, request.model_spec.signature_name) == ("n" * 300, "other")


def test_without_requests_nothing_is_written(tmp_path):
    write_warmup_requests(tmp_path, [], "m")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="missing"):
        write_warmup_requests(tmp_path / "missing", [{"x": tf.zeros([1])}], "m")
