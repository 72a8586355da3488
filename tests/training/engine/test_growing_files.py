"""Which files of a run are brought to the disk before a checkpoint counts."""

import os

from experiments_manager.runs import create_run
from experiments_manager.training.engine.context import _growing_files


def test_logs_and_tables_are_found_while_another_thread_renames_folders_beside_them(tmp_path, monkeypatch):
    run = create_run(tmp_path, "curve", {})
    renamed, train = run.logs_dir / "embeddings" / ".epoch-0001.partial", run.logs_dir / "train"
    for folder in (renamed, train):
        folder.mkdir(parents=True)
    for file in (run.path / "metrics.csv", train / "events.out.tfevents.1", train / "other"):
        file.touch()
    scan = os.scandir

    def scan_late(path):
        if path in (renamed, str(renamed)) and renamed.exists():
            renamed.rmdir()  # between its being seen and its being read
        return scan(path)

    monkeypatch.setattr(os, "scandir", scan_late)
    assert set(_growing_files(run)) == {run.path / "metrics.csv", train / "events.out.tfevents.1"}
    assert not renamed.exists()
