"""The HParams and Projector pages of `board`, asked as the browser asks them, over runs that differ in every way."""

import json
import os

import numpy as np
import pytest
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import hparams_plugin
from tensorboard.plugins.projector import projector_plugin
from werkzeug.test import Client

from experiments_manager.events import EpochReport, ModelView, RunEnd, RunStart, Samples
from experiments_manager.monitoring.tensorboard.board_plugins import REPLACED, HParamsPage, ProjectorPage
from experiments_manager.monitoring.tensorboard.projector import Projector
from experiments_manager.monitoring.tensorboard.scalars import TensorBoardLogs

RUNS = {
    "finished": {"units": 32, "rate": 0.1, "decay": None, "activation": "relu", "normalise": True},
    "failed": {"units": 64, "rate": 0.01, "decay": 0.5, "activation": "tanh", "normalise": False, "seed": 2**60 + 1},
    "interrupted": {"units": 128, "rate": "auto", "decay": 2, "activation": None},
    "running": {"units": 10, "rate": float("nan"), "decay": 10, "sizes": (3, 4)},
    "bare": {},
}
LOSSES = (3.0, 1.0, 2.0)
STATUSES = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]


def log_run(folder, hparams, state, losses=LOSSES, **options):
    logs = TensorBoardLogs(folder / "logs", **options)
    logs.on_start(RunStart(folder, "test", hparams, 10, 1, 10, 31, ("CPU",), "val_loss"))
    for epoch, loss in enumerate(losses, start=1):
        values = {"loss": loss / 2, "val_loss": loss}
        logs.on_epoch(EpochReport(epoch, 10 * epoch, values, 0.1, 0.5, loss == min(losses[:epoch])))
    if state != "running":
        logs.on_end(RunEnd(state, 3, 1.0, None, {}, None))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiments")
    for name, hparams in RUNS.items():
        log_run(folder / name, hparams, "finished" if name == "bare" else name)
    return folder


class Board:
    """TensorBoard's backend over a folder, with one page in front."""

    def __init__(self, folder, page):
        self.multiplexer = plugin_event_multiplexer.EventMultiplexer()
        self.folder = str(folder)
        self.reload()
        provider = data_provider.MultiplexerDataProvider(self.multiplexer, self.folder)
        self.page = page(base_plugin.TBContext(data_provider=provider, logdir=self.folder))

    def reload(self):
        self.multiplexer.AddRunsFromDirectory(self.folder)
        self.multiplexer.Reload()

    def get(self, route, **query):
        return Client(self.page.get_plugin_apps()[route]).get("/", query_string=query)

    def hparams(self):
        answer = Client(self.page.get_plugin_apps()["/experiment"]).post("/", data="{}")
        return json.loads(answer.data)

    def rows(self, **column):
        request = {"allowedStatuses": STATUSES, "startIndex": 0, "sliceSize": 100, "colParams": [column] * bool(column)}
        answer = Client(self.page.get_plugin_apps()["/session_groups"]).post("/", data=json.dumps(request))
        assert answer.status_code == 200, answer.data
        return json.loads(answer.data)["sessionGroups"]


@pytest.fixture(scope="module", params=[hparams_plugin.HParamsPlugin, HParamsPage], ids=["tensorboard", "board"])
def any_board(request, folder):
    return Board(folder, request.param)


@pytest.fixture(scope="module")
def board(folder):
    return Board(folder, HParamsPage)


def metric(row, group, tag):
    [value] = [value["value"] for value in row["metricValues"] if value["name"] == {"group": group, "tag": tag}]
    return value


def test_every_run_is_a_row_whatever_its_hparams_and_however_it_ended(any_board):
    rows = {row["name"].removesuffix("/logs"): row for row in any_board.rows()}
    assert sorted(rows) == sorted(RUNS)
    statuses = {name: row["sessions"][0]["status"] for name, row in rows.items()}
    assert statuses == {
        "finished": "STATUS_SUCCESS",
        "bare": "STATUS_SUCCESS",
        "failed": "STATUS_FAILURE",
        "interrupted": "STATUS_UNKNOWN",
        "running": "STATUS_UNKNOWN",
    }


def test_every_hparam_is_a_column_and_no_value_is_lost(any_board):
    columns = {info["name"] for info in any_board.hparams()["hparamInfos"]}
    assert columns == {name for hparams in RUNS.values() for name in hparams} | {"session_name"}
    rows = {row["name"].removesuffix("/logs"): row["hparams"] for row in any_board.rows()}
    for name, hparams in RUNS.items():
        assert set(rows[name]) == set(hparams or {"session_name": "test"})
    assert rows["finished"]["decay"] == "None"
    assert rows["finished"]["normalise"] is True
    assert rows["running"]["rate"] == "nan"
    assert rows["failed"]["seed"] == str(2**60 + 1)
    assert rows["failed"]["units"] == 64


def test_last_and_best_values_are_columns(any_board):
    row = any_board.rows()[0]
    assert metric(row, "validation", "loss") == 2.0
    assert metric(row, "train", "loss") == 1.0
    assert metric(row, "validation", "best/loss") == 1.0
    assert metric(row, "validation", "best/epoch") == 2.0


def test_columns_of_several_types_are_text_so_that_they_can_be_sorted_and_filtered(board):
    types = {info["name"]: info["type"] for info in board.hparams()["hparamInfos"]}
    assert (types["rate"], types["decay"]) == ("DATA_TYPE_STRING",) * 2
    assert (types["units"], types["normalise"]) == ("DATA_TYPE_FLOAT64", "DATA_TYPE_BOOL")
    for name in types:
        assert len(board.rows(hparam=name, order="ORDER_ASC")) == len(RUNS)
    rows = board.rows(hparam="decay", order="ORDER_ASC")
    assert [row["hparams"].get("decay") for row in rows] == ["0.5", "10", "2", "None", None]
    rows = board.rows(hparam="decay", filterDiscrete=["2", "0.5"], excludeMissingValues=True)
    assert [row["name"] for row in rows] == ["failed", "interrupted"]


def test_the_last_and_best_values_of_the_validation_come_first(board):
    metrics = [(info["name"]["group"], info["name"]["tag"]) for info in board.hparams()["metricInfos"]]
    assert metrics[:3] == [("validation", "loss"), ("validation", "best/epoch"), ("validation", "best/loss")]
    assert all(group == "train" for group, _ in metrics[3:])


def test_a_run_that_diverged_has_its_row(tmp_path):
    log_run(tmp_path / "diverged", {"units": 3}, "failed", losses=(2.0, float("nan")))
    [row] = Board(tmp_path, HParamsPage).rows(metric={"group": "validation", "tag": "loss"}, order="ORDER_ASC")
    assert (metric(row, "validation", "loss"), metric(row, "validation", "best/loss")) == ("NaN", 2.0)


def test_runs_of_one_name_in_two_folders_are_two_rows(tmp_path):
    for remove_stages in ("first", "second"):
        log_run(tmp_path / remove_stages / "trial_1", {"units": 3}, "finished")
    assert [row["name"] for row in Board(tmp_path, HParamsPage).rows()] == ["first/trial_1", "second/trial_1"]


def test_a_run_that_is_shown_alone_has_its_name(tmp_path):
    log_run(tmp_path / "trial_1", {"units": 3}, "finished")
    assert [row["name"] for row in Board(tmp_path / "trial_1", HParamsPage).rows()] == ["trial_1"]


def test_further_hparams_are_columns_too(tmp_path):
    log_run(tmp_path / "run", {"units": 3}, "finished", further_hparams={"units": 0, "comment": "long"})
    [row] = Board(tmp_path, HParamsPage).rows()
    assert row["hparams"] == {"units": 3.0, "comment": "long"}


def embed(folder, epoch, value=1.0):
    samples = Samples("validation", np.zeros([6, 2]), None, {"out": np.full([6, 3], value, np.float32)}, {})
    Projector(folder / "logs").on_best(ModelView(epoch, epoch, {}, dict, lambda *_: samples))


@pytest.fixture
def projected(tmp_path):
    """A folder of two runs, of which the second has embeddings, and its board."""
    for name in ("one", "two"):
        log_run(tmp_path / name, {"units": 3}, "running")
    board = Board(tmp_path, ProjectorPage)
    assert board.page.is_active() is False
    embed(tmp_path / "two", epoch=1)
    return tmp_path, board


def test_embeddings_that_come_up_are_shown_while_the_board_is_open(projected):
    folder, board = projected
    assert board.page.is_active() is True
    assert json.loads(board.get("/runs").data) == ["two/logs"]
    embed(folder / "one", epoch=1)
    assert json.loads(board.get("/runs").data) == ["one/logs", "two/logs"], "the newest first"


def test_vectors_written_again_under_the_same_name_are_read_again(projected):
    folder, board = projected
    query = {"run": "two/logs", "name": "1. out, epoch 1, best"}
    assert np.frombuffer(board.get("/tensor", **query).data, "f4")[1] == 1.0
    for path in (folder / "two" / "logs" / "embeddings").glob("*/set.json"):
        path.unlink()
    config = folder / "two" / "logs" / "projector_config.pbtxt"
    before = config.stat()
    embed(folder / "two", epoch=1, value=2.0)
    os.utime(config, ns=(before.st_atime_ns, before.st_mtime_ns))  # as within a tick of the disk's clock
    assert np.frombuffer(board.get("/tensor", **query).data, "f4")[1] == 2.0


def test_a_file_that_is_gone_does_not_close_the_page_for_other_runs(projected):
    folder, board = projected
    embed(folder / "one", epoch=1)
    for path in (folder / "one" / "logs" / "embeddings").glob("*/out.bytes"):
        path.unlink()
    assert json.loads(board.get("/runs").data) == ["two/logs"]


def test_both_pages_stand_in_for_those_that_tensorboard_loads():
    from tensorboard import default

    assert set(REPLACED) == {hparams_plugin.HParamsPlugin, projector_plugin.ProjectorPlugin} & {*default.get_plugins()}
