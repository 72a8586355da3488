"""The profiler service: asked by its own messages, and by TensorFlow's own client."""

import contextlib
import sys
import threading
import time

import grpc
import numpy as np
import pytest

from experiments_manager.protocol import messages, tensors
from tests.helpers.warm_processes import warm_run

SERVICE = "/tensorflow.ProfilerService/"


@pytest.fixture(scope="module")
def server(saved_models, running, tmp_path_factory):
    folder = tmp_path_factory.mktemp("profiled")
    saved_models.publish(saved_models.linear, folder / "linear", 1)
    flags = [f"--model_base_path={folder / 'linear'}", "--model_name=linear", "--max_in_flight=1"]
    with running.running_server(flags) as server:
        yield server


@pytest.fixture(scope="module")
def channel(server):
    with contextlib.closing(grpc.insecure_channel(f"127.0.0.1:{server.grpc}")) as channel:
        yield channel


@pytest.fixture
def profile(channel):
    """Asks for a trace; gives the call."""

    def profile(options=None, **fields):
        request = messages.ProfileRequest(opts=options or {}, **fields)
        return channel.unary_unary(SERVICE + "Profile").future(request.SerializeToString(), timeout=120)

    return profile


@pytest.fixture
def busy(channel):
    """Inside, somebody asks for predictions, one after the other."""

    @contextlib.contextmanager
    def busy():
        request = messages.PredictRequest()
        request.model_spec.name = "linear"
        tensors.to_proto(np.ones((1, 3), np.float32), request.inputs["x"])
        ask = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        ended, answered = threading.Event(), []

        def work():
            while not ended.is_set():
                answered.append(ask(request.SerializeToString(), timeout=60))

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield answered
        finally:
            ended.set()
            thread.join()

    return busy


def response_of(call):
    return messages.ProfileResponse.FromString(call.result())


def names_in(trace):
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    planes = xplane_pb2.XSpace.FromString(trace).planes
    return {entry.name for plane in planes for entry in plane.event_metadata.values()}


def test_a_trace_shows_what_the_model_ran_meanwhile_and_keeps_no_request_out(profile, busy):
    with busy() as answered:
        call = profile({"duration_ms": 300})
        response = response_of(call)
    assert answered
    [tool] = response.tool_data
    assert (tool.name, response.empty_trace) == ("xplane.pb", False)
    assert "SessionRun" in " ".join(names_in(tool.data))


def test_a_trace_may_be_asked_for_in_one_piece_and_by_the_older_field_of_its_length(profile, busy):
    with busy():
        response = response_of(profile(duration_ms=200, emit_xspace=True))
    assert not response.tool_data
    assert "SessionRun" in " ".join(names_in(response.xspace))


@pytest.fixture
def until(profile):
    """Asks for short traces until one has a status; the ones before are as short as can be."""

    def until(code):
        deadline = time.monotonic() + 50
        while (found := profile(duration_ms=1).code()) is not code:
            assert time.monotonic() < deadline, found

    return until


def test_a_trace_is_ended_by_its_session_and_there_is_one_at_a_time(profile, channel, until):
    call = profile({"duration_ms": 59_000}, session_id="long")
    until(grpc.StatusCode.ALREADY_EXISTS)
    terminate = channel.unary_unary(SERVICE + "Terminate")
    terminate(messages.TerminateRequest(session_id="another").SerializeToString(), timeout=60)
    assert not call.done()
    terminate(messages.TerminateRequest(session_id="long").SerializeToString(), timeout=60)
    assert call.code() is grpc.StatusCode.OK


def test_a_client_that_gives_up_leaves_the_profiler_free(profile, until):
    call = profile({"duration_ms": 59_000}, session_id="given up")
    until(grpc.StatusCode.ALREADY_EXISTS)
    call.cancel()
    until(grpc.StatusCode.OK)
    assert call.cancelled()


@pytest.mark.parametrize("options", [{"duration_ms": 61_000}, {"start_timestamp_ns": 2**63}])
def test_what_would_take_too_long_is_refused(profile, options):
    call = profile(options)
    assert call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "Expected at most 60 s" in call.details()


def test_monitoring_is_not_there_as_in_tensorflow(channel):
    with pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(SERVICE + "Monitor")(messages.MonitorRequest().SerializeToString(), timeout=60)
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.UNIMPLEMENTED, "unimplemented.")


def test_the_service_can_be_turned_off(saved_models, running, tmp_path):
    saved_models.publish(saved_models.linear, tmp_path / "linear", 1)
    flags = [f"--model_base_path={tmp_path / 'linear'}", "--model_name=linear", "--enable_profiler=false"]
    with (
        running.running_server(flags) as server,
        contextlib.closing(grpc.insecure_channel(f"127.0.0.1:{server.grpc}")) as channel,
        pytest.raises(grpc.RpcError) as refused,
    ):
        channel.unary_unary(SERVICE + "Profile")(b"", timeout=60)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.slow
def test_tensorflows_own_client_writes_the_trace_where_it_was_told_to(server, busy, tmp_path):
    program = (
        "import tensorflow as tf\n"
        f"tf.profiler.experimental.client.trace('grpc://127.0.0.1:{server.grpc}', {str(tmp_path)!r}, 500)\n"
    )
    with busy():
        done = warm_run([sys.executable, "-c", program], timeout=300)
    assert done.returncode == 0, done.stderr
    [trace] = tmp_path.rglob("*.xplane.pb")
    assert "SessionRun" in " ".join(names_in(trace.read_bytes()))
