"""All that is wrong, in one error."""

import pytest

from experiments_manager.common.tables.problems import MOST_SHOWN, DataFileError, Problems, refuse


def test_nothing_wrong_raises_nothing():
    refuse([])
    Problems().refuse()


def test_one_problem_stands_alone_and_more_are_counted():
    problems = Problems()
    problems.add("a.csv, line 2", "it is empty.")
    problems.add("a.csv, line 2", "it is empty.")
    with pytest.raises(DataFileError, match=r"^a\.csv, line 2: it is empty\.$"):
        problems.refuse()
    problems.add("a.csv, line 3", "it is empty.")
    with pytest.raises(DataFileError, match=r"^2 problems:\na\.csv, line 2"):
        problems.refuse()


def test_of_many_problems_the_first_are_shown():
    with pytest.raises(DataFileError) as caught:
        refuse(f"problem {number}" for number in range(MOST_SHOWN + 7))
    lines = str(caught.value).splitlines()
    assert lines[0] == "57 problems:"
    assert lines[-1] == "… and 7 problems more."
    assert len(lines) == MOST_SHOWN + 2
