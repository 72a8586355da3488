import subprocess
import sys

from experiments_manager.cli.main import run


def test_a_folder_without_runs_ends_with_one_sentence_and_exit_code_2(tmp_path, capsys):
    assert run(["board", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"There are no runs in {tmp_path}.")


def test_the_folder_experiments_is_shown_where_none_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["board"]) == 2
    assert capsys.readouterr().err.startswith("There is no folder experiments.")


def test_what_cannot_be_shown_is_refused_without_tensorflow(tmp_path):
    code = f"import sys\nfrom experiments_manager.cli.main import run\nprint(run(['board', {str(tmp_path)!r}]))\n"
    code += "print({'tensorflow', 'tensorboard'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split("\n")[:2] == ["2", "set()"]
