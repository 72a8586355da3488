"""`experiments_manager kafka demo`: everything at once, without a broker."""

import importlib.util

import pytest

from experiments_manager import api
from experiments_manager.cli.main import run
from experiments_manager.common.errors import UserError
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


def test_data_that_are_too_many_for_it_are_told_of(line_experiment, capsys, monkeypatch):
    text = line_experiment.read_text()
    start, end = text.index("    x = np.linspace"), text.index("def model")
    data = "    return np.random.default_rng(1).random((1500, 4000)) if split == 'train' else None\n\n\n"
    line_experiment.write_text(text[:start] + data + text[end:])

    def train(settings, **options):
        raise UserError(f"{settings.kafka_topics}, {settings.consume_data_from_kafka}")

    monkeypatch.setattr(api, "train", train)
    assert run(["kafka", "demo", str(line_experiment)]) == 2
    said = capsys.readouterr().err
    assert "of 1,500 records of topic line.train, about 5 MB a partition" in said
    assert said.endswith("{'validation': None, 'train': 'line.train'}, True\n")
