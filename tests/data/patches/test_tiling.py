"""Tiles that cover an image, and the way back."""

import numpy as np
import pytest

from experiments_manager.data import DataFileError
from experiments_manager.data.patches import Stitcher, cut_tile, make_tiles
from experiments_manager.data.patches.tiling import keep_own

SIZES = [(96, 96), (97, 130), (200, 333), (40, 300), (10, 7), (33, 32)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overlap", [0, 5, 15])
def test_own_parts_cover_each_pixel_once(size, overlap):
    covered = np.zeros(size, int)
    for tile in make_tiles(*size, 32, overlap):
        r0, c0, r1, c1 = tile.own
        assert 0 <= r0 < r1 <= 32
        assert 0 <= c0 < c1 <= 32
        covered[tile.top + r0 : tile.top + r1, tile.left + c0 : tile.left + c1] += 1
    assert covered.min() == covered.max() == 1


def test_neighbours_share_the_overlap_at_least():
    starts = sorted({tile.left for tile in make_tiles(32, 333, 32, 7)})
    assert starts[0] == 0
    assert starts[-1] == 333 - 32
    assert max(np.diff(starts)) == 32 - 7


@pytest.mark.parametrize("size", SIZES)
def test_tiles_of_a_label_map_are_stitched_to_the_same(size):
    labels = np.random.default_rng(0).integers(0, 4, size=size)
    stitcher = Stitcher(*size, 32, 4)

    def window(top, left, height, width):
        return np.eye(4, dtype=np.float32)[labels[top : top + height, left : left + width]]

    for tile in make_tiles(*size, 32, 9):
        stitcher.add(tile, cut_tile(window, tile, size, 32))
    assert np.array_equal(stitcher.finish(), labels)


def test_where_tiles_differ_the_one_whose_edge_is_farther_wins():
    first, second = make_tiles(32, 48, 32, 15)
    stitcher = Stitcher(32, 48, 32, 2)
    stitcher.add(first, np.tile(np.float32([1, 0]), (32, 32, 1)))
    stitcher.add(second, np.tile(np.float32([0, 1]), (32, 32, 1)))
    assert stitcher.finish()[16].tolist() == [0] * 24 + [1] * 24


def test_finished_rows_go_to_an_array_on_the_disk(tmp_path):
    labels = np.lib.format.open_memmap(tmp_path / "labels.npy", "w+", np.uint8, (100, 40))
    stitcher = Stitcher(100, 40, 32, 3, labels)
    for tile in make_tiles(100, 40, 32, 8):
        stitcher.add(tile, np.tile(np.float32([0, 0, 1]), (32, 32, 1)))
    stitcher.finish()
    labels.flush()
    assert (np.load(tmp_path / "labels.npy") == 2).all()


def test_tiles_out_of_order_and_of_other_shapes_are_refused():
    tiles = make_tiles(100, 32, 32, 0)
    stitcher = Stitcher(100, 32, 32, 2)
    with pytest.raises(ValueError, match=r"shape \(32, 32, 3\). Expected \(32, 32, 2\)"):
        stitcher.add(tiles[0], np.zeros((32, 32, 3)))
    stitcher.add(tiles[2], np.zeros((32, 32, 2)))
    with pytest.raises(ValueError, match="Expected tiles in order"):
        stitcher.add(tiles[0], np.zeros((32, 32, 2)))


def test_an_image_smaller_than_a_tile_is_mirrored():
    (tile,) = make_tiles(2, 3, 4, 0)
    image = np.arange(6).reshape(2, 3)
    cut = cut_tile(lambda top, left, height, width: image[top : top + height, left : left + width], tile, (2, 3), 4)
    assert cut.tolist() == [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [0, 1, 2, 2]]


def test_what_is_not_a_tiles_own_is_ignored():
    first, _ = make_tiles(32, 48, 32, 15)
    kept = keep_own(np.ones((32, 32), np.uint8), first)
    assert (kept[:, :24] == 1).all()
    assert (kept[:, 24:] == 255).all()


@pytest.mark.parametrize("overlap", [-1, 16])
def test_an_overlap_of_half_a_tile_is_refused(overlap):
    with pytest.raises(DataFileError, match="Expected less than half of a tile"):
        make_tiles(100, 100, 32, overlap)
