"""The embedded model server against what it could at best be, and against others.

    python tools/bench/serving.py [--parts latency,throughput,large,swaps] [--rounds 5] [--seconds 2] [--changes 50]

Each server is a process of its own, is asked by a real gRPC (or HTTP) client first, and its answers are compared with
those of the SavedModel called directly. Then the servers take turns, round by round, and medians over the rounds are
set against each other, so that what else the machine does falls on all of them.

latency     One `grpc.aio` client, with batching on: p50 against the concrete function called in a process of its own
            (NumPy in and out, TensorFlow as it comes) plus the round trip of a bare `grpc.aio` echo.
throughput  32 clients on the digits CNN: with batching, without, a plain `grpc.aio` servicer, LitServe
            (`pip install litserve`, which no extra brings).
large       1x1024x1024x3 float32 in and out, against the bare echo of the same bytes.
swaps       16 clients while versions come and go: failed requests, and p99 in the windows of the swaps against p99
            without. A window is from the appearance of a version to the end of the one before.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import grpc
import numpy as np
import psutil
from http2_load import Load

from experiments_manager.common.machine.processes import end_session
from experiments_manager.protocol import messages, tensors

ROOT = Path(__file__).resolve().parents[2]
PREDICT = "/tensorflow.serving.PredictionService/Predict"
NO_LIMIT = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def make_models(folder: Path) -> None:
    """Write the digits CNN (twice, with other weights) and a model that gives back what it gets."""
    script = f"""
import importlib.util, keras, tensorflow as tf
from pathlib import Path
from experiments_manager.export.servable import servable_from_model
spec = importlib.util.spec_from_file_location("cnn", {str(ROOT / "examples/classification/model_cnn.py")!r})
cnn = importlib.util.module_from_spec(spec); spec.loader.exec_module(cnn)
keras.utils.set_random_seed(1)
model = cnn.model({{"filters": 32, "dropout": 0.4}})
servable = servable_from_model(model, tf.zeros([1, 8, 8, 1]), model_name="digits")
servable.save(Path({str(folder)!r}) / "cnn" / "1")
module = tf.Module()
module.serve = tf.function(lambda image: {{"image": tf.identity(image)}},
    input_signature=[tf.TensorSpec([None, 1024, 1024, 3], tf.float32, name="image")])
tf.saved_model.save(module, {str(folder)!r} + "/identity/1", signatures=module.serve.get_concrete_function())
"""
    subprocess.run([sys.executable, "-c", script], check=True, stderr=subprocess.DEVNULL)


def request_of(array: np.ndarray) -> bytes:
    """Return a serialised PredictRequest."""
    request = messages.raw.PredictRequest()
    request.model_spec.name = "model"
    tensors.to_proto(array, request.inputs["image"])
    return request.SerializeToString()


def free_port() -> int:
    """Return a port that nobody has at this moment."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def serving(kind: str, base_path: Path) -> Iterator[tuple[int, int]]:
    """Run a server; return its port and process id."""
    port = free_port()
    scripts = Path(__file__).parent
    command = [scripts / "serving_servers.py", kind, base_path, str(port)]
    if kind == "litserve":
        command = [scripts / "serving_litserve.py", base_path, str(port)]
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        if kind == "litserve":
            _wait_for_http(port)
        elif "ready" not in process.stdout.readline():
            raise RuntimeError(f"the server {kind} did not start")
        yield port, process.pid
    finally:
        end_session(process, 10)


def _wait_for_http(port: int) -> None:
    for _ in range(600):
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer,
        ):
            if answer.status == 200:
                return
        time.sleep(0.1)
    raise RuntimeError("litserve did not start")


def check(port: int, array: np.ndarray, expected: np.ndarray) -> None:
    """Ask once with a real client and compare."""
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=NO_LIMIT) as channel:
        answer = channel.unary_unary(PREDICT)(request_of(array), timeout=60)
    [(_, tensor)] = messages.raw.PredictResponse.FromString(answer).outputs.items()
    np.testing.assert_allclose(tensors.to_array(tensor), expected, rtol=1e-4, atol=1e-5)


def expected_and_seconds(model: Path, array: np.ndarray, calls: int = 2000) -> tuple[np.ndarray, float]:
    """Return what the SavedModel gives in a process of its own, and p50 of its concrete function, NumPy in and out."""
    script = f"""
import sys, time, numpy as np, tensorflow as tf
model = tf.saved_model.load({str(model)!r}); f = model.signatures["serving_default"]
x = np.load({str(model / "x.npy")!r}); [name] = f.structured_input_signature[1]
def call(): return {{k: v.numpy() for k, v in f(**{{name: tf.constant(x)}}).items()}}
for _ in range(50): y = call()
times = []
for _ in range({calls}):
    a = time.perf_counter(); y = call(); times.append(time.perf_counter() - a)
np.save({str(model / "y.npy")!r}, *y.values()); print(sorted(times)[len(times) // 2])
"""
    np.save(model / "x.npy", array)
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    expected = np.load(model / "y.npy")
    for name in ("x.npy", "y.npy"):
        (model / name).unlink()
    return expected, float(done.stdout.split()[-1])


async def round_trip(port: int, body: bytes, seconds: float) -> float:
    """Return the p50 of one client, in seconds."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=NO_LIMIT) as channel:
        ask = channel.unary_unary(PREDICT)
        times = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            started = time.perf_counter()
            await ask(body)
            times.append(time.perf_counter() - started)
    return statistics.median(times[len(times) // 10 :])


def cpu_seconds(session: int) -> float:
    """Processor seconds that the processes of a session have used."""
    seconds = 0.0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == session:
                seconds += sum(process.cpu_times()[:2])
    return seconds


def latency(folder: Path, rounds: int, seconds: float) -> None:
    """One client."""
    image = np.random.default_rng(0).random((1, 8, 8, 1), np.float32)
    body = request_of(image)
    calls, echoes, ours = [], [], []
    expected, _ = expected_and_seconds(folder / "cnn/1", image, 10)
    with serving("batched", folder / "cnn") as (port, _), serving("echo", folder / "cnn") as (echo_port, _):
        check(port, image, expected)
        for _ in range(rounds):
            calls.append(expected_and_seconds(folder / "cnn/1", image)[1])
            echoes.append(asyncio.run(round_trip(echo_port, body, seconds)))
            ours.append(asyncio.run(round_trip(port, body, seconds)))
    call, echo, own = (statistics.median(values) * 1e6 for values in (calls, echoes, ours))
    ratio = statistics.median(
        mine / (theirs + function) for mine, theirs, function in zip(ours, echoes, calls, strict=True)
    )
    print(
        f"latency: function {call:.0f} us, echo {echo:.0f} us, server {own:.0f} us: {ratio:.2f} of their sum (bar 1.20)"
    )


def throughput(folder: Path, rounds: int, seconds: float) -> None:
    """32 clients on the digits CNN."""
    image = np.random.default_rng(0).random((1, 8, 8, 1), np.float32)
    expected, _ = expected_and_seconds(folder / "cnn/1", image, 10)
    kinds = ["batched", "unbatched", "plain", "echo", "litserve"]
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    busy: dict[str, list[float]] = {kind: [] for kind in kinds}
    with contextlib.ExitStack() as stack:
        running: dict[str, tuple[Callable[[float], int], int]] = {}
        places = {kind: stack.enter_context(serving(kind, folder / "cnn")) for kind in kinds}
        for kind, (port, pid) in places.items():
            if kind == "litserve":
                running[kind] = (_http_load(port, image[0], expected[0], 32), pid)
            else:
                if kind != "echo":
                    check(port, image, expected)
                running[kind] = (_grpc_load(port, request_of(image), 32, stack), pid)
        for run, _ in running.values():
            run(0.5)
        for _ in range(rounds):
            for kind, (run, pid) in running.items():
                started, used = time.perf_counter(), cpu_seconds(pid)
                answered = run(seconds)
                rates[kind].append(answered / (time.perf_counter() - started))
                busy[kind].append((cpu_seconds(pid) - used) / max(answered, 1))
    for kind in kinds:
        rate, cpu = statistics.median(rates[kind]), statistics.median(busy[kind]) * 1e6
        ratio = statistics.median(own / other for own, other in zip(rates["batched"], rates[kind], strict=True))
        print(f"throughput: {kind:10s} {rate:6.0f}/s, {cpu:4.0f} us of processor a request; batched/{kind} {ratio:.2f}")


def _grpc_load(port: int, body: bytes, clients: int, stack: contextlib.ExitStack) -> Callable[[float], int]:
    load = Load(port, PREDICT, body, clients)
    stack.callback(load.close)

    def run(seconds: float) -> int:
        answers, failed = load.run(seconds)
        if failed:
            raise RuntimeError(f"{failed} requests failed")
        return len(answers)

    return run


def _http_load(port: int, x: np.ndarray, y: np.ndarray, clients: int) -> Callable[[float], int]:
    """Make the same as `Load`, in HTTP/1.1."""
    import selectors

    body = json.dumps({"instance": x.tolist()}).encode()
    fields = ["POST /predict HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    head = "\r\n".join([*fields, f"Content-Length: {len(body)}", "", ""])
    with urllib.request.urlopen(
        urllib.request.Request(f"http://127.0.0.1:{port}/predict", body, {"Content-Type": "application/json"})
    ) as answer:
        np.testing.assert_allclose(json.load(answer)["outputs"], y, rtol=1e-4, atol=1e-5)

    def run(seconds: float) -> int:
        with contextlib.ExitStack() as opened:  # connections anew: idle ones are closed after some seconds
            selector = opened.enter_context(selectors.DefaultSelector())
            connections = [opened.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(clients)]
            for connection in connections:
                selector.register(connection, selectors.EVENT_READ)
            return ask(selector, connections, seconds)

    def ask(selector: selectors.BaseSelector, connections: list[socket.socket], seconds: float) -> int:
        end = time.perf_counter() + seconds
        answered, open_requests = 0, clients
        for connection in connections:
            connection.sendall(head.encode() + body)
        while open_requests:
            for key, _ in selector.select():
                data = b""
                while b"\r\n\r\n" not in data:
                    chunk = key.fileobj.recv(65536)
                    if not chunk:
                        raise RuntimeError("the server closed the connection")
                    data += chunk
                head_part, _, rest = data.partition(b"\r\n\r\n")
                length = int(head_part.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                while len(rest) < length:
                    rest += key.fileobj.recv(65536)
                if b" 200 " not in head_part.split(b"\r\n")[0]:
                    raise RuntimeError("a request failed")
                answered += 1
                if time.perf_counter() < end:
                    key.fileobj.sendall(head.encode() + body)
                else:
                    open_requests -= 1
        return answered

    return run


def large(folder: Path, rounds: int, seconds: float) -> None:
    """Twelve megabytes there and back."""
    image = np.random.default_rng(0).random((1, 1024, 1024, 3), np.float32)
    body = request_of(image)
    ratios, ours, echoes = [], [], []
    with serving("batched", folder / "identity") as (port, _), serving("echo", folder / "identity") as (echo_port, _):
        check(port, image, image)
        for _ in range(rounds):
            echo = asyncio.run(round_trip(echo_port, body, seconds))
            own = asyncio.run(round_trip(port, body, seconds))
            echoes.append(echo), ours.append(own), ratios.append(echo / own)
    print(
        f"large: echo {statistics.median(echoes) * 1e3:.1f} ms, server {statistics.median(ours) * 1e3:.1f} ms: "
        f"{statistics.median(ratios):.2f} of the echo's rate (bar 0.60)"
    )


def swaps(folder: Path, rounds: int, seconds: float, *, changes: int) -> None:
    """16 clients while versions come and go."""
    image = np.random.default_rng(0).random((1, 8, 8, 1), np.float32)
    expected, _ = expected_and_seconds(folder / "cnn/1", image, 10)
    base = folder / "swapping"
    shutil.copytree(folder / "cnn/1", base / "1")
    with serving("batched", base) as (port, _), contextlib.ExitStack() as stack:
        check(port, image, expected)
        load = Load(port, PREDICT, request_of(image), 16)
        stack.callback(load.close)
        load.run(1.0)
        quiet, failed = load.run(max(5.0, seconds))
        windows: list[tuple[float, float]] = []
        changing = threading.Thread(target=_change_versions, args=(base, port, changes, windows))
        changing.start()
        answers: list[tuple[float, float]] = []
        while changing.is_alive():
            more, bad = load.run(1.0)
            answers += more
            failed += bad
        changing.join()
    inside = [took for when, took in answers if any(start <= when <= end + took for start, end in windows)]
    p99_quiet, p99_inside = _p99([took for _, took in quiet]), _p99(inside)
    length = statistics.median(end - start for start, end in windows)
    print(
        f"swaps: {len(windows)} changes of {length * 1e3:.0f} ms, {len(answers) + len(quiet)} requests, "
        f"{failed} failed; p99 {p99_quiet * 1e3:.1f} ms without, {p99_inside * 1e3:.1f} ms in the windows: "
        f"{p99_inside / p99_quiet:.2f} times (bar 3)"
    )


def _change_versions(base: Path, port: int, changes: int, windows: list[tuple[float, float]]) -> None:
    """Publish version after version; a window is from the renaming to the end of the version before."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = channel.unary_unary("/tensorflow.serving.ModelService/GetModelStatus")
        request = messages.GetModelStatusRequest()
        request.model_spec.name = "model"
        for version in range(2, changes + 2):
            shutil.copytree(base / str(version - 1), base / f"stage-{version}")
            started = time.perf_counter()
            (base / f"stage-{version}").rename(base / str(version))
            while True:
                status = messages.GetModelStatusResponse.FromString(ask(request.SerializeToString()))
                states = {entry.version: entry.state for entry in status.model_version_status}
                if states.get(version) == 30 and states.get(version - 1) == 50:
                    break
                time.sleep(0.02)
            windows.append((started, time.perf_counter()))
            shutil.rmtree(base / str(version - 1))
            time.sleep(0.1)


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


PARTS = {"latency": latency, "throughput": throughput, "large": large, "swaps": swaps}


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--changes", type=int, default=50, help="versions that `swaps` publishes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_models(Path(folder))
        parts = PARTS | {"swaps": functools.partial(swaps, changes=arguments.changes)}
        for part in arguments.parts.split(","):
            parts[part](Path(folder), arguments.rounds, arguments.seconds)


if __name__ == "__main__":
    main()
