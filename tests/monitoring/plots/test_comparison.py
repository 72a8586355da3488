"""Curves of several runs in one file."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from experiments_manager.monitoring.plots.comparison import labels, plot_runs, write_file
from experiments_manager.runs import RunError

SIGNATURES = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF", ".PNG": b"\x89PNG"}


@pytest.fixture
def runs(make_run):
    return [
        make_run("first", hparams={"units": 10, "rate": 0.1}),
        make_run("second", hparams={"units": 20, "rate": 0.1, "note": "<b>$x$"}, metrics=("loss", "accuracy")),
        make_run("waiting", hparams={"units": 10, "rate": 0.1}, epochs=0, state="running"),
    ]


@pytest.mark.parametrize("ending", SIGNATURES)
def test_the_ending_tells_the_format_and_folders_are_made(runs, tmp_path, ending):
    file = tmp_path / "new" / "folder" / f"curves{ending}"
    assert plot_runs(runs, file) == file
    assert file.read_bytes().startswith(SIGNATURES[ending])


def test_each_metric_has_a_panel_and_each_run_its_letter_and_what_makes_it_different(runs, tmp_path):
    svg = plot_runs([str(run.path) for run in runs], tmp_path / "curves.svg").read_text()
    for text in ("loss", "accuracy", "A  units=10", "B  units=20, note=&lt;b&gt;$x$", "C  units=10", "best epoch"):
        assert f">{text}<" in svg
    assert "rate=" not in svg


def test_runs_are_named_by_hparams_that_differ_then_by_settings_then_by_their_folders(make_run):
    runs = [make_run("one"), make_run("two")]
    first, second = {"units": 1.0}, {"units": 2.5}
    assert labels(runs, [{"hparams": first}, {"hparams": second}]) == ["units=1", "units=2.5"]
    assert labels(runs, [{"hparams": first}, {}]) == ["units=1", "(none of these hparams)"]
    settings = [{"epochs": 5, "model_file": file, "hparams": first} for file in ("mlp.py", "cnn.py")]
    assert labels(runs, [{"hparams": first, "settings": each} for each in settings]) == [
        "model_file=mlp.py",
        "model_file=cnn.py",
    ]
    assert labels(runs, [{"hparams": first, "settings": settings[0]}] * 2) == ["one", "two"]


@pytest.mark.parametrize(("name", "got"), [("curves.jpg", "'.jpg'"), ("curves", "none")])
def test_an_unknown_ending_is_one_clear_error_before_anything_is_read(tmp_path, name, got):
    with pytest.raises(RunError, match=rf"Expected .png, .svg, .pdf, got {got}. Write .*curves.png, for instance"):
        plot_runs([tmp_path / "no run"], tmp_path / name)


def test_runs_without_epochs_are_nothing_to_draw(runs, tmp_path):
    with pytest.raises(RunError, match="Expected a run that has finished an epoch, got 2 without"):
        plot_runs([runs[2], runs[2]], tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_a_place_that_cannot_be_written_is_an_error(runs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="Cannot write .*curves.png"):
        plot_runs(runs, tmp_path / "file" / "curves.png")


def test_tensorflow_is_not_needed(runs, tmp_path):
    code = (
        "import sys, experiments_manager as em\n"
        "em.plot_runs(sys.argv[2:], sys.argv[1])\n"
        "em.report(sys.argv[2], sys.argv[1] + '.html')\n"
        "sys.exit(bool({'tensorflow', 'keras', 'matplotlib.pyplot'} & set(sys.modules)))\n"
    )
    arguments = [tmp_path / "curves.png", *(run.path for run in runs)]
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("ending", SIGNATURES)
def test_names_of_folders_that_are_no_text_are_drawn(make_run, tmp_path, ending):
    runs = [make_run("cafe").path.rename(tmp_path / "caf\udce9"), make_run("other")]
    assert plot_runs(runs, tmp_path / f"curves{ending}").stat().st_size


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write_file(pipe, b"a page")
    reader.join(60)
    assert got == [b"a page"]
    assert pipe.is_fifo()


@pytest.mark.parametrize("name", ["", "folder"])
def test_a_folder_is_no_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match="Is a directory. Choose another place"):
        write_file(Path(name), b"a page")
