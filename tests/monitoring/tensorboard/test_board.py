"""What `board` reads, and what it refuses before anything heavy is loaded."""

import http.server
import socket
import threading

import pytest

from experiments_manager.monitoring.tensorboard.board import HOST, _wait_for_pages, logs_of, start_board
from experiments_manager.runs import RunError, create_run


def run_with_logs(folder, name):
    run = create_run(folder, "line", run_name=name)
    run.logs_dir.mkdir()
    (run.logs_dir / "events.out.tfevents.1.host").touch()
    return run


@pytest.fixture
def run(tmp_path):
    return run_with_logs(tmp_path / "experiments", "first")


def test_a_folder_of_runs_one_run_and_its_logs_are_found(run):
    assert logs_of(run.path.parent) == run.path.parent
    assert logs_of(run.path) == run.path
    assert logs_of(run.logs_dir) == run.path, "TensorBoard finds no metrics of a run whose logs are its root"


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RunError, match=r"There is no folder .*nowhere\. Expected a folder of runs, or one run"):
        logs_of(tmp_path / "nowhere")


def test_an_empty_folder_is_one_clear_message(tmp_path):
    with pytest.raises(RunError, match=r"There are no runs in .*\. Expected .* make a run: experiments_manager train"):
        logs_of(tmp_path)


def test_runs_without_logs_are_told(tmp_path):
    create_run(tmp_path, "line", run_name="first").finish("finished")
    with pytest.raises(RunError, match="None of the 1 runs in .* has logs for TensorBoard"):
        logs_of(tmp_path)


def test_a_run_that_has_only_just_begun_can_be_watched(tmp_path):
    create_run(tmp_path, "line", run_name="first")
    assert logs_of(tmp_path) == tmp_path


def test_a_port_that_is_in_use_is_refused_at_once(run):
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RunError, match=f"Port {port} is in use. Expected a free one"):
            start_board(run.path, port)


def test_no_proxy_is_asked_for_what_is_on_this_machine(monkeypatch):
    asked = []

    class Pages(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"scalars": {"enabled": true}}')

    with http.server.HTTPServer((HOST, 0), Pages) as server, socket.socket() as nobody:
        nobody.bind((HOST, 0))
        monkeypatch.setenv("http_proxy", f"http://{HOST}:{nobody.getsockname()[1]}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.setattr("experiments_manager.monitoring.tensorboard.board._ANSWER_SECONDS", 0.5)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            _wait_for_pages(f"http://{HOST}:{server.server_port}/")
        finally:
            server.shutdown()
            thread.join()
    assert asked == ["/data/plugins_listing"]
