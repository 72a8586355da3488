import json

import pytest

from experiments_manager.runs import RunError, compare_runs, create_run
from experiments_manager.runs.compare import differing, run_letters


@pytest.fixture
def start_run(tmp_path, experiment):
    """Start and finish a run of the experiment."""

    def start(name, *, results=None, **fields):
        run = create_run(tmp_path / "runs", "demo", {}, run_name=name)
        run.start(settings_file=experiment / "mysettings.py", model_file=experiment / "model_mlp.py", **fields)
        run.finish("finished", **(results or {}))
        return run

    return start


def test_equal_runs_differ_in_nothing(start_run):
    runs = [start_run(name, hparams={"rate": 0.1}, settings={"epochs": 5}) for name in "ab"]
    comparison = compare_runs(runs)
    assert comparison.runs == [str(run.path) for run in runs]
    for part in (comparison.settings, comparison.hparams, comparison.code, comparison.packages):
        assert part == {}
    assert comparison.git == comparison.host == {}


def test_settings_and_hyperparameters_that_differ_are_put_side_by_side(start_run):
    first = start_run(
        "a", hparams={"rate": 0.1, "units": 1}, settings={"epochs": 5, "ema": None, "hparams": {"rate": 0.1}}
    )
    other = start_run(
        "b", hparams={"rate": 0.2, "units": 1}, settings={"epochs": 6, "ema": None, "hparams": {"rate": 0.2}}
    )
    third = start_run("c", hparams={"rate": 0.1, "units": 1, "new": 3}, settings={"epochs": 5, "ema": 0.99})
    comparison = compare_runs([first, other, third])
    assert comparison.settings == {"epochs": [5, 6, 5], "ema": [None, None, 0.99]}
    assert comparison.hparams == {"rate": [0.1, 0.2, 0.1], "new": [None, None, 3]}


def test_values_that_only_python_takes_for_equal_differ(start_run):
    runs = [start_run(name, settings={"flag": value}) for name, value in (("a", 1), ("b", True))]
    assert compare_runs(runs).settings == {"flag": [1, True]}


def test_code_that_differs_is_shown_as_a_diff_of_each_file(start_run, experiment):
    first = start_run("a")
    (experiment / "helper.py").write_text("VALUE = 42")
    (experiment / "mysettings.py").write_text("import new\nimport helper\n")
    (experiment / "new.py").write_text("x = 1\n")
    other = start_run("b")
    code = compare_runs([first, other, first]).code
    assert list(code) == ["helper.py", "mysettings.py", "new.py"]
    assert code["helper.py"] == [
        "--- a/helper.py\n+++ b/helper.py\n@@ -1 +1 @@\n-VALUE = 41\n+VALUE = 42\n\\ No newline at end of file\n",
        "",
    ]
    assert code["new.py"] == ["--- /dev/null\n+++ b/new.py\n@@ -0,0 +1 @@\n+x = 1\n", ""]


def test_files_that_are_no_text_are_only_named(start_run):
    first, other = start_run("a"), start_run("b")
    (first.settings_dir / "table.bin").write_bytes(b"\xff")
    (other.settings_dir / "table.bin").write_bytes(b"\xfe")
    assert compare_runs([first, other]).code == {"table.bin": ["Binary files a/table.bin and b/table.bin differ\n"]}


def test_packages_git_and_host_that_differ_are_put_side_by_side(start_run):
    first, other = start_run("a"), start_run("b")
    first.update(packages={"keras": "3.1", "numpy": "2"}, git={"commit": "1", "dirty": False}, host={"name": "x"})
    other.update(packages={"keras": "3.2", "numpy": "2", "new": "1"}, git=None, host={"name": "y"})
    comparison = compare_runs([first, other])
    assert comparison.packages == {"keras": ["3.1", "3.2"], "new": [None, "1"]}
    assert comparison.git == {"commit": ["1", None], "dirty": [False, None]}
    assert comparison.host == {"name": ["x", "y"]}


def test_results_are_always_shown(start_run):
    best = {"epoch": 2, "step": 20, "value": 0.5, "name": "val_loss"}
    results = {"epochs": 3, "global_step": 30, "seconds": 1.5, "metrics": {"val_loss": 0.6}}
    runs = [start_run("a", results={"best": best, **results}), start_run("b", results=results)]
    comparison = compare_runs(runs)
    assert comparison.metrics == {"val_loss": [0.6, 0.6]}
    assert comparison.results == {
        "state": ["finished", "finished"],
        "best": [0.5, None],
        "best_name": ["val_loss", None],
        "best_epoch": [2, None],
        "epochs": [3, 3],
        "global_step": [30, 30],
        "seconds": [1.5, 1.5],
    }


def test_runs_may_be_named_by_their_folders_and_the_result_is_plain_json(start_run):
    first, other = start_run("a"), start_run("b")
    comparison = compare_runs([str(first.path), other.path])
    assert json.loads(json.dumps(comparison.to_json(), allow_nan=False))["runs"] == comparison.runs


def test_a_run_that_never_started_can_be_compared(start_run, tmp_path):
    fresh = create_run(tmp_path / "runs", "demo", {})
    assert compare_runs([start_run("a"), fresh]).results["state"] == ["finished", "created"]


def test_one_run_alone_cannot_be_compared(start_run):
    with pytest.raises(RunError, match="Expected two runs or more, got 1"):
        compare_runs([start_run("a")])


def test_runs_are_told_apart_by_letters_and_then_by_numbers():
    assert run_letters(2) == ["A", "B"]
    assert run_letters(28)[-3:] == ["Z", "26", "27"]
    assert len(set(run_letters(200))) == 200


def test_only_names_whose_values_differ_are_given_and_those_that_some_rows_lack():
    assert differing([{"rate": 0.1, "units": 10, "only_here": None}, {"rate": 0.2, "units": 10}]) == [
        "rate",
        "only_here",
    ]
    assert differing([{"flag": True}, {"flag": 1}]) == ["flag"]
    assert differing([{"rate": 0.1}]) == differing([]) == []
