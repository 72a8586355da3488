"""Texts for TensorBoard's text page."""

import pytest

from experiments_manager.monitoring.tensorboard.texts import LARGEST_DIFF, as_table, code_block, git_text, run_texts
from experiments_manager.runs import create_run


@pytest.fixture
def started_run(tmp_path):
    """A run that was started with an override."""
    file = tmp_path / "mysettings_small.py"
    file.write_text("epochs = 3\n")
    run = create_run(tmp_path / "runs", "small", {}, run_name="a")
    run.start(
        settings_file=file,
        model_file=None,
        command=("train",),
        overrides={"epochs": 5},
        hparams={},
        settings={"epochs": 5, "batch_size": 32},
        seed=42,
    )
    return run


def test_a_run_shows_its_settings_the_overrides_and_the_values_in_force(started_run):
    texts = run_texts(started_run)
    assert list(texts) == ["settings", "values", "git"]
    assert "| epochs | 5 |" in texts["settings"]
    assert texts["settings"].endswith("```python\nepochs = 3\n\n```")
    assert "| batch_size | 32 |" in texts["values"]


def test_git_tells_commit_branch_and_uncommitted_changes():
    state = {"commit": "abc", "branch": "main", "dirty": True, "untracked": ["model.py"]}
    text = git_text(state, "-old\n+new")
    rows = ["| commit | abc |", "| branch | main |", "| uncommitted changes | yes |"]
    assert [row for row in rows if row not in text] == []
    assert "| untracked files of the run | model.py |" in text
    assert text.endswith("```diff\n-old\n+new\n```")


def test_outside_a_repository_that_is_said():
    assert git_text(None) == "The settings file was in no git repository."


def test_a_long_diff_is_cut_and_says_so():
    text = git_text({"commit": "abc"}, "+" * (LARGEST_DIFF + 1))
    assert text.endswith(f"Cut here: the run folder's git.diff has {LARGEST_DIFF + 1} characters.")
    assert text.count("+") == LARGEST_DIFF


def test_code_that_holds_a_block_of_code_stays_one_block():
    assert code_block("```\nx\n```") == "````python\n```\nx\n```\n````"


def test_bars_and_lines_in_values_do_not_break_the_table():
    assert as_table({"a": "x|y\nz"}, "hparam").splitlines()[-1] == "| a | x\\|y z |"
