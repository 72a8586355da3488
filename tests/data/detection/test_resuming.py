"""A training on TFRecord files, shuffled and augmented, that is interrupted within an epoch."""

import textwrap

import numpy as np
import pytest
from PIL import Image

from experiments_manager.data.detection import coco_to_tfrecord, csv_to_coco

pytestmark = pytest.mark.slow

SETTINGS = """
import keras
import tensorflow as tf
from experiments_manager.data.detection import read_detection_records
from experiments_manager.models.detection import DetectionLoss, detection_head, residual_encoder

session_name = "boxes"
train_data_dir = "records"
epochs, learning_rate, batch_size, loss = 2, 0.01, 2, DetectionLoss()
export, tensorboard, figures, checkpoint_every_minutes = False, False, False, None

def dataset(split, data_dir, batch_size):
    if split != "train":
        return None
    options = {"image_size": (16, 16), "max_boxes": 2, "shuffle_buffer": 8}
    return read_detection_records(data_dir, split, **options).batch(batch_size, drop_remainder=True)

def augment(x, y, seed):
    shift = tf.random.stateless_uniform([], seed, -30.0, 30.0)
    return tf.cast(tf.clip_by_value(tf.cast(x, tf.float32) + shift, 0, 255), tf.uint8), y

def model():
    image = keras.Input((16, 16, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 127.5, -1)(image)
    return keras.Model(image, detection_head(residual_encoder(x, (4, 4))[-1], 1, filters=4))
"""


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """The settings, with twelve images as TFRecord files beside them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    lines = ["image,class,xmin,ymin,xmax,ymax"]
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
        lines.append(f"{number}.png,cat,1,2,{number + 9},10")
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    (tmp_path / "classes.csv").write_text("name\ncat\n")
    csv_to_coco("boxes.csv", "classes.csv", "images", "coco", shares={"train": 1.0})
    coco_to_tfrecord("coco", "images", "records", shards=2)
    file = tmp_path / "mysettings_boxes.py"
    file.write_text(textwrap.dedent(SETTINGS))
    return file


def test_it_ends_with_the_same_bits(settings, resume, same_bits, recorder, tensorflow):
    from experiments_manager.runs import open_run
    from experiments_manager.settings import load_settings
    from experiments_manager.training.engine.chunks import ChunkSize
    from experiments_manager.training.engine.context import RunOptions
    from experiments_manager.training.engine.runner import start_run
    from experiments_manager.training.state.checkpoints import read_latest

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ChunkSize, "steps", lambda self, at_most: 1)  # so that it can be interrupted anywhere
        whole = start_run(load_settings(settings))
        stopped = start_run(
            load_settings(settings),
            RunOptions(
                make_watchers=lambda run, settings: [recorder],
                should_stop=lambda: bool(recorder.steps) and recorder.steps[-1] >= 9,
            ),
        )
    assert (stopped.state, recorder.steps[-1]) == ("interrupted", 9), "in the second of two epochs of six steps"
    ended = resume(stopped.run_dir)
    assert ended.result.state == "finished"
    state = read_latest(open_run(whole.run_dir).checkpoints_dir)[1]
    assert same_bits(ended.tensors, {name: value.numpy() for name, value in state.tensors.items()}) == []
