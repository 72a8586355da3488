"""Warming up: the requests that a version brings along, and zeros where it brings none."""

import struct

import numpy as np
import pytest
import tensorflow as tf

from experiments_manager.export.warmup_file import write_warmup_requests
from experiments_manager.protocol import messages, tensors
from experiments_manager.protocol.status import ServingError
from experiments_manager.serving.models.saved_model import LoadedModel
from experiments_manager.serving.models.signatures import ModelRef
from experiments_manager.serving.models.warmup import WARMUP_FILE, read_records, warm_up
from tests.helpers.waiting import wait_until


class Watched:
    """A model that notes what it is asked."""

    def __init__(self, model):
        self.model, self.signatures, self.asked = model, model.signatures, []

    def run(self, signature, inputs, outputs):
        self.asked.append((signature.name, inputs, outputs))
        return self.model.run(signature, inputs, outputs)


@pytest.fixture
def watched(saved_models):
    models = []

    def load(name):
        models.append(LoadedModel.load(getattr(saved_models, name)))
        return Watched(models[-1])

    yield load
    for model in models:
        model.close()


def write(folder, *logs):
    """Writes a warm-up file of messages, or of bytes that are none."""
    (folder / WARMUP_FILE).parent.mkdir()
    with tf.io.TFRecordWriter(str(folder / WARMUP_FILE)) as writer:
        for log in logs:
            writer.write(log if isinstance(log, bytes) else log.SerializeToString())


def predict_log(signature="", **inputs):
    log = messages.PredictionLog()
    log.predict_log.request.model_spec.signature_name = signature
    for name, array in inputs.items():
        tensors.to_proto(array, log.predict_log.request.inputs[name])
    return log


def unsupported_log():
    log = messages.PredictionLog()
    log.session_run_log.SetInParent()
    return log


def test_what_the_export_writes_is_replayed(watched, tmp_path):
    x = np.float32([[1, 2, 3], [4, 5, 6]])
    write_warmup_requests(tmp_path, [{"x": tf.constant(x[:1])}, {"x": tf.constant(x)}], "any name")
    model = watched("linear")
    assert warm_up(model, tmp_path) == 2
    assert [name for name, _, _ in model.asked] == ["serving_default", "serving_default"]
    np.testing.assert_array_equal(model.asked[1][1]["x"], x)


def test_requests_of_every_kind_are_replayed(watched, tmp_path):
    def fill(request, signature):
        request.model_spec.signature_name = signature
        feature = request.input.example_list.examples.add().features.feature["x"]
        feature.float_list.value.extend([1.0, 2.0])

    classify, regress, multi = messages.PredictionLog(), messages.PredictionLog(), messages.PredictionLog()
    fill(classify.classify_log.request, "classes")
    fill(regress.regress_log.request, "value")
    request = multi.multi_inference_log.request
    for signature, method in (("classes", "classify"), ("value", "regress")):
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = "m", signature
    request.input.example_list.examples.add().features.feature["x"].float_list.value.extend([1.0, 2.0])
    write(tmp_path, classify, regress, multi)
    model = watched("examples")
    assert warm_up(model, tmp_path) == 3
    assert [name for name, _, _ in model.asked] == ["classes", "value", "classes", "value"]


def test_without_a_file_every_signature_is_asked_with_zeros(watched, tmp_path):
    model = watched("linear")
    assert warm_up(model, tmp_path) == 2
    assert [name for name, _, _ in model.asked] == ["serving_default", "twice"]
    for _, inputs, _ in model.asked:
        np.testing.assert_array_equal(inputs["x"], np.zeros([1, 3], np.float32))


def test_zeros_that_a_model_does_not_understand_do_no_harm(watched, tmp_path):
    assert warm_up(watched("examples"), tmp_path) >= 1  # an empty string is no example of `x`
    assert warm_up(watched("words"), tmp_path) == 1
    assert warm_up(watched("mixed"), tmp_path) == 1


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (predict_log("twice", x=np.float32([1, 2, 3])), "Invalid reduction dimension"),
        (predict_log(z=np.float32([[1, 2, 3]])), "z"),
        (predict_log("none", x=np.float32([[1, 2, 3]])), '"none" not found'),
        (b"\xff\xff\xff", "Failed to parse warmup record: 0"),
        (unsupported_log(), "Unsupported log_type for warmup: session_run_log"),
    ],
)
def test_a_request_that_fails_keeps_the_version_from_being_served(watched, tmp_path, log, message):
    write(tmp_path, log)
    with pytest.raises(ServingError, match=message):
        warm_up(watched("linear"), tmp_path)


def test_a_record_without_a_request_is_passed_over(watched, tmp_path):
    write(tmp_path, messages.PredictionLog(), predict_log(x=np.float32([[1, 2, 3]])))
    model = watched("linear")
    assert warm_up(model, tmp_path) == 2
    assert [name for name, _, _ in model.asked] == ["serving_default"]


def test_a_file_that_is_cut_off_says_so(tmp_path, watched):
    write(tmp_path, predict_log(x=np.float32([[1, 2, 3]])))
    content = (tmp_path / WARMUP_FILE).read_bytes()
    for damaged in (content[:-3], content[:5], struct.pack("<Q", 2**60) + content[8:]):
        (tmp_path / WARMUP_FILE).write_bytes(damaged)
        with pytest.raises(ServingError, match="cut off"):
            list(read_records(tmp_path / WARMUP_FILE))


def test_a_version_that_cannot_be_warmed_up_never_replaces_a_good_one(saved_models, running, tmp_path):
    saved_models.publish(saved_models.linear, tmp_path / "linear", 1)
    flags = [f"--model_base_path={tmp_path / 'linear'}", "--model_name=m", "--max_num_load_retries=0"]
    with running.running_server([*flags, "--file_system_poll_wait_seconds=1"]) as server:
        bad = saved_models.publish(saved_models.steeper, tmp_path, 2)
        write(bad, predict_log("twice", x=np.float32([1, 2, 3])))
        bad.rename(tmp_path / "linear" / "2")
        manager = server.server.manager
        wait_until(lambda: any(status.version == 2 and status.message for status in manager.statuses(ModelRef("m"))))
        answer = server.post("/v1/models/m:predict", {"instances": [[1, 1, 1]]})
        status = {entry["version"]: entry for entry in server.get("/v1/models/m").json["model_version_status"]}
    assert answer.json == {"predictions": [[3.0, 3.0, 3.0]]}
    assert "Invalid reduction dimension" in status["2"]["status"]["error_message"]
    assert status["1"]["state"] == "AVAILABLE"
