"""What the page says of a federation: who took part, who was left out and why, curves of clients, clusters."""

import json
import re

import numpy as np
import pytest

from experiments_manager.monitoring.growing_csv import GrowingCsv
from experiments_manager.monitoring.report import write_report
from experiments_manager.monitoring.report.federation_section import read_federation, spans


@pytest.fixture
def make_federation(make_run):
    """Makes the folder of a federation: of three clients, number 7 takes part in round 1 alone."""

    def make(clients=(0, 2, 7), rounds=4, counts=True):
        metrics = ("loss", "participants", "left_out", "bytes_sent", "bytes_received") if counts else ("loss",)
        run = make_run("federation", epochs=rounds, metrics=metrics, federation={"kind": "simulation", "clients": 3})
        text = run.metrics_csv.read_text()
        run.metrics_csv.write_text(re.sub(r"val_(participants|left_out|bytes_sent|bytes_received)", r"\1_2", text))
        table = GrowingCsv(run.path / "clients.csv", "round")
        table.begin(1)
        for number in range(1, rounds + 1):
            rows = []
            for client in clients:
                is_out = client == 7 and number > 1
                told = {"round": str(number), "client": str(client), "took_part": str(int(not is_out))}
                loss = repr(1.0 / (number + client))
                rows.append(told | {"left_out": "It fell <over>."} if is_out else told | {"left_out": "", "loss": loss})
            table.append(rows[: 2 if number == rounds else None])  # 7 is not asked in the last round
        table.close()
        return run

    return make


def test_who_took_part_and_who_was_left_out_is_read(make_federation):
    told = read_federation(make_federation())
    assert told.clients == ["0", "2", "7"]
    assert told.asked.tolist() == [[True] * 4, [True] * 4, [True, True, True, False]]
    assert told.took_part[2].tolist() == [True, False, False, False]
    np.testing.assert_allclose(told.metrics["loss"][1], [1 / 3, 1 / 4, 1 / 5, 1 / 6])
    assert np.isnan(told.metrics["loss"][2][1:]).all()
    (missing,) = told.left_out
    assert (missing.client, missing.rounds, missing.reason) == ("7", [2, 3], "It fell <over>.")


def test_a_run_that_is_no_federation_has_no_such_section(make_run):
    run = make_run("plain")
    assert read_federation(run) is None
    assert 'id="federation"' not in write_report(run.path).read_text()


def test_the_page_shows_the_map_curves_and_reasons(make_federation):
    run = make_federation()
    page = write_report(run.path).read_text()
    for label in ("who took part", "loss of clients", "clients a round", "bytes a round"):
        assert f'aria-label="{label}"' in page
    assert 'aria-label="participants"' not in page  # that is no metric
    assert "It fell &lt;over&gt;." in page
    assert "2, 3" in page
    assert "round 4" in page  # the best one
    assert "epoch" not in re.sub(r"<style>.*?</style>", "", page[: page.index("<h3>Left out")], flags=re.S)


def test_clients_are_ordered_by_cluster_and_clusters_are_told(make_federation):
    run = make_federation()
    clusters = [
        {"name": "0", "members": [2], "samples": 5.0, "metrics": {"val_loss": 0.125}, "version": 3},
        {"name": "1", "members": [0, 7], "samples": 9.0, "metrics": {"val_loss": 0.375}},
    ]
    (run.path / "clusters.json").write_text(json.dumps({"round": 3, "ari": 0.75, "clusters": clusters, "splits": []}))
    told = read_federation(run)
    assert (told.clients, told.groups) == (["2", "0", "7"], [0, 1, 1])
    page = write_report(run.path).read_text()
    for text in ("0.125", "0.375", "adjusted Rand index", "clients of cluster 1", "0, 7"):
        assert text in page


def test_a_damaged_table_and_damaged_clusters_leave_a_page(make_federation):
    run = make_federation(counts=False)
    (run.path / "clusters.json").write_text('{"clusters": [{"name": 3}]}')
    with (run.path / "clients.csv").open("a") as table:
        table.write("4,1,")
    assert read_federation(run).clusters == {}
    assert 'id="federation"' in write_report(run.path).read_text()


def test_the_page_of_a_client_says_whose_it_is(make_run):
    run = make_run("client", federation={"kind": "client", "proc_id": 3, "of": "digits_1"})
    assert "Client 3 of the federation digits_1." in write_report(run.path).read_text()


def test_a_hundred_clients_stay_readable_and_the_page_small(make_federation):
    page = write_report(make_federation(clients=range(100), rounds=30).path).read_text()
    section = page[page.index("who took part") :]
    labels = re.findall(r"<text[^>]*>(\d+)</text>", section[: section.index("</svg>")])
    assert 20 < len(labels) < 70
    assert len(page) < 1_500_000


def test_rounds_in_a_row_are_told_by_the_first_and_the_last():
    assert spans([1, 2, 3, 5, 7, 8]) == "1 to 3, 5, 7, 8"
    assert spans([]) == ""
