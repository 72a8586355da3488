"""Stands for `tensorflow_model_server`: notes its command line beside itself, and answers the status by REST."""

import http.server
import json
import os
import signal
import sys
from pathlib import Path

note = Path(os.environ["FAKE_SERVER_NOTE"])
note.write_text(json.dumps({"arguments": sys.argv, "pid": os.getpid(), "cuda": os.environ.get("CUDA_VISIBLE_DEVICES")}))
flags = dict(
    argument.removeprefix("--").split("=", 1)
    for argument in sys.argv[1:]
    if argument.startswith("--port=") or "=" in argument
)
if flags.get("model_name") == "ends_at_once":
    sys.exit("cannot do that")
if flags.get("model_name") == "ignores_signals":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class Status(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        version = {"version": "7", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        content = json.dumps({"model_version_status": [version]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


http.server.HTTPServer(("127.0.0.1", int(flags["rest_api_port"])), Status).serve_forever()
