"""The client of model servers: how much a stream gains over one request after the other, and how soon `predict
--from` is there.

    python tools/bench/client.py [--rounds 5] [--requests 2000] [--starts 10]

The server is the embedded one with batching, a process of its own, with the digits CNN. First the answers of the
stream are compared with those of single requests, which are compared with the SavedModel called in a process of its
own; then both take turns, round by round, and medians over the rounds are set against each other. The same is done
with a server that does nothing but wait for 5 ms, as a larger model on another machine would: there the client alone
decides.

Start-up is the whole command `predict --from` with one sample, from the start of its process to its end, against
`python -c "import grpc, numpy"`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from serving import ROOT, expected_and_seconds, make_models, serving

from experiments_manager import Client
from experiments_manager.client.client import IN_FLIGHT


def requests(name: str, samples: np.ndarray, count: int) -> Iterator[dict[str, np.ndarray]]:
    """Samples one at a time, from the first again where they end."""
    for index in range(count):
        place = index % len(samples)
        yield {name: samples[place : place + 1]}


def stream(
    client: Client, name: str, samples: np.ndarray, count: int, in_flight: int
) -> tuple[list[np.ndarray], float]:
    """Return all answers, and answers a second."""
    start = time.perf_counter()
    answers = [
        outputs["y"] if "y" in outputs else next(iter(outputs.values()))
        for _, outputs in client.stream(requests(name, samples, count), in_flight=in_flight)
    ]
    return answers, count / (time.perf_counter() - start)


def compare(
    title: str, client: Client, name: str, samples: np.ndarray, expected: np.ndarray, rounds: int, count: int
) -> None:
    """Check answers, then measure one by one and streaming in turn."""
    for in_flight in (1, IN_FLIGHT):
        answers, _ = stream(client, name, samples, len(samples), in_flight)
        np.testing.assert_allclose(np.concatenate(answers), expected, rtol=1e-4, atol=1e-5)
    rates: dict[int, list[float]] = {1: [], IN_FLIGHT: []}
    for _ in range(rounds):
        for in_flight, measured in rates.items():
            measured.append(stream(client, name, samples, count if in_flight > 1 else count // 4, in_flight)[1])
    one, many = (statistics.median(measured) for measured in rates.values())
    print(
        f"{title:<28} one by one {one:7.0f}/s   {IN_FLIGHT} in flight {many:7.0f}/s   {many / one:5.2f} times (limit 3)"
    )


def start_up(address: str, model: str, folder: Path, starts: int) -> None:
    """Measure whole commands with one sample."""
    command = [
        sys.executable,
        "-m",
        "experiments_manager",
        "predict",
        "--from",
        "one.npy",
        "--output",
        "out.csv",
        "--quiet",
    ]
    command += ["--address", address, "--model-name", model]
    floor = [sys.executable, "-c", "import grpc, numpy"]
    seconds: dict[str, list[float]] = {"predict --from": [], "import grpc, numpy": []}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(starts + 1):
        for one, measured in zip((command, floor), seconds.values(), strict=True):
            start = time.perf_counter()
            subprocess.run(one, cwd=folder, env=environment, check=True)
            measured.append(time.perf_counter() - start)
    for what, measured in seconds.items():
        limit = "   (limit 0.5 s)" if what.startswith("predict") else ""
        print(f"{what:<28} {statistics.median(measured[1:]):.3f} s, the fastest {min(measured[1:]):.3f} s{limit}")


def main() -> None:
    """Run everything in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--starts", type=int, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_models(folder)
        images = np.random.default_rng(0).random((64, 8, 8, 1), np.float32)
        expected, _ = expected_and_seconds(folder / "cnn" / "1", images, calls=1)
        with serving("batched", folder / "cnn") as (port, _), Client(f"127.0.0.1:{port}", "model") as client:
            name = next(iter(client.info().inputs))
            compare("embedded server, digits CNN", client, name, images, expected, arguments.rounds, arguments.requests)
            np.save(folder / "one.npy", images[:1])
            start_up(client.address, client.model, folder, arguments.starts)
        script = ROOT / "tests" / "serving" / "fake_model_server.py"
        command = [sys.executable, str(script), "0", "1", "0.005"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as slow:
            with Client(slow.stdout.readline().strip(), "double") as client:
                points = np.random.default_rng(0).random((64, 2), np.float32)
                compare(
                    "a server that waits 5 ms", client, "x", points, 2 * points, arguments.rounds, arguments.requests
                )
            slow.kill()


if __name__ == "__main__":
    main()
