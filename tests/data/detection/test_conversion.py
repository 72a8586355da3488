"""Boxes in CSV files to COCO JSON."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments_manager.data import DataFileError
from experiments_manager.data.detection import SplitSummary, csv_to_coco, output
from tests.data.detection.conftest import ANNOTATIONS

HEADER = ANNOTATIONS.splitlines()[0] + "\n"
ALL = {"train": 1.0}


def convert(folder, shares=ALL, **options):
    return csv_to_coco(
        folder / "annotations.csv",
        folder / "categories.csv",
        folder / "images",
        folder / "coco",
        shares=shares,
        **options,
    )


def refusal(folder, **options):
    """The lines of the error, after which nothing was written."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(DataFileError) as caught:
        convert(folder, **options)
    assert sorted(folder.rglob("*")) == before
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def test_boxes_get_the_form_of_coco(write):
    folder = write()
    assert convert(folder) == {"train": SplitSummary(3, 3)}
    content = json.loads((folder / "coco" / "train.json").read_text())
    assert content["images"][0] == {"id": 1, "file_name": "a.jpg", "width": 40, "height": 30}
    assert [image["file_name"] for image in content["images"]] == ["a.jpg", "b.png", "c.png"]
    assert content["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    first = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 4, 18, 26], "area": 468, "iscrowd": 0}
    assert content["annotations"][0] == first


def test_pycocotools_reads_it(write):
    from pycocotools.coco import COCO

    folder = write()
    convert(folder)
    assert COCO(folder / "coco" / "train.json").getAnnIds(catIds=[2]) == [2, 3]


def test_ids_of_categories_may_have_gaps(write):
    folder = write(categories="id,name\n90,dog\n3,cat\n")
    convert(folder)
    content = json.loads((folder / "coco" / "train.json").read_text())
    assert [annotation["category_id"] for annotation in content["annotations"]] == [3, 90, 90]


def test_a_column_puts_images_into_splits(write):
    lines = ["image,class,xmin,ymin,xmax,ymax,split", "a.jpg,cat,2,4,20,30,train", "b.png,dog,0,0,32,24,test"]
    folder = write("\n".join(lines))
    assert convert(folder, shares=None) == {"train": SplitSummary(1, 1), "test": SplitSummary(1, 1)}


def test_another_way_to_write_a_name_is_no_other_image(write):
    folder = write(HEADER + "a.jpg,cat,2,4,20,30\n./a.jpg,dog,10,0,40,20\n")
    assert convert(folder) == {"train": SplitSummary(1, 2)}


def test_progress_counts_the_images(write):
    told = []
    convert(write(), progress=lambda *given: told.append(given))
    assert told == [("images read", number, 3) for number in (1, 2, 3)]


def test_all_that_is_wrong_is_told_at_once(write):
    folder = write(
        HEADER
        + "a.jpg,cta,2,4,20,30\n"
        + "a.jpg,cat,2,4,41,30\n"
        + "a.jpg,cat,nan,4,20,inf\n"
        + "a.jpg,dog,20,4,20,30\n"
        + "b.png,dog,0,0,,24\n"
        + "b.png,dog,0,0,5,5\n"
        + "b.png,dog,0,0,5,5\n"
        + "gone.png,cat,1,1,2,2\n"
        + "broken.jpg,cat,1,1,2,2\n"
        + ",cat,1,1,2,2\n"
        + "c.png,dog,0,0\n"
    )
    (folder / "images" / "broken.jpg").write_bytes((folder / "images" / "a.jpg").read_bytes()[:400])
    lines = refusal(folder)
    assert lines[0] == "11 problems:"
    expected = [
        ("line 12", "it has 4 fields. Expected 6"),
        ("line 2", "class 'cta' is unknown. Expected one of cat, dog. Did you mean `cat`?"),
        ("line 4", "xmin is 'nan'. Expected a number of pixels."),
        ("line 4", "ymax is 'inf'."),
        ("line 6", "xmax is ''."),
        ("line 8", "it is the same box as in line 7."),
        ("line 11", "it names no image."),
        ("line 3, image a.jpg", "lies outside of the image, which is 40 x 30 pixels."),
        ("line 5, image a.jpg", "is empty. Expected xmin below xmax"),
        ("line 9", "file images/gone.png not found."),
        ("line 10", "file images/broken.jpg cannot be decoded"),
    ]
    assert len(lines) == 1 + len(expected)
    for line, (place, text) in zip(lines[1:], expected, strict=True):
        assert line.startswith(f"annotations.csv, {place}: "), line
        assert text in line


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"annotations": HEADER.encode() + "a.jpg,kät,1,1,2,2".encode("latin-1")},
            "annotations.csv, line 2: it is not UTF-8.",
        ),
        ({"annotations": "image;class;xmin;ymin;xmax;ymax\n"}, "They are parted by semicolons; commas are needed."),
        ({"annotations": HEADER}, "annotations.csv: it has no rows below its header."),
        ({"annotations": ""}, "annotations.csv: it has no column 'image', 'class', 'xmin'"),
        (
            {"annotations": HEADER + 'a.jpg,"cat,1,1,2,2\n'},
            "annotations.csv, line 2: it cannot be read: unexpected end",
        ),
        ({"categories": "name\ncat\ncat\n"}, "categories.csv, line 3: category 'cat' is there twice."),
        ({"categories": "id,name\n0,cat\n"}, "categories.csv, line 2: id '0' is no whole number from 1."),
        ({"categories": "id,name\n1,cat\n1,dog\n"}, "categories.csv, line 3: id 1 is there twice."),
        ({"categories": "label\ncat\n"}, "categories.csv: it has no column 'name'. Its columns are label."),
    ],
)
def test_tables_that_cannot_be_read_are_refused(write, files, message):
    assert any(message in line for line in refusal(write(**files)))


def test_all_that_is_missing_is_named(tmp_path):
    lines = refusal(tmp_path)
    assert [line.split(": ")[0] for line in lines[1:]] == ["categories.csv", "annotations.csv", "images"]
    assert all("not found" in line for line in lines[1:])


def test_a_missing_folder_of_images_is_one_problem(write):
    folder = write()
    (folder / "images").rename(folder / "pictures")
    assert refusal(folder) == ["images: not found. Expected the folder of the images."]


def test_an_image_in_two_splits_is_refused(write):
    lines = ["image,class,xmin,ymin,xmax,ymax,split", "a.jpg,cat,2,4,20,30,train", "a.jpg,dog,0,0,32,24,test"]
    [line] = refusal(write("\n".join(lines)), shares=None)
    assert "line 3: image a.jpg is in the split 'test', and in 'train' by annotations.csv, line 2." in line


def test_a_folder_that_is_there_is_left_alone(write):
    folder = write()
    (folder / "coco").mkdir()
    (folder / "coco" / "thesis.tex").write_text("years of work")
    [line] = refusal(folder)
    assert line == "coco exists already. Expected a new folder. Name another one, or remove it."


def test_a_write_that_fails_leaves_nothing(write, monkeypatch):
    folder = write()
    before = sorted(folder.rglob("*"))
    monkeypatch.setattr(output, "replace_directory", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        convert(folder)
    assert sorted(folder.rglob("*")) == before


def test_ctrl_c_leaves_nothing(write):
    folder = write()
    before = sorted(folder.rglob("*"))

    def interrupt(what, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(folder, progress=interrupt)
    assert sorted(folder.rglob("*")) == before


def test_images_that_viewers_turn_are_told(write, capsys):
    folder = write()
    with Image.open(folder / "images" / "a.jpg") as image:
        turned = image.copy()
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(folder / "images" / "a.jpg", exif=exif)
    convert(folder)
    assert "Images that are stored turned (EXIF orientation): 1 (a.jpg)." in capsys.readouterr().err


MASKED = """image,class,xmin,ymin,xmax,ymax,mask,mask_value
a.jpg,cat,2,4,20,30,a.png,1
a.jpg,dog,10,0,40,20,a.png,2
b.png,dog,0,0,32,24,whole.png,
c.png,dog,1,1,9,9,,
"""


@pytest.fixture
def write_masked(write):
    """Writes the data set with masks in a folder of their own."""

    def write_masked(annotations=MASKED):
        folder = write(annotations)
        (folder / "masks").mkdir()
        values = np.zeros((30, 40), np.uint8)
        values[4:30, 2:20], values[0:20, 20:40] = 1, 2
        Image.fromarray(values).save(folder / "masks" / "a.png")
        Image.fromarray(np.full((24, 32), 255, np.uint8)).save(folder / "masks" / "whole.png")
        return folder

    return write_masked


def test_masks_become_run_lengths_and_their_pixels_the_area(write_masked):
    from pycocotools.coco import COCO

    folder = write_masked()
    told = []
    convert(folder, mask_dir=folder / "masks", progress=lambda *given: told.append(given))
    assert told[-1] == ("masks read", 2, 2), "a file that has several objects is read once"
    content = json.loads((folder / "coco" / "train.json").read_text())
    assert [each["area"] for each in content["annotations"]] == [26 * 18, 20 * 20, 24 * 32, 64]
    assert ["segmentation" in each for each in content["annotations"]] == [True, True, True, False]
    dog = COCO(folder / "coco" / "train.json").annToMask(content["annotations"][1])
    assert dog[:20, 20:].all()
    assert dog.sum() == 400


def test_masks_are_beside_the_images_by_default(write_masked):
    folder = write_masked()
    for file in (folder / "masks").iterdir():
        file.rename(folder / "images" / file.name)
    convert(folder)
    assert (folder / "coco" / "train.json").read_text().count("counts") == 3


def test_all_that_is_wrong_with_masks_is_told_at_once(write_masked):
    header = MASKED.splitlines()[0] + "\n"
    folder = write_masked(
        header
        + "a.jpg,cat,2,4,20,30,a.png,3\n"
        + "a.jpg,cat,21,4,40,29,a.png,1\n"
        + "a.jpg,cat,2,4,20,29,a.png,one\n"
        + "a.jpg,cat,3,4,20,30,,1\n"
        + "a.jpg,dog,10,0,40,20,gone.png,\n"
        + "c.png,dog,0,0,9,9,whole.png,\n"
    )
    lines = refusal(folder, mask_dir=folder / "masks")
    expected = [
        ("line 4", "mask_value is 'one'. Expected a whole number from 1"),
        ("line 5", "it has a mask_value and no mask."),
        ("line 2, image a.jpg", "its mask has no pixel."),
        ("line 3, image a.jpg", "of its mask lie outside of its box."),
        ("line 6, image a.jpg", "mask masks/gone.png not found."),
        ("line 7, image c.png", "mask masks/whole.png is 32 x 24 pixels. Expected 16 x 16"),
    ]
    assert len(lines) == 1 + len(expected)
    for line, (place, text) in zip(lines[1:], expected, strict=True):
        assert line.startswith(f"annotations.csv, {place}: "), line
        assert text in line
