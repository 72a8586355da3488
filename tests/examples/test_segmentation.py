"""The example of segmentation, with small scenes: trained, killed and resumed, served, and asked by its client."""

import numpy as np
import pytest
from PIL import Image

from experiments_manager.cli.main import run
from experiments_manager.runs import open_run
from tests.helpers.modules import ROOT, load_file
from tests.helpers.running_servers import running_server

pytest.importorskip("skimage")
pytest.importorskip("tifffile")
TINY = """
import keras

from experiments_manager.models.segmentation import class_map


def model(class_names):
    image = keras.Input((64, 64, 3), name="image")
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    return keras.Model(image, class_map(x, len(class_names), scale=2))
"""
SETTINGS = ROOT / "examples" / "segmentation" / "mysettings_materials.py"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmentation") / "scenes"
    script = load_file("examples/segmentation/prepare_materials.py")
    script.prepare_scenes(folder, scenes={"train": 3, "validation": 1, "test": 2}, size=(120, 150))
    return folder


@pytest.fixture(scope="module")
def short(scenes):
    return {
        "train_data_dir": str(scenes),
        "epochs": 1,
        "steps_per_epoch": 4,
        "batch_size": 2,
        "hparams.size": 64,
        "hparams.overlap": 16,
        "model_file": "model_densenet.py",
        "tensorboard": False,
    }


@pytest.fixture(scope="module")
def trained(short, tmp_path_factory, tensorflow):
    import experiments_manager

    result = experiments_manager.train(
        SETTINGS, overrides=short, working_dir=tmp_path_factory.mktemp("runs"), quiet=True
    )
    assert result.state == "finished"
    return open_run(result.run_dir)


def test_scenes_hold_all_classes_and_pixels_to_ignore(scenes):
    for split in ("train", "validation", "test"):
        found = set()
        for file in (scenes / split / "labels").iterdir():
            with Image.open(file) as labels:
                found |= set(np.unique(np.asarray(labels)).tolist())
        assert found == {0, 1, 2, 3, 255}


def test_the_splits_lie_on_other_photographs():
    photographs = load_file("examples/segmentation/prepare_materials.py").PHOTOGRAPHS
    names = [name for split in photographs.values() for name in split]
    assert len(names) == len(set(names))


@pytest.mark.slow
def test_it_is_served_and_its_client_writes_label_maps(trained, scenes, capsys):
    with running_server([f"--model_base_path={trained.path / 'exported_models'}", "--model_name=materials"]) as server:
        given = ["--address", f"127.0.0.1:{server.grpc}", "--model-name", "materials", "--quiet"]
        assert run(["predict", str(trained.path), *given]) == 0
    assert "mean IoU 0." in capsys.readouterr().out
    for file in (scenes / "test" / "labels").iterdir():
        with Image.open(trained.path / "label_maps" / file.name) as image:
            assert (image.size, image.mode) == ((150, 120), "P")


@pytest.mark.slow
def test_a_run_that_was_interrupted_ends_with_the_same_bits(short, tmp_path, resume, same_bits, recorder):
    """The same crops, that is; so a net that is traced in no time will do."""
    import experiments_manager
    from experiments_manager.settings import load_settings
    from experiments_manager.training.engine.context import RunOptions
    from experiments_manager.training.engine.runner import start_run
    from experiments_manager.training.state.checkpoints import read_latest

    def stop():
        return bool(recorder.steps) and recorder.steps[-1] >= 2

    (tmp_path / "tiny.py").write_text(TINY)
    overrides = short | {"model_file": str(tmp_path / "tiny.py"), "export": False}
    whole = experiments_manager.train(SETTINGS, overrides=overrides, working_dir=tmp_path / "whole", quiet=True)
    stopped = start_run(
        load_settings(SETTINGS, overrides),
        RunOptions(make_watchers=lambda run, settings: [recorder], should_stop=stop),
        working_dir=tmp_path,
    )
    assert (stopped.state, 2 <= recorder.steps[-1] < 4) == ("interrupted", True)
    ended = resume(stopped.run_dir)
    assert ended.result.state == "finished"
    assert ended.run.manifest["data_position"] == "indexed"
    state = read_latest(open_run(whole.run_dir).checkpoints_dir)[1]
    assert same_bits(ended.tensors, {name: value.numpy() for name, value in state.tensors.items()}) == []
