"""COCO JSON to TFRecord, and TFRecord to arrays."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments_manager.data import DataFileError
from experiments_manager.data.detection import (
    SplitSummary,
    coco_to_tfrecord,
    csv_to_coco,
    read_detection_records,
    read_encoded_images,
    read_label_map,
    tfrecords,
)

pytestmark = pytest.mark.usefixtures("tensorflow")


@pytest.fixture
def folder(write):
    """The data set, with its COCO JSON."""
    folder = write()
    tables = (folder / "annotations.csv", folder / "categories.csv")
    csv_to_coco(*tables, folder / "images", folder / "coco", shares={"train": 1.0})
    return folder


def convert(folder, **options):
    return coco_to_tfrecord(folder / "coco", folder / "images", folder / "records", **options)


def edit(folder, change):
    """Changes the COCO JSON."""
    file = folder / "coco" / "train.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def refusal(folder):
    with pytest.raises(DataFileError) as caught:
        convert(folder)
    assert not (folder / "records").exists()
    assert list(folder.glob(".*")) == []
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def read(folder, **options):
    options = {"image_size": (30, 40), "max_boxes": 3, **options}
    return list(read_detection_records(folder / "records", "train", **options).as_numpy_iterator())


def test_an_area_that_is_null_is_that_of_the_box(folder, tensorflow):
    edit(folder, lambda content: content["annotations"][0].update(area=None, iscrowd=None))
    convert(folder)
    [file] = (folder / "records").glob("*.tfrecord")
    record = next(iter(tensorflow.data.TFRecordDataset(str(file)).as_numpy_iterator()))
    features = tensorflow.train.Example.FromString(record).features.feature
    assert list(features["image/object/area"].float_list.value) == [18 * 26, 30 * 20]
    assert list(features["image/object/is_crowd"].int64_list.value) == [0, 0]


def test_records_have_the_keys_of_the_object_detection_api(folder, tensorflow):
    assert convert(folder) == {"train": SplitSummary(3, 3)}
    [file] = (folder / "records").glob("*.tfrecord")
    assert file.name == "train-00000-of-00001.tfrecord"
    first = next(iter(tensorflow.data.TFRecordDataset(str(file)))).numpy()
    features = tensorflow.train.Example.FromString(first).features.feature
    assert features["image/encoded"].bytes_list.value[0] == (folder / "images" / "a.jpg").read_bytes()
    texts = {name: list(features[name].bytes_list.value) for name in features if features[name].HasField("bytes_list")}
    assert texts["image/format"] == [b"jpeg"]
    assert texts["image/filename"] == [b"a.jpg"]
    assert texts["image/source_id"] == [b"1"]
    assert texts["image/object/class/text"] == [b"cat", b"dog"]
    integers = {name: list(features[name].int64_list.value) for name in features}
    assert (integers["image/height"], integers["image/width"]) == ([30], [40])
    assert integers["image/object/class/label"] == [1, 2]
    sides = [list(features[f"image/object/bbox/{side}"].float_list.value) for side in ("xmin", "ymin", "xmax", "ymax")]
    assert np.allclose(sides, [[2 / 40, 10 / 40], [4 / 30, 0], [20 / 40, 1], [1, 20 / 30]])


def test_what_was_written_is_read(folder):
    convert(folder)
    (image, boxes), (_, more), (_, none) = read(folder)
    assert (image.shape, image.dtype) == ((30, 40, 3), np.uint8)
    with Image.open(folder / "images" / "a.jpg") as original:
        assert np.abs(image.astype(int) - np.asarray(original)).mean() < 2
    assert np.allclose(boxes, [[4 / 30, 2 / 40, 1, 0.5, 0], [0, 0.25, 2 / 3, 1, 1], [-1] * 5])
    assert np.allclose(more[0], [0, 0, 1, 1, 1])
    assert (none == -1).all()
    assert [name for name, _ in read_encoded_images(folder / "records", "train")] == ["a.jpg", "b.png", "c.png"]


def test_ids_with_gaps_become_indices(folder):
    def renumber(content):
        content["categories"] = [{"id": 7, "name": "cat"}, {"id": 90, "name": "dog"}]
        for annotation in content["annotations"]:
            annotation["category_id"] = {1: 7, 2: 90}[annotation["category_id"]]

    edit(folder, renumber)
    convert(folder)
    assert read_label_map(folder / "records" / "label_map.pbtxt") == {7: "cat", 90: "dog"}
    assert read(folder)[0][1][:, 4].tolist() == [0, 1, -1]


def test_crowds_are_stored_but_not_trained_on(folder):
    edit(folder, lambda content: content["annotations"][0].update(iscrowd=1))
    convert(folder)
    assert read(folder)[0][1][:, 4].tolist() == [1, -1, -1]
    assert read(folder, max_boxes=1)[0][1][:, 4].tolist() == [1], "they need no room either"


def test_shards_hold_all_images_in_their_order(folder):
    convert(folder, shards=2)
    assert len(list((folder / "records").glob("train-0000?-of-00002.tfrecord"))) == 2
    assert [boxes[0, 4] for _, boxes in read(folder)] == [0, 1, -1]


@pytest.mark.parametrize("mode", ["1", "P", "RGB"])
def test_bmp_of_all_kinds_keeps_its_colours(folder, mode):
    with Image.open(folder / "images" / "b.png") as image:
        image.convert(mode).save(folder / "images" / "b.bmp")
    edit(folder, lambda content: content["images"][1].update(file_name="b.bmp"))
    convert(folder)
    with Image.open(folder / "images" / "b.bmp") as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read(folder, image_size=(24, 32))[1][0], expected)


def test_formats_that_tensorflow_cannot_decode_are_stored_as_png(folder):
    with Image.open(folder / "images" / "b.png") as image:
        image.save(folder / "images" / "b.tif")
    edit(folder, lambda content: content["images"][1].update(file_name="b.tif"))
    convert(folder)
    encoded = dict(read_encoded_images(folder / "records", "train"))
    assert encoded["b.tif"].startswith(b"\x89PNG")


def test_a_seed_gives_an_order(folder, tensorflow):
    convert(folder)

    def order(seed):
        tensorflow.random.set_seed(seed)
        return [boxes[:, 4].tolist() for _, boxes in read(folder, shuffle_buffer=10)]

    assert order(1) == order(1)
    assert len({str(order(seed)) for seed in range(6)}) > 1


def test_progress_is_told_of_reading_and_writing(folder):
    told = []
    convert(folder, progress=lambda *given: told.append(given))
    assert told == [(what, number, 3) for what in ("images read", "train images written") for number in (1, 2, 3)]


def test_all_that_is_wrong_is_told_at_once(folder):
    def spoil(content):
        content["annotations"][0]["category_id"] = 5
        content["annotations"][1]["bbox"] = [10, 0, 31, 20]
        content["annotations"][2]["image_id"] = 8
        content["annotations"] += [
            {"id": 4, "image_id": 1, "category_id": 1, "bbox": [1, 1, float("nan"), 2]},
            {"id": 4, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2]},
            {"id": 5, "image_id": 1},
        ]
        content["images"][1]["width"] = 33

    edit(folder, spoil)
    (folder / "images" / "a.jpg").unlink()
    (folder / "images" / "c.png").write_bytes(b"no image")
    lines = refusal(folder)
    expected = [
        "annotations entry 5: id 4 is there twice",
        "annotations entry 6: category_id, bbox is missing",
        "annotation 1, image a.jpg: category_id 5 is unknown. Expected one of 1 (cat), 2 (dog).",
        "annotation 2, image a.jpg: box x 10 to 41, y 0 to 20 lies outside of the image, which is 40 x 30 pixels.",
        "annotation 3: image_id 8 is none of the images.",
        "annotation 4, image a.jpg: bbox [1, 1, nan, 2] is no box.",
        "image 1: file images/a.jpg not found.",
        "image 2: b.png is 32 x 24 pixels. Expected 33 x 24, as the entry says.",
        "image 3: file images/c.png cannot be decoded",
    ]
    assert lines[0] == f"{len(expected)} problems:"
    for line, text in zip(lines[1:], expected, strict=True):
        assert line.startswith(f"coco/train.json, {text}"), line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "it cannot be read: Expecting property name"),
        (b'{"images": [], "annotations": []}', "it is no COCO file."),
        (b'{"images": [], "annotations": [], "categories": []}', "it has no images or no categories."),
        ('{"näme": 1}'.encode("latin-1"), "line 1: it is not UTF-8."),
    ],
)
def test_files_that_are_no_coco_json_are_refused(folder, content, message):
    (folder / "coco" / "train.json").write_bytes(content)
    assert any(message in line for line in refusal(folder))


@pytest.mark.parametrize(
    ("given", "said"), [({"area": "large"}, "area 'large' is no number"), ({"iscrowd": "no"}, "iscrowd is 'no'")]
)
def test_areas_and_crowds_that_are_none_are_refused(folder, given, said):
    edit(folder, lambda content: content["annotations"][0].update(given))
    assert [said in line for line in refusal(folder)] == [True]


def test_missing_and_empty_folders_are_refused(folder):
    (folder / "images").rename(folder / "pictures")
    assert refusal(folder) == ["images: not found. Expected the folder of the images."]
    (folder / "coco" / "train.json").unlink()
    assert refusal(folder) == ["coco holds no JSON files. Expected a COCO JSON file for each split."]


def test_an_image_in_two_splits_is_refused(folder):
    (folder / "coco" / "test.json").write_bytes((folder / "coco" / "train.json").read_bytes())
    assert any("image a.jpg is in coco/test.json too" in line for line in refusal(folder))


def test_a_write_that_fails_leaves_nothing(folder, monkeypatch):
    before = sorted(folder.rglob("*"))
    monkeypatch.setattr(tfrecords, "encoded_image", lambda path: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        convert(folder)
    assert sorted(folder.rglob("*")) == before


def test_ctrl_c_while_images_are_written_leaves_nothing(folder):
    before = sorted(folder.rglob("*"))

    def interrupt(what, done, total):
        if what == "train images written":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(folder, progress=interrupt)
    assert sorted(folder.rglob("*")) == before


def spoilt_records(folder, tensorflow, **changes):
    """Writes a record whose features differ from what they should be."""
    train = tensorflow.train
    floats = {
        f"image/object/bbox/{side}": [0.1 if side.endswith("min") else 0.9] for side in ("xmin", "xmax", "ymin", "ymax")
    }
    floats |= {f"image/object/bbox/{side}": value for side, value in changes.items() if side in ("xmin", "ymax")}
    features = {name: train.Feature(float_list=train.FloatList(value=value)) for name, value in floats.items()}
    labels = train.Int64List(value=changes.get("labels", [1]))
    features["image/object/class/label"] = train.Feature(int64_list=labels)
    features["image/encoded"] = train.Feature(bytes_list=train.BytesList(value=changes.get("encoded", [b"image"])))
    example = train.Example(features=train.Features(feature=features))
    file = folder / "records" / "train-00000-of-00001.tfrecord"
    with tensorflow.io.TFRecordWriter(str(file)) as writer:
        writer.write(example.SerializeToString())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"xmin": [float("nan")]}, "record 1: the box y 0.1 to 0.9, x nan to 0.9 is no box inside the image."),
        ({"ymax": [1.5]}, "record 1: the box y 0.1 to 1.5, x 0.1 to 0.9 is no box inside the image."),
        ({"xmin": [0.1, 0.1]}, "record 1: the sides of its boxes and its labels differ in number."),
        ({"labels": [3]}, "record 1: labels [3] are not in label_map.pbtxt. Expected some of [1, 2]."),
        ({"encoded": []}, "record 1: it has no image/encoded."),
        ({"encoded": [b""]}, "record 1: it has no image/encoded."),
    ],
)
def test_records_of_other_programs_are_checked(folder, tensorflow, changes, message):
    convert(folder)
    spoilt_records(folder, tensorflow, **changes)
    with pytest.raises(DataFileError) as caught:
        read(folder)
    assert message in str(caught.value)


def test_records_of_something_else_are_refused(folder, tensorflow):
    convert(folder)
    with tensorflow.io.TFRecordWriter(str(folder / "records" / "train-00000-of-00001.tfrecord")) as writer:
        writer.write(b"\xffno example")
    with pytest.raises(DataFileError, match=r"record 1: it is no tf.train.Example"):
        read(folder)


def test_damaged_files_and_too_many_boxes_are_told_before_training(folder):
    convert(folder, shards=3)
    [first, second, _] = sorted((folder / "records").glob("*.tfrecord"))
    second.write_bytes(second.read_bytes()[:-3])
    with pytest.raises(DataFileError) as caught:
        read(folder, max_boxes=1)
    assert f"{first}: images with more boxes than 1: 1, with up to 2. Raise `max_boxes`." in str(caught.value)
    assert f"{second}: it is damaged after record 0." in str(caught.value)


def test_a_split_that_is_missing_is_refused(folder):
    convert(folder)
    with pytest.raises(DataFileError, match="there is no file test\\*.tfrecord"):
        read_detection_records(folder / "records", "test", image_size=(8, 8), max_boxes=1)


@pytest.fixture
def masked(folder):
    """The data set with segmentations: polygons, run lengths, and a crowd."""

    def add(content):
        square = [[4, 6, 18, 6, 18, 26, 4, 26]]
        content["annotations"][0].update(segmentation=square)
        content["annotations"][1].update(segmentation={"size": [30, 40], "counts": [600, 20, 580]}, iscrowd=1)
        content["annotations"][2].update(segmentation={"size": [24, 32], "counts": [0, 768]})

    edit(folder, add)
    return folder


def test_masks_are_written_as_the_object_detection_api_has_them(masked, tensorflow):
    convert(masked, masks=True)
    [file] = (masked / "records").glob("*.tfrecord")
    first = next(iter(tensorflow.data.TFRecordDataset(str(file)))).numpy()
    masks = tensorflow.train.Example.FromString(first).features.feature["image/object/mask"].bytes_list.value
    cat, crowd = (tensorflow.io.decode_png(mask).numpy()[..., 0] for mask in masks)
    assert cat.shape == (30, 40)
    assert cat[6:26, 4:18].all()
    assert cat.sum() == 20 * 14
    assert np.flatnonzero(crowd.T).tolist() == list(range(600, 620))


def test_masks_follow_their_boxes_as_the_part_of_each_cell_that_is_covered(masked):
    convert(masked, masks=True)
    (_, rows), (_, more), (_, none) = read(masked, mask_size=(15, 20))
    assert rows.shape == (3, 5 + 15 * 20)
    masks = rows[:, 5:].reshape(3, 15, 20)
    expected = np.zeros((15, 20))
    expected[3:13, 2:9] = 1
    assert np.allclose(masks[0], expected)
    assert not masks[1:].any(), "the crowd is left out, with its mask"
    assert rows[:, 4].tolist() == [0, -1, -1]
    assert np.allclose(more[0, 5:], 1)
    assert not none[:, 5:].any()
    (_, coarse), *_ = read(masked, mask_size=(10, 10))
    assert np.allclose(coarse[0, 5:].reshape(10, 10)[:, 4], [0, 0, *[0.5] * 6, 1 / 3, 0]), (
        "columns 16 to 19; rows 6 to 25"
    )


def test_records_without_masks_are_refused_where_masks_are_wanted(masked):
    convert(masked)
    assert read(masked)[0][1].shape == (3, 5)
    with pytest.raises(DataFileError) as caught:
        read(masked, mask_size=(15, 20))
    assert "record 1: it has 0 masks. Expected 2, one a box. Convert it with masks, or read none." in str(caught.value)


def test_all_segmentations_that_are_none_are_told_at_once(masked):
    def damage(content):
        del content["annotations"][0]["segmentation"]
        content["annotations"][1]["segmentation"]["counts"].append(1)
        content["annotations"][2]["segmentation"] = [[100, 100, 110, 100, 105, 110]]

    edit(masked, damage)
    with pytest.raises(DataFileError) as caught:
        convert(masked, masks=True)
    lines = str(caught.value).splitlines()[1:]
    assert not (masked / "records").exists()
    expected = ["it has no segmentation.", "its run lengths add up to 1201 pixels.", "its mask has no pixel."]
    assert [next(text for text in expected if text in line) for line in lines] == expected
    assert convert(masked) == {"train": SplitSummary(3, 3)}, "without masks nobody looks at them"
