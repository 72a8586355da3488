"""Each pixel gets its class: shapes of grass, bricks and gravel on photographs, or your own large images.

experiments_manager train examples/segmentation/mysettings_materials.py
experiments_manager train examples/segmentation/mysettings_materials.py --set model_file=model_densenet.py
experiments_manager train examples/segmentation/mysettings_materials.py --set train_data_dir=my_images
experiments_manager serve RUN      and, beside it,      experiments_manager predict RUN

Training sees random crops, half of them upon a class drawn before; validation sees all tiles of its images. The client
sends the tiles of the test images to the server, puts the answers together, and writes a coloured label map of each.
"""

from pathlib import Path

import keras
from prepare_materials import SCENES_DIR, prepare_scenes

from experiments_manager.client.outputs.label_maps import LabelMapClient
from experiments_manager.data.patches import read_pairs
from experiments_manager.data.patches.batches import RandomCrops, Tiles
from experiments_manager.models.segmentation import iou_metrics, segmentation_loss

session_name = "materials"
model_file = "model_unet.py"
train_data_dir = str(SCENES_DIR)  # has train/, validation/ and test/, see README.md
validation_data_dir = test_data_dir = train_data_dir
class_names = ["background", "grass", "bricks", "gravel"]
hparams = {"size": 96, "overlap": 24, "balance": 0.5, "alpha": 0.35, "learning_rate": 0.005}
hparams_ext = {
    "encoder_weights": None,  # a file of weights of keras.applications.MobileNetV2, without the top
    "label_values": None,  # the value of each class in the label maps, where these are not 0, 1, 2, …
}
size, overlap = hparams["size"], hparams["overlap"]

epochs = 10
batch_size = 8
steps_per_epoch = 100
loss = segmentation_loss()
metrics = iou_metrics(class_names)
monitor = "val_mean_iou"
ema_momentum = 0.95
figures = False
embeddings = []


def prepare_datasets():
    """Draws the scenes, where no data is given."""
    if not Path(train_data_dir).exists():
        prepare_scenes(Path(train_data_dir))


def dataset(split, data_dir, batch_size, seed):
    """Crops or tiles [n, size, size, 3] in 0..1, and the classes of their pixels [n, size, size], or 255: ignored."""
    pairs = read_split(split, data_dir)
    if split == "train":
        balance = hparams["balance"]
        return RandomCrops(pairs, size, batch_size, batches=steps_per_epoch, seed=seed, balance=balance)
    return Tiles(pairs, size, batch_size, overlap=overlap)


def read_split(split, data_dir):
    """The large images and label maps of one split."""
    is_training = split == "train"
    return read_pairs(
        Path(data_dir) / split,
        len(class_names),
        label_values=hparams_ext.get("label_values"),
        smallest=size if is_training else 1,
        every_class=is_training,
    )


def learning_rate(steps_per_epoch):
    """Falls from its first value to 0 along half a cosine."""
    return keras.optimizers.schedules.CosineDecay(hparams["learning_rate"], epochs * steps_per_epoch)


class client(LabelMapClient):
    """Segments the test images in full size; label maps go to the folder label_maps of the run."""

    def __init__(self, options):
        folder = Path(options["run"]) / "label_maps"
        super().__init__(read_split("test", test_data_dir), folder, size, overlap, len(class_names))

    def close(self):
        """Prints what was reached."""
        super().close()
        if self.confusion.any():
            names = zip(class_names, self.class_iou, strict=True)
            print(f"mean IoU {self.mean_iou:.3f}:", ", ".join(f"{name} {iou:.3f}" for name, iou in names))
        print(f"label maps: {self.folder}")
