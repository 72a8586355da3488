"""JSON lines: what was written is read again, and half a line is none."""

import os

import pytest

from experiments_manager.common.jsonl import append_line, from_line, split_lines, to_line


@pytest.mark.parametrize("value", [{}, {"a": [1, 2.5, None]}, {"path": "ä/\udcff\n"}])
def test_an_object_is_one_line_and_comes_back(value):
    line = to_line(value)
    assert line.count(b"\n") == 1
    assert from_line(line) == value


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"3", b"\0\0", b"\xff"])
def test_what_is_no_object_is_told_apart(line):
    assert from_line(line) is None


def test_a_line_counts_once_its_end_is_there():
    assert split_lines(b'{"a": 1}\n{"b"') == ([b'{"a": 1}'], b'{"b"')
    assert split_lines(b'{"a": 1}\n') == ([b'{"a": 1}'], b"")


def test_a_line_is_appended_whole_where_the_system_takes_it_in_pieces(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:3]))
    descriptor = os.open(tmp_path / "lines", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    append_line(descriptor, to_line({"number": 12345}))
    append_line(descriptor, to_line({"number": 6}))
    os.close(descriptor)
    assert (tmp_path / "lines").read_bytes() == b'{"number": 12345}\n{"number": 6}\n'
