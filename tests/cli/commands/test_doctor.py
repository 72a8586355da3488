import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from experiments_manager.cli.main import app
from experiments_manager.doctor import accelerators, examination
from experiments_manager.doctor.finding import note, ok


def doctor(*arguments):
    return CliRunner().invoke(app, ["doctor", *map(str, arguments)])


@pytest.fixture(autouse=True)
def quick_tensorflow(monkeypatch):
    monkeypatch.setattr(accelerators, "tensorflow", lambda: [ok("TensorFlow", "2.21.0"), note("GPU", "none")])


def test_each_finding_is_a_row_with_its_remedy_below(tmp_path):
    told = doctor("--working-dir", tmp_path)
    assert told.exit_code == 0
    rows = {tuple(line.split()[:2]) for line in told.stdout.splitlines()}
    assert {("ok", "Python"), ("ok", "TensorFlow"), ("note", "GPU")} <= rows
    assert "→ Needed only to predict: experiments_manager serve RUN" in told.stdout


def test_the_findings_are_one_json_object_for_programs(tmp_path):
    told = json.loads(doctor("--json", "--working-dir", tmp_path).stdout)
    assert told["usable"] is True
    assert {"name", "state", "text", "remedy"} == set(told["findings"][0])
    names = [finding["name"] for finding in told["findings"]]
    assert names[:5] == ["Python", "Package", "TensorFlow", "GPU", "Extras"]
    assert {"Working folder", "Write speed", "Locks", "Apptainer", "SLURM", "Kafka", "Model server"} < set(names)


def test_what_is_needed_and_broken_is_the_exit_code(tmp_path):
    (tmp_path / "file").touch()
    told = doctor("--working-dir", tmp_path / "file")
    assert told.exit_code == 2
    assert "problem" in told.stdout


def test_a_check_that_fails_is_a_finding_and_the_others_are_made(tmp_path, monkeypatch):
    def slurm():
        raise RuntimeError("out of order")

    monkeypatch.setattr(examination.software, "slurm", slurm)
    told = json.loads(doctor("--json", "--working-dir", tmp_path).stdout)
    (failed,) = [finding for finding in told["findings"] if finding["state"] == "problem"]
    assert failed["name"] == "Slurm"
    assert failed["text"] == "the check failed: RuntimeError: out of order"
    assert len(told["findings"]) > 10


def test_looking_imports_no_tensorflow_here(tmp_path):
    code = (
        "import sys, pathlib\n"
        "from experiments_manager.doctor import accelerators, examination\n"
        "accelerators.tensorflow = lambda: []\n"
        "examination.examine(pathlib.Path(sys.argv[1]))\n"
        "sys.exit('tensorflow' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 0
