"""`clients.csv` has a row for each round and client, also after a kill."""

import dataclasses

import pytest

pytest.importorskip("flwr")

from experiments_manager.events import RunEnd
from experiments_manager.federated.server.federation_state import RoundReport
from experiments_manager.federated.strategies.reply_checks import LeftOut
from experiments_manager.federated.watching.clients_csv import KEY, ClientsCsv, client_rows
from experiments_manager.monitoring import growing_csv

LATE = LeftOut(1, 1001, "It did not\nanswer, alas.")
STRANGER = LeftOut(None, 77, "It does not tell its number.")
END = RunEnd("finished", 3, 1.0, None, {}, None)


def report(number, *left_out, **more):
    by_client = {2: {"num-examples": 7.0, "loss": 0.1, **more}, 0: {"num-examples": 5.0, "loss": 1 / 3, **more}}
    evaluated = {0: {"loss": 0.5}}
    return RoundReport(number, 1.5, {}, {}, by_client, evaluated, (0, 2), left_out, 10, 20)


def rows_of(table):
    return growing_csv.read_rows(table.table.path, KEY)[1]


@pytest.fixture
def new_table(tmp_path):
    made = []

    def make(name="clients.csv", first_round=1):
        table = ClientsCsv(tmp_path / name)
        table.on_begin(first_round)
        made.append(table)
        return table

    yield make
    for table in made:
        table.on_end(END)


def test_there_is_a_row_for_each_client_that_was_asked():
    rows = client_rows(report(4, LATE, STRANGER))
    assert [(row["client"], row["took_part"], row["left_out"]) for row in rows] == [
        ("0", "1", ""),
        ("1", "0", "It did not answer, alas."),
        ("2", "1", ""),
        ("", "0", "It does not tell its number."),
    ]
    assert (rows[0]["round"], rows[0]["loss"], rows[0]["val_loss"]) == ("4", repr(1 / 3), "0.5")
    assert "val_loss" not in rows[2]


def test_a_client_that_trained_and_failed_to_evaluate_took_part():
    row = client_rows(report(1, LeftOut(2, 1002, "No data.")))[1]
    assert (row["client"], row["took_part"], row["left_out"], row["loss"]) == ("2", "1", "No data.", "0.1")


def test_rows_are_appended_and_new_metrics_get_a_column(new_table):
    table = new_table()
    table.on_round(report(1), None)
    table.on_round(report(2, LATE), None)
    table.on_round(report(3, accuracy=0.5), None)
    header = table.table.path.read_text().splitlines()[0]
    assert header == "round,client,took_part,left_out,num-examples,loss,val_loss,accuracy"
    rows = rows_of(table)
    assert [(row["round"], row["client"]) for row in rows] == [
        ("1", "0"), ("1", "2"), ("2", "0"), ("2", "1"), ("2", "2"), ("3", "0"), ("3", "2"),
    ]  # fmt: skip
    assert rows[3]["left_out"] == "It did not answer, alas."


@pytest.mark.parametrize("cut", [0, 5, 40])
def test_a_file_that_goes_on_after_a_kill_has_the_same_bytes(new_table, cut):
    whole, killed = new_table("whole.csv"), new_table("killed.csv")
    for number in (1, 2, 3):
        whole.on_round(report(number, LATE), None)
        killed.on_round(report(number, LATE), None)
    content = killed.table.path.read_bytes()
    killed.table.path.write_bytes(content[: len(content) - cut])
    again = new_table("killed.csv", first_round=3)
    again.on_round(dataclasses.replace(report(3, LATE), seconds=9.0), None)
    assert killed.table.path.read_bytes() == whole.table.path.read_bytes()


def test_a_round_that_is_told_twice_stands_there_once(new_table):
    whole, twice = new_table("whole.csv"), new_table("twice.csv")
    for number in (1, 2, 3):
        whole.on_round(report(number, LATE), None)
    for number in (1, 2, 3, 2, 3):
        twice.on_round(report(number, LATE), None)
    assert twice.table.path.read_bytes() == whole.table.path.read_bytes()


def test_a_full_disk_loses_no_row(new_table, monkeypatch, caplog):
    def refuse(path, text, **options):
        raise OSError(28, "No space left on device", str(path))

    whole, table = new_table("whole.csv"), new_table("full.csv")
    for number in (1, 2, 3):
        whole.on_round(report(number), None)
    with monkeypatch.context() as patch:
        patch.setattr(growing_csv, "write_text", refuse)
        table.on_round(report(1), None)
        table.on_round(report(2), None)
    assert len(caplog.records) == 1
    table.on_round(report(3), None)
    table.on_end(END)
    assert table.table.path.read_bytes() == whole.table.path.read_bytes()


def test_a_new_federation_drops_all_rows(new_table):
    table = new_table()
    table.on_round(report(1), None)
    table.on_end(END)
    assert rows_of(table)
    assert rows_of(new_table()) == []
