"""Volumes are read from class folders, and all that is wrong with these is said at once."""

import importlib.util

import numpy as np
import pytest
from PIL import Image

from experiments_manager.data import DataFileError, read_volumes


@pytest.fixture
def folder(tmp_path):
    """Writes volumes by the names of their files."""

    def write(**volumes):
        for name, volume in volumes.items():
            kind, file = name.split("__")
            (tmp_path / kind).mkdir(exist_ok=True)
            if volume is not None:
                np.save(tmp_path / kind / f"{file}.npy", volume)
        return tmp_path

    return write


def numbers(*shape):
    return np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)


def test_labels_are_the_places_of_the_folders_in_the_list_of_classes(folder):
    place = folder(ring__b=numbers(4, 5, 6), ring__a=numbers(4, 5, 6) + 1, ball__c=numbers(4, 5, 6, 1))
    volumes, labels = read_volumes(place, ["ring", "ball"], standardize=False)
    assert volumes.shape == (3, 4, 5, 6, 1)
    assert volumes.dtype == np.float32
    assert volumes[:, 0, 0, 0, 0].tolist() == [1, 0, 0]
    assert labels.tolist() == [0, 0, 1]


def test_volumes_are_brought_to_mean_zero_and_deviation_one(folder):
    volumes, _ = read_volumes(folder(a__1=numbers(4, 4, 4), a__2=np.full((4, 4, 4), 7.0)), ["a"])
    assert volumes[0].mean() == pytest.approx(0, abs=1e-6)
    assert volumes[0].std() == pytest.approx(1, rel=1e-6)
    assert not volumes[1].any(), "a constant volume"


def test_large_volumes_and_small_units_are_standardized_exactly(folder):
    generator = np.random.default_rng(0)
    scan = 30_000 + 10 * generator.normal(size=(80, 80, 80, 2))
    tiny = 1e-8 * generator.normal(size=scan.shape)
    tiny[..., 1] = 0.1  # a constant channel, of which sums are not exact
    volumes, _ = read_volumes(folder(a__1=scan, a__2=tiny), ["a"], channels=2)
    for volume, deviations in zip(volumes.astype(float), ([1, 1], [1, 0]), strict=True):
        assert volume.mean(axis=(0, 1, 2)) == pytest.approx([0, 0], abs=1e-3)
        assert volume.std(axis=(0, 1, 2)) == pytest.approx(deviations, rel=1e-3)


def test_hidden_files_are_left_out(folder):
    place = folder(a__1=numbers(4, 4, 4))
    (place / "a" / "._1.npy").write_bytes(b"of another file system")
    assert len(read_volumes(place, ["a"])[0]) == 1


def test_a_torn_compressed_stack_is_named(folder):
    tifffile = pytest.importorskip("tifffile")
    torn = folder(a__1=numbers(4, 40, 40)) / "a" / "2.tif"
    tifffile.imwrite(torn, numbers(4, 40, 40), compression="zlib", metadata=None, photometric="minisblack")
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 8])
    with pytest.raises(DataFileError, match=r"2\.tif cannot be read: "):
        read_volumes(torn.parents[1], ["a"])


def test_archives_and_tiff_stacks_are_read_too(folder):
    tifffile = pytest.importorskip("tifffile")
    place = folder(a__1=numbers(3, 4, 5))
    np.savez(place / "a" / "2.npz", volume=numbers(3, 4, 5))
    tifffile.imwrite(place / "a" / "3.tif", numbers(3, 4, 5), photometric="minisblack")
    (place / "a" / "notes.txt").write_text("not a volume")
    volumes, _ = read_volumes(place, ["a"], standardize=False)
    assert len(volumes) == 3
    assert np.array_equal(volumes[1], volumes[0])
    assert np.array_equal(volumes[2], volumes[0])


def test_slices_that_were_appended_one_by_one_are_a_stack(folder):
    tifffile = pytest.importorskip("tifffile")
    place = folder(a__1=numbers(3, 4, 5))
    for slices in numbers(3, 4, 5):
        tifffile.imwrite(place / "a" / "2.tif", slices, append=True)
    volumes, _ = read_volumes(place, ["a"], standardize=False)
    assert np.array_equal(volumes[1], volumes[0])


def test_tiffs_that_are_not_one_stack_are_refused(folder):
    tifffile = pytest.importorskip("tifffile")
    place = folder(a__1=numbers(8, 8, 3))
    tifffile.imwrite(place / "a" / "2.tif", numbers(8, 8, 3).astype(np.uint8), photometric="rgb")
    for stack in (numbers(8, 8, 3), numbers(8, 8, 3)):
        tifffile.imwrite(place / "a" / "3.tif", stack, append=True, photometric="minisblack")
    Image.new("L", (3, 8)).save(place / "a" / "4.tif", compression="tiff_lzw", save_all=True)
    with pytest.raises(DataFileError) as caught:
        read_volumes(place, ["a"])
    said = str(caught.value)
    assert "2.tif cannot be read: it is one picture with colours, expected a stack of slices." in said
    assert "3.tif cannot be read: it holds 2 stacks, expected one." in said
    if importlib.util.find_spec("imagecodecs") is None:
        assert "requires the 'imagecodecs' package. Install it, or write the file otherwise." in said


def test_several_channels_are_kept(folder):
    volumes, _ = read_volumes(folder(a__1=numbers(2, 3, 4, 2)), ["a"], channels=2)
    assert volumes.shape == (1, 2, 3, 4, 2)


def test_all_problems_are_said_at_once_with_the_names_of_the_files(folder):
    broken = numbers(4, 4, 4).astype(float)
    broken[0, 0, :2] = np.nan, np.inf
    place = folder(
        a__1good=numbers(4, 4, 4),
        a__2small=numbers(4, 4, 3),
        a__3nan=broken,
        a__4flat=numbers(4, 4),
        a__5words=np.array(["x"]),
        rnig__1=numbers(4, 4, 4),
        empty__1=None,
    )
    (place / "a" / "6torn.npy").write_bytes(b"\x93NUMPY")
    (place / "a" / "7torn.tif").write_bytes(b"no stack")
    np.savez(place / "a" / "8two.npz", x=numbers(4, 4, 4), y=numbers(4, 4, 4))
    with pytest.raises(DataFileError) as caught:
        read_volumes(place, ["a", "ring", "empty"])
    lines = str(caught.value).splitlines()[1:]
    for said in (
        "the folder rnig is no class. Expected a, ring, empty. Did you mean",
        "there is no folder ring",
        "the folder empty holds no volume",
        "2small.npy has the shape 4x4x3. Expected 4x4x4 as the first one.",
        "3nan.npy holds NaN or infinity in 2 voxels",
        "4flat.npy has the shape 4x4. Expected [depth, height, width].",
        "5words.npy is of type <U1. Expected numbers.",
        "6torn.npy cannot be read",
        "7torn.tif cannot be read",
        "8two.npz cannot be read: it holds the arrays x, y, expected one",
    ):
        assert sum(said in line for line in lines) == 1, said
    assert len(lines) == 10


def test_a_shape_that_is_wanted_is_demanded_of_all(folder):
    with pytest.raises(DataFileError, match=r"1\.npy has the shape 4x4x4. Expected 8x8x8\."):
        read_volumes(folder(a__1=numbers(4, 4, 4)), ["a"], shape=(8, 8, 8))


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(DataFileError, match="none does not exist. Expected a folder with the folders a, b"):
        read_volumes(tmp_path / "none", ["a", "b"])
