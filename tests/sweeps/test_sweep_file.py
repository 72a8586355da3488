"""What is wrong with a sweep file is said all at once, each with its line."""

import textwrap

import pytest

from experiments_manager.settings.problems import SettingsError
from experiments_manager.sweeps.sweep_file import load_sweep_file

GOOD = """
from hyperopt import hp
settings_file = "mysettings_line.py"
space = {"learning_rate": hp.loguniform("learning_rate", -5, 0)}
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mysettings_line.py").write_text("")

    def write_file(text):
        file = tmp_path / "mysweep_line.py"
        file.write_text(textwrap.dedent(text).lstrip())
        return file

    return write_file


def problems_of(file):
    with pytest.raises(SettingsError) as caught:
        load_sweep_file(file)
    return [str(problem) for problem in caught.value.problems]


def test_two_names_are_enough(write):
    sweep = load_sweep_file(write(GOOD))
    assert sweep.name == "line"
    assert sweep.plan.algorithm == "auto"
    assert sweep.plan.parallel == 1
    assert sweep.memory_limit is None


def test_all_that_is_wrong_is_said_at_once(write):
    file = write(
        """
        from hyperopt import hp
        settings_file = "mysettings_lime.py"
        space = {"a": hp.uniform("a", 0, 1), "b": hp.uniform("a", 0, 1)}
        algorithm = "aneal"
        max_trails = 3
        parallel = 0
        stop_when = {"no_progress": 0, "hour": 3}
        prune = {"method": "asha", "reduction": 1}
        memory_limit = "4 gallons"
        """
    )
    found = problems_of(file)
    assert [problem.split(": ")[:2] for problem in found] == [
        ["mysweep_line.py:2", "settings_file"],
        ["mysweep_line.py:3", "space"],
        ["mysweep_line.py:4", "algorithm"],
        ["mysweep_line.py:5", "max_trails"],
        ["mysweep_line.py:6", "parallel"],
        ["mysweep_line.py:7", "hour"],
        ["mysweep_line.py:7", "no_progress"],
        ["mysweep_line.py:8", "reduction"],
        ["mysweep_line.py:9", "memory_limit"],
    ]
    told = "\n".join(found)
    assert "Did you mean 'mysettings_line.py'?" in told
    assert "Did you mean 'anneal'?" in told
    assert "Did you mean `max_trials`?" in told
    assert "the label 'a' is given twice" in told
    assert "stop_when['hour'] is unknown. Did you mean `hours`?" in told


def test_what_is_missing_is_said_with_what_was_probably_meant(write):
    found = problems_of(write('settings_fil = "mysettings_line.py"\n'))
    assert any("settings_file: it is missing" in problem and "`settings_fil` (line 1)" in problem for problem in found)
    assert any("space: it is missing" in problem for problem in found)


def test_code_that_raises_is_a_problem_with_its_line(write):
    found = problems_of(write(GOOD + "max_trials = 1 // 0\n"))
    assert len(found) == 1
    assert found[0].startswith("mysweep_line.py:4: ZeroDivisionError")


def test_a_syntax_error_is_a_problem_with_its_line(write):
    assert problems_of(write(GOOD + "max_trials = = 3\n"))[0].startswith("mysweep_line.py:4: syntax")


@pytest.mark.parametrize(("given", "expected"), [("'4 GiB'", 4 * 2**30), ("1000", 1000), ("'1.5MB'", 1_500_000)])
def test_memory_is_given_in_bytes_or_in_words(write, given, expected):
    assert load_sweep_file(write(GOOD + f"memory_limit = {given}\n")).memory_limit == expected


def test_a_method_of_pruning_may_be_given_by_its_name(write):
    assert load_sweep_file(write(GOOD + "prune = 'median'\n")).plan.prune.min_trials == 5
    assert load_sweep_file(write(GOOD + "prune = {'method': 'asha', 'reduction': 4}\n")).plan.prune.reduction == 4


def test_a_grid_over_a_continuous_space_is_a_problem(write):
    found = problems_of(write(GOOD + "algorithm = 'grid'\n"))
    assert "a grid needs finitely many values" in found[0]
    assert found[0].startswith("mysweep_line.py:3")
