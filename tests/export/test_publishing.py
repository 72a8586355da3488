"""Versions of a run: what is published, under which names, and what happens when it cannot be."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from experiments_manager.export.publisher import _agree
from tests.helpers.warm_processes import warm_run


@pytest.fixture
def exported(experiment):
    """Trains an experiment that exports."""

    def train(source="", overrides=(), **options):
        return experiment(["export = True\n", source], overrides, **options)

    return train


def served(trained, version=None, signature="serving_default", **inputs):
    """Loads a version anew and runs a signature; arrays by name."""
    folder = trained.result.exported_model if version is None else trained.run.exports_dir / str(version)
    loaded = tf.saved_model.load(str(folder))
    outputs = loaded.signatures[signature](**{name: tf.constant(value) for name, value in inputs.items()})
    return {name: value.numpy() for name, value in outputs.items()}


def folders(trained):
    """What stands beside the versions or is one, versions by number."""
    names = [path.name for path in trained.run.exports_dir.iterdir()]
    return sorted(names, key=lambda name: (len(name), name))


X = np.random.default_rng(7).normal(size=(5, 3)).astype("float32")


def test_a_version_is_named_after_its_global_step_and_holds_the_averages(exported):
    trained = exported(overrides={"epochs": 1})
    assert folders(trained) == ["5"]
    assert trained.result.exported_model == trained.run.exports_dir / "5"
    manifest = trained.run.manifest
    assert (manifest["exported_model"], manifest["last_version"]) == ("exported_models/5", 5)
    assert [(version.version, version.path.name) for version in trained.versions] == [(5, "5")]
    kernel, bias = trained.tensors["averages/0000"], trained.tensors["averages/0001"]
    np.testing.assert_allclose(served(trained, position=X)["height"], X @ kernel + bias, rtol=1e-5)
    assert not np.allclose(kernel, trained.weights[0], rtol=1e-3)


@pytest.mark.slow
def test_both_signatures_bear_the_models_own_names(exported):
    trained = exported(overrides={"epochs": 1})
    signatures = tf.saved_model.load(str(trained.result.exported_model)).signatures
    assert set(signatures) == {"serving_default", "mysettings_curve"}
    for signature in signatures.values():
        assert signature.structured_input_signature[1]["position"].shape.as_list() == [None, 3]
        assert signature.structured_outputs.keys() == {"height"}


@pytest.mark.slow
def test_names_in_the_settings_come_first(exported):
    trained = exported('input_names = ["x"]\noutput_names = ["y"]\n', {"epochs": 1})
    assert served(trained, x=X).keys() == {"y"}


@pytest.mark.slow
def test_a_wrong_number_of_names_is_told_and_training_goes_on(exported):
    trained = exported('output_names = ["y", "z"]\n')
    assert trained.result.state == "finished"
    assert trained.result.exported_model is None
    assert [text for text in trained.messages if "output_names: 2 names for 1 tensors" in text] == trained.messages


TWO = """
    loss = {"sum": "mse", "product": "mse"}

    def dataset(split):
        left, right = np.random.default_rng(samples[split]).normal(size=(2, samples[split], 2)).astype("float32")
        return {"left": left, "right": right}, {"sum": left + right, "product": left * right}

    def model(hparams):
        left, right = keras.Input([2], name="left"), keras.Input([2], name="right")
        both = keras.layers.Concatenate()([right, left])
        heads = {name: keras.layers.Dense(2, name=name)(both) for name in ("sum", "product")}
        return keras.Model({"right": right, "left": left}, heads)
"""


@pytest.mark.slow
def test_inputs_and_outputs_of_a_dictionary_bear_its_keys(exported):
    trained = exported(TWO, {"epochs": 1, "ema_momentum": None})
    left, right = X[:, :2], X[:, 1:]
    outputs = served(trained, left=left, right=right)
    model = trained.settings.call("model")
    model.set_weights(trained.weights)
    expected = model.predict({"left": left, "right": right}, verbose=0)
    assert outputs.keys() == {"sum", "product"}
    for name, values in expected.items():
        np.testing.assert_allclose(outputs[name], values, rtol=1e-5)


def test_a_serving_hook_decides_what_is_served(exported):
    source = """
        def serving(model):
            class Served(tf.Module):
                @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="metres")])
                def served_model(self, metres):
                    return {"height": model(metres), "depth": -model(metres)}

            return Served()
    """
    outputs = served(exported(source, {"epochs": 1}), signature="mysettings_curve", metres=X)
    assert outputs.keys() == {"height", "depth"}
    assert np.array_equal(outputs["depth"], -outputs["height"])


def test_the_serving_hook_that_the_documentation_shows_is_served(exported):
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    (hook,) = re.findall(r"^```python\n(import tensorflow.*?def serving.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    version = exported(hook, {"epochs": 1})
    outputs = served(version, signature="mysettings_curve", millimetres=300 + 50 * X)
    (heights,) = served(exported("", {"epochs": 1}), signature="mysettings_curve", position=X).values()
    np.testing.assert_allclose(outputs["kilograms"], 20 + 5 * heights, rtol=1e-5)


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        ("return 3", "serving: returned int. Expected a `tf.Module`"),
        ("return tf.function(lambda x: {'y': model(x)})", "serving: the function has no input signature"),
        (
            "return tf.function(lambda x: model(x), input_signature=[tf.TensorSpec([None, 3])])",
            "serving: the function returns .* Expected a dictionary",
        ),
        (
            "return tf.function(lambda x: {'y': model(x)}, input_signature=[tf.TensorSpec([None, 8])])",
            "tracing its serving function failed",
        ),
    ],
    ids=["no_function", "no_signature", "no_dictionary", "wrong_shape"],
)
def test_a_serving_hook_that_cannot_be_exported_is_told_and_training_goes_on(exported, hook, message):
    trained = exported(f"def serving(model):\n    {hook}\n", {"epochs": 1})
    assert (trained.result.state, trained.result.exported_model) == ("finished", None)
    [text] = trained.messages
    assert re.search(message, text), text


def test_only_the_newest_versions_are_kept(exported, settle):
    overrides = {"epochs": 6, "keep_versions": 2, "early_stopping_patience": None}
    trained = exported(overrides=overrides, should_stop=settle)
    improved = [report.global_step for report in trained.epochs if report.improved]
    assert len(improved) > 2
    assert folders(trained) == [str(step) for step in improved[-2:]]


def test_a_model_that_improves_never_again_is_published_as_it_was_at_its_best(exported):
    source = """
        ema_momentum = None

        def dataset(split):
            sign = 1.0 if split == "train" else -1.0
            return np.ones([8, 3], "float32"), sign * np.ones([8, 1], "float32")

        def model(hparams):
            head = keras.layers.Dense(1, kernel_initializer="zeros", name="y")
            return keras.Sequential([keras.Input([3], name="x"), head])
    """
    trained = exported(source, {"epochs": 3})
    best = trained.result.best
    assert best["epoch"] < 3
    assert folders(trained)[-1] == str(best["step"])
    y = served(trained, x=np.ones([1, 3], "float32"))["y"]
    assert (y.item() + 1.0) ** 2 == pytest.approx(best["value"], rel=1e-5)


@pytest.mark.slow
def test_each_version_equals_a_model_saved_anew_with_its_weights(exported, tmp_path, settle):
    trained = exported(overrides={"epochs": 4, "keep_versions": 0, "ema_momentum": None}, should_stop=settle)
    assert len(folders(trained)) > 1
    model = trained.settings.call("model")
    for folder in map(trained.run.exports_dir.joinpath, folders(trained)):
        loaded = tf.saved_model.load(str(folder))
        model.set_weights([variable.numpy() for variable in loaded.captured])
        export = tmp_path / "anew" / folder.name
        fresh = tf.function(
            lambda position: {"height": model(position, training=False)},
            input_signature=[tf.TensorSpec([None, 3], name="position")],
        )
        tf.saved_model.save(model, str(export), signatures={"serving_default": fresh})
        anew = tf.saved_model.load(str(export)).signatures["serving_default"](position=tf.constant(X))
        again = loaded.signatures["serving_default"](position=tf.constant(X))
        assert np.array_equal(anew["height"], again["height"])
        assert sorted(path.name for path in folder.iterdir()) == [
            "assets",
            "assets.extra",
            "saved_model.pb",
            "variables",
        ]


WORDS = """
    loss = "mse"

    def dataset(split):
        return np.array(["red", "green", "blue", "red"] * 4), np.arange(16.0)[:, None]

    def model(hparams):
        {layer}
        text = keras.Input([], dtype="string", name="colour")
        numbers = lookup(text)
        hidden = keras.layers.Embedding(9, 2)(numbers)
        hidden = keras.layers.Flatten()(hidden)
        return keras.Model(text, keras.layers.Dense(1, name="height")(hidden))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer",
    [
        'lookup = keras.layers.StringLookup(vocabulary=["red", "green", "blue"])',
        'lookup = keras.layers.TextVectorization(vocabulary=["red", "green", "blue"], output_sequence_length=1)',
    ],
    ids=["StringLookup", "TextVectorization"],
)
def test_the_tables_of_text_layers_are_exported(exported, layer):
    trained = exported(WORDS.format(layer=layer), {"epochs": 1})
    assert trained.messages == []
    heights = served(trained, colour=np.array(["red", "green", "blue", "purple"]))["height"]
    assert len(np.unique(heights)) == 4


# Seeded by the microsecond, as two calls never give the same numbers by chance; and from a fixed seed, where each
# loaded copy draws the same numbers in the same order, so that its first answer is the live model's.
@pytest.mark.parametrize(
    "draw",
    [
        "tf.random.stateless_uniform(tf.shape(x), tf.stack([tf.cast(tf.timestamp() * 1e6, tf.int64), 0]))",
        "tf.random.uniform(tf.shape(x), seed=3)",
    ],
    ids=["by the clock", "from a fixed seed"],
)
def test_a_model_that_gives_another_output_each_time_is_not_published_and_says_so_once(exported, draw):
    source = f"""
        class Draw(keras.layers.Layer):
            def call(self, x):
                return x + {draw}

        def model(hparams):
            # A hundred numbers: one alone is the same twice by chance, now and then.
            return keras.Sequential([keras.Input([3]), keras.layers.Dense(100), Draw()])

        def loss(y, output):
            return (y - output) ** 2
    """
    trained = exported(source, {"epochs": 4})
    assert (trained.result.state, trained.result.exported_model) == ("finished", None)
    [text] = trained.messages
    assert "Asked twice, its output `draw` differs from what it was before by up to" in text
    assert text.count("was not published") == 1


def test_infinite_outputs_hide_no_difference():
    masked = np.float32([1, -np.inf])
    assert _agree(masked, masked, 1e-4)
    assert not _agree(np.float32([5, -np.inf]), masked, 1e-4)
    assert not _agree(np.float32([1, 1]), masked, 1e-4)


@pytest.mark.slow
def test_a_version_that_was_not_written_as_the_live_model_is_is_not_published(exported, monkeypatch):
    write = tf.raw_ops.SaveV2

    def wrong(tensors, **options):
        return write(tensors=[tensors[0] + 1, *tensors[1:]], **options)

    monkeypatch.setattr(tf.raw_ops, "SaveV2", wrong)
    trained = exported(overrides={"epochs": 1})
    assert (trained.result.state, trained.result.exported_model, folders(trained)) == ("finished", None, [])
    [text] = trained.messages
    assert "Reloaded, its output `height` differs from the live model's by up to" in text


def test_a_model_that_tensorflow_cannot_save_finishes_and_says_so_once(exported):
    source = """
        class Python(keras.layers.Layer):
            def call(self, x):
                return x + tf.cast(hidden_table.lookup(tf.cast(x, tf.int32)), tf.float32)

        hidden_table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([1], [2]), 0)

        def model(hparams):
            return keras.Sequential([keras.Input([3]), keras.layers.Dense(1), Python()])
    """
    trained = exported(source, {"epochs": 4})
    assert (trained.result.state, trained.result.exported_model) == ("finished", None)
    assert folders(trained) == []
    [text] = trained.messages
    assert "The model cannot be exported" in text


@pytest.mark.slow
def test_a_crash_before_the_renaming_leaves_nothing_that_a_server_would_pick_up(exported, monkeypatch, resume):
    rename = Path.rename

    def crash(self, target):
        if Path(target).name.isdigit():
            raise KeyboardInterrupt("killed")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", crash)
    trained = exported(overrides={"epochs": 1})
    assert not any(name.isdigit() for name in folders(trained))
    monkeypatch.undo()
    assert folders(resume(trained.run.path)) == ["5"]


@pytest.mark.slow
def test_leftovers_of_a_killed_process_are_swept_away(exported, resume):
    trained = exported(overrides={"epochs": 1})
    (trained.run.exports_dir / ".stage-10" / "variables").mkdir(parents=True)
    assert folders(resume(trained.run.path, {"epochs": 2}))[0] == "5"
    assert not list(trained.run.exports_dir.glob(".*"))


PROGRAM = """
import json, sys
import numpy as np
import tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
x = np.array(json.loads(sys.argv[2]), "float32")
print(json.dumps(loaded.signatures["serving_default"](position=tf.constant(x))["height"].numpy().tolist()))
"""


@pytest.mark.slow
def test_a_version_loads_in_a_process_of_its_own(exported):
    trained = exported(overrides={"epochs": 1})
    arguments = [sys.executable, "-c", PROGRAM, str(trained.result.exported_model), json.dumps(X.tolist())]
    answer = warm_run(arguments).stdout
    np.testing.assert_allclose(json.loads(answer.splitlines()[-1]), served(trained, position=X)["height"], rtol=1e-5)


FULL = """
    early_stopping_patience = None
    epochs = 10000
    learning_rate = 1e-5  # better with each epoch

    class FullDisk(keras.callbacks.Callback):
        def __init__(self, ballast):
            super().__init__()
            self.ballast = ballast

        def on_train_begin(self, logs=None):
            with open(self.ballast, "ab", buffering=0) as stream:
                for size in (4096, 1):
                    try:
                        while stream.write(bytes(size)) == size:
                            pass
                    except OSError:
                        pass

        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = not self.ballast.exists()

    def callbacks(run):
        return [FullDisk(run.path / "ballast")]
"""


def test_a_full_disk_does_not_stop_training_and_is_reported_once(exported, mounted_disk, recorder, only_run):
    disk = mounted_disk("2m")

    class GivesSpace(type(recorder)):
        def on_message(self, text):
            super().on_message(text)
            if "not published" in text:
                (only_run(disk).path / "ballast").unlink()

    watcher = GivesSpace()
    trained = exported(FULL, working_dir=disk, make_watchers=lambda run, settings: [watcher])
    assert trained.result.state == "finished"
    [report] = [text for text in watcher.messages if "not published" in text]
    assert "No space left" in report
    assert folders(trained)[-1] == str(trained.result.best["step"])
