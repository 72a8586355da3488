"""`serve` and `train --serve`, as real processes that are asked over HTTP."""

import contextlib
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from experiments_manager.cli.main import run
from experiments_manager.common.console import command_line
from experiments_manager.common.exit_codes import ExitCode
from experiments_manager.runs import create_run
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.slow


BREATHE = """
import time

import keras


class Breathe(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        time.sleep(0.1)


callbacks = [Breathe()]
"""
"""Leaves the processor to the server now and then, which waits for what a training of little epochs never leaves."""


OTHER_HOST = "127.0.0.2"
"""On Linux this computer too."""


def post(rest_port, body, name="mysettings_line", host="127.0.0.1"):
    """Sends a request to the model of `line_experiment`; gives status and answer, or `None` where nobody answers."""
    url = f"http://{host}:{rest_port}/v1/models/{name}:predict"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, json.dumps(body).encode(), timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return None


def predict(rest_port, value=1.0, host="127.0.0.1"):
    """What the model of `line_experiment` makes of a number; `None` while nobody answers."""
    status, answer = post(rest_port, {"instances": [[value]]}, host=host) or (None, None)
    return answer["predictions"][0][0] if status == 200 else None


def status_of_a_large_request(rest_port, host="127.0.0.1"):
    """What a request of more than 2,000 bytes is answered."""
    return post(rest_port, {"instances": [[1.0]] * 1000}, host=host)[0]


def wait_for(question, process, seconds=900):
    """Asks until there is an answer; a sidecar starts with what is left over of the processor."""
    deadline = time.monotonic() + seconds
    while (answer := question()) is None:
        if time.monotonic() > deadline or process.poll() is not None:
            process.kill()
            pytest.fail(f"no answer: {process.communicate()[1]}")
        time.sleep(0.1)
    return answer


def children(pid):
    """Process ids of the children of a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended
            found += map(int, (task / "children").read_text().split())
    return found


def session_niceness(pid):
    """What Linux weighs the process's session with; `None` where it does not share the processor out by sessions."""
    try:
        return int(Path(f"/proc/{pid}/autogroup").read_text().rpartition(" ")[2])
    except OSError:
        return None


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks for children in /proc")
def test_a_model_is_served_while_it_is_trained_and_resumed_and_afterwards_from_where_the_run_was_moved(
    start_command, line_experiment, free_port, tmp_path
):
    line_experiment.write_text(line_experiment.read_text() + BREATHE)
    grpc_port, rest_port = free_port(), free_port()
    settings = [f"grpc_port={grpc_port}", f"rest_port={rest_port}", "epochs=1000000", "max_message_bytes=2000"]
    settings += ["learning_rate=0.00002", "early_stopping_patience=None"]  # so slow that it learns to the end
    overrides = [part for setting in settings for part in ("--set", setting)]
    training = start_command("train", line_experiment, "--serve", "--working-dir", "runs", "--quiet", *overrides)
    first = wait_for(lambda: predict(rest_port), training)
    better = wait_for(lambda: next(filter(lambda now: now not in (None, first), [predict(rest_port)]), None), training)
    assert abs(better - 3.0) < abs(first - 3.0)  # it learns `y = 3 x`
    [server] = children(training.pid)
    assert os.getpriority(os.PRIO_PROCESS, server) > os.getpriority(os.PRIO_PROCESS, training.pid)
    assert session_niceness(server) in (None, 5)
    assert status_of_a_large_request(rest_port) == 413

    training.kill()  # nobody can clean up now
    training.communicate()
    deadline = time.monotonic() + 120
    while alive(server) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(server)

    [folder] = (tmp_path / "runs").iterdir()
    moved = folder.rename(tmp_path / "moved")
    assert "Loaded version" in (moved / "model_server.log").read_text()
    copy = shutil.copytree(moved, tmp_path / "copy")

    resumed = start_command("resume", moved, "--serve", "--quiet")
    serving = start_command(  # at the same time, at the same ports of another address
        "serve", copy, "--host", OTHER_HOST, "--engine", "embedded", "--max-message-bytes", "100000"
    )
    assert isinstance(wait_for(lambda: predict(rest_port), resumed), float)
    assert status_of_a_large_request(rest_port) == 413
    resumed.send_signal(signal.SIGTERM)
    _, said = resumed.communicate(timeout=300)
    assert resumed.returncode == ExitCode.INTERRUPTED, said
    assert predict(rest_port) is None
    assert (moved / "model_serving_setup.ini").read_text() == (copy / "model_serving_setup.ini").read_text()

    assert isinstance(wait_for(lambda: predict(rest_port, host=OTHER_HOST), serving), float)
    assert status_of_a_large_request(rest_port, OTHER_HOST) == 200
    serving.send_signal(signal.SIGTERM)
    _, said = serving.communicate(timeout=300)
    assert serving.returncode == 0, said
    newest = max(int(path.name) for path in (copy / "exported_models").iterdir() if path.name.isdigit())
    assert f"Serving version {newest} of mysettings_line from {copy}/exported_models (engine embedded)" in said
    rest = f"http://{OTHER_HOST}:{rest_port}/v1/models/mysettings_line"
    assert f"  gRPC    {OTHER_HOST}:{grpc_port}\n  REST    {rest}" in said
    assert "Traceback" not in said


def test_a_taken_port_is_one_clear_error_before_training_starts(line_experiment, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code = run(["train", str(line_experiment), "--serve", "--quiet", "--set", f"grpc_port={port}"])
    said = capsys.readouterr().err
    assert code == 2
    assert f"Port {port} on 127.0.0.1 cannot be used" in said
    assert "--set grpc_port=PORT" in said
    assert not (tmp_path / "experiments").exists()


def test_resume_with_a_server_looks_at_its_ports_before_it_trains(line_experiment, tmp_path, capsys):
    made = create_run(tmp_path, "line", run_name="line")
    made.start(settings_file=line_experiment, overrides={"epochs": 3})
    before = made.manifest
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code = run(["resume", str(made.path), "--serve", "--set", f"grpc_port={port}"])
    assert code == 2
    assert f"Port {port} on 127.0.0.1 cannot be used" in capsys.readouterr().err
    assert made.manifest == before


def test_train_serve_without_exports_is_refused(line_experiment, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["train", str(line_experiment), "--serve", "--set", "export=False"]) == 2
    assert "--serve has nothing to serve" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "empty"], "No exported model in empty, and no running training"),
        (["serve", "none"], "There is no run folder none"),
        (["serve", "models", "--engine", "tensorflow_model_server"], "tensorflow_model_server is not on the path"),
        (["serve", "models", "--image", "missing.sif"], "Image missing.sif not found"),
        (["serve", "models", "--image", "image.sif"], "Install Apptainer"),
        (["serve", "models", "--host", "none.invalid"], "Host none.invalid not found"),
        (["serve", "models", "--ssl-config-file", "none"], "Cannot read"),
        (["serve", "models", "--auth-token-file", "none"], "Cannot read the token file"),
        (["--start_server", "--model_dir=empty"], "No exported model in empty"),
        (["--start_server", "--model_dir=models", "-psi=missing.sif"], "Image missing.sif not found"),
    ],
)
def test_what_cannot_be_served_is_bad_input(arguments, message, free_port, tmp_path, capsys, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "models" / "1").mkdir(parents=True)
    (tmp_path / "image.sif").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    grpc_port, rest_port = free_port(), free_port()
    if arguments[0] == "serve":
        arguments = [*arguments, "--grpc-port", str(grpc_port), "--rest-port", str(rest_port)]
    assert run(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("limit", ["--max-message-bytes", "--max-in-flight"])
def test_a_limit_is_bad_input_for_the_program_that_has_no_flag_for_it(limit, tmp_path, capsys, monkeypatch):
    (tmp_path / "models" / "1").mkdir(parents=True)
    program = tmp_path / "tensorflow_model_server"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(["serve", str(tmp_path / "models"), limit, "7", "--prefer-tflite-model"]) == 2
    said = capsys.readouterr().err
    assert "tensorflow_model_server has no flag for this limit" in said
    assert f"Expected no {limit}, got 7. Omit it, or use `--engine embedded`." in said


def test_a_finished_run_without_a_version_is_named_with_its_folder(free_port, tmp_path, capsys):
    made = create_run(tmp_path, "line", run_name="line")
    made.update(state="finished")
    grpc_port, rest_port = free_port(), free_port()
    ports = ["--grpc-port", str(grpc_port), "--rest-port", str(rest_port)]
    assert run(["serve", str(made.path), "--engine", "embedded", *ports]) == 2
    said = capsys.readouterr().err
    assert f"No exported model in {made.exports_dir}, and none will come: the run is finished" in said


@pytest.fixture
def sidecar(tmp_path):
    """Starts a sidecar with flags; gives it, and what it says."""
    from experiments_manager.serving.launch.engines import Service
    from experiments_manager.serving.launch.sidecar import Sidecar
    from experiments_manager.serving.server.flag_table import ServerFlags

    said, servers = queue.Queue(), []

    def start(**flags):
        servers.append(Sidecar(said.put))
        servers[0].start(Service(ServerFlags(model_base_path=str(tmp_path), **flags)), tmp_path / "server.log")
        return servers[0], said

    yield start
    for server in servers:
        server.stop()


def test_a_sidecar_that_cannot_serve_is_reported_with_a_command_to_paste(sidecar, tmp_path):
    _, said = sidecar(max_connections=0)
    assert said.get(timeout=300) == (
        f"The model server ended by itself with exit code 2; training goes on. Its log: {tmp_path}/server.log. "
        f"To start it again: {command_line('serve', str(tmp_path))}"
    )
    assert "--max_connections: Expected a number of 1 or more, got 0" in (tmp_path / "server.log").read_text()


def test_a_sidecar_that_is_killed_is_started_again_with_growing_pauses(sidecar, monkeypatch):
    monkeypatch.setattr("experiments_manager.serving.launch.sidecar.FIRST_PAUSE", 0.25)
    server, said = sidecar(port=0, rest_api_port=0)
    for pause in ("0.25", "0.5"):
        process = server._process
        process.kill()
        told = said.get(timeout=300)
        assert "was ended by SIGKILL; training goes on. Its log: " in told and f"started again in {pause} s" in told
        wait_until(lambda before=process: server._process is not before)
    server.stop()
    assert server._process.poll() is not None and said.empty()


@pytest.mark.skipif(os.name != "posix", reason="a pipe as standard input")
def test_a_sidecar_ends_when_its_parent_is_somebody_else(tmp_path):
    command = [sys.executable, "-m", "experiments_manager.serving.launch.sidecar", "1", f"--model_base_path={tmp_path}"]
    assert subprocess.run(command, timeout=300, stdin=subprocess.DEVNULL).returncode == 0
