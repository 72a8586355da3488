"""TFRecord files of the TensorFlow object detection API, read as a `tf.data` pipeline of images, boxes and masks."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments_manager.common.tables.problems import DataFileError, Problems
from experiments_manager.data.detection.pbtxt_label_maps import LABEL_MAP, read_label_map

if TYPE_CHECKING:
    import tensorflow as tf

_SIDES = ("ymin", "xmin", "ymax", "xmax")
_BOXES = [f"image/object/bbox/{side}" for side in _SIDES]
_LABEL, _CROWD = "image/object/class/label", "image/object/is_crowd"
_ENCODED, _NAME, _MASK = "image/encoded", "image/filename", "image/object/mask"


def read_detection_records(
    folder: Path | str,
    split: str,
    *,
    image_size: tuple[int, int],
    max_boxes: int,
    mask_size: tuple[int, int] | None = None,
    shuffle_buffer: int = 0,
) -> tf.data.Dataset:
    """Read images and boxes of one split.

    The order is that of the files, or, with a `shuffle_buffer`, one that follows from TensorFlow's seed, which the
    engine sets from the run's seed and the epoch before it calls `dataset`.

    Args:
        folder: Holds `<split>*.tfrecord` and `label_map.pbtxt`, as `coco_to_tfrecord` writes them.
        split: Name of the split.
        image_size: Height and width that all images are resized to.
        max_boxes: Boxes that an image may have; those of crowds do not count.
        mask_size: Height and width that the masks of the objects are resized to, each of the whole image; without, none
            are read.
        shuffle_buffer: Images, as they are stored, among which the next one is drawn; 0 keeps the order.

    Returns:
        Images `uint8 [height, width, 3]` and boxes `float32 [max_boxes, 5]`: ymin, xmin, ymax and xmax in parts of the
        image, and the class, an index into the sorted ids of the label map; -1 where there is no box. Boxes of crowds
        are left out. With a `mask_size`, each box is followed by its mask, row by row, as the part of each cell that
        the object covers: `float32 [max_boxes, 5 + height * width]`, 0 where there is no box.

    Raises:
        DataFileError: Files are missing or damaged, or hold what is none of the above; the message lists all of it.
    """
    import tensorflow as tf

    folder = Path(folder)
    ids = sorted(read_label_map(folder / LABEL_MAP))
    files, problems = _files(folder, split), Problems()
    count = 0
    for file in files:
        size, changed = file.stat().st_size, file.stat().st_mtime_ns
        found, texts = _inspected(file, size, changed, tuple(ids), max_boxes, mask_size is not None)
        count += found
        for text in texts:
            problems.add(file, text)
    problems.refuse()

    records = tf.data.TFRecordDataset([str(file) for file in files])
    records = records.apply(tf.data.experimental.assert_cardinality(count))
    if shuffle_buffer:
        records = records.shuffle(min(shuffle_buffer, count))
    read = functools.partial(_sample, ids=ids, image_size=image_size, max_boxes=max_boxes, mask_size=mask_size)
    return records.map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def read_encoded_images(folder: Path | str, split: str) -> Iterator[tuple[str, bytes]]:
    """Give the file name and the bytes of each image of a split, as they are stored.

    Args:
        folder: Holds `<split>*.tfrecord`.
        split: Name of the split.

    Raises:
        DataFileError: There is no such file.
    """
    import tensorflow as tf

    features = {name: tf.io.FixedLenFeature([], tf.string, default_value="") for name in (_NAME, _ENCODED)}
    for record in tf.data.TFRecordDataset([str(file) for file in _files(Path(folder), split)]):
        example = tf.io.parse_single_example(record, features)
        yield example[_NAME].numpy().decode(), example[_ENCODED].numpy()


def _files(folder: Path, split: str) -> list[Path]:
    files = sorted(folder.glob(f"{split}-*-of-*.tfrecord")) or sorted(folder.glob(f"{split}*.tfrecord"))
    if not files:
        text = f"there is no file {split}*.tfrecord. Expected some, as `data coco-to-tfrecord` writes them."
        raise DataFileError(f"{folder}: {text}")
    return files


def decoded_image(encoded: tf.Tensor, image_size: tuple[int, int]) -> tf.Tensor:
    """Return an image as a detector sees it, `uint8 [height, width, 3]`; training and serving decode in this one way.

    Args:
        encoded: A whole JPEG, PNG, GIF or BMP file. Nothing at all gives a black image: servers warm a model up so.
        image_size: Height and width to resize to (bilinear, antialiased).
    """
    import tensorflow as tf

    height, width = image_size

    def decode() -> tf.Tensor:
        image = tf.io.decode_image(encoded, 3, expand_animations=False)
        has_size = tf.reduce_all(tf.equal(tf.shape(image)[:2], image_size))
        return tf.cond(has_size, lambda: image, lambda: resized(image))

    def resized(image: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.round(tf.image.resize(image, image_size, antialias=True)), tf.uint8)

    black = tf.zeros([height, width, 3], tf.uint8)
    return tf.ensure_shape(tf.cond(tf.strings.length(encoded) > 0, decode, lambda: black), [height, width, 3])


def _sample(
    record: tf.Tensor,
    ids: Sequence[int],
    image_size: tuple[int, int],
    max_boxes: int,
    mask_size: tuple[int, int] | None,
) -> Any:
    import tensorflow as tf

    example = tf.io.parse_single_example(record, {_ENCODED: tf.io.FixedLenFeature([], tf.string), **_features()})
    boxes, labels, crowd = _objects(example)
    classes = tf.argmax(tf.equal(labels[:, None], tf.constant(ids, tf.int64)), axis=1)
    rows = tf.concat([boxes, tf.cast(classes, tf.float32)[:, None]], axis=1)
    rows = tf.boolean_mask(rows, crowd == 0)
    missing = [[0, max_boxes - tf.shape(rows)[0]], [0, 0]]
    rows = tf.ensure_shape(tf.pad(rows, missing, constant_values=-1), [max_boxes, 5])
    if mask_size is not None:
        masks = tf.boolean_mask(_covered(example[_MASK], mask_size), crowd == 0)
        masks = tf.ensure_shape(tf.pad(masks, missing), [max_boxes, mask_size[0] * mask_size[1]])
        rows = tf.concat([rows, masks], axis=1)
    return decoded_image(example[_ENCODED], image_size), rows


def _covered(encoded: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Decode masks, and return which part of each cell an object covers, `float32 [masks, height * width]`."""
    import tensorflow as tf

    def of_one(mask: tf.Tensor) -> tf.Tensor:
        pixels = tf.cast(tf.io.decode_png(mask, channels=1) > 0, tf.float32)
        return tf.reshape(tf.image.resize(pixels, size, "area"), [size[0] * size[1]])

    return tf.map_fn(of_one, encoded, fn_output_signature=tf.TensorSpec([size[0] * size[1]], tf.float32))


def _features() -> dict[str, Any]:
    import tensorflow as tf

    integers = {name: tf.io.RaggedFeature(tf.int64) for name in (_LABEL, _CROWD)}
    floats = {name: tf.io.RaggedFeature(tf.float32) for name in _BOXES}
    return {**floats, **integers, _MASK: tf.io.RaggedFeature(tf.string)}


def _objects(example: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Return boxes, labels, and which are crowds, where the record says so."""
    import tensorflow as tf

    boxes = tf.stack([example[name] for name in _BOXES], axis=1)
    crowd = example[_CROWD]
    return boxes, example[_LABEL], tf.cond(tf.size(crowd) > 0, lambda: crowd, lambda: tf.zeros_like(example[_LABEL]))


@functools.lru_cache(maxsize=4096)
def _inspected(
    file: Path, size: int, changed: int, ids: tuple[int, ...], max_boxes: int, masks: bool
) -> tuple[int, list[str]]:
    """Read a file once: return how many images it has, and what is wrong with it."""
    import tensorflow as tf

    texts: list[str] = []
    boxes: list[int] = []
    try:
        for record in tf.data.TFRecordDataset(str(file)).prefetch(16).as_numpy_iterator():
            found, problems = _inspected_record(record, ids, masks)
            boxes.append(found)
            texts += [f"record {len(boxes)}: {problem}" for problem in problems]
    except tf.errors.OpError:
        texts.append(f"it is damaged after record {len(boxes)}. Copy or convert it again.")
    if crowded := sum(number > max_boxes for number in boxes):
        text = f"images with more boxes than {max_boxes}: {crowded}, with up to {max(boxes)}. Raise `max_boxes`."
        texts.append(text)
    if not boxes and not texts:
        texts.append("it holds no records. Convert it again.")
    return len(boxes), texts


def _inspected_record(record: bytes, ids: tuple[int, ...], masks: bool) -> tuple[int, list[str]]:
    """Return how many boxes a record has that are no crowds, and what is wrong with it."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        features = tf.train.Example.FromString(record).features.feature
    except DecodeError:
        return 0, ["it is no tf.train.Example. Expected one of an image."]
    sides = [list(features[name].float_list.value) for name in _BOXES]
    labels = list(features[_LABEL].int64_list.value)
    crowd = list(features[_CROWD].int64_list.value)
    if not any(features[_ENCODED].bytes_list.value):
        return 0, [f"it has no {_ENCODED}. Expected an encoded image."]
    if {len(side) for side in sides} != {len(labels)} or len(crowd) not in (0, len(labels)):
        return 0, ["the sides of its boxes and its labels differ in number. Expected one of each for a box."]
    texts = _problems_of_masks(features[_MASK].bytes_list.value, len(labels)) if masks else []
    for ymin, xmin, ymax, xmax in zip(*sides, strict=True):
        if not (0 <= ymin < ymax <= 1 + 1e-6 and 0 <= xmin < xmax <= 1 + 1e-6):  # which NaN is not
            shown = f"y {ymin:g} to {ymax:g}, x {xmin:g} to {xmax:g}"
            texts.append(f"the box {shown} is no box inside the image. Expected parts of the image from 0 to 1.")
    if unknown := sorted(set(labels) - set(ids)):
        texts.append(f"labels {unknown} are not in {LABEL_MAP}. Expected some of {list(ids)[:20]}.")
    return len(labels) - sum(each != 0 for each in crowd), texts


def _problems_of_masks(encoded: Sequence[bytes], boxes: int) -> list[str]:
    if len(encoded) != boxes:
        return [f"it has {len(encoded)} masks. Expected {boxes}, one a box. Convert it with masks, or read none."]
    if not all(mask.startswith(b"\x89PNG") for mask in encoded):
        return ["a mask is no PNG. Expected PNG, as `data coco-to-tfrecord --masks` writes them."]
    return []
