"""Large images with label maps: reading pairs of them, cutting crops and tiles, and putting predictions together.

`batches` needs Keras and is imported by its own name; everything else is made of NumPy.
"""

from experiments_manager.data.patches.label_pictures import default_colours, write_label_map
from experiments_manager.data.patches.pairs import IGNORED, Pair, read_pairs
from experiments_manager.data.patches.rasters import Raster, open_raster
from experiments_manager.data.patches.scores import class_iou, confusion_matrix, mean_iou
from experiments_manager.data.patches.tiling import Stitcher, Tile, cut_tile, make_tiles

__all__ = [
    "IGNORED",
    "Pair",
    "Raster",
    "Stitcher",
    "Tile",
    "class_iou",
    "confusion_matrix",
    "cut_tile",
    "default_colours",
    "make_tiles",
    "mean_iou",
    "open_raster",
    "read_pairs",
    "write_label_map",
]
