"""Objects in scenes: boxes from a CSV file, by COCO JSON and TFRecord, to a detector that is trained from scratch.

experiments_manager train examples/detection/mysettings_scenes.py
experiments_manager train examples/detection/mysettings_scenes.py --set train_data_dir=records/
experiments_manager train examples/detection/mysettings_scenes.py --set hparams.masks=true    # boxes and masks
experiments_manager predict RUN                                # draws them; RUN is served by `serve RUN`

A small anchor-free net says for each cell of 8 x 8 pixels which object has its middle there, and where its sides are.
With masks, it also says how to mix the object's mask of shapes that all objects of the image share. It is served under
the names of the TensorFlow object detection API: encoded images in, boxes and masks out.
"""

import io
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image
from prepare_scenes import SCENES_DIR, prepare_scenes

from experiments_manager.data.detection import (
    draw_detections,
    read_detection_records,
    read_encoded_images,
    read_label_map,
)
from experiments_manager.models.detection import (
    DetectionLoss,
    ServedDetector,
    detection_head,
    mask_prototypes,
    residual_encoder,
    top_down,
)

session_name = "scenes"
train_data_dir = str(SCENES_DIR / "records")  # TFRecord files and a label map
validation_data_dir = test_data_dir = train_data_dir
hparams = {"side": 128, "filters": 48, "max_boxes": 10, "learning_rate": 0.002, "masks": False}
side, max_boxes = hparams["side"], hparams["max_boxes"]
mask_size = (side // 4, side // 4) if hparams["masks"] else None
prototypes = 12 if hparams["masks"] else 0

epochs = 14
batch_size = 16
loss = DetectionLoss(prototypes=prototypes)
embeddings = []


def prepare_datasets():
    """Draws the scenes and converts them, where they are missing."""
    if Path(train_data_dir).parent == SCENES_DIR:
        prepare_scenes()


def dataset(split, data_dir, batch_size):
    """Images uint8 [n, 128, 128, 3] and boxes [n, 10, 5]: ymin, xmin, ymax, xmax in parts of the image, and class.

    With masks, [n, 10, 5 + 32 * 32].
    """
    options = {"image_size": (side, side), "max_boxes": max_boxes, "mask_size": mask_size}
    samples = read_detection_records(data_dir, split, shuffle_buffer=4096 if split == "train" else 0, **options)
    return samples.batch(batch_size, drop_remainder=split == "train").prefetch(2)


def augment(x, y, seed):
    """Mirrors an image with its boxes and masks, and changes its brightness."""
    ymin, xmin, ymax, xmax, kind = tf.unstack(y[:, :5], axis=1)
    mirrored = tf.stack([ymin, 1 - xmax, ymax, 1 - xmin, kind], axis=1)
    if mask_size:
        masks = tf.reshape(y[:, 5:], [-1, *mask_size])[..., ::-1]
        mirrored = tf.concat([mirrored, tf.reshape(masks, tf.shape(y[:, 5:]))], axis=1)
    flip = tf.random.stateless_uniform([], seed) < 0.5
    x = tf.where(flip, x[:, ::-1], x)
    shift = tf.random.stateless_uniform([], seed + 1, -30.0, 30.0)
    x = tf.cast(tf.clip_by_value(tf.cast(x, tf.float32) + shift, 0, 255), tf.uint8)
    return x, tf.where(flip, mirrored, y)


def learning_rate(steps_per_epoch):
    """Falls from its first value to nothing along a cosine."""
    return keras.optimizers.schedules.CosineDecay(hparams["learning_rate"], epochs * steps_per_epoch)


def model(hparams):
    """Five stages down to cells of 32 pixels, back up to 8, and a head for class, box and mask."""
    filters = hparams["filters"]
    image = keras.Input((side, side, 3), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 127.5, -1)(image)
    stages = residual_encoder(x, (filters // 3, filters // 2, filters, 4 * filters // 3, 4 * filters // 3))
    x = top_down(stages[2:], filters)
    shapes = mask_prototypes(x, stages[1], prototypes, filters=filters // 2) if prototypes else None
    return keras.Model(image, detection_head(x, len(label_map()), filters=filters, prototypes=shapes))


def serving(model):
    """Encoded images of any size to boxes, scores and classes, and masks."""
    return ServedDetector(model, sorted(label_map()), max_boxes=20)


def label_map():
    """Names of the classes by their ids."""
    return read_label_map(Path(train_data_dir) / "label_map.pbtxt")


class client:
    """Sends test images as they are stored, and writes them with what was found to `detections/` of the run."""

    def __init__(self, options):
        prepare_datasets()
        self.names, self.output, self.count = label_map(), Path(options["run"]) / "detections", 0
        self.output.mkdir(exist_ok=True)

    def requests(self):
        for _, encoded in read_encoded_images(test_data_dir, "test"):
            yield {"encoded_image_string_tensor": np.array([encoded], dtype=object)}

    def on_response(self, request, outputs):
        image = Image.open(io.BytesIO(request["encoded_image_string_tensor"][0]))
        found = {name: values[0] for name, values in outputs.items()}
        drawn = draw_detections(image.resize((384, 384)), found, self.names)
        drawn.save(self.output / f"{self.count:04d}.png")
        self.count += 1
