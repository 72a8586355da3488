import asyncio
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import grpc
import numpy as np
import pytest

from experiments_manager.protocol import messages, tensors
from experiments_manager.protocol.errors import ServerStartError
from experiments_manager.serving.models.signatures import ModelRef
from tests.helpers.warm_processes import WarmPopen

X = np.array([[1, 2, 3]], np.float32)
PREDICT = "/tensorflow.serving.PredictionService/Predict"


def request_bytes():
    request = messages.raw.PredictRequest()
    request.model_spec.name = "linear"
    tensors.to_proto(X, request.inputs["x"])
    return request.SerializeToString()


@pytest.fixture
def base_path(saved_models, tmp_path):
    saved_models.publish(saved_models.linear, tmp_path / "linear", 1)
    return tmp_path / "linear"


def options_for(base_path, **more):
    from experiments_manager.serving.api.grpc_server import GrpcOptions
    from experiments_manager.serving.batching.scheduler import BatchingOptions
    from experiments_manager.serving.models.loader import LoadingOptions
    from experiments_manager.serving.models.version_policy import ModelConfig
    from experiments_manager.serving.server.server import ServerOptions

    arguments = {
        "grpc": GrpcOptions(port=0),
        "batching": BatchingOptions(),
        "loading": LoadingOptions(poll_seconds=0.02, max_load_retries=0),
        **more,
    }
    return ServerOptions([ModelConfig("linear", base_path)], **arguments)


def test_no_request_fails_under_load_while_versions_come_and_go(saved_models, base_path, run_async):
    from experiments_manager.serving.server.server import Server

    async def go():
        server = Server(options_for(base_path))
        await server.start()
        answers, done = [], asyncio.Event()

        async def client(channel):
            ask = channel.unary_unary(PREDICT)
            while not done.is_set():
                response = messages.PredictResponse.FromString(await ask(request_bytes()))
                y = tensors.to_array(response.outputs["y"])
                answers.append((response.model_spec.version.value, y.tolist()))

        async def served(version):
            linear = ModelRef("linear")
            while not any((one.version, one.state) == (version, 30) for one in server.manager.statuses(linear)):
                await asyncio.sleep(0.01)

        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc.port}") as channel:
            clients = [asyncio.ensure_future(client(channel)) for _ in range(8)]
            while not answers:
                await asyncio.sleep(0.01)
            for version in range(2, 8):
                source = saved_models.steeper if version % 2 == 0 else saved_models.linear
                saved_models.publish(source, base_path, version)
                await served(version)
                while answers[-1][0] != version:
                    await asyncio.sleep(0.01)
            done.set()
            await asyncio.gather(*clients)  # raises where a request failed
        await server.stop()
        return answers

    answers = run_async(go())
    assert {version for version, _ in answers} >= {1, 2, 3, 4, 5, 6, 7}
    for version, y in answers:
        assert y == ((5 if version % 2 == 0 else 2) * X + 1).tolist()


def test_a_server_listens_only_when_its_models_answer(base_path, run_async):
    from experiments_manager.serving.server.server import Server

    version = base_path / "1"
    version.rename(base_path / "later")

    async def go():
        server = Server(options_for(base_path))
        starting = asyncio.ensure_future(server.start())
        while "No versions of servable linear found" not in server.manager.problems().get("linear", ""):
            await asyncio.sleep(0.01)
        assert server.grpc.port is None
        (base_path / "later").rename(version)
        await starting
        port = server.grpc.port
        await server.stop()
        return port

    assert run_async(go()) > 0


def test_a_server_whose_only_version_does_not_load_says_why(base_path, run_async):
    from experiments_manager.serving.server.server import Server

    (base_path / "1" / "saved_model.pb").write_bytes(b"no graph")

    async def go():
        server = Server(options_for(base_path))
        try:
            await server.start()
        finally:
            await server.stop()

    with pytest.raises(ServerStartError, match=r"Some models did not become available: .*version 1: Can't parse"):
        run_async(go())


def test_a_new_configuration_file_is_taken_over(saved_models, base_path, tmp_path, run_async):
    from experiments_manager.serving.models.version_policy import ModelConfig
    from experiments_manager.serving.server.server import Server

    saved_models.publish(saved_models.steeper, tmp_path / "second", 1)
    configs = [ModelConfig("linear", base_path)]

    async def go():
        server = Server(options_for(base_path, read_configs=lambda: list(configs), config_poll_seconds=0.02))
        await server.start()
        configs.append(ModelConfig("second", tmp_path / "second"))
        while "second" not in server.manager.names:
            await asyncio.sleep(0.01)
        assert await asyncio.get_running_loop().run_in_executor(None, server.manager.wait_until_ready, 10)
        found = server.manager.lease(ModelRef("second")).version
        await server.stop()
        return found

    assert run_async(go()) == 1


@pytest.mark.parametrize(
    ("folder", "told"),
    [
        ("empty", "The new model configuration is in force, but not all of it answers: .*second: No versions of"),
        (None, "The model configuration was not taken over: it is broken"),
    ],
    ids=["a model without versions", "a broken file"],
)
def test_what_is_wrong_with_a_new_configuration_file_is_told_once(base_path, tmp_path, run_async, caplog, folder, told):
    from experiments_manager.protocol.errors import ServerStartError
    from experiments_manager.serving.models.version_policy import ModelConfig
    from experiments_manager.serving.server.server import Server

    (tmp_path / "empty").mkdir()
    reads = []

    def read():
        reads.append(None)
        if folder is None:
            raise ServerStartError("it is broken")
        return [ModelConfig("linear", base_path), ModelConfig("second", tmp_path / folder)]

    async def go():
        server = Server(options_for(base_path, read_configs=read, config_poll_seconds=0.01))
        await server.start()
        while len(reads) < 5:
            await asyncio.sleep(0.01)
        await server.stop()

    with caplog.at_level("INFO", "experiments_manager.serving.server.server"):
        run_async(go())
    messages = [message for message in caplog.messages if "configuration" in message]
    assert len(messages) == 1
    assert re.match(told, messages[0])


def test_a_label_in_the_configuration_file_waits_for_its_version(saved_models, base_path, run_async):
    from experiments_manager.protocol.status import ServingError
    from experiments_manager.serving.models.version_policy import ModelConfig, VersionPolicy
    from experiments_manager.serving.server.server import Server

    configs = [ModelConfig("linear", base_path)]

    def labelled(server):
        try:
            with server.manager.lease(ModelRef("linear", label="new")) as lease:
                return lease.version
        except ServingError:
            return None

    async def go():
        server = Server(options_for(base_path, read_configs=lambda: list(configs), config_poll_seconds=0.02))
        await server.start()
        configs[:] = [ModelConfig("linear", base_path, VersionPolicy("all"), {"new": 9})]
        while server.manager.names and not server.manager.registry.configs["linear"].labels:
            await asyncio.sleep(0.01)
        saved_models.publish(saved_models.steeper, base_path, 9)
        while (found := labelled(server)) is None:
            await asyncio.sleep(0.01)
        await server.stop()
        return found

    assert run_async(go()) == 9


def test_a_call_that_never_ends_does_not_keep_the_server_from_stopping(base_path, run_async, monkeypatch, caplog):
    from experiments_manager.serving.models.saved_model import LoadedModel
    from experiments_manager.serving.server import server as module

    running, go_on = threading.Event(), threading.Event()

    def run(self, signature, inputs, outputs):
        self._running.append(None)
        running.set()
        assert go_on.wait(20)
        self._running.pop()
        with self._idle:
            self._idle.notify_all()
        return {"y": inputs["x"]}

    monkeypatch.setattr(module, "PATIENCE", 0.2)
    monkeypatch.setattr(LoadedModel, "run", run)

    async def go():
        server = module.Server(options_for(base_path, warm_up=False, grace_seconds=0.2))
        tell = server.log_unfinished

        def tell_when_it_is_closing():  # a slow machine may come to that only after all patience has ended
            deadline = time.monotonic() + 20
            while not server.manager.unfinished() and time.monotonic() < deadline:
                time.sleep(0.01)
            tell()

        monkeypatch.setattr(server, "log_unfinished", tell_when_it_is_closing)
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc.port}") as channel:
            asking = asyncio.ensure_future(channel.unary_unary(PREDICT)(request_bytes()))
            assert await asyncio.to_thread(running.wait, 10)
            ended = await server.stop()
            with pytest.raises(grpc.aio.AioRpcError):
                await asking
        return ended

    try:
        assert run_async(go()) is False
    finally:
        go_on.set()
    assert "version 1 of linear still runs a call" in caplog.text


@pytest.fixture
def start_process():
    """Starts a server process that listens for gRPC at a free port; gives the process and the port."""
    processes = []

    def start(name, base_path, **options):
        script = f"""
            from pathlib import Path
            from experiments_manager.serving.api.grpc_server import GrpcOptions
            from experiments_manager.serving.server.server import ServerOptions, run_server
            from experiments_manager.serving.models.version_policy import ModelConfig

            options = ServerOptions([ModelConfig({name!r}, Path({str(base_path)!r}))], GrpcOptions(port=0), **{options})
            run_server(options, on_ready=lambda server: print(server.grpc.port, flush=True))
        """
        process = WarmPopen(
            [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        processes.append(process)
        return process, int(process.stdout.readline())

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_signal_ends_a_server_process_and_leaves_nothing(base_path, start_process):
    process, port = start_process("linear", base_path)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer = channel.unary_unary(PREDICT)(request_bytes(), timeout=20)
        assert messages.PredictResponse.FromString(answer).model_spec.version.value == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0, process.stderr.read()


@pytest.fixture
def endless(tensorflow, tmp_path):
    """A model that counts to `n`, and the file that it writes before it counts further than anybody can wait for."""
    tf = tensorflow
    begun = tmp_path / "begun"

    def count(n):
        most = tf.reduce_max(n)
        told = tf.cond(most > 1000, lambda: _touch(tf, begun), lambda: tf.constant(0, tf.int64))
        with tf.control_dependencies([told]):
            return {"n": n + tf.while_loop(lambda i: i < most, lambda i: (i + 1,), [told])[0]}

    module = tf.Module()
    module.serve = tf.function(count, input_signature=[tf.TensorSpec([None], tf.int64, name="n")])
    tf.saved_model.save(module, str(tmp_path / "endless" / "1"), signatures=module.serve.get_concrete_function())
    return tmp_path / "endless", begun


def _touch(tf, file):
    with tf.control_dependencies([tf.io.write_file(str(file), "")]):
        return tf.constant(0, tf.int64)


def count_bytes(n):
    request = messages.raw.PredictRequest()
    request.model_spec.name = "endless"
    tensors.to_proto(np.array([n]), request.inputs["n"])
    return request.SerializeToString()


@pytest.mark.slow
@pytest.mark.parametrize("quick_calls", [0, 40])  # after some of them a model may be called on the event loop
def test_a_signal_ends_a_server_process_whose_model_never_answers(endless, start_process, quick_calls):
    base_path, begun = endless
    process, port = start_process("endless", base_path, grace_seconds=0.5)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = channel.unary_unary(PREDICT)
        for _ in range(quick_calls):
            ask(count_bytes(3), timeout=20)
        answer = ask.future(count_bytes(2**62))
        deadline = time.monotonic() + 60
        while not begun.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0  # 0.5 s of grace, and less than 5 s in which it would have liked to end tidily
        assert isinstance(answer.exception(10), grpc.RpcError)
    assert "version 1 of endless still runs a call" in process.stderr.read()


def test_a_large_model_that_comes_by_a_reload_has_all_threads_too(tmp_path, monkeypatch):
    from experiments_manager.serving.models.saved_model import LoadedModel
    from experiments_manager.serving.models.threads import SMALL_MODEL_BYTES
    from experiments_manager.serving.server.server import ServerOptions, make_loader

    version = tmp_path / "large" / "1"
    (version / "variables").mkdir(parents=True)
    with (version / "variables" / "variables.data-00000-of-00001").open("wb") as file:
        file.truncate(SMALL_MODEL_BYTES)
    monkeypatch.setattr(LoadedModel, "load", lambda path, threads: threads)
    assert make_loader(ServerOptions([]))(version).intra_op == 0
