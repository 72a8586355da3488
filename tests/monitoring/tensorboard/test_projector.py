"""Embeddings, read by TensorBoard's own Projector plugin as it comes."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
from werkzeug.test import Client

from experiments_manager import api
from experiments_manager.events import ModelView, RunStart, Samples
from experiments_manager.monitoring.tensorboard import projector
from experiments_manager.monitoring.tensorboard.projector import KEPT_SETS, Projector, file_name, tensor_bytes
from experiments_manager.monitoring.tensorboard.scalars import EventFile, scalars_summary

EXAMPLES = Path(__file__).parents[3] / "examples"
SCORES = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
LABELS = np.arange(12) % 3


def view(epoch, outputs=None, layers=None, x=None, y=LABELS):
    outputs = {"animal": SCORES + epoch} if outputs is None else outputs
    x = np.zeros([12, 8, 8, 3], np.uint8) if x is None else x

    def samples(count, names=(), reduce=None):
        return Samples("validation", x[:count], y, {k: v[:count] for k, v in outputs.items()}, layers or {})

    return ModelView(epoch, 10 * epoch, {}, dict, samples)


def start(logs_dir, first_epoch=1):
    return RunStart(logs_dir.parent, "test", {}, 10, first_epoch, 10, 31, ("CPU",), "val_loss")


@pytest.fixture
def logs_dir(tmp_path):
    """The logs of a run, which TensorBoard takes for a run once they hold an event."""
    logs_dir = tmp_path / "run" / "logs"
    file = EventFile(logs_dir, 0)
    file.write(scalars_summary({"loss": 1.0}), 1)
    file.close()
    return logs_dir


@pytest.fixture
def page(tmp_path):
    """Asks the Projector plugin over the folder of runs."""

    def ask(route, **query):
        multiplexer = plugin_event_multiplexer.EventMultiplexer()
        multiplexer.AddRunsFromDirectory(str(tmp_path))
        multiplexer.Reload()
        provider = data_provider.MultiplexerDataProvider(multiplexer, str(tmp_path))
        plugin = ProjectorPlugin(base_plugin.TBContext(data_provider=provider, logdir=str(tmp_path)))
        answer = Client(plugin.get_plugin_apps()[route]).get("/", query_string={"run": "run/logs", **query})
        assert answer.status_code == 200, answer.data
        return answer

    return ask


def shown(page):
    """Names of the tensors, in the order that the Projector shows them in: those of equal size by their names."""
    return sorted(tensor["tensorName"] for tensor in json.loads(page("/info").data)["embeddings"])


def folders(logs_dir):
    return sorted(path.name for path in (logs_dir / "embeddings").iterdir())


def test_the_projector_finds_vectors_metadata_and_thumbnails(logs_dir, page):
    Projector(logs_dir, class_names=["cat", "dog", "emu"]).on_best(view(4))
    assert json.loads(page("/runs").data) == ["run/logs"]
    name = "1. animal, epoch 4, best"
    vectors = np.frombuffer(page("/tensor", name=name).data, np.float32).reshape(12, 3)
    np.testing.assert_allclose(vectors, SCORES + 4, rtol=4e-5)
    np.testing.assert_array_equal(vectors[1:], (SCORES + 4)[1:])
    header, first, *_ = page("/metadata", name=name).text.splitlines()
    assert header.split("\t") == ["label", "prediction", "wrong", "index"]
    assert first.split("\t") == [
        "cat",
        ["cat", "dog", "emu"][SCORES[0].argmax()],
        str(int(SCORES[0].argmax() != 0)),
        "0",
    ]
    assert page("/sprite_image", name=name).mimetype == "image/png"
    [entry] = json.loads(page("/info").data)["embeddings"]
    assert entry["sprite"]["singleImageDim"] == [32, 32]


@pytest.mark.parametrize(
    "values",
    [np.zeros([4, 2]), np.full([4, 2], 0.5), np.full([4, 2], np.nan), np.full([4, 2], -1e30), np.eye(4)[:, :2]],
    ids=["zeros", "halves", "nan", "large", "ones"],
)
def test_numbers_whose_bytes_are_text_are_read_all_the_same(logs_dir, page, values):
    Projector(logs_dir).on_best(view(1, {"out": values.astype(np.float32)}, x=np.zeros([4, 2]), y=None))
    read = np.frombuffer(page("/tensor", name="1. out, epoch 1, best").data, np.float32).reshape(4, 2)
    np.testing.assert_allclose(read, np.nan_to_num(values), rtol=4e-5, atol=1e-40)


def test_no_tensor_begins_with_text():
    assert tensor_bytes(np.zeros([2, 2], np.float32))[:1] == b"\xff"
    assert len(tensor_bytes(np.zeros([2, 2], np.float32))) == 16


def test_sets_are_written_every_few_epochs_and_the_newest_is_shown_first(logs_dir, page):
    watcher = Projector(logs_dir, every=2)
    watcher.on_start(start(logs_dir))
    for epoch in range(1, 13):
        watcher.on_validated(view(epoch))
    assert shown(page) == [f"{rank}. animal, epoch {epoch}" for rank, epoch in enumerate((12, 10, 8, 6, 4), start=1)]
    assert len(folders(logs_dir)) == KEPT_SETS


def test_the_best_weights_come_first_and_are_not_written_twice(logs_dir, page):
    watcher = Projector(logs_dir, every=1)
    for epoch in (1, 2, 3):
        watcher.on_validated(view(epoch))
    written = (logs_dir / "embeddings" / "epoch-0002" / "animal.bytes").stat().st_mtime_ns
    watcher.on_best(view(2))
    assert shown(page) == ["1. animal, epoch 2, best", "2. animal, epoch 3", "3. animal, epoch 1"]
    assert (logs_dir / "embeddings" / "epoch-0002" / "animal.bytes").stat().st_mtime_ns == written


def test_a_resumed_run_drops_the_sets_of_epochs_that_it_trains_again(logs_dir, page):
    earlier = Projector(logs_dir, every=1)
    for epoch in (1, 2, 3):
        earlier.on_validated(view(epoch))
    earlier.on_best(view(1))
    later = Projector(logs_dir, every=1)
    later.on_start(start(logs_dir, first_epoch=3))
    assert shown(page) == ["1. animal, epoch 1, best", "2. animal, epoch 2"]
    later.on_validated(view(3))
    assert shown(page) == ["1. animal, epoch 3", "2. animal, epoch 2", "3. animal, epoch 1"]


def test_what_a_killed_process_left_half_written_is_cleared_away(logs_dir):
    Projector(logs_dir).on_best(view(1))
    (logs_dir / "embeddings" / ".epoch-0002.ffffffff-00000000.partial").mkdir()
    Projector(logs_dir).on_start(start(logs_dir, first_epoch=2))
    assert folders(logs_dir) == ["epoch-0001"]


def test_all_heads_are_shown_or_the_layers_that_were_asked_for(logs_dir, page):
    heads = {"animal": SCORES, "colour/&name": SCORES[:, :2]}
    Projector(logs_dir).on_best(view(1, heads, y=None))
    assert shown(page) == ["1. animal, epoch 1, best", "1. colour__name, epoch 1, best"]
    Projector(logs_dir, layers=["features"]).on_best(view(2, heads, {"features": np.ones([12, 4, 4, 2])}))
    assert shown(page)[0] == "1. features, epoch 2, best"


def test_names_that_differ_only_in_what_is_not_safe_have_files_of_their_own(logs_dir, page):
    Projector(logs_dir).on_best(view(1, {"a/b": SCORES, "a_b": SCORES[:, :2], "a b": SCORES + 1}, y=None))
    assert shown(page) == ["1. a_b, epoch 1, best", "1. a_b-1, epoch 1, best", "1. a_b-2, epoch 1, best"]
    sizes = {path.name: path.stat().st_size for path in logs_dir.glob("embeddings/*/*.bytes")}
    assert sizes == {"a_b.bytes": 12 * 3 * 4, "a_b-1.bytes": 12 * 2 * 4, "a_b-2.bytes": 12 * 3 * 4}


def test_without_layers_outputs_are_shown_together_with_what_lies_before_them(logs_dir, page):
    asked = []

    def samples(count, names=(), reduce=None):
        asked.append(names)
        layers = {"features": np.ones([12, 5], np.float32), "animal": np.ones([12, 4], np.float32)}
        return Samples("validation", np.zeros([12, 2]), LABELS, {"animal": SCORES, "weight": SCORES[:, :1]}, layers)

    Projector(logs_dir).on_best(ModelView(1, 10, {}, dict, samples))
    assert asked == [None]
    assert shown(page) == [f"1. {name}, epoch 1, best" for name in ("animal", "features", "layer_animal")]


SUBCLASSED = """

class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.last = keras.layers.Dense(5), keras.layers.Dense(2)

    def call(self, x):
        return self.last(self.hidden(x))


def model(hparams):
    return Own()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("example", "further", "expected"),
    [
        ("regression/mysettings_curve_fitting.py", "", {"dense": 10}),
        ("classification/mysettings_digits.py", "", {"digit": 10, "dense_1": 256}),
        ("regression/mysettings_curve_fitting.py", SUBCLASSED, {"output_0": 2}),
    ],
    ids=["one number", "classes", "no graph of layers"],
)
def test_every_run_has_something_to_show(tmp_path, monkeypatch, caplog, example, further, expected):
    path = EXAMPLES / example
    if further:
        path = tmp_path / path.name
        path.write_text((EXAMPLES / example).read_text(encoding="utf-8") + further, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    overrides = {"epochs": 1, "export": False, "figures": False}
    run_dir = api.train(path, overrides=overrides, working_dir=tmp_path, quiet=True).run_dir
    [record] = (run_dir / "logs").glob("embeddings/*/set.json")
    tensors = json.loads(record.read_text(encoding="utf-8"))["tensors"]
    assert {tensor["name"]: tensor["shape"][1] for tensor in tensors} == expected
    assert not [message for message in caplog.messages if "Projector" in message or "embeddings" in message]


def test_vectors_are_saved_for_use_outside(logs_dir):
    Projector(logs_dir).on_best(view(3, {"animal": SCORES, "weight": np.ones([12, 1])}, y=(LABELS, np.ones([12, 1]))))
    with np.load(logs_dir / "embeddings" / "epoch-0003" / "embeddings.npz", allow_pickle=False) as arrays:
        assert (int(arrays["epoch"]), int(arrays["global_step"])) == (3, 30)
        np.testing.assert_array_equal(arrays["vectors/animal"], SCORES)
        assert arrays["vectors/weight"].shape == (12, 1)
        assert arrays["metadata/animal label"].tolist() == [str(label) for label in LABELS]
        assert arrays["metadata/index"].tolist() == list(range(12))


def test_what_makes_no_picture_is_left_out_and_said_once(logs_dir, caplog):
    watcher = Projector(logs_dir, layers=["weight"], every=1)
    for epoch in (1, 2):
        watcher.on_validated(view(epoch, {"weight": np.ones([12, 1])}, {"weight": np.ones([12, 1])}))
    assert caplog.messages == ["The Projector leaves out weight: one number a sample makes no picture."]
    assert not (logs_dir / "projector_config.pbtxt").exists()


def test_a_regression_that_asked_for_nothing_is_not_bothered(logs_dir, caplog):
    with caplog.at_level(logging.WARNING):
        Projector(logs_dir).on_best(view(1, {"weight": np.ones([12, 1])}, y=np.ones([12, 1])))
    assert not caplog.messages


def test_wide_layers_get_fewer_samples(logs_dir, page, caplog, monkeypatch):
    monkeypatch.setattr(projector, "LARGEST_TENSOR", 4 * 3 * 5)
    Projector(logs_dir, every=9).on_best(view(1))
    assert json.loads(page("/info").data)["embeddings"][0]["tensorShape"] == [5, 3]
    assert len(page("/metadata", name="1. animal, epoch 1, best").text.splitlines()) == 6
    assert caplog.messages == ["The Projector shows 5 of 12 samples, as animal is 3 wide."]


def test_data_that_cannot_be_read_again_is_said_once(logs_dir, caplog):
    watcher = Projector(logs_dir, every=1)
    for epoch in (1, 2):
        watcher.on_validated(ModelView(epoch, epoch, {}, dict, lambda *_: None))
    assert caplog.messages == ["There are no embeddings: the data cannot be read a second time."]


def test_a_model_that_cannot_be_run_is_said_once(logs_dir, caplog):
    def refuse(*_):
        raise NotImplementedError("there is no call")

    watcher = Projector(logs_dir, every=1)
    for epoch in (1, 2):
        watcher.on_validated(ModelView(epoch, epoch, {}, dict, refuse))
    assert caplog.messages == ["There are no embeddings: NotImplementedError: there is no call"]


def test_a_full_disk_costs_the_embeddings_alone(mounted_disk, caplog):
    logs_dir = mounted_disk("64k") / "run" / "logs"
    watcher = Projector(logs_dir, every=1)
    watcher.on_validated(view(1))
    for epoch in (2, 3):
        watcher.on_validated(view(epoch, {"animal": np.random.default_rng(0).normal(size=(12, 4000))}))
    assert [message.partition(":")[0] for message in caplog.messages] == [f"Embeddings cannot be written to {logs_dir}"]
    assert folders(logs_dir) == ["epoch-0001"]
    assert "epoch-0001" in (logs_dir / "projector_config.pbtxt").read_text()


@pytest.mark.parametrize("content", ["", "3", "{}", '{"epoch": 1}'])
def test_a_set_whose_description_is_damaged_is_replaced(logs_dir, page, content):
    Projector(logs_dir).on_best(view(1))
    (logs_dir / "embeddings" / "epoch-0001" / "set.json").write_text(content)
    Projector(logs_dir).on_best(view(1))
    assert shown(page) == ["1. animal, epoch 1, best"]
    assert folders(logs_dir) == ["epoch-0001"]


@pytest.mark.parametrize(("name", "safe"), [("dense_1", "dense_1"), ("a/b&c #1", "a_b_c__1"), ("größe", "größe")])
def test_names_are_safe_in_files_and_addresses(name, safe):
    assert file_name(name) == safe


@pytest.mark.slow
def test_a_run_that_is_embedded_ends_with_the_same_bits_as_one_that_is_not(experiment, same_bits, tmp_path):
    watched = experiment(
        overrides={"embeddings_every": 1},
        working_dir=tmp_path / "watched",
        make_watchers=lambda run, settings: [Projector(run.logs_dir, layers=["height"], every=1)],
    )
    alone = experiment(working_dir=tmp_path / "alone", make_watchers=lambda run, settings: [])
    assert same_bits(watched.tensors, alone.tensors) == []


def test_layers_of_a_real_model_are_embedded(experiment, tmp_path):
    wide = """
        def model(hparams):
            position = keras.Input([3], name="position")
            features = keras.layers.Dense(4, activation="tanh", name="features")(position)
            return keras.Model(position, keras.layers.Dense(1, name="height")(features))
    """
    trained = experiment(wide, make_watchers=lambda run, settings: [Projector(run.logs_dir, layers=["features"])])
    best = trained.result.best["epoch"]
    with np.load(trained.run.logs_dir / "embeddings" / f"epoch-{best:04d}" / "embeddings.npz") as arrays:
        assert arrays["vectors/features"].shape == (16, 4)
        assert {"metadata/target", "metadata/prediction", "metadata/index"} <= set(arrays)
