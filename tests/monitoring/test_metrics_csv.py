"""metrics.csv: what it holds, and what survives kills and full disks."""

import io
import logging
from pathlib import Path

import numpy as np
import pytest

from experiments_manager.events import EpochReport, RunEnd, RunStart
from experiments_manager.monitoring import growing_csv
from experiments_manager.monitoring.metrics_csv import MetricsCsv, read_rows

END = RunEnd("finished", 3, 1.0, None, {}, None)


def start(path, first_epoch=1):
    return RunStart(path.parent, "test", {}, 10, first_epoch, 10, 31, ("CPU",), "val_loss")


def report(epoch, seconds=0.1, **logs):
    return EpochReport(epoch, 10 * epoch, logs or {"loss": 1 / epoch, "val_loss": 2 / epoch}, 0.1, seconds, True)


def write(path, epochs, first_epoch=1):
    watcher = MetricsCsv(path)
    watcher.on_start(start(path, first_epoch))
    for epoch in epochs:
        watcher.on_epoch(report(epoch))
    watcher.on_end(END)


class FullDisk(io.FileIO):
    """Takes a few bytes, then none, until there is room again."""

    room = 5

    def write(self, content):
        if self.room == 0:
            raise OSError(28, "No space left on device")
        content = bytes(content)[: self.room]
        self.room -= len(content)
        return super().write(content)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.csv"


def test_each_epoch_is_a_row_under_a_header(path):
    write(path, [1, 2])
    assert path.read_text() == ("epoch,step,learning_rate,loss,val_loss\n1,10,0.1,1.0,2.0\n2,20,0.1,0.5,1.0\n")


def test_values_are_written_at_full_precision(path):
    value = np.float32(1) / np.float32(3)
    watcher = MetricsCsv(path)
    watcher.on_start(start(path))
    watcher.on_epoch(report(1, loss=value, bad=float("nan")))
    watcher.on_end(END)
    cells = path.read_text().splitlines()[1].split(",")
    assert np.float32(float(cells[3])) == value
    assert cells[4] == "nan"


def test_a_row_is_in_the_file_as_soon_as_its_epoch_ended(path):
    watcher = MetricsCsv(path)
    watcher.on_start(start(path))
    watcher.on_epoch(report(1))
    watcher.on_epoch(report(2))
    assert path.read_text().count("\n") == 3
    watcher.on_end(END)


def test_nothing_depends_on_the_time_that_epochs_took(path, tmp_path):
    other = tmp_path / "other.csv"
    for file, seconds in ((path, 0.1), (other, 9.0)):
        watcher = MetricsCsv(file)
        watcher.on_start(start(file))
        watcher.on_epoch(report(1, seconds=seconds))
        watcher.on_end(END)
    assert path.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("torn", ["", "5,5", "5,50,0.1,0.2,0.4"])
def test_a_killed_and_resumed_run_leaves_the_same_bytes(path, tmp_path, torn):
    whole = tmp_path / "whole.csv"
    write(whole, [1, 2, 3, 4, 5])
    write(path, [1, 2, 3, 4])
    with path.open("a") as stream:
        stream.write(torn)
    write(path, [3, 4, 5], first_epoch=3)
    assert path.read_bytes() == whole.read_bytes()


def test_rows_that_will_be_trained_again_are_gone_when_the_resumed_run_starts(path):
    write(path, [1, 2, 3])
    watcher = MetricsCsv(path)
    watcher.on_start(start(path, first_epoch=3))
    assert [row["epoch"] for row in read_rows(path)[1]] == ["1", "2"]
    watcher.on_end(END)


def test_a_run_that_starts_over_starts_an_empty_file(path):
    write(path, [1, 2, 3])
    watcher = MetricsCsv(path)
    watcher.on_start(start(path))
    watcher.on_end(END)
    assert not path.exists()


def test_a_value_that_comes_up_later_gets_a_column(path):
    watcher = MetricsCsv(path)
    watcher.on_start(start(path))
    watcher.on_epoch(report(1, loss=1.0))
    watcher.on_epoch(report(2, loss=0.5, val_loss=0.6))
    watcher.on_epoch(report(3, val_loss=0.4))
    watcher.on_end(END)
    assert path.read_text() == (
        "epoch,step,learning_rate,loss,val_loss\n1,10,0.1,1.0,\n2,20,0.1,0.5,0.6\n3,30,0.1,,0.4\n"
    )


def test_a_late_column_does_not_make_a_resumed_file_different(path, tmp_path):
    def train(file, epochs, first_epoch=1):
        watcher = MetricsCsv(file)
        watcher.on_start(start(file, first_epoch))
        for epoch in epochs:
            watcher.on_epoch(report(epoch, **({"loss": 0.5, "late": 0.1} if epoch >= 3 else {"loss": 0.5})))
        watcher.on_end(END)

    whole = tmp_path / "whole.csv"
    train(whole, [1, 2, 3])
    train(path, [1, 2, 3])
    train(path, [2, 3], first_epoch=2)
    assert path.read_bytes() == whole.read_bytes()


def test_a_column_name_with_a_comma_is_quoted(path):
    watcher = MetricsCsv(path)
    watcher.on_start(start(path))
    watcher.on_epoch(report(1, **{"loss, total": 1.0}))
    watcher.on_end(END)
    assert read_rows(path)[0][-1] == "loss, total"


def test_a_full_disk_loses_no_row_and_is_reported_once(path, tmp_path, caplog):
    watcher = MetricsCsv(path)
    watcher.on_start(start(path))
    watcher.on_epoch(report(1))
    watcher.table._stream.close()
    watcher.table._stream = FullDisk(path, "ab")
    before = path.read_bytes()
    with caplog.at_level(logging.WARNING):
        watcher.on_epoch(report(2))
        watcher.on_epoch(report(3))
    assert path.read_bytes() == before, "no half of a row may stay"
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} cannot be written: No space left on device. Training goes on; the rows are kept."
    ]
    watcher.table._stream.room = 10_000
    watcher.on_epoch(report(4))
    watcher.on_end(END)
    write(tmp_path / "whole.csv", [1, 2, 3, 4])
    assert path.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_disk_that_is_full_from_the_start_gets_all_rows_later(path, tmp_path, monkeypatch, caplog):
    def refuse(path, text, **options):
        raise OSError(28, "No space left on device", str(path))

    watcher = MetricsCsv(path)
    watcher.on_start(start(path))
    with monkeypatch.context() as patch:
        patch.setattr(growing_csv, "write_text", refuse)
        watcher.on_epoch(report(1))
        watcher.on_epoch(report(2))
    assert len(caplog.records) == 1
    watcher.on_end(END)
    write(tmp_path / "whole.csv", [1, 2])
    assert path.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_missing_folder_does_not_stop_training(tmp_path, caplog):
    write(tmp_path / "missing" / "metrics.csv", [1, 2])
    assert len(caplog.records) == 1


def test_a_row_is_appended_and_the_rows_before_it_are_not_written_again(path):
    watcher = MetricsCsv(path)
    watcher.on_start(start(path))
    watcher.on_epoch(report(1))
    file = path.stat().st_ino  # writing anew would put another file in its place
    for epoch in range(2, 20):
        watcher.on_epoch(report(epoch))
    watcher.on_end(END)
    assert path.stat().st_ino == file
    assert len(read_rows(path)[1]) == 19


def test_a_file_that_is_no_table_of_epochs_has_no_rows(tmp_path):
    other = Path(tmp_path / "other.csv")
    other.write_text("name,value\na,1\n")
    assert read_rows(other) == ([], [])
    other.write_text("")
    assert read_rows(other) == ([], [])


def test_a_damaged_row_costs_no_other(path):
    write(path, [1, 2, 3])
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], "2,20,0.\n", lines[3]]))
    assert [row["epoch"] for row in read_rows(path)[1]] == ["1", "3"]
    write(path, [4], first_epoch=4)
    assert [row["epoch"] for row in read_rows(path)[1]] == ["1", "3", "4"]


def test_what_a_spreadsheet_saved_otherwise_is_kept(path, caplog):
    write(path, [1, 2])
    saved = path.read_text().replace(",", ";")
    path.write_text(saved)
    write(path, [3], first_epoch=3)
    assert [row["epoch"] for row in read_rows(path)[1]] == ["3"]
    assert path.with_name("metrics.csv.damaged").read_text() == saved
    assert "metrics.csv.damaged" in caplog.text
