"""The command `explain` on a run that was trained: files, numbers, report, and errors."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import experiments_manager as em
from experiments_manager.attribution.errors import ExplainError
from experiments_manager.cli.main import app, run

pytestmark = pytest.mark.slow

SETTINGS = """
import keras
import numpy as np

session_name, epochs, batch_size, learning_rate = "dots", 6, 32, 0.05
loss, metrics = "sparse_categorical_crossentropy", ["accuracy"]
class_names = ["nothing", "dot", "line"]
hparams = {"inputs": "pictures"}
export, tensorboard, figures = False, False, False


def dataset(split):
    if hparams["inputs"] == "tokens":
        return np.ones((32, 5), "int32"), np.arange(32) % 3
    generator = np.random.default_rng(["train", "validation", "test"].index(split))
    x, y = generator.uniform(0, 0.2, (256 if split == "train" else 70, 8, 8, 1)), None
    y = generator.integers(3, size=len(x))
    x[y == 1, 2, 2] = 2
    x[y == 2, 6, 1:7] = 2
    return x.astype("float32"), y


def model():
    if hparams["inputs"] == "tokens":
        x = keras.Input((5,), dtype="int32", name="tokens")
        y = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(7, 4)(x))
    else:
        x = keras.Input((8, 8, 1), name="picture")
        y = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(x)
        y = keras.layers.Flatten()(y)
    return keras.Model(x, keras.layers.Dense(3, activation="softmax", name="kind")(y))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Trains with overrides, and returns the folder of the run."""
    folder = tmp_path_factory.mktemp("dots")
    (folder / "mysettings_dots.py").write_text(SETTINGS)

    def train(**overrides):
        place = {"working_dir": folder / "runs", "run_name": "".join(overrides.values()) or "dots"}
        return em.train(folder / "mysettings_dots.py", overrides=overrides, **place, quiet=True).run_dir

    return train


@pytest.fixture(scope="module")
def run_dir(trained):
    return trained()


def test_the_command_says_what_each_method_is_worth_and_the_report_shows_the_figures(run_dir):
    printed = CliRunner().invoke(app, ["explain", str(run_dir), "--samples", "5"]).stdout
    assert printed.startswith("validation: 5 samples, input picture, head kind, weights of epoch ")
    rows = {line.split()[0]: line.split()[-1] for line in printed.splitlines()[2:6]}
    assert list(rows) == ["integrated-gradients", "grad-cam", "occlusion", "random"]
    assert {path.name for path in (run_dir / "figures").iterdir()} == {
        "explanations.png",
        "explanations.svg",
        "explanations_worth.png",
        "explanations_worth.svg",
    }
    page = em.report(run_dir).read_text()
    assert "<figcaption>explanations worth</figcaption>" in page


def test_maps_point_at_what_makes_the_class_and_their_numbers_tell_so(run_dir):
    found = em.explain(run_dir, samples=20, split="test", methods=["integrated-gradients", "occlusion"])
    numbers = json.loads(found.numbers.read_text())
    assert (numbers["split"], numbers["samples"], numbers["input"]) == ("test", 20, "picture")
    with np.load(found.maps) as maps:
        assert np.array_equal(maps["class"], maps["truth"]), "the model was trained until it knows"
        dots = np.flatnonzero(maps["class"] == 1)
        assert len(dots)
        for method in ("integrated_gradients", "occlusion"):
            highest = maps[method][dots].reshape(len(dots), -1).argmax(axis=1)
            near = np.abs(np.stack(np.unravel_index(highest, (8, 8))) - 2).max(axis=0)
            assert (near <= 1).all()
    for method in numbers["methods"].values():
        assert method["worth"] > numbers["random_order"]["worth"] + 0.1


def test_the_same_seed_explains_the_same_samples_in_the_same_way(run_dir):
    first, again, other = (
        em.explain(run_dir, samples=4, methods=["occlusion"], seed=seed).explanation for seed in (1, 1, 2)
    )
    assert np.array_equal(first.methods["occlusion"].maps, again.methods["occlusion"].maps)
    assert first.methods["occlusion"].sanity == again.methods["occlusion"].sanity
    assert not np.array_equal(first.target.question.values, other.target.question.values)


def test_programs_get_one_line_of_json(run_dir, capfd):
    assert run(["explain", str(run_dir), "--samples", "2", "--method", "occlusion", "--class", "dot", "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert set(result["methods"]) == {"occlusion"}
    assert set(result["methods"]["occlusion"]) == {"insertion", "deletion", "worth", "random_weights_correlation"}
    assert result["maps"].endswith("maps.npz")


def test_more_samples_than_there_are_means_all(run_dir):
    assert len(em.explain(run_dir, samples=1000, methods=["grad-cam"]).explanation.target.question) == 70


def test_a_model_of_words_is_refused_with_one_message(trained, capsys):
    assert run(["explain", str(trained(**{"hparams.inputs": "tokens"}))]) == 2
    error = capsys.readouterr().err
    assert "got tokens (int32). Words and whole numbers" in error
    assert "Traceback" not in error


def test_an_unknown_class_is_refused_before_anything_is_written(run_dir):
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")}
    with pytest.raises(ExplainError, match="no class 'dto'. Expected one of nothing, dot, line. Did you mean"):
        em.explain(run_dir, class_name="dto")
    assert {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")} == before
