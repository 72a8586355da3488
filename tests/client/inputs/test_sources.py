"""Samples from files, folders, standard input, videos: what is read, and what is said of what cannot be."""

from __future__ import annotations

import io
import json
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments_manager.client.inputs import images, sources
from experiments_manager.client.inputs.request_sample import SourceError
from experiments_manager.client.inputs.sources import open_source
from experiments_manager.client.model_info import ModelInfo, TensorInfo


def model(**inputs: tuple[str, tuple[int | None, ...] | None]) -> ModelInfo:
    """A model with inputs of these types and shapes."""
    described = {name: TensorInfo(np.dtype(dtype), shape) for name, (dtype, shape) in inputs.items()}
    return ModelInfo("model", 1, described, {})


POINT = model(x=("float32", (None, 2)))
GREY = model(image=("float32", (None, 8, 6, 1)))
TWO = model(a=("float32", (None,)), b=("int64", (None, 2)))


def read(path: Path | str, info: ModelInfo, **options: Any) -> list[Any]:
    return list(sources.open_source(str(path), info, **options))


def write_image(file: Path, pixels: np.ndarray) -> Path:
    from PIL import Image

    Image.fromarray(pixels).save(file)
    return file


def test_rows_of_an_npy_file_are_samples(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float64).reshape(3, 2)
    np.save(tmp_path / "a.npy", values)
    samples = read(tmp_path / "a.npy", POINT)
    assert [sample.label for sample in samples] == ["0", "1", "2"]
    assert [sample["x"].tolist() for sample in samples] == [[[0, 1]], [[2, 3]], [[4, 5]]]


def test_an_npy_file_may_hold_one_sample_without_a_batch(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((8, 6, 1), np.float32))
    (sample,) = read(tmp_path / "a.npy", GREY)
    assert sample["image"].shape == (1, 8, 6, 1)


def test_an_npz_file_gives_each_input_its_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.float32([1, 2]), b=[[1, 2], [3, 4]])
    first, second = read(tmp_path / "a.npz", TWO)
    assert (first["a"].tolist(), second["b"].tolist()) == ([1], [[3, 4]])
    np.savez(tmp_path / "b.npz", whatever=np.zeros((4, 2)))
    assert len(read(tmp_path / "b.npz", POINT)) == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,2\n3,4.5\n", [[[1, 2]], [[3, 4.5]]]),
        ("left,right\n1,2\n", [[[1, 2]]]),
        ("x_1,x_0,other\n1,2,9\n", [[[2, 1]]]),
        ("1,2\n\n3,4\n", [[[1, 2]], [[3, 4]]]),
    ],
)
def test_rows_of_a_table_are_samples(text: str, expected: Any, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    samples = read(tmp_path / "a.csv", POINT)
    assert [sample["x"].tolist() for sample in samples] == expected
    assert samples[0]["x"].dtype == np.float32


def test_a_table_names_several_inputs(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("b_0,a,b_1\n1,0.5,2\n")
    (sample,) = read(tmp_path / "a.csv", TWO)
    assert (sample["a"].tolist(), sample["b"].tolist(), sample["b"].dtype) == ([0.5], [[1, 2]], np.int64)


def test_inputs_with_defaults_may_be_left_out(tmp_path: Path) -> None:
    both = model(x=("float32", (None, 2)), threshold=("float32", ()))
    info = ModelInfo("model", 1, both.inputs, {}, frozenset(["threshold"]))
    np.save(tmp_path / "a.npy", np.zeros((2, 2)))
    (tmp_path / "a.csv").write_text("1,2\n3,4\n")
    for name in ("a.npy", "a.csv"):
        assert [list(sample) for sample in read(tmp_path / name, info)] == [["x"], ["x"]]


def test_large_whole_numbers_keep_every_digit(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{2**62 + 1},2.0\n")
    (sample,) = read(tmp_path / "a.csv", model(x=("int64", (None, 2))))
    assert sample["x"].tolist() == [[2**62 + 1, 2]]


def test_a_table_of_words(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\nhello\nbye\n")
    samples = read(tmp_path / "a.csv", model(text=("object", (None, 1))))
    assert [sample["text"].tolist() for sample in samples] == [[["hello"]], [["bye"]]]


def test_images_fit_the_input(tmp_path: Path) -> None:
    pixels = np.full((16, 12, 3), (255, 0, 51), np.uint8)
    file = write_image(tmp_path / "a.png", pixels)
    (grey,) = read(file, GREY)
    assert grey.label == "a.png"
    assert (grey["image"].shape, grey["image"].dtype) == ((1, 8, 6, 1), np.float32)
    assert 0 < grey["image"].max() <= 1
    (colour,) = read(file, model(image=("float32", (None, None, None, 3))))
    np.testing.assert_allclose(colour["image"][0, 5, 5], [1, 0, 0.2], rtol=1e-6)
    (integers,) = read(file, model(image=("uint8", (None, 16, 12, 3))))
    assert integers["image"][0, 5, 5].tolist() == [255, 0, 51]
    (scaled,) = read(file, model(image=("float32", (None, 16, 12, 3))), scale=2.0)
    assert scaled["image"][0, 5, 5].tolist() == [510, 0, 102]
    (flat,) = read(file, model(image=("float32", (None, 8, 6))))
    assert flat["image"].shape == (1, 8, 6)


def test_a_photograph_is_turned_upright_as_in_training(tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    Image.new("RGB", (16, 12)).save(tmp_path / "a.jpg", exif=exif)
    (picture,) = read(tmp_path / "a.jpg", model(image=("uint8", (None, None, None, 3))))
    assert picture["image"].shape == (1, 16, 12, 3)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_a_pixel_are_scaled_and_not_cut_off(ending: str, tmp_path: Path) -> None:
    pixels = np.array([[0, 257], [32896, 65535]], np.uint16)
    file = write_image(tmp_path / f"a.{ending}", pixels)
    (grey,) = read(file, model(image=("float32", (None, 2, 2, 1))))
    np.testing.assert_allclose(grey["image"][0, :, :, 0], pixels / 65535, rtol=1e-5)
    (colour,) = read(file, model(image=("uint8", (None, 2, 2, 4))))
    assert colour["image"][0].tolist() == [[[0, 0, 0, 255], [1, 1, 1, 255]], [[128] * 3 + [255], [255] * 4]]
    (smaller,) = read(file, model(image=("float32", (None, 1, 1, 3))))
    assert smaller["image"].shape == (1, 1, 1, 3)


def test_an_image_whose_white_is_unknown_is_refused(tmp_path: Path) -> None:
    file = write_image(tmp_path / "a.tif", np.ones((8, 6), np.float32))
    with pytest.raises(SourceError, match=r"a.tif .*32 bits, .*Expected 8 or 16 bits a channel.*\.npy file\.$"):
        read(file, GREY)


def test_an_image_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    file = write_image(tmp_path / "a.bmp", np.zeros((8, 6), np.uint8))
    content = bytearray(file.read_bytes())
    content[18:22] = (1 << 30).to_bytes(4, "little")  # its width
    file.write_bytes(content)
    with pytest.raises(SourceError, match="a.bmp cannot be read as an image: Image size"):
        read(file, GREY)


def warnings_of(caplog: Any) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_pixels_in_arrays_are_sent_as_they_are_with_one_warning(tmp_path: Path, caplog: Any) -> None:
    pixels = np.arange(3 * 8 * 6, dtype=np.uint8).reshape(3, 8, 6, 1)
    for name in ("a.npy", "b.npy"):
        np.save(tmp_path / name, pixels)
    samples = read(tmp_path, GREY)
    np.testing.assert_array_equal(np.concatenate([sample["image"] for sample in samples[:3]]), pixels)
    (warning,) = warnings_of(caplog)
    assert warning.startswith("Sample a.npy[0] holds whole numbers from 0 to 255, which are sent as they are")
    assert "--scale 0.00392156862745 (1/255)" in warning


@pytest.mark.parametrize("values", [np.uint8([0, 1]), np.float32([0, 0.5]), np.float32([-3, 200]), np.int32([0, 256])])
def test_what_is_no_raw_picture_needs_no_warning(values: np.ndarray, tmp_path: Path, caplog: Any) -> None:
    np.save(tmp_path / "a.npy", np.tile(values, 24).reshape(1, 8, 6, 1))
    read(tmp_path / "a.npy", GREY)
    np.save(tmp_path / "b.npy", np.full((1, 8, 6, 1), 200, np.uint8))
    read(tmp_path / "b.npy", model(image=("uint8", (None, 8, 6, 1))))
    read(tmp_path / "b.npy", GREY, scale=1.0)
    assert warnings_of(caplog) == []


def test_a_given_scale_holds_for_arrays_and_tables_too(tmp_path: Path, monkeypatch: Any) -> None:
    np.save(tmp_path / "a.npy", np.full((1, 2, 2, 1), 51, np.uint8))
    (tmp_path / "a.csv").write_text("51,51,51,51\n")
    small = model(image=("float32", (None, 2, 2, 1)), other=("float32", (None, 2)))
    small = ModelInfo("model", 1, small.inputs, {}, frozenset(["other"]))
    feed(monkeypatch, b'{"image": [[[51], [51]], [[51], [51]]], "other": [51, 51]}\n')
    for source in (tmp_path / "a.npy", tmp_path / "a.csv", "-"):
        (sample,) = read(source, small, scale=1 / 255)
        assert (sample["image"].dtype, sample["image"].shape) == (np.float32, (1, 2, 2, 1))
        np.testing.assert_allclose(sample["image"], 0.2, rtol=1e-6)
    assert sample["other"].tolist() == [[51, 51]]  # no picture


def test_a_scale_without_images_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((1, 2)))
    with pytest.raises(SourceError, match="the model does not take images. Expected an input .* Omit --scale"):
        read(tmp_path / "a.npy", POINT, scale=2.0)


def test_opencv_reads_the_same_image_where_pillow_is_missing(tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip("cv2")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)
    file = write_image(tmp_path / "a.png", pixels)
    tensor = TensorInfo(np.dtype("uint8"), (None, 8, 6, 3))
    assert np.array_equal(images.read_image(file, tensor), pixels)
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    assert np.array_equal(images.read_image(file, tensor), pixels)


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "notes.txt").write_text("not read")
    (tmp_path / "labels.csv").write_text("file,label\na.png,3\n")
    for name in ("b.png", "a.png", "sub/c.png"):
        write_image(tmp_path / name, np.zeros((8, 6), np.uint8))
    assert [sample.label for sample in read(tmp_path, GREY)] == ["a.png", "b.png", "sub/c.png"]


def test_a_folder_of_arrays_names_each_row(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 2)))
    assert [sample.label for sample in read(tmp_path, POINT)] == ["a.npy[0]", "a.npy[1]"]


def test_frames_of_a_video_are_samples(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    file = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 24))
    for level in (0, 100, 200):
        writer.write(np.full((24, 32, 3), level, np.uint8))
    writer.release()
    frames = read(file, model(image=("float32", (None, 12, 16, 3))))
    assert [sample.label for sample in frames] == ["0", "1", "2"]
    assert [round(float(sample["image"].mean()) * 255, -1) for sample in frames] == [0, 100, 200]


def test_a_video_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    file = tmp_path / "caf\udce9.avi"
    file.touch()
    with pytest.raises(SourceError, match="its name is no text in UTF-8. Rename it"):
        read(file, model(image=("float32", (None, 16, 12, 3))))


@pytest.fixture
def two_frames(monkeypatch: Any) -> None:
    """Lets OpenCV find two frames of ten everywhere."""
    cv2 = pytest.importorskip("cv2")
    left = [np.zeros((16, 12, 3), np.uint8)] * 2

    class Capture:
        isOpened = staticmethod(lambda: True)  # noqa: N815
        set = staticmethod(lambda name, value: True)
        get = staticmethod(lambda name: 10.0)
        read = staticmethod(lambda: (True, left.pop()) if left else (False, None))
        release = staticmethod(lambda: None)

    fake = types.SimpleNamespace(**vars(cv2) | {"VideoCapture": lambda source: Capture})
    monkeypatch.setattr(images, "_opencv", lambda missing: fake)


def test_a_camera_that_is_unplugged_is_told(two_frames: None) -> None:
    samples = sources.open_source("camera:0", model(image=("float32", (None, 16, 12, 3))))
    assert [next(samples).label, next(samples).label] == ["0", "1"]
    with pytest.raises(SourceError, match="camera 0 gives no more frames, after 2. Is it still connected"):
        next(samples)


def test_a_video_that_ends_early_is_told(two_frames: None, tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "a.avi").touch()
    assert len(read(tmp_path / "a.avi", model(image=("float32", (None, 16, 12, 3))))) == 2
    assert warnings_of(caplog) == [f"{tmp_path / 'a.avi'} ended after 2 of 10 frames: it is damaged, or cut off."]


def test_a_camera_that_is_not_there_is_named() -> None:
    pytest.importorskip("cv2")
    with pytest.raises(SourceError, match="camera 91 cannot be opened. Look at /dev/video"):
        read("camera:91", GREY)


def test_what_needs_opencv_says_how_to_install_it(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(SourceError, match=r"not installed. Install it: pip install 'opencv"):
        read("camera:0", GREY)


def feed(monkeypatch: Any, content: bytes) -> None:
    class Stdin:
        buffer = io.BytesIO(content)

    monkeypatch.setattr("sys.stdin", Stdin)


def test_standard_input_may_be_csv_json_or_arrays(monkeypatch: Any) -> None:
    arrays = io.BytesIO()
    np.save(arrays, np.float32([1, 2]))
    np.save(arrays, np.float32([[3, 4]]))
    for content in (
        b"1,2\n3,4\n",
        b"first,second\n1,2\n3,4\n",
        b'{"x": [1, 2]}\n\n{"x": [[3, 4]]}\n',
        b"[1, 2]\n[3, 4]",
        arrays.getvalue(),
    ):
        feed(monkeypatch, content)
        assert [sample["x"].tolist() for sample in read("-", POINT)] == [[[1, 2]], [[3, 4]]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "standard input is empty"),
        (
            b'{"x": [1, 2]\n',
            r"standard input, line 1, column 13: .*, in '{\"x\": \[1, 2\]'. Expected a JSON value on each line",
        ),
        (b'{"y": [1, 2]}\n', r"line 1: The model has no input 'y'. Expected x \(float32 \[any, 2\]\); got y\.$"),
        (b'{"X": [1, 2]}\n', "Did you mean 'x'"),
        (b'{"x": ' + b"1" * 99 + b"\n", r"column 106: .*, in '\{\"x\": 1{53}…'"),
        (b'["a", "b"]\n', "x is not an array of numbers"),
        (b"\x93NUMPYrubbish", "standard input, array 0"),
        (b"1,2\nthree,4\n", "row 2: could not convert string to float: 'three'. Expected values for the input x"),
        (b"1,2,3\n", r"\[3\] does not fit the input x. Expected float32 \[any, 2\]"),
        (b"1,2\n1,2,3\n", "row 2: invalid number of cells. Expected 2, as in the first line; got 3"),
        (b"1,2\n1\n", "row 2: invalid number of cells. Expected 2, as in the first line; got 1"),
        (
            b"1,NA\n1,2\n",
            r"first line has numbers and other cells: 1, NA\. Expected a header without numbers, or a sample",
        ),
        (b"1,2\r3,4\r", "line 1: new-line character .* Expected lines that end in a line feed"),
        (b"1," + b"2" * 200_000 + b"\n", "line 1: field larger than field limit"),
        (b"1,2\n1,\xff\n", "line 2: .* Expected text in UTF-8"),
        (b"[" * 100_000 + b"\n", "line 1: maximum recursion depth exceeded.*Expected an array of numbers"),
        (b"[1, " + b"2" * 5000 + b"]\n", "line 1: Exceeds the limit .*Expected an array of numbers"),
        (b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4' (\n", "array 0: .*Expected arrays as numpy.save writes"),
        (b"rubbish, and more\n", r"has a header \(rubbish, .*\) and nothing else. Expected a line for each sample"),
    ],
)
def test_bad_standard_input_is_named_by_its_line(content: bytes, message: str, monkeypatch: Any) -> None:
    feed(monkeypatch, content)
    with pytest.raises(SourceError, match=message):
        read("-", POINT)


@pytest.mark.parametrize("content", [b"1,2\n3,4\n", b"[1, 2]\n[3, 4]\n", b"\n1,2\n3,4\n"])
def test_a_byte_order_mark_on_standard_input_costs_no_sample(content: bytes, monkeypatch: Any) -> None:
    feed(monkeypatch, b"\xef\xbb\xbf" + content)
    assert [sample["x"].tolist() for sample in read("-", POINT)] == [[[1, 2]], [[3, 4]]]


def test_lines_are_sent_as_they_come(monkeypatch: Any) -> None:
    import os

    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source, os.fdopen(writing, "wb", buffering=0) as sink:
        monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": source}))
        samples = sources.open_source("-", POINT)
        for number in range(3):
            sink.write(json.dumps([number, 0]).encode() + b"\n")
            assert next(samples)["x"].tolist() == [[number, 0]]  # the pipe is still open


@pytest.mark.parametrize(
    ("name", "content", "info", "message"),
    [
        ("none.npy", None, POINT, "none.npy not found. Expected an image, an .npy"),
        ("a.txt", b"", POINT, "unknown ending .txt"),
        ("a", b"", POINT, "its name has no ending"),
        ("a.npy", b"rubbish", POINT, "a.npy cannot be read"),
        ("a.npz", b"rubbish", POINT, "a.npz cannot be read"),
        ("a.npz", b"PK\x03\x04rubbish", POINT, "a.npz cannot be read: File is not a zip file"),
        ("a.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4' (\n", POINT, "a.npy cannot be read"),
        ("a.png", b"rubbish", GREY, "a.png cannot be read as an image"),
        ("a.png", b"rubbish", POINT, "the model does not take images"),
        ("a.png", b"rubbish", TWO, "The image .* can be sent to a model with one input"),
        ("a.csv", b"\xff\xfe", POINT, "a.csv cannot be read"),
        ("a.csv", b"1,2\n", TWO, "without a header that names the inputs can be sent to a model with one input"),
        ("a.csv", b"a,b_0,b_1\n1,1.5,2\n", TWO, "row 1: 1.5 is not a whole number. Expected values for the input b"),
    ],
)
def test_what_cannot_be_read_is_named(
    name: str, content: bytes | None, info: Any, message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message):
        read(tmp_path / name, info)


def test_an_empty_name_is_not_the_folder_that_one_is_in() -> None:
    with pytest.raises(SourceError, match="No source is named. Expected an image"):
        sources.check_source("")


def test_arrays_that_do_not_fit_the_model_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 5)))
    with pytest.raises(SourceError, match=r"a.npy\[0\]: the array \[1, 5\] does not fit the input x"):
        read(tmp_path / "a.npy", POINT)
    np.savez(tmp_path / "a.npz", a=np.zeros(2), c=np.zeros(2))
    with pytest.raises(SourceError, match="holds a, c, which does not fit the model at 'c'"):
        read(tmp_path / "a.npz", TWO)
    np.savez(tmp_path / "b.npz", a=np.zeros(2), b=np.zeros((3, 2)))
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    with pytest.raises(
        SourceError, match=r"words.npy: the array holds text. Expected float32 \[any, 2\] for the input"
    ):
        read(tmp_path / "words.npy", POINT)
    with pytest.raises(SourceError, match="different numbers of samples: a 2, b 3"):
        read(tmp_path / "b.npz", TWO)
    np.save(tmp_path / "none.npy", np.zeros((0, 2)))
    with pytest.raises(SourceError, match="none.npy holds no samples: x of length 0. Expected one or more"):
        read(tmp_path / "none.npy", POINT)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds nothing that can be read"):
        read(tmp_path / "empty", POINT)


DETECTOR = ModelInfo("detector", 1, {"encoded_image_string_tensor": TensorInfo(np.dtype(object), (None,))}, {})


def test_files_go_to_an_input_of_strings_as_they_are(tmp_path):
    contents = {"a.jpg": b"\xff\xd8 encoded", "b.png": b"\x89PNG \x00 with zeros\x00"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    samples = list(open_source(str(tmp_path), DETECTOR))
    assert {sample.label: sample["encoded_image_string_tensor"].tolist() for sample in samples} == {
        name: [content] for name, content in contents.items()
    }


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="gone.png"):
        list(open_source(str(tmp_path / "gone.png"), DETECTOR))
