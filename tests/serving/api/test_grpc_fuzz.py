"""Bad requests over a real connection: each gets a proper status, and the server goes on.

`EXPERIMENTS_MANAGER_REQUESTS` says how many.
"""

import asyncio
import contextlib
import os
import threading

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments_manager.protocol import messages, tensors

REQUESTS = int(os.environ.get("EXPERIMENTS_MANAGER_REQUESTS", "500"))
X = np.array([[1, 2, 3]], np.float32)
PREDICT = "/tensorflow.serving.PredictionService/Predict"
PROPER = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.OUT_OF_RANGE,
}


@pytest.fixture(scope="module")
def server(saved_models, tmp_path_factory):
    """A server in a thread of this process; gives it and a channel."""
    from experiments_manager.serving.api.grpc_server import GrpcOptions
    from experiments_manager.serving.batching.scheduler import BatchingOptions
    from experiments_manager.serving.models.version_policy import ModelConfig
    from experiments_manager.serving.server.server import Server, ServerOptions

    folder = tmp_path_factory.mktemp("fuzz")
    for name in ("linear", "words", "examples", "mixed"):
        saved_models.publish(getattr(saved_models, name), folder / name, 1)
    started, ended, found = threading.Event(), asyncio.Event(), {}

    async def serve():
        configs = [ModelConfig(path.name, path) for path in sorted(folder.iterdir())]
        own = Server(ServerOptions(configs, GrpcOptions(port=0), batching=BatchingOptions(max_batch_size=16)))
        await own.start()
        found.update(server=own, loop=asyncio.get_running_loop())
        started.set()
        await ended.wait()
        await own.stop()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(120)
    with grpc.insecure_channel(f"127.0.0.1:{found['server'].grpc.port}") as channel:
        yield found["server"], channel
    found["loop"].call_soon_threadsafe(ended.set)
    thread.join()


names = st.sampled_from(
    ["linear", "words", "examples", "mixed", "", "serving_default", "twice", "x", "y", "word", "small", "flag", "../x"]
) | st.text(max_size=8)
dims = st.lists(st.sampled_from([0, 1, 2, 3, -1, -(2**63), 2**31, 2**62, 2**63 - 1]), max_size=5)


@st.composite
def tensor_protos(draw):
    tensor = messages.TensorProto()
    tensor.dtype = draw(st.sampled_from([*range(0, 30), 101, 107, 999, -1]))
    tensor.tensor_shape.unknown_rank = draw(st.sampled_from([False, False, False, True]))
    for size in draw(dims):
        tensor.tensor_shape.dim.add().size = size
    tensor.tensor_content = draw(st.binary(max_size=16) if draw(st.booleans()) else st.just(b""))
    tensor.float_val.extend(draw(st.lists(st.floats(width=32), max_size=4)))
    tensor.int_val.extend(draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4)))
    tensor.string_val.extend(draw(st.lists(st.binary(max_size=5), max_size=4)))
    tensor.bool_val.extend(draw(st.lists(st.booleans(), max_size=4)))
    return tensor


def fill_spec(draw, spec):
    spec.name = draw(names)
    spec.signature_name = draw(st.sampled_from(["", "serving_default", "twice", "classes", "value", "nothing"]))
    which = draw(st.sampled_from(["none", "none", "version", "label"]))
    if which == "version":
        spec.version.value = draw(st.sampled_from([1, 2, 0, -1, 2**63 - 1]))
    elif which == "label":
        spec.version_label = draw(names)


@st.composite
def predict_requests(draw):
    request = messages.PredictRequest()
    if draw(st.sampled_from([True, True, True, False])):
        fill_spec(draw, request.model_spec)
    for name in draw(st.lists(names, max_size=3)):
        request.inputs[name].CopyFrom(draw(tensor_protos()))
    request.output_filter.extend(draw(st.lists(names, max_size=2)))
    return "PredictionService/Predict", request.SerializeToString()


@st.composite
def example_requests(draw):
    method, kind = draw(
        st.sampled_from([("Classify", messages.ClassificationRequest), ("Regress", messages.RegressionRequest)])
    )
    request = kind()
    fill_spec(draw, request.model_spec)
    for values in draw(st.lists(st.lists(st.floats(width=32), max_size=3), max_size=3)):
        example = request.input.example_list.examples.add()
        example.features.feature[draw(names)].float_list.value.extend(values)
    return f"PredictionService/{method}", request.SerializeToString()


@st.composite
def several_requests(draw):
    request = messages.MultiInferenceRequest()
    for _ in range(draw(st.integers(0, 3))):
        task = request.tasks.add()
        fill_spec(draw, task.model_spec)
        task.method_name = draw(st.sampled_from(["tensorflow/serving/classify", "tensorflow/serving/regress", "x"]))
    return "PredictionService/MultiInference", request.SerializeToString()


@st.composite
def other_requests(draw):
    metadata = messages.GetModelMetadataRequest(metadata_field=draw(st.lists(names, max_size=2)))
    fill_spec(draw, metadata.model_spec)
    status = messages.GetModelStatusRequest()
    fill_spec(draw, status.model_spec)
    return draw(
        st.sampled_from(
            [
                ("PredictionService/GetModelMetadata", metadata.SerializeToString()),
                ("ModelService/GetModelStatus", status.SerializeToString()),
            ]
        )
    )


methods = st.sampled_from(
    [
        *(
            f"PredictionService/{name}"
            for name in ("Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata")
        ),
        "ModelService/GetModelStatus",
        "ModelService/HandleReloadConfigRequest",
    ]
)


@st.composite
def damaged_requests(draw):
    """A good request with some bytes changed, cut off, or put in twice; or any bytes at all."""
    good = messages.PredictRequest()
    good.model_spec.name = "linear"
    tensors.to_proto(X, good.inputs["x"])
    data = bytearray(good.SerializeToString())
    for place, value in draw(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=4)):
        data[place] = value
    data = bytes(data)[: draw(st.integers(0, len(data)))]
    return draw(methods), draw(st.sampled_from([data, data * 2])) if draw(st.booleans()) else draw(
        st.binary(max_size=64)
    )


@pytest.mark.slow
def test_bad_requests_get_a_proper_status_each_and_their_neighbours_an_answer(server):
    own, channel = server
    statuses = {}
    good = messages.PredictRequest()
    good.model_spec.name = "linear"
    tensors.to_proto(X, good.inputs["x"])
    predict = channel.unary_unary(
        PREDICT, messages.PredictRequest.SerializeToString, messages.PredictResponse.FromString
    )

    @settings(
        max_examples=REQUESTS, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(st.one_of(predict_requests(), damaged_requests(), example_requests(), several_requests(), other_requests()))
    def ask(request):
        method, data = request
        neighbours = [predict.future(good, timeout=120)]  # on both sides, so that they are read together
        asked = channel.unary_unary(f"/tensorflow.serving.{method}").future(data, timeout=120)
        neighbours.append(predict.future(good, timeout=120))
        for neighbour in neighbours:
            np.testing.assert_array_equal(tensors.to_array(neighbour.result().outputs["y"]), 2 * X + 1)
        try:
            asked.result()
            code = grpc.StatusCode.OK  # some are right by chance
        except grpc.RpcError as error:
            code = error.code()
            assert error.details(), f"{code} without a reason"
            assert code in PROPER, f"{code}: {error.details()}"
        statuses[code] = statuses.get(code, 0) + 1

    ask()
    assert sum(statuses.values()) >= REQUESTS
    assert statuses[grpc.StatusCode.INVALID_ARGUMENT] > REQUESTS / 4
    assert own.admission.in_flight == 0


def test_a_client_that_sends_no_http_at_all_disturbs_nobody(server):
    import socket

    own, channel = server
    for junk in (b"\x00" * 100, b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 200):
        with socket.create_connection(("127.0.0.1", own.grpc.port)) as connection, contextlib.suppress(OSError):
            connection.sendall(junk)
    request = messages.GetModelStatusRequest()
    request.model_spec.name = "linear"
    answer = channel.unary_unary("/tensorflow.serving.ModelService/GetModelStatus")(
        request.SerializeToString(), timeout=120
    )
    assert messages.GetModelStatusResponse.FromString(answer).model_version_status[0].state == 30
