import json
from pathlib import Path

import pytest

from experiments_manager.cli.main import run
from experiments_manager.settings import check_source


def test_the_starter_is_named_after_its_folder_and_has_no_problem(tmp_path, capsys):
    assert run(["new", str(tmp_path / "my-problem")]) == 0
    file = tmp_path / "my-problem" / "mysettings_my_problem.py"
    assert f"experiments_manager train {file}" in capsys.readouterr().out
    assert check_source(file) == []


def test_nothing_is_overwritten(tmp_path, capsys):
    file = tmp_path / "mine" / "mysettings_mine.py"
    file.parent.mkdir()
    file.write_text("precious")
    assert run(["new", str(file.parent)]) == 2
    assert file.read_text() == "precious"
    assert capsys.readouterr().err.startswith(f"{file} exists already.")


def test_a_file_in_the_way_is_bad_input(tmp_path, capsys):
    (tmp_path / "mine").write_text("a file")
    assert run(["new", str(tmp_path / "mine")]) == 2
    assert "a file stands where a folder is expected" in capsys.readouterr().err


@pytest.mark.slow
def test_the_starter_trains_as_it_stands_and_learns_and_is_evaluated(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert run(["new", "spirals"]) == 0
    capfd.readouterr()
    code = run(["train", "spirals/mysettings_spirals.py", "--quiet"])
    assert (code, capfd.readouterr().err) == (0, "")
    [run_dir] = map(str, (tmp_path / "experiments").iterdir())

    assert run(["evaluate", run_dir, "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert (result["run_dir"], result["split"], result["samples"]) == (run_dir, "test", 600)
    assert result["metrics"]["accuracy"] > 0.85
    assert Path(result["confusion_matrix"]).read_bytes().startswith(b"\x89PNG")
