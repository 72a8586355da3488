"""Large images that windows are read from."""

import importlib.util

import numpy as np
import pytest
import tifffile
from PIL import Image

from experiments_manager.data import DataFileError
from experiments_manager.data.patches import open_raster

PIXELS = np.random.default_rng(0).integers(0, 255, size=(70, 90, 3), dtype=np.uint8)


def written(folder, ending, pixels=PIXELS, **options):
    file = folder / f"image{ending}"
    if ending == ".tif":
        tifffile.imwrite(file, pixels, **options)
    elif ending == ".npy":
        np.save(file, pixels)
    else:
        Image.fromarray(pixels).save(file)
    return file


@pytest.mark.parametrize("ending", [".png", ".tif", ".npy", ".bmp"])
def test_a_window_holds_the_pixels_of_the_file(tmp_path, ending):
    raster = open_raster(written(tmp_path, ending))
    assert raster.shape == (70, 90, 3)
    assert np.array_equal(raster.window(10, 20, 30, 40), PIXELS[10:40, 20:60])


@pytest.mark.parametrize(
    "options",
    [{"compression": "zlib"}, {"tile": (32, 32)}, {"planarconfig": "separate", "photometric": "rgb"}],
    ids=lambda options: next(iter(options)),
)
def test_a_tiff_may_be_compressed_tiled_or_have_planes(tmp_path, options):
    planes = "planarconfig" in options
    file = written(tmp_path, ".tif", np.moveaxis(PIXELS, -1, 0) if planes else PIXELS, **options)
    assert np.array_equal(open_raster(file).window(3, 5, 60, 80), PIXELS[3:63, 5:85])


def test_a_plain_tiff_is_mapped_and_not_read(tmp_path):
    file = tmp_path / "huge.tif"
    tifffile.memmap(file, shape=(30_000, 30_000, 3), dtype=np.uint8, photometric="rgb").flush()
    assert file.stat().st_blocks * 512 < 100e6, "the file must be sparse for this test"
    assert open_raster(file).window(29_000, 29_000, 4, 4).shape == (4, 4, 3)


def test_a_large_compressed_geotiff_is_read_window_by_window(tmp_path, monkeypatch):
    pytest.importorskip("rasterio")
    file = written(tmp_path, ".tif", tile=(32, 32), compression="zlib")
    monkeypatch.setattr(tifffile, "imread", lambda file: pytest.fail("the whole image was decoded"))
    raster = open_raster(file, memory_limit=1000)
    assert raster.shape == (70, 90, 3)
    assert np.array_equal(raster.window(10, 20, 30, 40), PIXELS[10:40, 20:60])


def test_a_photograph_is_turned_as_the_camera_noted(tmp_path):
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # it stands on its head
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    raster = open_raster(tmp_path / "a.jpg")
    assert raster.window(0, 0, 15, 60).max() < 20
    assert raster.window(25, 0, 15, 60).min() > 235
    exif[0x0112] = 6  # on its side
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    assert open_raster(tmp_path / "a.jpg").shape == (60, 40, 3)


def test_of_a_palette_the_indices_count(tmp_path):
    image = Image.fromarray(np.array([[0, 2], [1, 3]], np.uint8))
    image.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    image.save(tmp_path / "labels.png")
    assert open_raster(tmp_path / "labels.png").window(0, 0, 2, 2)[..., 0].tolist() == [[0, 2], [1, 3]]


@pytest.mark.parametrize("ending", [".png", ".tif", ".npy", ".jpg"])
def test_a_torn_file_is_refused_by_name(tmp_path, ending):
    file = written(tmp_path, ending)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
    with pytest.raises(DataFileError, match=f"image{ending} cannot be read as an image .*Is it whole"):
        open_raster(file).window(60, 0, 10, 10)


def test_a_tiff_with_several_images_is_refused_and_a_smaller_preview_is_not(tmp_path):
    with tifffile.TiffWriter(tmp_path / "preview.tif") as writer:
        writer.write(PIXELS)
        writer.write(PIXELS[::2, ::2])
    assert open_raster(tmp_path / "preview.tif").shape == PIXELS.shape
    tifffile.imwrite(tmp_path / "preview.tif", PIXELS, append=True)
    with pytest.raises(DataFileError, match=r"preview.tif holds 2 images of one size. Expected one."):
        open_raster(tmp_path / "preview.tif")


@pytest.mark.skipif(importlib.util.find_spec("imagecodecs") is not None, reason="imagecodecs is installed")
def test_what_a_compression_needs_is_named(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.tif", compression="tiff_lzw")
    with pytest.raises(DataFileError, match="LZW.* requires the 'imagecodecs' package.. Install it, or write"):
        open_raster(tmp_path / "a.tif")


def test_other_files_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("Buy milk.")
    with pytest.raises(DataFileError, match=r"notes\.txt has an unknown ending. Expected one of \.png"):
        open_raster(tmp_path / "notes.txt")
    np.save(tmp_path / "volume.npy", np.zeros((2, 3, 4, 5)))
    with pytest.raises(DataFileError, match=r"volume\.npy has the shape \[2, 3, 4, 5\]"):
        open_raster(tmp_path / "volume.npy")
