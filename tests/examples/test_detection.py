"""The example of detection, with few scenes and one epoch: trained, served and asked."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments_manager.cli.main import run
from experiments_manager.runs import open_run
from tests.helpers.modules import ROOT, load_file
from tests.helpers.running_servers import running_server

pytest.importorskip("pycocotools")
pytestmark = pytest.mark.slow

SETTINGS = ROOT / "examples" / "detection" / "mysettings_scenes.py"
SHORT = {"epochs": 1, "hparams.filters": 12, "batch_size": 4, "checkpoint_every_minutes": None, "tensorboard": False}


@pytest.fixture(scope="module")
def in_folder(tmp_path_factory):
    """A working directory with 60 scenes."""
    folder = tmp_path_factory.mktemp("detection")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        script = load_file("examples/detection/prepare_scenes.py")
        script.prepare_scenes(script.SCENES_DIR, scenes=60)
        yield folder


@pytest.fixture(scope="module")
def trained(in_folder, tensorflow):
    """The run, trained without interruption."""
    import experiments_manager

    result = experiments_manager.train(SETTINGS, overrides=SHORT, quiet=True)
    assert result.state == "finished"
    return open_run(result.run_dir)


@pytest.fixture(scope="module")
def server(trained):
    with running_server([f"--model_base_path={trained.path / 'exported_models'}", "--model_name=scenes"]) as server:
        yield server


def test_the_tables_name_what_was_drawn(in_folder):
    scenes = in_folder / "experiments" / "data" / "scenes"
    rows = (scenes / "annotations.csv").read_text().splitlines()
    images = {row.partition(",")[0] for row in rows[1:]}
    assert images == {file.name for file in (scenes / "images").iterdir()}
    sizes = {file.stem: len(json.loads(file.read_text())["images"]) for file in (scenes / "coco").iterdir()}
    assert sizes == {"train": 48, "validation": 6, "test": 6}


def test_boxes_just_hold_the_objects():
    script = load_file("examples/detection/prepare_scenes.py")
    for kind in range(3):
        for seed in range(10):
            image = Image.new("RGB", (script.SIDE, script.SIDE))
            mask = Image.new("L", image.size)
            script.draw_object(image, mask, 5, kind, (30, 40, 71, 77), np.random.default_rng(seed))
            assert image.getbbox() == mask.getbbox() == (30, 40, 71, 77)
            assert np.array_equal(np.asarray(mask), 5 * np.asarray(image).any(axis=-1))


def test_mirrored_images_keep_their_boxes():
    from experiments_manager import load_settings

    augment = load_settings(SETTINGS).experiment_settings.augment
    image = np.zeros((128, 128, 3), np.uint8)
    image[32:64, 16:48] = 200
    boxes = np.array([[0.25, 0.125, 0.5, 0.375, 1], [-1] * 5], np.float32)
    found = set()
    for seed in range(8):
        changed, (box, padding) = (part.numpy() for part in augment(image, boxes, np.array([5, seed], np.int64)))
        rows, columns = np.nonzero(changed[..., 0] > 150)
        corners = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
        assert np.allclose(box, [*np.array(corners) / 128, 1])
        assert padding[4] == -1
        found.add(corners[1])
    assert found == {16, 80}, "some are mirrored, and some are not"


def test_mirrored_images_keep_their_masks():
    from experiments_manager import load_settings

    augment = load_settings(SETTINGS, {"hparams.masks": True}).experiment_settings.augment
    image = np.zeros((128, 128, 3), np.uint8)
    image[32:64, 16:48] = 200
    mask = (image[::4, ::4, 0] > 0).astype(np.float32)
    rows = np.concatenate([[0.25, 0.125, 0.5, 0.375, 1], mask.ravel()])[np.newaxis].astype(np.float32)
    found = set()
    for seed in range(8):
        changed, (row,) = (part.numpy() for part in augment(image, rows, np.array([5, seed], np.int64)))
        assert np.array_equal(row[5:].reshape(32, 32), changed[::4, ::4, 0] > 150)
        found.add(row[1])
    assert len(found) == 2, "some are mirrored, and some are not"


def test_masks_are_an_option(in_folder, tensorflow):
    import experiments_manager

    result = experiments_manager.train(SETTINGS, overrides={**SHORT, "hparams.masks": True}, quiet=True)
    page = load_file("examples/detection/merit.py")
    figures = page.merit(result.run_dir)
    assert list(figures)[3:] == ["mask mAP@[.5:.95]", "mask mAP@.5", "mask mAP@.75"]
    assert {outputs["detection_masks"].shape for outputs in page.detections(result.run_dir).values()} == {(20, 28, 28)}


def test_the_client_draws_boxes_into_the_test_images(trained, server):
    address = f"127.0.0.1:{server.grpc}"
    assert run(["predict", str(trained.path), "--address", address, "--model-name", "scenes", "--quiet"]) == 0
    drawn = sorted((trained.path / "detections").iterdir())
    assert len(drawn) == 6
    with Image.open(drawn[0]) as image:
        assert image.size == (384, 384)


def test_served_boxes_have_the_names_of_the_object_detection_api(server, in_folder):
    from experiments_manager import Client

    file = in_folder / "experiments" / "data" / "scenes" / "images" / "scene_0000.jpg"
    with Client(f"127.0.0.1:{server.grpc}", model="scenes") as client:
        outputs = client.predict({"encoded_image_string_tensor": np.array([file.read_bytes()] * 2, dtype=object)})
    assert {name: value.shape for name, value in outputs.items()} == {
        "detection_boxes": (2, 20, 4),
        "detection_classes": (2, 20),
        "detection_scores": (2, 20),
        "num_detections": (2,),
    }


def test_the_merit_is_measured_and_drawn(trained, in_folder):
    page = load_file("examples/detection/merit.py")
    figures = page.merit(trained.path)
    assert list(figures) == ["mAP@[.5:.95]", "mAP@.5", "mAP@.75"]
    assert all(0 <= value <= 1 for value in figures.values())
    page.draw(trained.path, in_folder / "detection.png")
    assert (in_folder / "detection.png").stat().st_size > 10_000
