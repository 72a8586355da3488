import json

import pytest
from typer.testing import CliRunner

from experiments_manager.cli.main import app, run
from experiments_manager.runs import create_run


def make_run(folder, name, *, best, **hparams):
    made = create_run(folder, "line", hparams, run_name=name)
    made.update(hparams=hparams)
    best = {"value": best, "name": "val_loss", "epoch": 2, "step": 8}
    made.finish("finished", best=best, epochs=3, seconds=75.0)
    return made


@pytest.fixture
def two_runs(tmp_path):
    return [
        make_run(tmp_path, "first", best=0.5, units=10, rate=0.1),
        make_run(tmp_path, "second", best=0.25, units=20, rate=0.1),
    ]


def listed(*arguments):
    return CliRunner().invoke(app, ["runs", *map(str, arguments)]).stdout


def test_the_table_shows_the_hparams_that_differ_and_how_each_run_ended(two_runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    header, first, second = (line.split() for line in listed().splitlines())
    assert header == ["state", "best", "epochs", "time", "units", "run"]
    assert first == ["finished", "val_loss", "0.5", "at", "2", "3", "1:15", "10", "first"]
    assert second == ["finished", "val_loss", "0.25", "at", "2", "3", "1:15", "20", "second"]


@pytest.mark.parametrize(("sort", "order"), [("best", ["second", "first"]), ("-units", ["second", "first"])])
def test_runs_are_sorted_by_a_column_or_an_hparam_upwards_or_downwards(two_runs, tmp_path, monkeypatch, sort, order):
    monkeypatch.chdir(tmp_path)
    assert [line.split()[-1] for line in listed("--sort", sort).splitlines()[1:]] == order


def test_long_names_are_neither_cut_nor_torn(tmp_path, monkeypatch):
    make_run(tmp_path, "long_" * 40, best=1.0)
    monkeypatch.chdir(tmp_path)
    assert "long_" * 40 in listed()


def test_an_unreadable_run_is_listed_and_explained(two_runs, tmp_path):
    two_runs[0].manifest_file.write_text("{")
    result = CliRunner().invoke(app, ["runs", str(tmp_path)])
    assert sorted(line.split()[0] for line in result.stdout.splitlines()[1:]) == ["finished", "unreadable"]
    assert str(two_runs[0].manifest_file) in result.stderr


def test_json_gives_all_rows_in_one_line(two_runs, tmp_path):
    output = listed(tmp_path, "--json")
    assert output.count("\n") == 1
    assert [(row["name"], row["best"]) for row in json.loads(output)["runs"]] == [("first", 0.5), ("second", 0.25)]


def test_a_folder_without_runs_says_so(tmp_path):
    assert listed(tmp_path) == f"No runs in {tmp_path}.\n"


def test_a_missing_folder_and_an_unknown_column_are_bad_input(two_runs, tmp_path, capsys):
    assert run(["runs", str(tmp_path / "none")]) == 2
    assert run(["runs", str(tmp_path), "--sort", "bst"]) == 2
    missing, unknown = capsys.readouterr().err.splitlines()
    assert missing.startswith(f"There is no folder {tmp_path / 'none'}.")
    assert unknown.endswith("Did you mean `best`?")


def test_compare_shows_results_and_what_differs_side_by_side(two_runs):
    output = CliRunner().invoke(app, ["compare", *(str(run.path) for run in two_runs)]).stdout
    lines = [line.split() for line in output.splitlines()]
    assert lines[:2] == [["A", str(two_runs[0].path)], ["B", str(two_runs[1].path)]]
    assert ["results", "A", "B"] in lines
    assert ["best", "0.5", "0.25"] in lines
    assert ["units", "10", "20"] in lines
    assert "rate" not in output
    assert output.splitlines()[-1] == "No difference in settings, packages, git, host, code."


def test_names_are_never_taken_for_markup(tmp_path):
    runs = [create_run(tmp_path, "line", {"rate[a]": rate}, run_name=str(rate)) for rate in (1, 2)]
    for made, value in zip(runs, (1.0, 2.0), strict=True):
        best = {"value": value, "name": "iou[road]", "epoch": 1, "step": 1}
        made.update(hparams={"rate[a]": value}, metrics={"iou[/road]": value})
        made.finish("finished", best=best, epochs=1, seconds=1.0)
    assert "iou[road] 1 at 1" in listed(tmp_path)
    assert "rate[a]" in listed(tmp_path)
    compared = CliRunner().invoke(app, ["compare", *(str(run.path) for run in runs)]).stdout
    assert "rate[a]" in compared


def test_compare_shows_how_the_code_differs(two_runs):
    for number, made in enumerate(two_runs):
        made.settings_dir.mkdir()
        (made.settings_dir / "mysettings_line.py").write_text(f"epochs = {number}\n")
    output = CliRunner().invoke(app, ["compare", *(str(run.path) for run in two_runs)]).stdout
    assert "mysettings_line.py, A to B\n" in output
    assert "-epochs = 0\n+epochs = 1\n" in output


def test_compare_gives_json(two_runs):
    output = CliRunner().invoke(app, ["compare", "--json", *(str(run.path) for run in two_runs)]).stdout
    assert json.loads(output)["hparams"] == {"units": [10, 20]}


def test_there_is_nothing_to_compare_in_one_run(two_runs, capsys):
    assert run(["compare", str(two_runs[0].path)]) == 2
    assert "Expected two runs or more" in capsys.readouterr().err
