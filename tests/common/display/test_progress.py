"""The one display of how far something is."""

import io
import subprocess
import sys

import pytest

from experiments_manager.common.display.progress import LastingStream, ProgressDisplay, is_terminal


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return Terminal()


def test_a_terminal_that_cannot_draw_anew_gets_lines(monkeypatch):
    for name, expected in (("xterm", True), ("dumb", False)):
        monkeypatch.setenv("TERM", name)
        assert is_terminal(Terminal()) is expected
    assert not is_terminal(io.StringIO())
    assert not is_terminal(object())


def test_on_a_terminal_place_bar_and_text_share_a_line_that_is_taken_away(terminal):
    with ProgressDisplay(terminal) as display:
        display.show("images", "40 of 100", done=40, total=100)
        assert "images" in terminal.getvalue()
        assert "━" in terminal.getvalue()
        assert "40 of 100" in terminal.getvalue()
        display.say("Skipped [1].")
    assert "Skipped [1]." in terminal.getvalue()
    assert terminal.getvalue().rstrip().endswith("\x1b[2K")


def test_elsewhere_they_are_a_line_and_nothing_is_drawn():
    stream = io.StringIO()
    with ProgressDisplay(stream) as display:
        display.show("images", "40 of 100", done=40, total=100, below=object())
        display.say("Skipped [1].")
    assert stream.getvalue() == "images  40 of 100\nSkipped [1].\n"


def test_quiet_leaves_the_sentences():
    stream = io.StringIO()
    with ProgressDisplay(stream, quiet=True, line_seconds=0) as display:
        assert not display.is_due()
        display.show("images", "40 of 100")
        display.say("Done.")
    assert stream.getvalue() == "Done.\n"


def test_it_is_due_again_after_its_interval(terminal):
    now = [0.0]
    lines = ProgressDisplay(io.StringIO(), line_seconds=5, clock=lambda: now[0])
    bar = ProgressDisplay(terminal, clock=lambda: now[0])
    now[0] = 0.2
    assert (lines.is_due(), bar.is_due()) == (False, True)
    now[0] = 5
    lines.show("", "half")
    assert not lines.is_due()


def test_a_closed_stream_swallows_what_is_written():
    stream = io.StringIO()
    lasting = LastingStream(stream)
    assert lasting.write("seen") == 4
    stream.close()
    assert lasting.write("unseen") == 6
    lasting.flush()


def test_plain_lines_do_not_import_rich():
    code = """
import io, sys
from experiments_manager.common.display.progress import ProgressDisplay
ProgressDisplay(io.StringIO()).show("images", "40 of 100")
sys.exit("rich" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
