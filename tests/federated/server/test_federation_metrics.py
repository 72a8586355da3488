"""A round is shown to those who watch a run as an epoch."""

import math

import pytest

pytest.importorskip("flwr")

from experiments_manager.events import RunStart
from experiments_manager.federated.server.federation_metrics import epoch_report
from experiments_manager.federated.server.federation_state import RoundReport
from experiments_manager.federated.strategies.reply_checks import LeftOut
from experiments_manager.monitoring.metrics_csv import MetricsCsv, read_rows


def report(number=3, **values):
    return RoundReport(
        **{
            "round": number,
            "seconds": 1.5,
            "train": {"loss": 0.5},
            "clients": {"loss": 0.75, "accuracy": 0.5},
            "server": {"loss": 0.625},
            "train_by_client": {0: {"num-examples": 5.0, "loss": 0.5}},
            "clients_by_client": {0: {"num-examples": 5.0, "loss": 0.75}},
            "participants": (0,),
            "left_out": (LeftOut(1, 1001, "It is late."), LeftOut(1, 1001, "It is late again.")),
            "bytes_sent": 100,
            "bytes_received": 50,
            "improved": True,
            **values,
        }
    )


def test_a_round_is_an_epoch_whose_values_say_who_found_them():
    epoch = epoch_report(report())
    assert (epoch.epoch, epoch.global_step, epoch.improved, epoch.seconds) == (3, 3, True, 1.5)
    assert epoch.logs == {
        "loss": 0.5,
        "val_loss": 0.625,
        "clients/loss": 0.75,
        "clients/accuracy": 0.5,
        "participants": 1.0,
        "left_out": 1.0,
        "bytes_sent": 100.0,
        "bytes_received": 50.0,
    }
    assert epoch.measures == {"round_seconds": 1.5}


def test_the_clients_learning_rate_is_that_of_the_round():
    epoch = epoch_report(report(train={"loss": 0.5, "learning_rate": 0.01}))
    assert (epoch.learning_rate, "learning_rate" in epoch.logs) == (0.01, False)
    assert math.isnan(epoch_report(report()).learning_rate)


def test_metrics_csv_does_not_depend_on_how_long_a_round_took(tmp_path):
    contents = []
    for seconds in (1.0, 2.0):
        table = MetricsCsv(tmp_path / f"{seconds}.csv")
        table.on_start(RunStart(tmp_path, "s", {}, 3, 1, None, 2, (), "loss"))
        table.on_epoch(epoch_report(report(1, seconds=seconds)))
        table.on_epoch(epoch_report(report(2, seconds=seconds)))
        contents.append(table.path.read_bytes())
        assert [row["epoch"] for row in read_rows(table.path)[1]] == ["1", "2"]
        table._close()
    assert contents[0] == contents[1]
