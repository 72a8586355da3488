"""The example of a folder of images for each class: trained in two stages, served, and asked."""

import keras
import numpy as np
import pytest
from PIL import Image

from experiments_manager import Client, load_settings
from experiments_manager.runs import open_run
from tests.helpers.modules import ROOT, load_file
from tests.helpers.running_servers import running_server

SETTINGS = ROOT / "examples" / "images" / "mysettings_specimens.py"
SCRIPT = load_file("examples/images/prepare_specimens.py")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images") / "pictures"
    SCRIPT.prepare_pictures(folder, {"flower": 12, "gear": 8, "leaf": 8, "star": 8})
    return folder


def test_there_are_pictures_of_different_sizes_in_a_folder_for_each_class(pictures):
    sizes = []
    for file in pictures.glob("*/*.jpg"):
        with Image.open(file) as image:
            sizes.append(image.size)
    assert len(sizes) == 36
    assert len(set(sizes)) > 30


def test_classes_with_fewer_pictures_weigh_more(pictures, tensorflow):
    weights = load_settings(SETTINGS, {"train_data_dir": str(pictures)}).call("class_weight")
    assert weights[0] < weights[1] == weights[3]


@pytest.mark.slow
def test_a_backbone_of_a_file_is_frozen_then_tuned_and_served(pictures, tmp_path):
    """With the first MobileNet, which has half the layers: tracing these is what takes time here."""
    import experiments_manager

    options = {"alpha": 0.25, "include_top": False, "pooling": "avg", "weights": None}
    net = keras.applications.MobileNet(input_shape=(32, 32, 3), **options)
    net.save_weights(tmp_path / "net.weights.h5")
    overrides = {
        "train_data_dir": str(pictures),
        "hparams.net": "MobileNet",
        "hparams.size": 32,
        "hparams.alpha": 0.25,
        "hparams.frozen_epochs": 1,
        "hparams_ext": {"weights": str(tmp_path / "net.weights.h5")},
        "epochs": 1,
        "tensorboard": False,
        "figures": False,
    }
    result = experiments_manager.train(SETTINGS, overrides=overrides, working_dir=tmp_path / "runs", quiet=True)
    run = open_run(result.run_dir)
    with (
        running_server([f"--model_base_path={run.exports_dir}", "--model_name=specimens"]) as server,
        Client(f"127.0.0.1:{server.grpc}", model="specimens") as client,
    ):
        answers = client.predict({"picture": np.zeros((2, 32, 32, 3), np.float32)})
    np.testing.assert_allclose(answers["classes"].sum(axis=-1), 1, rtol=1e-5)
