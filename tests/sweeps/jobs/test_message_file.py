"""Messages in files, as slow and broken as shared disks and killed processes make them."""

import pytest

from experiments_manager.sweeps.jobs import message_file
from experiments_manager.sweeps.jobs.message_file import MessageReader, MessageWriter


@pytest.fixture
def file(tmp_path):
    return tmp_path / "messages.jsonl"


def test_each_message_is_read_once_and_whole(file):
    reader, writer = MessageReader(file), MessageWriter(file)
    assert reader.read() == []
    writer.write({"kind": "epoch", "value": 0.1 + 0.2})
    assert reader.read() == [{"kind": "epoch", "value": 0.1 + 0.2}]
    assert reader.read() == []
    writer.close()


def test_a_line_that_is_there_in_part_is_read_when_its_end_is_there(file):
    reader = MessageReader(file)
    file.write_bytes(b'{"kind": "one"}\n{"kind": "t')
    assert reader.read() == [{"kind": "one"}]
    assert reader.read() == []
    with file.open("ab") as stream:
        stream.write(b'wo"}\n')
    assert reader.read() == [{"kind": "two"}]


def test_what_a_killed_writer_left_costs_no_message_of_the_next_one(file):
    file.write_bytes(b'{"kind": "one"}\n{"kind": "tw')
    writer, reader = MessageWriter(file), MessageReader(file)
    writer.write({"kind": "three"})
    writer.close()
    assert reader.read() == [{"kind": "one"}, {"kind": "three"}]


def test_zeros_that_a_file_server_shows_for_a_while_are_waited_for_and_others_passed_over(file, monkeypatch):
    reader = MessageReader(file)
    whole = b'{"kind": "one"}\n{"kind": "two"}\n'
    file.write_bytes(whole[:20] + bytes(len(whole) - 21) + b"\n")
    assert reader.read() == [{"kind": "one"}]
    file.write_bytes(whole)
    assert reader.read() == [{"kind": "two"}]
    monkeypatch.setattr(message_file, "_HOLE_SECONDS", -1.0)
    with file.open("ab") as stream:
        stream.write(bytes(5) + b'\n{"kind": "three"}\n')
    assert reader.read() == [{"kind": "three"}]
