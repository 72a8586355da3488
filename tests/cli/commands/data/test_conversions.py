"""`experiments_manager data csv-to-coco` and `data coco-to-tfrecord`: what they print, and how they end."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments_manager.cli.main import run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Ten images with a box each, and the tables; the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    lines = ["image,class,xmin,ymin,xmax,ymax"]
    for number in range(10):
        Image.fromarray(np.full((20, 30, 3), 20 * number, np.uint8)).save(tmp_path / "images" / f"{number}.png")
        lines.append(f"{number}.png,cat,1,2,{number + 3},10")
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    (tmp_path / "classes.csv").write_text("name\ncat\n")
    return tmp_path


CSV_TO_COCO = ["data", "csv-to-coco", "boxes.csv", "classes.csv", "images", "coco"]
COCO_TO_TFRECORD = ["data", "coco-to-tfrecord", "coco", "images", "records"]


def test_a_table_of_boxes_becomes_records(folder, capfd):
    assert run([*CSV_TO_COCO, "--json"]) == 0
    printed = capfd.readouterr()
    splits = {"train": (8, 8), "validation": (1, 1), "test": (1, 1)}
    expected = {split: {"images": images, "boxes": boxes} for split, (images, boxes) in splits.items()}
    assert json.loads(printed.out) == {"output": "coco", "splits": expected}
    assert "train: 8 images, 8 boxes\nvalidation: 1 images, 1 boxes\n" in printed.err
    assert run([*COCO_TO_TFRECORD, "--shards", "2", "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")
    names = {file.name for file in (folder / "records").iterdir()}
    assert names == {
        "label_map.pbtxt",
        "test-00000-of-00001.tfrecord",
        "train-00000-of-00002.tfrecord",
        "train-00001-of-00002.tfrecord",
        "validation-00000-of-00001.tfrecord",
    }


def test_shares_and_seed_choose_the_splits(folder):
    assert run([*CSV_TO_COCO, "--split", "train=0.5", "--split", "test=0.5", "--seed", "3", "--quiet"]) == 0
    assert {file.name for file in (folder / "coco").iterdir()} == {"train.json", "test.json"}
    assert len(json.loads((folder / "coco" / "test.json").read_text())["images"]) == 5


def test_all_problems_are_printed_and_nothing_is_written(folder, capsys):
    with (folder / "boxes.csv").open("a") as table:
        table.write("\n0.png,cta,1,2,3,4\n1.png,cat,1,2,300,4\ngone.png,cat,1,2,3,4\n")
    assert run(CSV_TO_COCO) == 2
    error = capsys.readouterr().err
    for text in (
        "3 problems:",
        "line 12: class 'cta'",
        "line 13, image 1.png: box",
        "gone.png not found",
    ):
        assert text in error
    assert not (folder / "coco").exists()


@pytest.mark.parametrize("share", ["train", "train=most", "train=2", "=0.5"])
def test_shares_that_are_none_are_refused(folder, share, capsys):
    assert run([*CSV_TO_COCO, "--split", share]) == 2
    assert f"Invalid --split. Expected NAME=SHARE such as train=0.8, got {share}." in capsys.readouterr().err


def test_a_missing_coco_file_is_named(folder, capsys):
    assert run(COCO_TO_TFRECORD) == 2
    assert "coco: not found. Expected a COCO JSON file." in capsys.readouterr().err
