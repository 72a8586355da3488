"""The client on a small board: `pip install --no-deps` of the package, and grpcio, protobuf and numpy beside it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import fake_model_server

ONLY = """
import importlib.machinery, sys

ALLOWED = {"experiments_manager", "grpc", "google", "numpy", "typing_extensions"}  # grpcio asks for the last one itself

class OnlyTheThree:
    '''Refuses everything that is neither the package, nor what it needs on a board, nor Python's own.'''
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in ALLOWED and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, OnlyTheThree())
"""


@pytest.fixture
def server() -> Iterator[Any]:
    server = fake_model_server.FakeServer()
    yield server
    server.stop()


def on_a_board(program: str, cwd: Path) -> str:
    command = [sys.executable, "-c", ONLY + program]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_client_needs_three_packages(server: Any, tmp_path: Path) -> None:
    printed = on_a_board(
        f"""
import numpy as np
from experiments_manager import Client

with Client({server.address!r}, "double") as client:
    print(client.predict([[1, 2]])["y"].tolist(), client.info().inputs["x"])
    requests = ({{"x": np.full((1, 2), number, np.float32)}} for number in range(50))
    print(sum(float(outputs["y"][0, 0]) for _, outputs in client.stream(requests)))
for name in ("tensorflow", "pydantic", "typer"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        print("no", name)
""",
        tmp_path,
    )
    assert printed.splitlines() == [
        "[[2.0, 4.0]] float32 [any, 2]",
        str(float(2 * sum(range(50)))),
        "no tensorflow",
        "no pydantic",
        "no typer",
    ]


def test_sources_and_outputs_work_there_too(server: Any, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,2\n3,4\n")
    on_a_board(
        f"""
from pathlib import Path
from experiments_manager import Client
from experiments_manager.client.outputs.writer import PredictionWriter
from experiments_manager.client.inputs.sources import open_source

with Client({server.address!r}, "double") as client:
    writer = PredictionWriter(Path("out.csv"), None)
    for sample, outputs in client.stream(open_source("a.csv", client.info())):
        writer.write(sample.label, outputs.version, outputs)
    writer.close()
""",
        tmp_path,
    )
    assert (tmp_path / "out.csv").read_text().splitlines()[1:] == ["0,1,row 1,2.0,4.0", "1,1,row 3,6.0,8.0"]
