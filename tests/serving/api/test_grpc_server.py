import asyncio
import gc
import re
import stat
import types

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from experiments_manager.protocol import messages, tensors
from experiments_manager.protocol.errors import ServerStartError
from experiments_manager.serving.api import grpc_server, prometheus
from experiments_manager.serving.api.metrics import UNCOUNTED, Admitted

X = np.array([[1, 2, 3]], np.float32)
_TOLD = ("max_in_flight", "max_bytes_in_flight", "tensor_content")
PREDICT = "/tensorflow.serving.PredictionService/Predict"


@pytest.fixture(scope="module")
def base_path(saved_models, tmp_path_factory):
    path = tmp_path_factory.mktemp("grpc") / "linear"
    saved_models.publish(saved_models.linear, path, 1)
    return path


@pytest.fixture
def talk(base_path, run_async):
    """Starts a server in this process, calls a coroutine function with it and a channel, and stops it."""
    from experiments_manager.serving.api.grpc_server import GrpcOptions
    from experiments_manager.serving.batching.scheduler import BatchingOptions
    from experiments_manager.serving.models.version_policy import ModelConfig
    from experiments_manager.serving.server.server import Server, ServerOptions

    def talk(steps, *, address=None, **options):
        async def go():
            told = {name: options.pop(name) for name in _TOLD if name in options}
            server = Server(
                ServerOptions(
                    [ModelConfig("linear", base_path)],
                    GrpcOptions(**{"port": 0, **options}),
                    batching=BatchingOptions(),
                    **told,
                )
            )
            try:
                await server.start()
                where = address or f"127.0.0.1:{server.grpc.port}"
                async with grpc.aio.insecure_channel(where) as channel:
                    return await steps(server, channel)
            finally:
                await server.stop()

        return run_async(go())

    return talk


def predict_bytes(x=X, model="linear", typed=False, signature=""):
    request = messages.raw.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    tensors.to_proto(x, request.inputs["x"], typed=typed)
    return request.SerializeToString()


def outputs_of(answer):
    response = messages.PredictResponse.FromString(answer)
    return {name: tensors.to_array(value) for name, value in response.outputs.items()}


async def refusal(call):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value.code(), refused.value.details()


@pytest.mark.parametrize("typed", [False, True])
def test_the_own_messages_and_those_of_tensorflow_serving_understand_each_other(talk, typed):
    async def steps(server, channel):
        return await channel.unary_unary(PREDICT)(predict_bytes(typed=typed))

    np.testing.assert_array_equal(outputs_of(talk(steps))["y"], 2 * X + 1)


def test_the_stubs_of_tensorflow_serving_work(talk):
    import tensorflow as tf
    from tensorflow_serving.apis import (
        get_model_status_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )

    async def steps(server, channel):
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "linear"
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(X))
        answer = await prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request)
        status = get_model_status_pb2.GetModelStatusRequest()
        status.model_spec.name = "linear"
        return answer, await model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status)

    answer, status = talk(steps)
    assert not answer.outputs["y"].tensor_content
    np.testing.assert_array_equal(tf.make_ndarray(answer.outputs["y"]), 2 * X + 1)
    assert (answer.model_spec.version.value, answer.model_spec.signature_name) == (1, "serving_default")
    assert [entry.state for entry in status.model_version_status] == [30]


def test_many_clients_get_their_own_answers(talk):
    async def steps(server, channel):
        ask = channel.unary_unary(PREDICT)
        return await asyncio.gather(*[ask(predict_bytes(X * n)) for n in range(64)])

    for n, answer in enumerate(talk(steps)):
        np.testing.assert_array_equal(outputs_of(answer)["y"], 2 * (X * n) + 1)


@pytest.mark.parametrize("method", ["Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata"])
def test_bytes_that_are_no_message_are_refused(talk, method):
    async def steps(server, channel):
        ask = channel.unary_unary(f"/tensorflow.serving.PredictionService/{method}")
        code, details = await refusal(ask(b"\xff" * 20))
        return code, details, outputs_of(await channel.unary_unary(PREDICT)(predict_bytes()))

    code, details, outputs = talk(steps)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith(f"The request is no valid message for {method}: ")
    assert "y" in outputs


def test_codes_and_words_of_errors_reach_the_client(talk):
    async def steps(server, channel):
        ask = channel.unary_unary(PREDICT)
        return [
            await refusal(ask(predict_bytes(model="other"))),
            await refusal(channel.unary_unary("/tensorflow.serving.PredictionService/Guess")(b"")),
        ]

    missing, unknown = talk(steps)
    assert missing == (grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(other)")
    assert unknown[0] == grpc.StatusCode.UNIMPLEMENTED


def test_a_message_larger_than_allowed_is_refused(talk):
    async def steps(server, channel):
        return await refusal(channel.unary_unary(PREDICT)(predict_bytes(np.zeros((100, 3), np.float32))))

    assert talk(steps, max_message_bytes=1000)[0] == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_more_requests_in_flight_than_allowed_are_refused(talk):
    async def steps(server, channel):
        ask = channel.unary_unary(PREDICT)
        with Admitted(server.admission, "GRPC") as other:
            other.begin()
            refused = await refusal(ask(predict_bytes()))
        return refused, outputs_of(await ask(predict_bytes()))

    refused, outputs = talk(steps, max_in_flight=1)
    assert refused[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "y" in outputs


def test_replies_hold_bytes_where_that_is_asked_for(talk):
    async def steps(server, channel):
        answer = await channel.unary_unary(PREDICT)(predict_bytes())
        return messages.PredictResponse.FromString(answer).outputs["y"]

    typed, content = talk(steps), talk(steps, tensor_content=True)
    assert (list(typed.float_val), typed.tensor_content) == ([3, 5, 7], b"")
    assert (list(content.float_val), content.tensor_content) == ([], np.float32([3, 5, 7]).tobytes())


def test_the_health_service_knows_the_server_and_its_services_also_by_the_names_of_tensorflow_serving(talk):
    async def steps(server, channel):
        check = health_pb2_grpc.HealthStub(channel).Check
        names = ["", "PredictionService", "ModelService"]
        names += [f"tensorflow.serving.{name}" for name in names[1:]]
        return [(await check(health_pb2.HealthCheckRequest(service=name))).status for name in names]

    assert talk(steps) == [health_pb2.HealthCheckResponse.SERVING] * 5


def test_health_stays_good_when_a_model_that_is_added_cannot_be_had(talk, tmp_path):
    async def steps(server, channel):
        (tmp_path / "broken" / "1").mkdir(parents=True)
        request = messages.ReloadConfigRequest()
        request.config.model_config_list.config.add(name="broken", base_path=str(tmp_path / "broken"))
        reload = channel.unary_unary("/tensorflow.serving.ModelService/HandleReloadConfigRequest")
        refused = await refusal(reload(request.SerializeToString()))
        check = health_pb2_grpc.HealthStub(channel).Check
        return refused[0], (await check(health_pb2.HealthCheckRequest())).status

    assert talk(steps) == (grpc.StatusCode.UNKNOWN, health_pb2.HealthCheckResponse.SERVING)


def test_a_socket_in_the_file_system_answers_too(talk, tmp_path):
    path = tmp_path / "serving.sock"

    async def steps(server, channel):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        return outputs_of(await channel.unary_unary(PREDICT)(predict_bytes()))

    outputs = talk(steps, address=f"unix:{path}", port=None, socket_path=str(path))
    np.testing.assert_array_equal(outputs["y"], 2 * X + 1)


def test_a_socket_that_cannot_be_had_is_named(talk, tmp_path):
    async def steps(server, channel):
        from experiments_manager.serving.api.grpc_server import GrpcOptions, GrpcServer

        second = GrpcServer(server.handlers, GrpcOptions(port=None, socket_path=str(tmp_path / "none" / "a.sock")))
        with pytest.raises(ServerStartError, match=r"Cannot listen for gRPC at unix:.*/none/a\.sock .*a folder that"):
            await second.start()
        await second.stop(0)

    talk(steps)


def test_a_port_that_is_in_use_is_named(talk):
    async def steps(server, channel):
        from experiments_manager.serving.api.grpc_server import GrpcOptions, GrpcServer

        second = GrpcServer(server.handlers, GrpcOptions(port=server.grpc.port))
        with pytest.raises(ServerStartError) as refused:
            await second.start()
        await second.stop(0)
        return server.grpc.port, str(refused.value)

    port, message = talk(steps)
    assert message.startswith(f"Cannot listen for gRPC at 127.0.0.1:{port}")


def test_requests_are_counted_by_model_and_status_but_not_those_of_watchers(talk):
    async def steps(server, channel):
        ask = channel.unary_unary(PREDICT)
        await ask(predict_bytes())
        await refusal(ask(predict_bytes(model="other")))
        status = messages.GetModelStatusRequest(model_spec=messages.ModelSpec(name="linear"))
        await channel.unary_unary("/tensorflow.serving.ModelService/GetModelStatus")(status.SerializeToString())
        return prometheus.page(server.metrics)

    page = talk(steps)
    assert ':tensorflow:serving:request_count{model_name="linear",status="OK"} 1\n' in page
    assert ':tensorflow:serving:request_count{model_name="",status="NOT_FOUND"} 1\n' in page
    assert re.search(r':model_warmup_latency_count{model_path=".*/linear/1",status="OK"} 1\n', page)


def holds_request(found):
    """Whether an object is a frame of the server's code with the bytes of a request in it."""
    here = isinstance(found, types.FrameType) and found.f_code.co_filename == grpc_server.__file__
    return here and "data" in found.f_locals


@pytest.mark.parametrize(
    "data",
    [predict_bytes(model="other"), predict_bytes(np.zeros(3, np.float32), signature="twice"), b"\xff" * 9],
    ids=["model", "shape", "bytes"],
)
def test_a_refused_request_is_not_kept_until_the_garbage_collector_comes(talk, data):
    async def steps(server, channel):
        ask = channel.unary_unary(PREDICT)
        await refusal(ask(data))
        gc.collect()
        gc.disable()
        try:
            await asyncio.gather(*[refusal(ask(data)) for _ in range(8)])
            for _ in range(2000):  # the last one may still be on its way out
                kept = sum(holds_request(found) for found in gc.get_objects())
                if not kept:
                    break
                await asyncio.sleep(0.01)
            return kept
        finally:
            gc.enable()

    assert talk(steps) == 0


def test_a_client_that_gives_up_leaves_nothing_behind(talk):
    async def steps(server, channel):
        ask = channel.unary_unary(PREDICT)
        for _ in range(20):
            call = ask(predict_bytes())
            await asyncio.sleep(0)
            call.cancel()
        for _ in range(2000):
            if server.admission.in_flight == 0:
                break
            await asyncio.sleep(0.01)
        leases = server.manager.registry.newest["linear"].leases
        return server.admission.in_flight, leases, outputs_of(await ask(predict_bytes()))

    in_flight, leases, outputs = talk(steps)
    assert (in_flight, leases) == (0, 0)
    assert "y" in outputs


def test_requests_that_are_too_much_together_are_refused_and_little_ones_are_not(talk):
    large = predict_bytes(np.zeros((20_000, 3), np.float32))

    async def steps(server, channel):
        ask = channel.unary_unary(PREDICT)
        with Admitted(server.admission, "GRPC") as other:
            other.hold(UNCOUNTED + 150_000)
            refused = await refusal(ask(large))
            outputs = outputs_of(await ask(predict_bytes()))
        looked_at, _ = await refusal(ask(large))
        assert looked_at is grpc.StatusCode.INVALID_ARGUMENT  # it is larger than a batch
        return refused, outputs, server.admission.held

    (code, details), outputs, held = talk(steps, max_bytes_in_flight=300_000)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "this server takes 300000 at once" in details
    assert "y" in outputs
    assert held == 0


def test_a_connection_that_says_nothing_ends(talk):
    async def steps(server, channel):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.grpc.port)
        await reader.read()  # to its end
        writer.close()
        return outputs_of(await channel.unary_unary(PREDICT)(predict_bytes()))

    assert "y" in talk(steps, handshake_seconds=0.2)


def test_arguments_for_grpcs_core_follow_from_the_limits_and_the_users_count_for_more():
    from experiments_manager.serving.api.grpc_server import GrpcOptions, channel_arguments

    limits = {"max_message_bytes": 9, "handshake_seconds": 2.0, "idle_seconds": 0.5, "max_connections": 7}
    found = channel_arguments(GrpcOptions(**limits, channel_arguments=(("grpc.max_connection_idle_ms", 4),)))
    assert found["grpc.max_receive_message_length"] == found["grpc.max_send_message_length"] == 9
    assert found["grpc.server_handshake_timeout_ms"] == found["grpc.http2.settings_timeout"] == 2000
    assert found["grpc.max_connection_idle_ms"] == 4
    assert found["grpc.keepalive_time_ms"] == 500
    assert found["grpc.max_allowed_incoming_connections"] == 7
    unlimited = channel_arguments(GrpcOptions(handshake_seconds=0, idle_seconds=0))
    assert not any("timeout" in name or "idle" in name for name in unlimited)
