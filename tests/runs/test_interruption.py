import pytest

from experiments_manager.runs import lock
from experiments_manager.runs.interruption import interruption_recorded


@pytest.fixture
def started(run, experiment):
    run.start(settings_file=experiment / "mysettings.py")
    return run


def interrupt(run):
    with pytest.raises(KeyboardInterrupt), interruption_recorded(run):
        raise KeyboardInterrupt
    return run.manifest["state"]


def test_a_run_that_a_killed_process_left_running_is_interrupted(started):
    assert interrupt(started) == "interrupted"


def test_a_finished_run_stays_finished(started):
    started.finish("finished")
    assert interrupt(started) == "finished"


def test_a_run_that_another_process_works_on_is_left_alone(started):
    with lock(started):
        assert interrupt(started) == "running"


def test_other_errors_are_not_noted(started):
    with pytest.raises(ZeroDivisionError), interruption_recorded(started):
        raise ZeroDivisionError
    assert started.manifest["state"] == "running"
