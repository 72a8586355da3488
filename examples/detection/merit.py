"""How well objects are found.

python examples/figures_of_merit.py examples/detection/merit.py
"""

import json
from pathlib import Path

import tensorflow as tf
from PIL import Image

from experiments_manager.data.detection import coco_metrics, draw_detections

SETTINGS = Path(__file__).with_name("mysettings_scenes.py")
PICTURE = "detection.png"
VARIANTS = {"with masks": {"hparams.masks": True}, "": {}}
SCENES = Path("experiments") / "data" / "scenes"
CATEGORIES = {1: "disc", 2: "rectangle", 3: "triangle"}


def merit(run_dir):
    """The mean average precision of COCO on the test images, by the exported model: of boxes, and of masks."""
    found, figures = detections(run_dir), {}
    has_masks = all("detection_masks" in outputs for outputs in found.values())
    for kind in ("", "mask ") if has_masks else ("",):
        metrics = coco_metrics(SCENES / "coco" / "test.json", found, masks=bool(kind))
        named = {"mAP@[.5:.95]": "mAP", "mAP@.5": "mAP50", "mAP@.75": "mAP75"}
        figures |= {f"{kind}{name}": metrics[key] for name, key in named.items()}
    return figures


def detections(run_dir):
    """What the exported model finds in each test image, by the name of its file."""
    versions = (path for path in (run_dir / "exported_models").iterdir() if path.name.isdigit())
    served = tf.saved_model.load(str(max(versions, key=lambda path: int(path.name)))).signatures["serving_default"]
    images = json.loads((SCENES / "coco" / "test.json").read_text(encoding="utf-8"))["images"]
    found = {}
    for image in images:
        encoded = (SCENES / "images" / image["file_name"]).read_bytes()
        outputs = served(encoded_image_string_tensor=tf.constant([encoded]))
        found[image["file_name"]] = {name: value[0].numpy() for name, value in outputs.items()}
    return found


def draw(run_dir, file):
    """Draws what was found in ten test images."""
    found = detections(run_dir)
    sheet = Image.new("RGB", (5 * 200 - 8, 2 * 200 - 8), "white")
    for place, (name, outputs) in enumerate(list(found.items())[:10]):
        with Image.open(SCENES / "images" / name) as image:
            large = image.resize((192, 192), Image.BICUBIC)
        drawn = draw_detections(large, outputs, CATEGORIES)
        sheet.paste(drawn, (place % 5 * 200, place // 5 * 200))
    sheet.quantize(256).save(file, optimize=True)
