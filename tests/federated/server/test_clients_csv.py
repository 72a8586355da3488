"""`clients.csv` has a row for each round and client, also after a kill."""

import dataclasses

import pytest

pytest.importorskip("flwr")

from experiments_manager.federated.server.clients_csv import ClientsCsv, client_rows, read_rows
from experiments_manager.federated.server.federation_state import RoundReport
from experiments_manager.federated.strategies.reply_checks import LeftOut

LATE = LeftOut(1, 1001, "It did not\nanswer, alas.")
STRANGER = LeftOut(None, 77, "It does not tell its number.")


def report(number, *left_out, **more):
    by_client = {2: {"num-examples": 7.0, "loss": 0.1, **more}, 0: {"num-examples": 5.0, "loss": 1 / 3, **more}}
    evaluated = {0: {"loss": 0.5}}
    return RoundReport(number, 1.5, {}, {}, {}, by_client, evaluated, (0, 2), left_out, 10, 20)


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


def test_rows_are_appended_and_new_metrics_get_a_column(tmp_path):
    table = ClientsCsv(tmp_path / "clients.csv")
    table.write(report(1))
    table.write(report(2, LATE))
    table.write(report(3, accuracy=0.5))
    header = (tmp_path / "clients.csv").read_text().splitlines()[0]
    assert header == "round,client,took_part,left_out,num-examples,loss,val_loss,accuracy"
    rows = read_rows(table.path)
    assert [(row["round"], row["client"]) for row in rows] == [
        ("1", "0"), ("1", "2"), ("2", "0"), ("2", "1"), ("2", "2"), ("3", "0"), ("3", "2"),
    ]  # fmt: skip
    assert rows[3]["left_out"] == "It did not answer, alas."


@pytest.mark.parametrize("cut", [0, 5, 40])
def test_a_file_that_goes_on_after_a_kill_has_the_same_bytes(tmp_path, cut):
    whole, killed = ClientsCsv(tmp_path / "whole.csv"), ClientsCsv(tmp_path / "killed.csv")
    for number in (1, 2, 3):
        whole.write(report(number, LATE))
        killed.write(report(number, LATE))
    content = killed.path.read_bytes()
    killed.path.write_bytes(content[: len(content) - cut])
    again = ClientsCsv(killed.path, first_round=3)
    again.write(dataclasses.replace(report(3, LATE), seconds=9.0))
    assert killed.path.read_bytes() == whole.path.read_bytes()


def test_a_new_federation_drops_all_rows(tmp_path):
    ClientsCsv(tmp_path / "clients.csv").write(report(1))
    assert read_rows(ClientsCsv(tmp_path / "clients.csv").path) == []
