"""Signals before training: real processes, stopped at moments from their first on until they train."""

import contextlib
import io
import json
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments_manager.cli import entry
from tests.helpers.warm_processes import WarmPopen

MOMENTS = 3
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
INTERRUPTED = 75


@pytest.fixture
def handlers():
    """Gives the handlers of the signals, and brings them back after the test."""
    before = [signal.getsignal(number) for number in SIGNALS]
    yield lambda: [signal.getsignal(number) for number in SIGNALS]
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("words", [["runs", "experiments"], ["check", "file.py"], ["serve", "run"], []])
def test_commands_that_do_not_train_leave_the_signals_alone(words, handlers):
    before = handlers()
    with entry._listening(words):
        assert handlers() == before


@pytest.mark.parametrize("words", [["train", "file.py"], ["resume", "run"], ["--usersettings=file.py"]])
def test_commands_that_train_listen_from_the_beginning(words, handlers):
    from experiments_manager.common.signals import stop_listening

    before = handlers()
    with entry._listening(words):
        assert not set(map(id, handlers())) & set(map(id, before))
        stop_listening()
        assert handlers() == before


@pytest.mark.parametrize(
    ("encoding", "expected"), [("utf-8", b"caf\xe9 \xe2\x86\x92"), ("latin-1", b"caf\\udce9 \\u2192")]
)
def test_whatever_a_file_is_called_and_a_terminal_can_show_is_printed(encoding, expected, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding))
    entry._write_all_text()
    print("caf\udce9 →", end="", flush=True)
    assert written.getvalue() == expected


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_outputs_end_no_command(closed, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "run.json").write_text("{}")
    command = f"{shlex.quote(sys.executable)} -m experiments_manager runs {shlex.quote(str(tmp_path))} {closed}"
    assert subprocess.run(["sh", "-c", command], capture_output=True).returncode == 0


def is_listening(process):
    """Whether the process has a handler for SIGTERM; Python itself must have started for that."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def wait_until(condition, process):
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return time.monotonic()


def stop(process, number):
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == INTERRUPTED, errors
    assert "Traceback" not in errors
    assert "fault of experiments_manager" not in errors
    return errors


@pytest.mark.slow
def test_a_signal_at_any_moment_of_the_start_ends_as_interrupted_and_the_same_command_goes_on(
    line_experiment, start_command, run_command
):
    line_experiment.write_text(
        line_experiment.read_text().replace("epochs = 2", "epochs = 10_000_000\nearly_stopping_patience = None")
    )
    runs = line_experiment.parent / "experiments"

    def start(name):
        process = start_command("train", line_experiment.name, "--run-name", name, "--resume", "auto")
        return process, wait_until(lambda: is_listening(process), process)

    process, began = start("measured")
    span = wait_until((runs / "measured" / "metrics.csv").exists, process) - began
    assert "To go on: experiments_manager resume" in stop(process, signal.SIGTERM)

    moments = random.Random("start-up")
    run_json = runs / "mine" / "run.json"
    for moment in range(MOMENTS):
        process, _ = start("mine")
        time.sleep(span * (moment + moments.random()) / MOMENTS)
        had_run = run_json.exists()
        errors = stop(process, SIGNALS[moment % len(SIGNALS)])
        if had_run:
            assert json.loads(run_json.read_text())["state"] == "interrupted"
        assert errors.splitlines()[-1].startswith(("To go on: ", "Stopped before training began. To go on, "))

    reached = json.loads(run_json.read_text())["epochs"] if run_json.exists() else 0
    words = ["--run-name", "mine", "--resume", "auto", "--set", f"epochs={reached + 2}"]
    done = run_command("train", line_experiment.name, *words)
    assert done.returncode == 0, done.stderr
    manifest = json.loads(run_json.read_text())
    assert (manifest["state"], manifest["epochs"]) == ("finished", reached + 2)
    rows = (runs / "mine" / "metrics.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == list(range(1, reached + 3))


@pytest.mark.slow
def test_training_goes_on_when_the_reader_of_its_output_has_gone(line_experiment):
    words = [sys.executable, "-m", "experiments_manager", "train", line_experiment.name, "--run-name", "alone"]
    with WarmPopen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=line_experiment.parent) as process:
        process.stdout.close()
        assert process.wait(300) == 0
    assert json.loads((line_experiment.parent / "experiments/alone/run.json").read_text())["state"] == "finished"
