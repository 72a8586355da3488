"""`experiments_manager kafka demo`: everything at once, without a broker."""

import importlib.util

import pytest

from experiments_manager.cli.main import run
from experiments_manager.runs import open_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("confluent_kafka") is None, reason="confluent-kafka is not installed"),
]


def only_run(folder):
    [manifest] = folder.glob("*/run.json")
    return open_run(manifest.parent)


def test_it_sends_trains_and_reports_without_a_broker(line_experiment, tmp_path, capsys):
    assert run(["kafka", "demo", str(line_experiment), "--set", f"working_dir={tmp_path}/runs"]) == 0
    done = only_run(tmp_path / "runs")
    assert done.manifest["state"] == "finished"
    assert done.manifest["kafka"]["train"]["topic"] == "line.train"
    assert (done.path / "report.html").exists()
    said = capsys.readouterr().err
    assert "A broker for tests runs in this process" in said
    assert "Sent to topic line.validation, 4 partitions: 64 samples" in said


def test_data_that_are_too_many_for_it_are_told_of(line_experiment, tmp_path, capsys):
    hook = "def dataset(split):\n    x = np.random.default_rng(1).random((1500, 4000)).astype('float32')\n"
    text = line_experiment.read_text()
    start, end = text.index("def dataset"), text.index("def model")
    more = "    return (x, x[:, :1]) if split == 'train' else None\n\n\n"
    line_experiment.write_text((text[:start] + hook + more + text[end:]).replace("(1,), name", "(4000,), name"))
    options = ["--set", f"working_dir={tmp_path}/runs", "--set", "epochs=1"]
    assert run(["kafka", "demo", str(line_experiment), *options]) == 0
    assert only_run(tmp_path / "runs").manifest["state"] == "finished"
    assert "of 1,500 records of topic line.train, about 5 MB a partition" in capsys.readouterr().err
