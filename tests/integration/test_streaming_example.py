"""The example of online learning: produce, train, export, serve and predict, all at once."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
EXAMPLE = Path(__file__).parents[2] / "examples" / "streaming" / "watch_drift.py"


def test_the_served_model_learns_the_law_that_changes_midway(kafka_broker, tmp_path, free_port):
    ports = [f"--set=grpc_port={free_port()}", f"--set=rest_port={free_port()}"]
    changes = [*ports, "--set=hparams.samples=70000", "--set=kafka_idle_timeout=5.0"]
    command = [sys.executable, EXAMPLE, "--servers", kafka_broker, "--out", tmp_path, *changes]
    done = subprocess.run([*command, "--rate", "700"], capture_output=True, text=True)
    if "lower --rate" in done.stderr:  # a busy machine: the law had changed before there was a model
        shutil.rmtree(tmp_path / "runs")
        done = subprocess.run([*command, "--rate", "300"], capture_output=True, text=True)
    logs = [file.read_text() for file in sorted(tmp_path.glob("*.log"))]
    assert done.returncode == 0, [done.stderr, *logs]
    assert "versions were served" in done.stdout
    with (tmp_path / "drift.csv").open() as file:
        rows = list(csv.DictReader(file))
    errors = [float(row["error_by_second_law"]) for row in rows]
    assert errors[-1] < errors[0] / 10  # the second law was learnt
    assert float(rows[-1]["error_by_first_law"]) > float(rows[0]["error_by_first_law"])  # and the first one left
    assert len({row["version"] for row in rows}) > 3
    assert (tmp_path / "drift.png").read_bytes().startswith(b"\x89PNG")
