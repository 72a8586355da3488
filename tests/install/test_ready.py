"""The script by which Compose and Kubernetes learn whether a model server has a model."""

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "install" / "image" / "ready.py"


@pytest.fixture
def server():
    """Gives a function that makes a server which tells the states of its versions."""
    made = []

    def start(*states):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps({"model_version_status": [{"state": state} for state in states]}).encode())

            def log_message(self, *arguments):
                pass

        made.append(http.server.HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=made[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{made[-1].server_port}/v1/models/m"

    yield start
    for each in made:
        each.shutdown()
        each.server_close()


def ask(url, **environment):
    return subprocess.run(
        [sys.executable, SCRIPT, url], capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_a_server_with_a_version_that_answers_is_ready(server):
    assert ask(server("LOADING", "AVAILABLE")).returncode == 0


@pytest.mark.parametrize(("states", "told"), [(("LOADING", "END"), "LOADING, END"), ((), "there is none")])
def test_one_without_is_not_and_the_states_are_told(server, states, told):
    done = ask(server(*states))
    assert done.returncode == 1
    assert f"no version is available: {told}" in done.stderr


def test_one_that_does_not_listen_is_not():
    done = ask("http://127.0.0.1:9/v1/models/m")
    assert done.returncode == 1
    assert "refused" in done.stderr


def test_a_proxy_is_not_asked_for_the_host_itself(server):
    asked = ask(server("AVAILABLE"), http_proxy="http://127.0.0.1:9", no_proxy="")
    assert asked.returncode == 0, asked.stderr
