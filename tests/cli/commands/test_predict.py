"""The command `predict`, with a model server that runs in the test's own process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments_manager.cli.main import run
from experiments_manager.runs import create_run
from experiments_manager.runs.serving_setup import ServingSetup, write_serving_setup
from tests.helpers import fake_model_server
from tests.helpers.warm_processes import WarmPopen

LEGACY = Path(__file__).parents[2] / "legacy" / "examples"

SETTINGS = """
import pathlib
import numpy as np
loss, learning_rate, epochs, batch_size = "mse", 0.1, 1, 4
session_name = "double"

def dataset(split):
    n = {"train": 8, "validation": 10}.get(split)
    return None if n is None else (np.arange(2 * n, dtype="float32").reshape(n, 2), np.zeros((n, 2), "float32"))

def model():
    import keras
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
"""

TODAYS_CLIENT = """
class client:
    def __init__(self, options):
        self.options, self.lines = options, []
    def requests(self):
        for number in range(40):
            yield {"x": np.full((1, 2), number, "float32")}
    def on_response(self, request, outputs):
        self.lines.append(f"{request['x'][0, 0]:g} {outputs['y'][0, 0]:g} {outputs.version}")
    def close(self):
        pathlib.Path(OUT).write_text("\\n".join(self.lines))
"""

EARLIER_CLIENT = """
served_head_names = ["y"]
class Client_IO:
    def __init__(self, clientInitSpecs={}, debugMode=False):
        self.lines = []
    def getInputData(self, idx):
        if idx > 4:
            raise StopIteration
        self.x = idx
        return {"x": np.full((1, 2), idx, "float32")}
    def decodeResponse(self, result):
        values = np.array(result.outputs[served_head_names[0]].float_val)
        self.lines.append(f"{self.x} {values.tolist()}")
    def finalize(self):
        pathlib.Path(OUT).write_text("\\n".join(self.lines))
"""


@pytest.fixture
def server() -> Iterator[Any]:
    server = fake_model_server.FakeServer()
    yield server
    server.stop()


@pytest.fixture
def make_run(tmp_path: Path, server: Any) -> Any:
    """Makes a run folder, as training leaves it, without training."""

    def make(source: str = "", **settings: Any) -> Path:
        file = tmp_path / "mysettings_double.py"
        file.write_text(SETTINGS + source.replace("OUT", repr(str(tmp_path / "told.txt"))))
        made = create_run(tmp_path / "runs", "double")
        made.start(settings_file=file, settings={"wait_for_server": 0.5, "request_timeout": 60.0} | settings)
        host, port = server.address.split(":")
        write_serving_setup(made.path, ServingSetup(host, int(port), 8501, "double"))
        return made.path

    return make


def told(tmp_path: Path) -> list[str]:
    return (tmp_path / "told.txt").read_text().splitlines()


def predict_in_process(*arguments: Any, cwd: Path, stdin: bytes = b"") -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "experiments_manager", "predict", *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run(command, cwd=cwd, input=stdin, env=environment, capture_output=True, timeout=600)


def test_the_client_of_the_settings_asks_and_is_told(make_run: Any, tmp_path: Path, server: Any, capfd: Any) -> None:
    server.version = 3
    assert run(["predict", str(make_run(TODAYS_CLIENT))]) == 0
    assert told(tmp_path) == [f"{number} {2 * number} 3" for number in range(40)]
    error = capfd.readouterr().err
    assert error.startswith("40 answers  ")
    assert "version 3" in error


def test_a_count_bounds_the_requests_and_closes_the_client(make_run: Any, tmp_path: Path, server: Any) -> None:
    folder = make_run(TODAYS_CLIENT)
    assert run(["predict", str(folder), "--count", "7", "--quiet"]) == 0
    assert len(told(tmp_path)) == 7
    assert server.count == 7


@pytest.mark.parametrize("client_async", [False, True])
def test_the_earlier_client_is_honoured(
    client_async: bool, make_run: Any, tmp_path: Path, server: Any, monkeypatch: Any
) -> None:
    folder = make_run(EARLIER_CLIENT + f"\nclient_async = {client_async}\n")
    assert run(["--predict_stream=-1", f"--model_dir={folder}"]) == 0
    lines = told(tmp_path)
    assert [line.split(" ", 1)[1] for line in lines] == [f"[{2.0 * n}, {2.0 * n}]" for n in range(1, 5)]
    if not client_async:
        assert [line.split(" ", 1)[0] for line in lines] == list("1234")  # an answer comes before the next request
        assert server.most_at_once == 1


def test_a_watch_tells_each_version_once_and_ends_with_the_server(
    make_run: Any, tmp_path: Path, server: Any, capfd: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("experiments_manager.cli.version_watch.AFTER_TRAINING", 0.3)
    changes = {5: 7, 9: 12}

    def misbehave(number: int, context: Any) -> None:
        server.version = changes.get(number, server.version)
        if number == 15:
            server.stop_soon()

    server.misbehave = misbehave
    server.stop_soon = lambda: threading.Thread(target=server.stop).start()
    folder = make_run()
    assert run(["predict", str(folder), "--count", "1", "--watch", "--interval", "0.01", "--json"]) == 0
    out, error = capfd.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["version"] for line in lines] == [1, 7, 12]
    assert lines[0]["outputs"]["y"] == [[0.0, 2.0]]
    assert set(server.seen) == {0.0}  # always the same sample
    assert "The training has ended and its server with it. Last version: 12." in error
    assert not list(folder.glob("predictions_*"))
    assert run(["predict", str(folder), "--watch"]) == 2  # and nobody is there any more
    assert "cannot be reached" in capfd.readouterr().err


def test_ctrl_c_ends_a_watch_and_closes_no_file(make_run: Any, server: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments_manager", "predict", str(make_run()), "--watch", "--interval", "0.01"]
    with WarmPopen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, error = process.communicate(timeout=120)
    assert re.fullmatch(rb"\d\d:\d\d:\d\d  version 1  name = row 0  y = 0, 2\n", line)
    assert (process.returncode, rest) == (0, b""), error
    assert b"1 version seen." in error
    assert b"Traceback" not in error


@pytest.mark.parametrize("words", [["--count", "2"], ["--stream"], ["--output", "-"], ["--rate", "3"]])
def test_a_watch_asks_for_one_sample_and_keeps_no_answers(make_run: Any, words: list[str], capfd: Any) -> None:
    assert run(["predict", str(make_run()), "--watch", *words]) == 2
    assert f"--watch and {' '.join(words[: 2 if words[0] == '--count' else 1])} exclude" in capfd.readouterr().err


def test_earlier_predict_asks_once(make_run: Any, tmp_path: Path) -> None:
    assert run(["--predict", f"--model_dir={make_run(EARLIER_CLIENT)}"]) == 0
    assert told(tmp_path) == ["1 [2.0, 2.0]"]


LEGACY_DIARY = """
served_input_names, served_head_names = ["x"], ["y"]
class Client_IO:
    def __init__(self, clientInitSpecs={}, debugMode=False):
        self.note("init", clientInitSpecs, debugMode)
    def note(self, *words):
        with open("diary.txt", "a") as file:
            print(*words, file=file)
    def getInputData(self, idx):
        self.note("get", idx)
        if idx > 3: raise StopIteration
        return {"x": np.full((1, 2), idx, "float32")}
    def decodeResponse(self, result):
        self.note("decode", result.outputs["y"].float_val[0])
        AFTER_ANSWER
    def finalize(self):
        self.note("finalize")
"""


def diary_of(folder: Path) -> list[str]:
    """What the one client run of a run folder noted."""
    [diary] = folder.glob("predictions_*/diary.txt")
    return diary.read_text().splitlines()


@pytest.mark.parametrize(
    ("options", "asked", "is_told_to_end"),
    [
        (["--predict"], 1, False),
        (["-p"], 1, False),
        (["--predict", "--predict_stream=0"], 1, False),
        (["--predict_stream=2"], 2, False),
        (["-l", "3"], 3, False),
        (["-p", "-l", "7"], 3, True),
        (["-l", "-1"], 3, True),
    ],
)
def test_a_legacy_client_is_called_as_it_was(
    options: list[str], asked: int, is_told_to_end: bool, make_run: Any, server: Any
) -> None:
    folder = make_run(LEGACY_DIARY.replace("AFTER_ANSWER", ""))
    assert run([*options, "-m", str(folder)]) == 0
    pairs = [line for idx in range(1, asked + 1) for line in (f"get {idx}", f"decode {2.0 * idx}")]
    end = ["get 4", "finalize"] if is_told_to_end else ["finalize"]
    assert diary_of(folder) == ["init {} False", *pairs, *end]
    assert server.count == asked


def test_the_legacy_debug_option_reaches_the_client(make_run: Any) -> None:
    folder = make_run(LEGACY_DIARY.replace("AFTER_ANSWER", ""))
    assert run(["-p", "-d", "-m", str(folder)]) == 0
    assert diary_of(folder)[0] == "init {} True"


def test_a_legacy_client_may_end_the_stream_on_an_answer(make_run: Any, server: Any) -> None:
    folder = make_run(LEGACY_DIARY.replace("AFTER_ANSWER", "raise StopIteration"))
    assert run(["-l", "-1", "-m", str(folder)]) == 0
    assert diary_of(folder) == ["init {} False", "get 1", "decode 2.0", "finalize"]


def test_what_a_legacy_client_writes_is_never_overwritten(make_run: Any, tmp_path: Path, capfd: Any) -> None:
    folder = make_run(LEGACY_DIARY.replace("AFTER_ANSWER", ""))
    before = Path.cwd()
    assert run(["-p", "-m", str(folder)]) == 0
    assert run(["-p", "-m", str(folder)]) == 0
    assert run(["predict", str(folder), "--count", "1"]) == 0
    diaries = sorted(folder.glob("predictions_*/diary.txt"))
    assert len(diaries) == 3
    assert [diary.read_text().count("get") for diary in diaries] == [1, 1, 1]
    error = capfd.readouterr().err
    assert all(f"Predictions in {diary.parent}\n" in error for diary in diaries)
    assert Path.cwd() == before


def test_a_run_that_the_legacy_framework_trained_is_asked_by_its_own_client(
    tmp_path: Path, server: Any, capfd: Any
) -> None:
    folder = tmp_path / "old" / "expe_0"
    (folder / "exported_models" / "1").mkdir(parents=True)
    source = SETTINGS.replace("def model()", "def unused()") + LEGACY_DIARY.replace("AFTER_ANSWER", "")
    (folder / "experiment_settings.py").write_text(source + "\nmodel_file = 'somewhere/model_double.py'\n")
    (folder / "model_double.py").write_text("def model(usersettings):\n    return None\n")
    host, port = server.address.split(":")
    setup = f"[SERVER]\nhost = {host}\nport = {port}\nmodel_name = double\n"
    (folder / "model_serving_setup.ini").write_text(setup)
    assert run(["-l", "2", "-m", str(folder)]) == 0, capfd.readouterr().err
    assert diary_of(folder)[-1] == "finalize"

    assert run(["-r", "-m", str(folder)]) == 2
    assert "checkpoints of DeepLearningTools" in capfd.readouterr().err


def test_a_legacy_client_that_writes_nothing_leaves_no_folder(make_run: Any, tmp_path: Path) -> None:
    folder = make_run(EARLIER_CLIENT)
    assert run(["-p", "-m", str(folder)]) == 0
    assert list(folder.glob("predictions_*")) == []


def test_finalize_does_not_hide_why_a_legacy_client_failed(make_run: Any, capfd: Any) -> None:
    source = LEGACY_DIARY.replace("AFTER_ANSWER", "raise ValueError('no such class')")
    folder = make_run(source.replace('self.note("finalize")', "1 / 0"))
    assert run(["-p", "-m", str(folder)]) == 3
    error = capfd.readouterr().err
    assert "no such class" in error
    assert "division" not in error


def test_the_first_answer_to_a_legacy_client_may_take_longer(make_run: Any, server: Any) -> None:
    folder = make_run(LEGACY_DIARY.replace("AFTER_ANSWER", ""), request_timeout=60.0)
    allowed = []
    server.misbehave = lambda number, context: allowed.append(context.time_remaining())
    assert run(["-l", "2", "-m", str(folder)]) == 0
    first, second = allowed
    assert first > 240 > 100 > second


def test_earlier_code_may_use_tensorflows_functions_on_the_answer(server: Any, tensorflow: Any) -> None:
    from experiments_manager import Client
    from experiments_manager.protocol import messages

    with Client(server.address, "double", keep_messages=True) as client:
        response = messages.PredictResponse.FromString(client.predict([[1, 2]]).message)
    assert tensorflow.make_ndarray(response.outputs["y"]).tolist() == [[2, 4]]
    assert tensorflow.make_ndarray(response.outputs["name"]).tolist() == [b"row 1"]


@pytest.mark.slow
def test_without_a_client_the_validation_data_is_predicted(make_run: Any, tmp_path: Path) -> None:
    folder = make_run()
    done = predict_in_process(folder, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    result = json.loads(done.stdout)
    table, archive = map(Path, result["predictions"])
    assert table.parent.parent == folder
    assert table.parent.name.startswith("predictions_")
    expected = 2 * np.arange(20, dtype=np.float32).reshape(10, 2)
    np.testing.assert_array_equal(np.load(archive)["y"], expected)
    assert len(table.read_text().splitlines()) == 11
    assert result["answers"] == 10
    assert result["versions"] == {"1": 10}
    assert result["model"] == "double"
    assert result["p50_ms"] > 0


def test_a_source_needs_no_tensorflow(make_run: Any, tmp_path: Path) -> None:
    folder = make_run("raise RuntimeError('the settings are not loaded')")
    np.save(tmp_path / "a.npy", np.ones((3, 2), np.float32))
    program = (
        "import sys, atexit\n"
        "from experiments_manager.cli.main import run\n"
        f"code = run(['predict', {str(folder)!r}, '--from', 'a.npy', '--json', '--output', 'a.csv'])\n"
        "heavy = {'tensorflow', 'tensorflow_serving', 'keras', 'matplotlib', 'cv2', 'PIL'}\n"
        "print(code, sorted(heavy & sys.modules.keys()), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "0 []"
    assert json.loads(done.stdout)["answers"] == 3


def test_standard_input_goes_in_and_a_table_comes_out(server: Any, tmp_path: Path) -> None:
    given = ["--address", server.address, "--model-name", "double", "--from", "-", "--output", "-", "--quiet"]
    done = predict_in_process(*given, cwd=tmp_path, stdin=b"1,2\n3,4\n")
    assert done.returncode == 0, done.stderr
    lines = ["sample,version,name,y_0,y_1", "0,1,row 1,2.0,4.0", "1,1,row 3,6.0,8.0"]
    assert done.stdout.decode().splitlines() == lines
    assert done.stderr == b""
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_has_enough_ends_a_stream_silently(server: Any, tmp_path: Path) -> None:
    given = ["--address", server.address, "--model-name", "double", "--from", "a.npy", "--output", "-"]
    np.save(tmp_path / "a.npy", np.ones((1000, 2), np.float32))
    command = [sys.executable, "-m", "experiments_manager", "predict", *given, "--rate", "200"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, **pipes) as process:
        assert process.stdout.readline() == b"sample,version,name,y_0,y_1\n"
        process.stdout.close()
        error = process.stderr.read()
        process.wait(timeout=60)
    assert (process.returncode, error) == (0, b"")
    assert server.count < 1000


def test_ctrl_c_ends_a_stream_and_keeps_what_there_is(server: Any, tmp_path: Path) -> None:
    given = ["--address", server.address, "--model-name", "double", "--from", "-", "--output", "a.csv", "--json"]
    command = [sys.executable, "-m", "experiments_manager", "predict", *given]
    table = tmp_path / "a.csv"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, **pipes) as process:
        process.stdin.write(b"1,2\n3,4\n")
        process.stdin.flush()
        deadline = time.monotonic() + 120
        while not table.exists() or len(table.read_text().splitlines()) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)  # standard input is still open: whoever writes to it need not end first
        output, error = process.communicate()
    assert (process.returncode, b"Traceback" in error) == (0, False), error
    assert json.loads(output)["answers"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count", "1", "--stream"], "--count and --stream exclude each other"),
        (["--scale", "2"], "--scale is for what --from reads. Expected --from PATH with it"),
        (["--rate", "0"], "--rate is 0. Expected more than 0"),
        (["--from", "none.npy"], "none.npy not found"),
        (["--output", "a.txt", "--from", "-"], "Expected a file that ends in .csv or .npz"),
        (["--json", "--output", "-"], "both want standard output"),
        (["--model-name", "other", "--from", "-"], "NOT_FOUND: Servable not found"),
        (["--ssl-config-file", "none"], "Cannot read none: No such file"),
        (["--auth-token-file", "none"], "Cannot read none: No such file"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], message: str, make_run: Any, capfd: Any) -> None:
    assert run(["predict", str(make_run()), *arguments]) == 2
    error = capfd.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(("given", "asked"), [(None, None), ("12", 12), ("stable", "stable"), ("²", "²")])
def test_a_version_is_asked_by_number_or_by_label(given: str | None, asked: int | str | None) -> None:
    from experiments_manager.cli.commands.predict import _version

    assert _version(given) == asked


def test_the_answers_never_overwrite_the_questions(tmp_path: Path, monkeypatch: Any, capfd: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("1,2\n")
    arguments = ["predict", "--address", "localhost:1", "--model-name", "m", "--from", str(tmp_path / "a.csv")]
    assert run([*arguments, "--output", "./a.csv"]) == 2
    assert "--from and --output are the same file" in capfd.readouterr().err
    assert (tmp_path / "a.csv").read_text() == "1,2\n"


def test_without_a_run_address_and_model_are_needed(capfd: Any) -> None:
    assert run(["predict"]) == 2
    assert "Expected a run folder, or --address HOST:PORT together with --model-name NAME" in capfd.readouterr().err
    assert run(["predict", "moved/away"]) == 2
    assert "There is no run folder moved/away" in capfd.readouterr().err


def test_a_server_that_is_gone_is_one_clear_sentence(make_run: Any, free_port: Any, capfd: Any) -> None:
    address = f"127.0.0.1:{free_port()}"
    assert run(["predict", str(make_run(TODAYS_CLIENT)), "--address", address]) == 2
    assert f"The model server at {address} cannot be reached, for 0.5 s (" in capfd.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--from", "none.npy"], ["--output", "a.txt", "--from", "-"], ["--timeout", "-1"]]
)
def test_what_is_wrong_whatever_the_server_says_is_told_without_it(
    arguments: list[str], make_run: Any, monkeypatch: Any
) -> None:
    import experiments_manager.client.client as client

    monkeypatch.setattr(client, "Client", None)
    assert run(["predict", str(make_run()), *arguments]) == 2


def test_a_wrong_input_name_lists_the_right_ones(make_run: Any, capfd: Any) -> None:
    assert run(["predict", str(make_run(TODAYS_CLIENT.replace('{"x"', '{"X"')))]) == 2
    assert "The model has no input 'X'. Expected x (float32 [any, 2]); got X." in capfd.readouterr().err


@pytest.mark.parametrize(
    ("was", "becomes", "message"),
    [
        ("for number in range(40):", "for number in range(40 // 0):", "requests: ZeroDivisionError"),
        ("self.lines.append(", "self.lines.add(", "on_response: AttributeError"),
    ],
)
def test_an_error_in_the_client_is_told_with_its_line(
    was: str, becomes: str, message: str, make_run: Any, capfd: Any
) -> None:
    assert run(["predict", str(make_run(TODAYS_CLIENT.replace(was, becomes)))]) == 3
    error = capfd.readouterr().err
    assert message in error
    assert "mysettings_double.py:" in error
    assert becomes in error


def test_requests_that_cannot_be_read_are_no_fault_of_ours(make_run: Any, capfd: Any) -> None:
    source = TODAYS_CLIENT.replace("for number in range(40):", "return").replace(
        "            yield", "        _ = lambda number:"
    )
    assert run(["predict", str(make_run(source))]) == 3
    error = capfd.readouterr().err
    assert "requests: TypeError: 'NoneType' object is not iterable" in error
    assert "mysettings_double.py:" in error


def test_a_client_without_the_methods_is_refused(make_run: Any, capfd: Any) -> None:
    assert run(["predict", str(make_run("class client:\n    def requests(self): yield\n"))]) == 2
    error = capfd.readouterr().err
    assert "client: not a client. Expected a class with `requests()`" in error
    assert "got the methods requests" in error


def test_programs_find_the_model_of_a_run(make_run: Any) -> None:
    from experiments_manager import Client
    from experiments_manager.client.endpoint import find_endpoint

    folder = make_run(request_timeout=3.5, max_message_bytes=12345)
    target = find_endpoint(folder)
    assert (target.model, target.timeout, target.patience, target.max_message_bytes) == ("double", 3.5, 0.5, 12345)
    with Client.for_run(folder, timeout=60.0) as client:
        assert client.predict([[1, 2]])["y"].tolist() == [[2, 4]]
        assert client.model == "double"


def test_a_run_that_nobody_serves_or_trains_is_asked_by_a_server_for_the_time_of_the_command(
    make_run: Any, free_port: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from experiments_manager.cli import own_server
    from experiments_manager.client.endpoint import find_endpoint

    run_dir, port = make_run(), free_port()
    write_serving_setup(run_dir, ServingSetup("localhost", port, free_port(), "double"))
    assert not own_server.needs_own_server(run_dir, find_endpoint(run_dir))  # there is nothing to serve
    (run_dir / "exported_models" / "3").mkdir(parents=True)
    assert own_server.needs_own_server(run_dir, find_endpoint(run_dir))
    with socket.create_server(("localhost", port)):
        assert not own_server.needs_own_server(run_dir, find_endpoint(run_dir))
    monkeypatch.setattr(own_server, "is_at_work", lambda target: True)
    assert not own_server.needs_own_server(run_dir, find_endpoint(run_dir))
