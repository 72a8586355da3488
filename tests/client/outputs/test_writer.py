"""Predictions on disk, and the line that shows how they come."""

from __future__ import annotations

import csv
import errno
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from experiments_manager.client.errors import ClientError
from experiments_manager.client.outputs.writer import PredictionWriter
from experiments_manager.client.stream_progress import ProgressLine


def write(folder: Path, *answers: dict[str, np.ndarray], output: str | None = None) -> None:
    writer = PredictionWriter.for_output(output, folder)
    for number, outputs in enumerate(answers):
        writer.write(str(number), 10 + number, outputs)
    writer.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where predictions are written; it is not there yet."""
    return tmp_path / "predictions"


def rows(file: Path) -> list[list[str]]:
    with file.open(newline="") as lines:
        return list(csv.reader(lines))


def test_predictions_are_a_table_and_an_archive(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((3, 1, 2), np.float32)
    write(tmp_path / "new", *({"y": value, "name": np.array([b"caf\xc3\xa9"], object)} for value in values))
    header, *table = rows(tmp_path / "new" / "predictions.csv")
    assert header == ["sample", "version", "y_0", "y_1", "name"]
    assert [row[:2] + row[4:] for row in table] == [["0", "10", "café"], ["1", "11", "café"], ["2", "12", "café"]]
    np.testing.assert_array_equal(np.array([row[2:4] for row in table], np.float32), values[:, 0])  # every digit
    archive = np.load(tmp_path / "new" / "predictions.npz")
    np.testing.assert_array_equal(archive["y"], values[:, 0])
    assert archive["sample"].tolist() == ["0", "1", "2"]
    assert archive["version"].tolist() == [10, 11, 12]
    assert archive["name"].tolist() == ["café"] * 3
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["predictions.csv", "predictions.npz"]


def test_where_the_classes_are_known_the_table_names_them_and_the_likeliest(folder: Path) -> None:
    writer = PredictionWriter.for_output(None, folder, ["oak", "beech", "elm"])
    writer.write(
        "a.jpg", 7, {"tree": np.array([[0.25, 0.5, 0.25], [0.75, 0.25, 0]], np.float32), "age": np.ones((2, 1))}
    )
    writer.write("b.jpg", 7, {"tree": np.full((1, 3), np.nan, np.float32), "age": np.ones((1, 1))})
    writer.close()
    header, *table = rows(folder / "predictions.csv")
    assert header == ["sample", "version", "class", "tree_oak", "tree_beech", "tree_elm", "age"]
    assert [row[2] for row in table] == ["beech", "oak", ""]
    assert table[1] == ["a.jpg[1]", "7", "oak", "0.75", "0.25", "0.0", "1.0"]


def test_outputs_of_other_sizes_than_the_classes_keep_their_numbers_and_names(folder: Path) -> None:
    writer = PredictionWriter.for_output(str(folder) + ".csv", folder, ["a", "b"])
    writer.write(
        "0", 1, {"ids": np.array([[1, 2]]), "class": np.ones((1, 2), np.float32), "map": np.ones((1, 2, 2), np.float32)}
    )
    writer.close()
    (header, _) = rows(folder.with_suffix(".csv"))
    assert header[2:6] == ["class", "ids_0", "ids_1", "class_a"]


@pytest.mark.parametrize("other", [{"y": np.ones((1, 2), np.float64)}, {"z": np.ones((1, 2), np.float32)}])
def test_outputs_of_another_kind_are_refused_and_those_before_are_kept(folder: Path, other: Any) -> None:
    writer = PredictionWriter.for_output(None, folder)
    writer.write("0", 1, {"y": np.ones((1, 2), np.float32)})
    with pytest.raises(ClientError, match=r"Version 2 gives other outputs.*Expected y \(float32\), got [yz] \("):
        writer.write("1", 2, other)
    writer.close()
    assert np.load(folder / "predictions.npz")["y"].tolist() == [[1, 1]]
    assert len(rows(folder / "predictions.csv")) == 2


def test_a_batch_is_several_rows(folder: Path) -> None:
    write(folder, {"y": np.array([1, 2]), "z": np.zeros((2, 3))})
    assert [row[0] for row in rows(folder / "predictions.csv")] == ["sample", "0[0]", "0[1]"]
    assert np.load(folder / "predictions.npz")["z"].shape == (2, 3)


def test_outputs_without_a_batch_are_one_row(folder: Path) -> None:
    write(folder, {"loss": np.float32(0.5), "y": np.zeros(3)}, {"loss": np.float32(0.25), "y": np.ones(3)})
    assert [row[2] for row in rows(folder / "predictions.csv")] == ["loss", "0.5", "0.25"]
    archive = np.load(folder / "predictions.npz")
    assert archive["loss"].tolist() == [0.5, 0.25]
    assert archive["y"].shape == (2, 3)


def test_outputs_that_are_called_sample_and_version_keep_their_names(folder: Path) -> None:
    outputs = {"sample": np.array([[1.5]], np.float32), "version": np.array([[2.5]], np.float32)}
    write(folder, outputs)
    assert rows(folder / "predictions.csv") == [["_sample", "_version", "sample", "version"], ["0", "10", "1.5", "2.5"]]
    with np.load(folder / "predictions.npz") as archive:
        assert sorted(archive.files) == ["_sample", "_version", "sample", "version"]
        assert (archive["sample"], archive["_version"]) == ([[1.5]], [10])


def test_large_outputs_are_in_the_archive_alone(folder: Path) -> None:
    write(folder, {"mask": np.ones((1, 20, 20)), "y": np.array([1])})
    assert rows(folder / "predictions.csv")[0] == ["sample", "version", "y"]
    assert np.load(folder / "predictions.npz")["mask"].shape == (1, 20, 20)


def test_samples_of_different_shapes_keep_theirs(folder: Path) -> None:
    write(folder, {"boxes": np.ones((1, 2, 4))}, {"boxes": np.zeros((1, 3, 4))})
    archive = np.load(folder / "predictions.npz")
    assert archive["boxes.shapes"].tolist() == [[2, 4], [3, 4]]
    assert archive["boxes"].tolist() == [1] * 8 + [0] * 12


def test_outputs_of_changing_size_keep_their_columns(folder: Path, caplog: Any) -> None:
    sizes = (2, 1, 3, 3)
    write(folder, *({"a": np.arange(size, dtype=np.float32)[None], "b": np.float32([[9]])} for size in sizes))
    header, *table = rows(folder / "predictions.csv")
    assert header[2:] == ["a_0", "a_1", "b"]
    assert [row[2:] for row in table] == [["0.0", "1.0", "9.0"], ["0.0", "", "9.0"], *[["0.0", "1.0", "9.0"]] * 2]
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith("Sample 2 has 3 numbers of the output a, and the table has columns for 2")


def test_the_name_of_a_file_may_be_no_text(folder: Path) -> None:
    writer = PredictionWriter.for_output(None, folder)
    writer.write("caf\udce9.png", 1, {"y": np.float32([[1]])})  # as the system gives the name of a file in Latin-1
    writer.close()
    assert rows(folder / "predictions.csv")[1][0] == r"caf\udce9.png"
    assert np.load(folder / "predictions.npz")["sample"].tolist() == [r"caf\udce9.png"]


def test_a_disk_that_is_full_leaves_no_half_archive(folder: Path, monkeypatch: Any) -> None:
    writer = PredictionWriter.for_output(None, folder)
    writer.write("a", 1, {"y": np.float32([[1]])})

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("experiments_manager.client.outputs.writer._write_column", full)
    with pytest.raises(ClientError, match="No space left on device"):
        writer.close()
    assert [file.name for file in folder.iterdir()] == ["predictions.csv"]


def test_a_table_that_cannot_be_finished_costs_no_archive(tmp_path: Path) -> None:
    writer = PredictionWriter(Path("/dev/full"), tmp_path / "a.npz")
    with pytest.raises(ClientError, match="predictions: /dev/full or .*a.npz: No space left on device"):
        writer.write("a", 1, {"y": np.float32([[1]])})
    with pytest.raises(ClientError, match="No space left on device"):
        writer.close()
    assert (tmp_path / "a.npz").is_file()


def test_a_folder_in_the_place_of_a_file_is_refused_before_the_first_answer(tmp_path: Path) -> None:
    (tmp_path / "a.npz").mkdir()
    with pytest.raises(ClientError, match=r"a\.npz: Is a directory"):
        PredictionWriter.for_output(str(tmp_path / "a.npz"), tmp_path)


@pytest.mark.parametrize("fails", ["a", "b"])
def test_an_answer_that_ctrl_c_cuts_off_does_not_count(folder: Path, fails: str, monkeypatch: Any) -> None:
    answer = {"a": np.ones((1, 2), np.float32), "b": np.ones((1, 3), np.float32), "c": np.array([b"x"], object)}
    writer = PredictionWriter.for_output(None, folder)
    writer.write("0", 1, answer)
    file = writer._archive._columns[fails].values

    def cut_off(content: bytes) -> None:
        file.write(content[:3])
        raise KeyboardInterrupt

    monkeypatch.setattr(writer._archive._columns[fails], "values", SimpleNamespace(write=cut_off))
    with pytest.raises(KeyboardInterrupt):
        writer.write("1", 1, answer)
    writer._archive._columns[fails].values = file
    writer.close()
    archive = np.load(folder / "predictions.npz")
    assert {name: archive[name].shape for name in archive} == {
        "sample": (1,),
        "version": (1,),
        "a": (1, 2),
        "b": (1, 3),
        "c": (1,),
    }


def test_types_that_numpy_lacks_are_written_as_floats(folder: Path) -> None:
    write(folder, {"y": np.array([1.5], ml_dtypes.bfloat16)})
    assert np.load(folder / "predictions.npz")["y"].tolist() == [1.5]


def test_a_folder_that_is_there_is_left_alone(folder: Path) -> None:
    for number in range(3):  # at the same second, say
        write(folder, {"y": np.array([number])})
    places = [folder, folder.with_name("predictions-2"), folder.with_name("predictions-3")]
    assert [np.load(place / "predictions.npz")["y"].tolist() for place in places] == [[0], [1], [2]]


def test_the_output_may_be_one_file_or_the_terminal(tmp_path: Path, capsys: Any) -> None:
    write(tmp_path / "unused", {"y": np.array([1])}, output=str(tmp_path / "a.csv"))
    assert rows(tmp_path / "a.csv") == [["sample", "version", "y"], ["0", "10", "1"]]
    write(tmp_path / "unused", {"y": np.array([1])}, output=str(tmp_path / "a.npz"))
    assert np.load(tmp_path / "a.npz")["y"].tolist() == [1]
    write(tmp_path / "unused", {"y": np.array([1])}, output="-")
    assert capsys.readouterr().out == "sample,version,y\n0,10,1\n"
    assert not (tmp_path / "unused").exists()


def test_an_output_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match=r"Expected a file that ends in .csv or .npz, or `-`"):
        PredictionWriter.for_output("a.txt", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ClientError, match="Cannot write predictions: .*file"):
        PredictionWriter.for_output(str(tmp_path / "file" / "a.csv"), tmp_path)
    with pytest.raises(ClientError, match="Cannot write predictions: .*file"):
        PredictionWriter.for_output(None, tmp_path / "file" / "predictions")


class Terminal(io.StringIO):
    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def answer(line: ProgressLine, clock: list[float], count: int, step: float, version: int) -> None:
    for number in range(count):
        clock[0] += step
        line.answered(version, 0.001 * (1 + number % 100))


def test_the_live_line_shows_rate_latencies_and_version(monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    clock, terminal = [0.0], Terminal(True)
    line = ProgressLine(terminal, lambda: clock[0])
    answer(line, clock, 1000, 1 / 64, 7)
    shown = terminal.getvalue()
    assert " answers  64/s  p50 50 ms  p99 99 ms  version 7" in shown
    assert 130 <= shown.count("answers") <= 160  # ten times a second, for 1000 / 64 seconds
    line.close()
    assert terminal.getvalue().endswith("\x1b[2K"), "the line is taken away"


def test_where_there_is_no_terminal_a_line_is_written_now_and_then() -> None:
    clock, file = [0.0], Terminal(False)
    line = ProgressLine(file, lambda: clock[0])
    answer(line, clock, 1100, 0.01, 7)
    assert len(file.getvalue().splitlines()) == 2
    assert "\r" not in file.getvalue()


def test_the_summary_counts_versions_and_retries() -> None:
    clock = [0.0]
    line = ProgressLine(None, lambda: clock[0])
    answer(line, clock, 30, 0.1, 1)
    answer(line, clock, 70, 0.1, 2)
    summary = line.summary(3)
    assert (summary.answers, summary.versions, summary.retries) == (100, {1: 30, 2: 70}, 3)
    assert summary.rate == pytest.approx(10)
    assert summary.seconds == pytest.approx(10)
    assert str(summary).startswith("100 answers  10/s  p50 ")
    assert str(summary).endswith("versions 1, 2  3 sent again")
    one = ProgressLine(None, lambda: clock[0])
    answer(one, clock, 1, 0.1, 1)
    assert str(one.summary()).startswith("1 answer  ")
    assert str(ProgressLine(None).summary()) == "0 answers  0/s  version none"
