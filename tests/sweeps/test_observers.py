"""What the terminal shows of a sweep."""

import io
from types import SimpleNamespace

from rich.console import Console

from experiments_manager.common.display.progress import ProgressDisplay
from experiments_manager.sweeps.observers import Lines, LiveTable, sparkline
from experiments_manager.sweeps.state.trials import SweepState

EXPERIMENT = SimpleNamespace(names=("val_loss",), modes=("min",))


def state():
    found = SweepState()
    for number in range(3):
        overrides = {"rate": 0.1 * (number + 1)}
        found.apply(
            {"event": "proposed", "trial": number, "point": {}, "overrides": overrides, "space": "", "by": "tpe"}
        )
    ended = {"event": "ended", "state": "finished", "epochs": 2, "seconds": 1}
    found.apply({**ended, "trial": 0, "values": [0.5], "curve": [0.9, 0.5]})
    found.apply({"event": "ended", "state": "failed", "trial": 1, "reason": "ValueError: no model"})
    return found


def test_a_curve_is_drawn_from_its_lowest_to_its_highest_value():
    assert sparkline([3.0, 2.0, 1.0]) == "█▅▁"
    assert sparkline([1.0, None, float("nan"), 2.0]) == "▁··█"
    assert sparkline([]) == ""
    assert len(sparkline([float(number) for number in range(100)])) == 24


def test_the_table_shows_the_best_those_that_run_and_the_rest_of_the_way():
    shown, found = LiveTable(None, EXPERIMENT, 10), state()
    shown.on_epoch(2, 0, 5, None)
    shown.on_epoch(2, 1, 5, 0.75)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(shown.table(found))
    lines = console.export_text().splitlines()
    assert lines[1].split() == ["0", "best", "0.5", "2", "█▁", "rate=0.1"]
    assert lines[2].split() == ["2", "running", "0.75", "1/5", "▁", "rate=0.3"]


def test_a_bar_above_the_table_counts_the_trials(monkeypatch):
    monkeypatch.setattr("experiments_manager.common.display.progress.REDRAW_SECONDS", 0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    with ProgressDisplay(terminal) as display:
        LiveTable(display, EXPERIMENT, 10).on_wait(state())
    assert "trial 2/10" in terminal.getvalue()
    assert "1 finished  1 failed  1 running" in terminal.getvalue()
    assert "rate=0.3" in terminal.getvalue()


def test_a_trial_whose_job_waits_is_shown_with_what_it_waits_for():
    shown, found = LiveTable(None, EXPERIMENT, 10), state()
    console = Console(width=120, record=True, file=io.StringIO())
    shown.on_queue(2, "Resources")
    console.print(shown.table(found))
    shown.on_epoch(2, 0, 5, None)
    console.print(shown.table(found))
    last = [line for line in console.export_text().splitlines() if line.startswith("2 ")]
    assert last[0].startswith("2      queued (Resources)")
    assert last[1].split()[:3] == ["2", "running", "0/5"]


def test_elsewhere_each_trial_that_ends_is_a_line(capsys):
    lines, found = Lines(EXPERIMENT, 10), state()
    lines.on_event(found, {"event": "proposed", "trial": 2})
    lines.on_event(found, {"event": "submitted", "trial": 2, "job": "12", "folder": "trial_00002/1"})
    lines.on_event(found, {"event": "ended", "trial": 0})
    lines.on_event(found, {"event": "ended", "trial": 1})
    said = capsys.readouterr().err.splitlines()
    assert said.pop(0) == "trial 2 is job 12"
    assert said[0] == "trial 0 of 10 finished: val_loss 0.5 after 2 epochs; rate=0.1 - best 0.5 (trial 0)"
    assert said[1].endswith("(ValueError: no model) - best 0.5 (trial 0)")
    assert len(said) == 2
