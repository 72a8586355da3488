"""How well the test scenes are segmented in full size.

python examples/figures_of_merit.py examples/segmentation/merit.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from experiments_manager import load_settings
from experiments_manager.data.patches import (
    IGNORED,
    Stitcher,
    class_iou,
    confusion_matrix,
    cut_tile,
    default_colours,
    make_tiles,
    mean_iou,
)

SETTINGS = Path(__file__).with_name("mysettings_materials.py")
PICTURE = "segmentation.png"
VARIANTS = {"U-Net": {}, "dense-net": {"model_file": "model_densenet.py"}}


def merit(run_dir):
    """Intersection over union on the test scenes, the mean of the classes and each."""
    settings = load_settings(SETTINGS)
    confusion = sum(
        confusion_matrix(truth, predicted, len(settings.class_names)) for _, truth, predicted in segmented(run_dir)
    )
    each = {f"IoU of {name}": iou for name, iou in zip(settings.class_names, class_iou(confusion), strict=True)}
    return {"mean IoU": mean_iou(confusion), **each}


def segmented(run_dir):
    """Yields each test scene [height, width, 3], its labels and what the exported model gives, put together."""
    settings = load_settings(SETTINGS)
    size, overlap = settings.hparams["size"], settings.hparams["overlap"]
    versions = (path for path in (run_dir / "exported_models").iterdir() if path.name.isdigit())
    served = tf.saved_model.load(str(max(versions, key=lambda path: int(path.name))))
    for pair in settings.experiment_settings.read_split("test", settings.test_data_dir):
        stitcher = Stitcher(*pair.size, size, len(settings.class_names))
        for tile in make_tiles(*pair.size, size, overlap):
            cut = cut_tile(pair.image_window, tile, pair.size, size)
            (probabilities,) = served.signatures["serving_default"](image=tf.constant(cut[np.newaxis])).values()
            stitcher.add(tile, probabilities[0].numpy())
        yield pair.image_window(0, 0, *pair.size), pair.label_window(0, 0, *pair.size), stitcher.finish()


def draw(run_dir, file):
    """Draws a test scene, its labels and the prediction, beside each other."""
    names = load_settings(SETTINGS).class_names
    colours = np.full((256, 3), 255, np.uint8)
    colours[: len(names)] = default_colours(len(names))
    image, truth, predicted = next(segmented(run_dir))
    predicted = np.where(truth == IGNORED, IGNORED, predicted)
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    pictures = {"test scene": image, "labels (white: ignored)": colours[truth], "prediction": colours[predicted]}
    for axis, (title, picture) in zip(axes, pictures.items(), strict=True):
        axis.imshow(picture)
        axis.set(title=title, xticks=[], yticks=[])
    handles = [plt.Rectangle((0, 0), 1, 1, color=colours[index] / 255) for index in range(len(names))]
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    figure.savefig(file, dpi=90)
