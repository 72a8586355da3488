from typer.testing import CliRunner

from experiments_manager.cli.main import app, run


def test_a_sound_file_is_found_sound_without_anything_being_written(line_experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["check", line_experiment.name])
    assert result.output == "mysettings_line.py: no problem found\n"
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == [line_experiment.name]


def test_a_dry_run_shows_what_went_through(line_experiment):
    result = CliRunner().invoke(app, ["check", str(line_experiment), "--dry-run", "--set", "batch_size=8"])
    rows = {line.split()[0]: line for line in result.output.splitlines()}
    assert "(8, 1) float32" in rows["train"]
    assert "2 trainable" in rows["model"]
    assert rows.keys() >= {"train", "validation", "test", "memory", "one", "serving"}


def test_the_last_line_counts_warnings(line_experiment):
    line_experiment.write_text(line_experiment.read_text() + "\nval_dir = 'nowhere'\ntrain_data_dir = 'no/folder'\n")
    result = CliRunner().invoke(app, ["check", str(line_experiment)])
    assert result.exit_code == 0
    assert result.output.splitlines()[-1].endswith("nothing that stops a training, but 2 warnings")


def test_a_misspelt_override_is_bad_input(line_experiment, capsys):
    assert run(["check", str(line_experiment), "--set", "epocs=3"]) == 2
    assert "Did you mean `epochs`?" in capsys.readouterr().err


def test_a_missing_file_is_bad_input(tmp_path, capsys):
    assert run(["check", str(tmp_path / "none.py")]) == 2
    assert capsys.readouterr().err.startswith(f"{tmp_path / 'none.py'}: file: file not found.")
