"""The journal: whole events or none, whatever happens while one is written."""

import os

import pytest

from experiments_manager.sweeps.errors import SweepError
from experiments_manager.sweeps.state.journal import Journal, read_journal


def test_what_was_written_is_read_again(tmp_path):
    file = tmp_path / "journal.jsonl"
    journal = Journal(file)
    journal.append({"event": "proposed", "trial": 0, "point": {"x": 0.1}})
    journal.append({"event": "ended", "trial": 0, "values": [float("nan")]})
    journal.close()
    assert [event["event"] for event in read_journal(file)] == ["proposed", "ended"]
    assert read_journal(file)[1]["values"] == ["NaN"]


@pytest.mark.parametrize("left", range(1, 20))
def test_a_last_line_that_was_cut_off_is_removed_and_the_next_one_stands_alone(tmp_path, left):
    file = tmp_path / "journal.jsonl"
    file.write_bytes(b'{"event": "a"}\n' + b'{"event": "bbbbbbb"}\n'[:left])
    assert [event["event"] for event in read_journal(file)] == ["a"]
    journal = Journal(file)
    journal.append({"event": "c"})
    journal.close()
    assert [event["event"] for event in read_journal(file)] == ["a", "c"]


@pytest.mark.parametrize("line", ["{", "[]", '{"trial": 3}', "\x00"])
def test_a_line_in_the_midst_that_is_no_event_is_an_error_that_names_it(tmp_path, line):
    file = tmp_path / "journal.jsonl"
    file.write_text('{"event": "a"}\n' + line + '\n{"event": "b"}\n')
    with pytest.raises(SweepError, match="journal.jsonl:2: the journal is damaged"):
        Journal(file)


def test_an_event_that_cannot_be_written_leaves_the_journal_as_it_was(tmp_path, monkeypatch):
    file = tmp_path / "journal.jsonl"
    journal = Journal(file)
    journal.append({"event": "a"})
    whole = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: whole(descriptor, content[:5]))
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(SweepError, match="No space left on device"):
        journal.append({"event": "b"})
    monkeypatch.undo()
    journal.append({"event": "c"})
    journal.close()
    assert [event["event"] for event in read_journal(file)] == ["a", "c"]
