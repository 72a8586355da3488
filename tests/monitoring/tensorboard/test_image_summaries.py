"""Pictures in TensorBoard's logs, read again with TensorBoard's own reader."""

import dataclasses
import logging

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments_manager.events import EpochReport, ModelView, Rollback, RunEnd, RunStart, Samples
from experiments_manager.monitoring.prediction_views import PredictionViews, read_samples
from experiments_manager.monitoring.tensorboard.image_summaries import Images, images_of, png_size


def view(epoch=1, metrics=(), samples=lambda count, layers=(): None):
    return ModelView(epoch, 10 * epoch, {}, dict, samples, metrics)


def start(first_epoch=1):
    values = {"first_epoch": first_epoch, "epochs": 10, "hparams": {}, "devices": ("CPU",)}
    fields = {field.name: values.get(field.name) for field in dataclasses.fields(RunStart)}
    return RunStart(**fields)


def classify(count, layers=()):
    """Samples of a classifier of pictures that is always right."""
    truth = np.arange(min(count, 40)) % 2
    x = np.random.default_rng(0).random((len(truth), 8, 8, 1))
    return Samples("validation", x, truth, {"kind": np.eye(2)[truth]}, {})


def shown(folder):
    """Steps and sizes of the images in a folder, by tag."""
    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0})
    accumulator.Reload()
    tags = accumulator.Tags()["images"]
    return {tag: [(event.step, event.width, event.height) for event in accumulator.Images(tag)] for tag in tags}


class Drawing:
    """A metric that draws what it is told to."""

    def __init__(self, gives, name="curve"):
        self.gives, self.name = gives, name

    def get_image_summary(self):
        return self.gives() if callable(self.gives) else self.gives


class Container:
    """What Keras keeps the compiled metrics in."""

    def __init__(self, *metrics):
        self.metrics = list(metrics)


@pytest.fixture
def images(tmp_path):
    """Starts to watch, with pictures after every second epoch."""

    def begin(first_epoch=1, every=2):
        watcher = Images(tmp_path, PredictionViews(["cat", "dog"]), every)
        watcher.on_start(start(first_epoch))
        return watcher

    return begin


def validate(watcher, seen):
    watcher.on_validated(seen)
    watcher.on_epoch(EpochReport(seen.epoch, seen.global_step, {}, 0.1, 1.0, False))


def end(watcher):
    watcher.on_end(RunEnd("finished", 1, 1.0, None, {}, None))


def test_pictures_of_the_model_come_every_so_many_epochs(images, tmp_path):
    watcher = images()
    for epoch in range(1, 6):
        validate(watcher, view(epoch, samples=classify))
    end(watcher)
    found = shown(tmp_path / "images")
    assert found.keys() == {"confusion_matrix", "confusion_matrix_normalised", "predictions"}
    assert [step for step, _, _ in found["predictions"]] == [2, 4]
    assert min(found["confusion_matrix"][0]) >= 2


def test_the_best_weights_have_pictures_of_their_own_and_a_later_session_replaces_them(images, tmp_path):
    for best_epoch in (3, 2):
        watcher = images(every=None)
        validate(watcher, view(1, samples=classify))
        watcher.on_best(view(best_epoch, samples=classify))
        end(watcher)
    assert not (tmp_path / "images").exists()
    assert [step for step, _, _ in shown(tmp_path / "best")["predictions"]] == [2]


def test_metrics_that_draw_are_shown_after_every_epoch_wherever_keras_keeps_them(images, tmp_path):
    watcher = images(every=None)
    metrics = [Container(Drawing(np.zeros((4, 6, 3))), Container(Drawing(np.zeros((5, 5, 1)), "roc"))), object()]
    for epoch in (1, 2):
        validate(watcher, view(epoch, metrics))
    end(watcher)
    assert shown(tmp_path / "images") == {"curve": [(1, 6, 4), (2, 6, 4)], "roc": [(1, 5, 5), (2, 5, 5)]}


def test_a_resumed_run_shows_each_epoch_once(images, tmp_path):
    metrics = [Drawing(np.zeros((4, 6, 3)))]
    for first, last in ((1, 3), (3, 4)):
        watcher = images(first)
        for epoch in range(first, last + 1):
            validate(watcher, view(epoch, metrics))
        end(watcher)
    assert [step for step, _, _ in shown(tmp_path / "images")["curve"]] == [1, 2, 3, 4]


def test_going_back_to_an_earlier_epoch_shows_each_once(images, tmp_path):
    watcher, metrics = images(), [Drawing(np.zeros((4, 6, 3)))]
    for epoch in (1, 2, 3):
        validate(watcher, view(epoch, metrics))
    watcher.on_rollback(Rollback(epoch=2, step=0, global_step=10))
    for epoch in (2, 3):
        validate(watcher, view(epoch, metrics))
    end(watcher)
    assert [step for step, _, _ in shown(tmp_path / "images")["curve"]] == [1, 2, 3]


@pytest.mark.parametrize("gives", [lambda: 1 / 0, np.zeros((2, 3, 5, 7, 3)), "text", np.zeros((4, 4, 2)), []])
def test_a_metric_that_cannot_draw_is_named_once_and_the_others_are_shown(images, tmp_path, caplog, gives):
    watcher = images()
    metrics = [Drawing(gives, "broken"), Drawing(np.zeros((4, 6, 3)))]
    with caplog.at_level(logging.WARNING):
        for epoch in (1, 3):
            validate(watcher, view(epoch, metrics))
    end(watcher)
    assert shown(tmp_path / "images") == {"curve": [(1, 6, 4), (3, 6, 4)]}
    assert [record.message.split(".")[0] for record in caplog.records] == [
        "metrics: get_image_summary of broken gave no picture"
    ]


def test_what_cannot_be_drawn_is_told_and_everything_else_is_drawn(caplog, monkeypatch):
    from experiments_manager.monitoring.plots import predictions

    monkeypatch.setattr(predictions, "prediction_figure", lambda x, answer: 1 / 0)
    names = [picture.name for picture in PredictionViews().pictures(view(samples=classify))]
    assert names == ["confusion_matrix", "confusion_matrix_normalised"]
    assert "predictions: it cannot be drawn: ZeroDivisionError" in caplog.text


def test_very_many_classes_have_no_confusion_matrix_but_all_else():
    def words(count, layers=()):
        scores = np.zeros((16, 30_000), np.float32)
        scores[:, 3] = 1
        return Samples("validation", np.zeros((16, 8, 8, 1)), np.full(16, 29_999), {"word": scores}, {})

    assert [picture.name for picture in PredictionViews().pictures(view(samples=words))] == ["predictions", "mistakes"]


def test_a_view_is_drawn_once_for_all_who_ask():
    showing, one, other = PredictionViews(), view(samples=classify), view(samples=classify)
    assert showing.pictures(one) is showing.pictures(one)
    assert showing.pictures(other) is not showing.pictures(one)


def test_large_samples_are_read_in_smaller_numbers(monkeypatch):
    asked = []

    def large(count, layers=()):
        asked.append(count)
        x = np.broadcast_to(np.float32(0), (count, 1024, 1024, 4))  # 16 MiB a sample, if it were read
        return Samples("validation", x, np.zeros(count, np.float32), {"y": np.zeros((count, 1), np.float32)}, {})

    read_samples(view(samples=large))
    assert asked == [16]
    monkeypatch.setattr("experiments_manager.monitoring.prediction_views.LARGEST", 100 * 16 * 1024 * 1024 + 800)
    read_samples(view(samples=large))
    assert asked == [16, 16, 100]


def test_data_that_cannot_be_read_again_gives_no_pictures():
    assert PredictionViews().pictures(view()) == []


def test_a_model_that_cannot_be_run_gives_no_pictures_and_is_told_once(caplog):
    def refuse(count, layers=()):
        raise NotImplementedError(
            "Exception encountered when calling Gan.call().\n\n"
            "\x1b[1mModel Gan does not have a `call()` method.\x1b[0m\n\n"
            "Arguments received by Gan.call():\n  • x=1"
        )

    showing = PredictionViews()
    assert [showing.pictures(view(samples=refuse)) for _ in range(2)] == [[], []]
    assert [record.message for record in caplog.records] == [
        "Prediction figures cannot be drawn: Model Gan does not have a `call()` method"
    ]


def figure():
    from matplotlib.figure import Figure

    return Figure(figsize=(2, 1), dpi=100)


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        (None, {}),
        (np.zeros((4, 6), np.uint8), {"m": (6, 4)}),
        (np.zeros((4, 6, 3), np.uint8), {"m": (6, 4)}),
        (np.zeros((4, 6, 4), np.float32), {"m": (6, 4)}),
        (np.zeros((1, 4, 6, 3)), {"m": (6, 4)}),
        (np.zeros((2, 4, 6, 1), bool), {"m/0": (6, 4), "m/1": (6, 4)}),
        ({"a": np.zeros((4, 6)), "b": None}, {"m/a": (6, 4)}),
        ([[0.0, 1.0], [0.5, np.nan]], {"m": (2, 2)}),
        (figure(), {"m": (200, 100)}),
    ],
)
def test_pictures_of_metrics_come_in_many_forms(given, sizes):
    assert {name: png_size(png) for name, png in images_of(given, "m")} == sizes


def test_a_tensor_is_a_picture(tensorflow):
    ((name, png),) = images_of(tensorflow.zeros((1, 4, 6, 3)), "m")
    assert (name, png_size(png)) == ("m", (6, 4))


@pytest.mark.parametrize(
    ("given", "bytes_"),
    [
        (np.array([[0, 127, 255]], np.uint8), [0, 127, 255]),
        (np.array([[0.0, 0.5, 1.0]]), [0, 128, 255]),
        (np.array([[0.0, 127.0, 255.0]]), [0, 127, 255]),
        (np.array([[-3, 100, 300]]), [0, 100, 255]),
        (np.array([[False, True, True]]), [0, 255, 255]),
    ],
)
def test_values_of_pictures_are_kept(given, bytes_):
    import io

    import matplotlib.image

    ((_, png),) = images_of(given, "m")
    pixels = matplotlib.image.imread(io.BytesIO(png))
    assert (255 * pixels[0, :, 0]).round().astype(int).tolist() == bytes_


DRAWING_METRIC = """
    class Drawing(keras.metrics.MeanSquaredError):
        def get_image_summary(self):
            return np.full((4, 6, 3), float(self.result() > 0))

    def metrics():
        return [Drawing(name="drawing")]
"""


def test_in_a_real_run_metrics_predictions_and_residuals_are_shown(experiment):
    trained = experiment(
        DRAWING_METRIC,
        {"epochs": 3},
        make_watchers=lambda run, settings: [Images(run.logs_dir, PredictionViews(), every=2)],
    )
    found = shown(trained.run.logs_dir / "images")
    assert [step for step, _, _ in found["drawing"]] == [1, 2, 3]
    assert [step for step, _, _ in found["residuals"]] == [2]
    assert shown(trained.run.logs_dir / "best").keys() == {"predictions", "residuals"}


def test_floats_a_little_above_one_are_no_bytes():
    ((_, png),) = images_of(np.full((4, 4), 1.01), "m")
    assert pixels_of(png).min() == 1.0


def pixels_of(png):
    import io

    import matplotlib.image

    return matplotlib.image.imread(io.BytesIO(png))
