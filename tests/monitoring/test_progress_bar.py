"""The bar and the lines that show how far a run is."""

import dataclasses
import io
from pathlib import Path

import pytest

from experiments_manager.common.display.progress import ProgressDisplay
from experiments_manager.events import EpochReport, Progress, RunEnd, RunStart, VersionPublished
from experiments_manager.monitoring.progress_bar import EpochTiming, ProgressBar, ProgressLines, terminal_progress

RUN_DIR = Path("/runs/test_2026")


class Clock:
    """Goes on only when told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def start(epochs=50, first_epoch=1):
    return RunStart(RUN_DIR, "test", {}, epochs, first_epoch, 10, 31, ("CPU",), "val_loss")


def report(epoch, seconds=0.5, improved=False):
    return EpochReport(epoch, 10 * epoch, {"loss": 0.25, "val_loss": 0.5}, 0.1, seconds, improved)


def progress(epoch, step, read_logs=lambda: {"loss": 0.125}):
    return Progress(epoch, step, 10 * (epoch - 1) + step, 10, read_logs)


def end(state="finished", exported=RUN_DIR / "exported_models" / "480"):
    best = {"epoch": 48, "step": 480, "value": 0.0123456, "name": "val_loss"}
    return RunEnd(state, 50, 75.0, best, {"loss": 0.25}, exported)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def stream():
    return io.StringIO()


@pytest.fixture
def lines(stream, clock):
    return ProgressLines(ProgressDisplay(stream, clock=clock))


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    return Terminal()


@pytest.fixture
def bar(terminal, clock):
    return ProgressBar(ProgressDisplay(terminal, clock=clock))


def test_the_display_suits_the_output(stream, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    assert isinstance(terminal_progress(stream), ProgressLines)
    assert isinstance(terminal_progress(Terminal()), ProgressBar)


def test_a_dumb_terminal_gets_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(terminal_progress(Terminal()), ProgressLines)


def test_each_epoch_is_a_line_with_values_time_and_mark_of_improvement(lines, clock, stream):
    lines.on_start(start())
    for epoch, improved in ((1, True), (2, False)):
        clock.now += 2
        lines.on_epoch(report(epoch, improved=improved))
    assert stream.getvalue().splitlines() == [
        "test: 31 parameters on CPU",
        "epoch 1/50  loss 0.25  val_loss 0.5  0.5 s  best so far",
        "epoch 2/50  loss 0.25  val_loss 0.5  0.5 s",
    ]


def test_a_federation_has_rounds_and_does_not_show_what_it_counts(lines, clock, stream):
    lines.on_start(dataclasses.replace(start(epochs=20, first_epoch=3), unit="round"))
    counts = dict.fromkeys(("participants", "left_out", "bytes_sent", "bytes_received"), 7.0)
    clock.now += 2
    lines.on_epoch(EpochReport(3, 3, {"loss": 0.25, **counts, "val_loss": 0.5}, 0.1, 0.5, False))
    lines.on_end(end())
    told = stream.getvalue().splitlines()
    assert told[0] == "test: 31 parameters on CPU, from round 3 on"
    assert told[1] == "round 3/20  loss 0.25  val_loss 0.5  0.5 s"
    assert "rounds in" in told[2]
    assert "at round 48" in told[2]


def test_short_epochs_give_one_line_a_second_and_always_the_last(lines, clock, stream):
    lines.on_start(start())
    for epoch in range(1, 51):
        clock.now += 0.0625
        lines.on_epoch(report(epoch))
    lines.on_end(end())
    epochs = [line.split()[1] for line in stream.getvalue().splitlines() if line.startswith("epoch")]
    assert epochs == ["1/50", "17/50", "33/50", "49/50", "50/50"]


def test_within_a_long_epoch_a_line_comes_every_half_minute(lines, clock, stream):
    lines.on_start(start())
    for step in range(1, 10):
        clock.now += 10
        lines.on_progress(progress(1, step))
    written = stream.getvalue().splitlines()[1:]
    assert [line.split("  ")[0] for line in written] == [f"epoch 1/50 step {step}/10" for step in (3, 6, 9)]
    assert "loss 0.125" in written[0]
    assert "0.1 steps/s" in written[-1]


def test_values_are_read_from_the_device_only_to_be_shown(lines, bar, clock):
    reads = []

    def read():
        reads.append(clock.now)
        return {"loss": 1.0}

    lines.on_start(start())
    for step in range(1, 11):
        clock.now += 0.05
        lines.on_progress(progress(1, step, read))
    assert reads == []
    bar.on_start(start())
    for step in range(40):
        clock.now += 0.0625
        bar.on_progress(progress(1, step, read))
    assert len(reads) == 20, "ten redraws a second at most"
    bar.on_end(end())


def test_the_summary_names_state_best_run_folder_and_model(lines, stream):
    lines.on_start(start())
    lines.on_end(end())
    assert stream.getvalue().splitlines()[-1] == (
        "finished after 50 epochs in 1:15; best val_loss 0.012346 at epoch 48; run /runs/test_2026; "
        "model exported_models/480"
    )


def test_the_summary_of_a_failed_run_leaves_out_what_there_is_not(lines, stream):
    lines.on_start(start())
    lines.on_end(RunEnd("failed", 0, 1.0, None, {}, None))
    assert stream.getvalue().splitlines()[-1] == "failed after 0 epochs in 1.0 s; run /runs/test_2026"


def test_a_message_is_shown_as_it_is(lines, bar, stream, terminal):
    for watcher, shown in ((lines, stream), (bar, terminal)):
        watcher.on_start(start())
        watcher.on_message("The export [bold]failed[/].")
        assert shown.getvalue().count("The export [bold]failed[/].") == 1
    bar.on_end(end())


def test_a_version_is_named_in_the_next_line_and_only_there(lines, clock, stream):
    lines.on_start(start())
    lines.on_version(VersionPublished(120, RUN_DIR))
    for epoch in (1, 2):
        clock.now += 2
        lines.on_epoch(report(epoch))
    written = stream.getvalue().splitlines()
    assert written[1].endswith("version 120")
    assert "version" not in written[2]


def test_the_bar_shows_epoch_step_rate_remaining_time_and_values(bar, clock, terminal):
    bar.on_start(start())
    for epoch in (1, 2):
        clock.now += 1
        bar.on_epoch(report(epoch, seconds=1.0, improved=True))
    bar.on_version(VersionPublished(20, RUN_DIR))
    clock.now += 0.5
    terminal.seek(0)
    terminal.truncate()
    bar.on_progress(progress(3, 5))
    shown = terminal.getvalue()
    for part in ("epoch 3/50 step 5/10", "10 steps/s", "47.5 s left", "loss 0.125  val_loss 0.5", "best at epoch 2"):
        assert part in shown
    assert "version 20" in shown
    bar.on_end(end())


def test_after_a_resume_the_bar_begins_where_the_run_was(bar, terminal):
    bar.on_start(start(first_epoch=31))
    assert "from epoch 31 on" in terminal.getvalue()
    assert "epoch 30/50" in terminal.getvalue()
    bar.on_end(end())


def test_a_run_that_ends_before_it_started_is_no_error(lines, bar, stream, terminal):
    for watcher in (lines, bar):
        watcher.on_end(end("failed"))
    assert "failed" not in stream.getvalue() + terminal.getvalue()


def test_a_terminal_that_goes_away_does_not_stop_the_run():
    tried = []

    class Gone(io.StringIO):
        def write(self, text):
            tried.append(text)
            raise BrokenPipeError(32, "Broken pipe")

    watcher = terminal_progress(Gone())
    watcher.on_start(start())
    watcher.on_epoch(report(1))
    watcher.on_end(end())
    assert len(tried) == 1  # and was left alone afterwards


def test_a_stream_that_can_only_be_written_to_is_no_terminal():
    class Plain:
        def __init__(self):
            self.text = ""

        def write(self, text):
            self.text += text

        def flush(self):
            pass

    plain = Plain()
    watcher = terminal_progress(plain)
    assert isinstance(watcher, ProgressLines)
    watcher.on_start(start())
    watcher.on_epoch(report(1))
    assert "1/" in plain.text


def pace(epochs=10, first_epoch=1, steps_per_epoch=100):
    return EpochTiming(
        RunStart(Path("/run"), "test", {}, epochs, first_epoch, steps_per_epoch, 1, ("CPU",), "val_loss")
    )


def at_step(pace, epoch, step, now, steps_per_epoch=100):
    pace.at_step(Progress(epoch, step, 100 * (epoch - 1) + step, steps_per_epoch, dict), now)


def at_epoch(pace, epoch, now, seconds):
    pace.at_epoch(EpochReport(epoch, 100 * epoch, {}, 0.1, seconds, False), now)


def test_nothing_is_claimed_before_something_was_measured():
    assert pace().text() == ""
    assert pace().remaining_seconds() is None


def test_the_first_epoch_is_foretold_from_its_steps():
    run = pace()
    at_step(run, 1, 10, now=0.0)
    at_step(run, 1, 30, now=1.0)
    assert run.steps_per_second == 20.0
    assert run.remaining_seconds() == pytest.approx(9.7 * 5)
    assert run.text() == "20 steps/s 48.5 s left"


def test_the_first_epoch_which_compiles_does_not_spoil_the_estimate():
    run = pace()
    at_epoch(run, 1, now=60.0, seconds=60.0)
    at_epoch(run, 2, now=61.0, seconds=1.0)
    assert run.remaining_seconds() == pytest.approx(8.0)


def test_the_estimate_follows_epochs_that_become_slower():
    run = pace()
    for epoch, seconds in enumerate([1.0, 1.0, 1.0, 3.0], start=1):
        at_epoch(run, epoch, now=10.0 * epoch, seconds=seconds)
    assert 6 * 1.0 < run.remaining_seconds() < 6 * 3.0


def test_unknown_length_is_borne():
    run = pace(steps_per_epoch=None)
    at_step(run, 1, 10, now=0.0, steps_per_epoch=None)
    at_step(run, 1, 20, now=1.0, steps_per_epoch=None)
    assert run.epochs_done == 0
    assert run.text() == "10 steps/s"


def test_a_resumed_run_counts_only_the_epochs_left():
    run = pace(epochs=10, first_epoch=9)
    at_epoch(run, 9, now=1.0, seconds=2.0)
    assert run.remaining_seconds() == pytest.approx(2.0)
