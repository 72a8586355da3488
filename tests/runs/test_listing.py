import json

import pytest

from experiments_manager.runs import RunError, create_run, list_runs, lock


@pytest.fixture
def make_run(tmp_path):
    """Make a finished run in a folder."""

    def make(name, *, folder="", hparams=None, state="finished", **fields):
        run = create_run(tmp_path / folder, "demo", hparams or {}, run_name=name)
        run.update(state=state, **fields)
        return run

    return make


def names(rows):
    return [row.name for row in rows]


def test_a_row_says_what_the_manifest_says(make_run, tmp_path):
    run = make_run(
        "a",
        hparams={"units": 10},
        best={"epoch": 3, "step": 30, "value": 0.25, "name": "val_loss"},
        epochs=5,
        seconds=1.5,
        start="2024-02-29T07:08:09+00:00",
    )
    (row,) = list_runs(tmp_path)
    assert row.to_json() == {
        "name": "a",
        "state": "finished",
        "hparams": {"units": 10},
        "best": 0.25,
        "best_name": "val_loss",
        "best_epoch": 3,
        "epochs": 5,
        "seconds": 1.5,
        "start": "2024-02-29T07:08:09+00:00",
        "path": str(run.path),
        "problem": None,
        "job": None,
    }


def test_runs_are_found_in_subfolders_but_not_in_hidden_ones_nor_in_runs_nor_too_deep(make_run, tmp_path):
    make_run("here")
    make_run("deep", folder="one/two/three")
    make_run("too_deep", folder="one/two/three/four")
    make_run("hidden", folder=".trash")
    make_run("inner", folder="here/settings")
    assert sorted(names(list_runs(tmp_path))) == ["deep", "here"]


def test_a_run_folder_lists_itself(make_run):
    assert names(list_runs(make_run("a").path)) == ["a"]


def test_a_link_in_a_circle_ends(make_run, tmp_path):
    make_run("a")
    (tmp_path / "again").symlink_to(tmp_path)
    assert names(list_runs(tmp_path)) == ["a"]


def test_an_empty_folder_has_no_runs(tmp_path):
    assert list_runs(tmp_path) == []


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(RunError, match="There is no folder"):
        list_runs(tmp_path / "missing")


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": 99}', "\x00"])
def test_a_run_that_cannot_be_read_is_listed_as_that(make_run, tmp_path, text):
    make_run("good", start="2024")
    make_run("bad").manifest_file.write_text(text)
    good, bad = list_runs(tmp_path)
    assert (good.state, bad.state) == ("finished", "unreadable")
    assert "run.json" in bad.problem


@pytest.mark.parametrize(
    "fields", [{"best": "x", "hparams": None}, {"best": {"value": [1]}, "seconds": "long"}, {"metrics": 3}]
)
def test_strange_values_do_not_break_the_list(make_run, tmp_path, fields):
    make_run("a", **fields)
    assert list_runs(tmp_path)[0].best is None


def test_a_run_whose_process_is_gone_is_killed_and_not_running(make_run, tmp_path):
    run = make_run("a", state="running")
    with lock(run):
        assert list_runs(tmp_path)[0].state == "running"
    assert list_runs(tmp_path)[0].state == "killed"


@pytest.fixture
def three(make_run, tmp_path):
    start = "2024-02-0{}T00:00:00+00:00".format
    make_run("b", hparams={"rate": 0.1, "kind": "x"}, best={"value": 0.5}, epochs=10, start=start(1))
    make_run("c", hparams={"rate": 0.01, "kind": "x"}, best={"value": -2.0}, epochs=9, start=start(3))
    make_run("a", hparams={"rate": 1e-05, "kind": "y"}, epochs=100, start=start(2))
    return tmp_path


@pytest.mark.parametrize(
    ("column", "order"),
    [
        (None, ["b", "a", "c"]),
        ("name", ["a", "b", "c"]),
        ("best", ["c", "b", "a"]),
        ("epochs", ["c", "b", "a"]),
        ("rate", ["a", "c", "b"]),
    ],
)
def test_rows_are_sorted_by_any_column_or_hyperparameter(three, column, order):
    assert names(list_runs(three, column)) == order


def test_descending_order_keeps_what_is_missing_last(three):
    assert names(list_runs(three, "best", descending=True)) == ["b", "c", "a"]


def test_infinities_are_sorted_as_numbers_and_nan_as_missing(make_run, tmp_path):
    for name, value in (("nan", float("nan")), ("inf", float("inf")), ("one", 1.0), ("minus", float("-inf"))):
        make_run(name, best={"value": value})
    assert names(list_runs(tmp_path, "best")) == ["minus", "one", "inf", "nan"]


def test_numbers_come_before_words(make_run, tmp_path):
    for name, value in (("word", "auto"), ("number", 3), ("none", None), ("list", [1, 2])):
        make_run(name, hparams={"size": value})
    assert names(list_runs(tmp_path, "size")) == ["number", "list", "word", "none"]


def test_an_unknown_column_is_refused_with_the_nearest(three):
    with pytest.raises(RunError, match=r"cannot be sorted by 'epoch'.* Did you mean `epochs`\?"):
        list_runs(three, "epoch")


def test_rows_are_plain_json(three):
    rows = [row.to_json() for row in list_runs(three)]
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
