"""`report`, and the picture of `compare`."""

import json

import pytest
import typer
from typer.testing import CliRunner

from experiments_manager.cli.main import app, run
from experiments_manager.runs import create_run


@pytest.fixture
def two_runs(tmp_path):
    """Two runs with one epoch each."""
    made = []
    for name, units in (("first", 10), ("second", 20)):
        made.append(create_run(tmp_path / "runs", "line", {"units": units}, run_name=name))
        made[-1].finish("finished", hparams={"units": units}, epochs=1)
        made[-1].metrics_csv.write_text("epoch,step,learning_rate,loss\n1,10,0.1,0.5\n")
    return made


def test_report_writes_a_page_and_prints_where(two_runs, tmp_path):
    printed = CliRunner().invoke(app, ["report", str(tmp_path / "runs")]).stdout
    assert printed == f"{tmp_path / 'runs' / 'report.html'}\n"
    assert "second" in (tmp_path / "runs" / "report.html").read_text()


def test_report_opens_the_page_and_tells_programs_where_it_is(two_runs, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(typer, "launch", opened.append)
    page = tmp_path / "page.html"
    arguments = ["report", str(two_runs[0].path), "--output", str(page), "--open", "--json"]
    assert json.loads(CliRunner().invoke(app, arguments).stdout) == {"report": str(page)}
    assert opened == [page.as_uri()]


def test_report_on_a_folder_without_runs_is_refused(tmp_path, capsys):
    assert run(["report", str(tmp_path)]) == 2
    assert "is no run folder" in capsys.readouterr().err


def test_compare_draws_curves_beside_what_it_prints(two_runs, tmp_path):
    paths = [str(one.path) for one in two_runs]
    picture = tmp_path / "curves.svg"
    printed = CliRunner().invoke(app, ["compare", *paths, "--plot", str(picture)]).stdout
    assert printed.endswith(f"Curves: {picture}\n")
    assert ">A  units=10<" in picture.read_text()
    told = json.loads(CliRunner().invoke(app, ["compare", *paths, "--plot", str(picture), "--json"]).stdout)
    assert told["plot"] == str(picture)
    assert told["hparams"] == {"units": [10, 20]}


def test_compare_refuses_a_picture_of_unknown_format_with_one_message(two_runs, tmp_path, capsys):
    assert run(["compare", *(str(one.path) for one in two_runs), "--plot", "curves.jpg"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert "Expected .png, .svg, .pdf, got '.jpg'" in output.err
