import json
import re
import shlex
from pathlib import Path

import pytest

from experiments_manager.cli.commands.new import copy_example, examples
from experiments_manager.cli.main import run
from experiments_manager.settings import check_source


def test_the_starter_is_named_after_its_folder_and_has_no_problem(tmp_path, capsys):
    assert run(["new", str(tmp_path / "my-problem")]) == 0
    file = tmp_path / "my-problem" / "mysettings_my_problem.py"
    assert f"experiments_manager train {file}" in capsys.readouterr().out
    assert check_source(file) == []


def test_the_command_can_be_copied_into_a_shell_whatever_the_folder_is_called(tmp_path, capsys):
    assert run(["new", str(tmp_path / "it's mine")]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "train" in line)
    file = tmp_path / "it's mine" / "mysettings_it_s_mine.py"
    assert shlex.split(line) == ["experiments_manager", "train", str(file)]


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


@pytest.mark.parametrize("name", examples())
def test_an_example_is_copied_whole(tmp_path, name):
    pytest.importorskip("sklearn")
    for file in copy_example(name, tmp_path / "mine"):
        assert file.is_file()
        if file.name.startswith("mysettings_"):
            assert check_source(file) == []


@pytest.mark.parametrize("name", examples())
def test_the_commands_of_a_copied_page_can_be_run_in_the_copy(tmp_path, name):
    copied = copy_example(name, tmp_path / "mine")
    page = copied[0].with_name("README.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```(?:ba)?sh\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL))
    named = re.findall(r"(?:experiments_manager (?:train|sweep|federate simulate)|python) (\S+\.py)", code)
    for command in re.findall(r"`python ([^`]+)`", page):
        named += [word for word in command.split() if word.endswith(".py")]
    assert named
    assert [file for file in named if not (tmp_path / "mine" / file).is_file()] == []
    assert "pip install ." not in code
    assert "](../" not in page
    assert "`python examples/" not in page


def test_the_command_names_the_copied_file_and_its_page(tmp_path, capsys):
    assert run(["new", str(tmp_path / "beats"), "--example", "embedding"]) == 0
    told = capsys.readouterr().out
    assert f"experiments_manager train {tmp_path / 'beats' / 'mysettings_heartbeats.py'}" in told
    assert f"{tmp_path / 'beats' / 'README.md'} says" in told
    assert (tmp_path / "beats" / "figures_of_merit.py").is_file()


def test_an_example_without_figures_of_merit_has_no_program_for_them(tmp_path):
    copy_example("streaming", tmp_path / "drift")
    assert not (tmp_path / "drift" / "figures_of_merit.py").exists()


def test_a_sweep_comes_with_the_examples_that_it_searches(tmp_path, capsys):
    assert run(["new", str(tmp_path), "--example", "hyperopt"]) == 0
    assert f"experiments_manager sweep {tmp_path / 'hyperopt'}" in capsys.readouterr().out
    assert (tmp_path / "classification" / "mysettings_digits.py").is_file()


def test_an_unknown_example_is_refused_with_the_nearest(tmp_path, capsys):
    assert run(["new", str(tmp_path / "mine"), "--example", "timeserie"]) == 2
    assert "Unknown example 'timeserie'" in (told := capsys.readouterr().err)
    assert "Did you mean" in told
    assert not (tmp_path / "mine").exists()


def test_an_installation_without_examples_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("experiments_manager.cli.commands.new.GALLERY", tmp_path / "none")
    assert run(["new", str(tmp_path / "mine"), "--example", "timeseries"]) == 2
    assert "This installation has no examples" in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()


def test_an_example_overwrites_nothing(tmp_path, capsys):
    file = tmp_path / "mysettings_heartbeats.py"
    file.write_text("precious")
    assert run(["new", str(tmp_path), "--example", "embedding"]) == 2
    assert file.read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert capsys.readouterr().err.startswith(f"{file} exists already.")


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
