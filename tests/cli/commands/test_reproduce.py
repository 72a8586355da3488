import json

import pytest

from experiments_manager.cli.main import run
from experiments_manager.runs import create_run, open_run


@pytest.mark.slow
def test_a_run_is_trained_again_with_the_same_bits_and_a_changed_seed_is_noticed(
    run_command, line_experiment, tmp_path
):
    trained = run_command(
        "train", line_experiment, "--working-dir", tmp_path, "--run-name", "first", "--set", "slope=2"
    )
    assert trained.returncode == 0, trained.stderr
    again = run_command("reproduce", tmp_path / "first", "--here", "--json")
    assert again.returncode == 0, again.stderr
    told = json.loads(again.stdout.splitlines()[-1])
    assert (told["same"], told["weights"], told["metrics"]) == (True, "identical", {})
    assert open_run(tmp_path / "first-again").manifest["hparams"] == {"slope": 2.0}

    open_run(tmp_path / "first").update(seed=43)
    other = run_command("reproduce", tmp_path / "first", "--here")
    assert other.returncode == 3, other.stderr
    assert "Not the same: " in other.stdout
    assert "Weights of the last checkpoint: different" in other.stdout
    assert (tmp_path / "first-again-2").is_dir()


def test_a_run_that_has_not_finished_is_refused(tmp_path, capsys):
    create_run(tmp_path, "line", run_name="early")
    assert run(["reproduce", str(tmp_path / "early")]) == 2
    assert "Expected a finished run" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["early"]
