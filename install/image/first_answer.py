"""Start a model server, ask it until it answers, end it, and print how long that took: first_answer.py MODEL_FOLDER."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

_SERVER = "from experiments_manager.serving.server.flags import main; main()"
_SECONDS = 120
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy of the site does not know this host


def main(folder: str) -> None:
    """Measure the first answer."""
    grpc, rest = _free_port(), _free_port()
    flags = [f"--model_base_path={folder}", "--model_name=tried", f"--port={grpc}", f"--rest_api_port={rest}"]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    begin = time.monotonic()
    server = subprocess.Popen([sys.executable, "-c", _SERVER, *flags], env=environment)
    try:
        answer = _ask(f"http://127.0.0.1:{rest}/v1/models/tried:predict", server, begin + _SECONDS)
        sys.stdout.write(f"First answer after {time.monotonic() - begin:.2f} s: {answer}\n")
    finally:
        server.terminate()
        server.wait()


def _ask(url: str, server: subprocess.Popen, deadline: float) -> list:
    body = json.dumps({"instances": [[3.0]]}).encode()
    problem = ""
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with _DIRECT.open(url, body, timeout=_SECONDS) as answer:
                return json.load(answer)["predictions"]
        except OSError as error:  # it does not listen yet, or the model is still to come
            problem = str(error)
            time.sleep(0.02)
    sys.exit(f"The model server gave no answer within {_SECONDS} s, or ended. Last: {problem}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    main(sys.argv[1])
