import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[3] / "tools" / "trace_request.py"
MOST_FILES = {"gRPC Predict": 8, "REST predict": 12}
"""REST has four more: two for its connections, one for bodies that come in pieces, one for JSON that goes out."""


@pytest.mark.slow
def test_a_request_visits_few_files_between_bytes_in_and_bytes_out():
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    traced = subprocess.run([sys.executable, TOOL], capture_output=True, text=True, env=environment, check=True)
    files = {title: int(count) for title, count in re.findall(r"^(\w+ \w+): (\d+) files", traced.stdout, re.MULTILINE)}
    assert files.keys() == MOST_FILES.keys()
    assert all(files[title] <= most for title, most in MOST_FILES.items()), traced.stdout
