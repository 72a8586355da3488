"""Large images segmented by requests for tiles."""

import numpy as np
import pytest
from PIL import Image

from experiments_manager.client.errors import ClientError
from experiments_manager.client.outputs.label_maps import LabelMapClient, segment_image
from experiments_manager.data.patches import open_raster, read_pairs

SIZE = (50, 70)


class Bright:
    """Stands for a served model: class 1 where red is bright, else class 0."""

    def __init__(self):
        self.requests = []

    def predict(self, request):
        self.requests.append(request)
        is_bright = request["image"][..., :1] > 0.5
        return {"classes": np.concatenate([~is_bright, is_bright], axis=-1).astype(np.float32)}

    def stream(self, requests):
        return ((request, self.predict(request)) for request in requests)

    def info(self):
        return type("Info", (), {"inputs": {"image": None}})


@pytest.fixture
def pairs(tmp_path):
    """Two images, and labels that say the same but for the first ten rows, which are ignored."""
    for number in range(2):
        red = np.random.default_rng(number).integers(0, 255, size=SIZE, dtype=np.uint8)
        labels = (red > 127).astype(np.uint8)
        labels[:10] = 255
        for part, pixels in (("images", np.stack([red] * 3, axis=-1)), ("labels", labels)):
            (tmp_path / part).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / part / f"scene{number}.png")
    return read_pairs(tmp_path, 2)


def answered(client, model):
    for request in client.requests():
        client.on_response(request, model.predict(request))
    client.close()
    return client


def test_answers_become_label_maps_of_full_size_with_their_scores(pairs, tmp_path):
    client = answered(LabelMapClient(pairs, tmp_path / "maps", 32, 8, 2), Bright())
    for pair in pairs:
        with Image.open(tmp_path / "maps" / f"{pair.name}.png") as image:
            found = np.asarray(image)
        assert np.array_equal(found, pair.image_window(0, 0, *SIZE)[..., 0] > 0.5)
    assert client.confusion.sum() == 2 * 40 * 70, "ignored pixels do not count"
    assert client.class_iou.tolist() == [1, 1]
    assert client.mean_iou == 1


def test_images_without_labels_are_segmented_too(pairs, tmp_path):
    client = answered(LabelMapClient([pairs[0].image], tmp_path / "maps", 32, 8, 2), Bright())
    assert (tmp_path / "maps" / "scene0.png").is_file()
    assert not client.confusion.any()


def test_no_label_map_takes_the_place_of_another(pairs, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "images" / "scene1.png").rename(tmp_path / "more" / "scene0.png")
    images = [open_raster(tmp_path / folder / "scene0.png") for folder in ("images", "more")]
    with pytest.raises(ClientError, match=r"images/scene0.png and .*more/scene0.png would both have the label map"):
        LabelMapClient(images, tmp_path / "maps", 32, 8, 2)


def test_a_request_holds_some_tiles_of_one_image(pairs, tmp_path):
    model = Bright()
    answered(LabelMapClient(pairs, tmp_path / "maps", 32, 8, 2, tiles_at_once=4), model)
    assert [len(request["image"]) for request in model.requests] == [4, 2, 4, 2]


def test_programs_segment_one_image_by_a_client(pairs):
    image = open_raster(pairs[0].image.file)
    assert np.array_equal(segment_image(Bright(), image, 32, 8, 2), pairs[0].image_window(0, 0, *SIZE)[..., 0] > 0.5)


def test_answers_of_another_shape_are_refused(pairs, tmp_path):
    client = LabelMapClient(pairs, tmp_path / "maps", 32, 8, 3)
    request = next(client.requests())
    with pytest.raises(ClientError, match=r"no label map: .* shape \(32, 32, 2\). Expected \(32, 32, 3\)"):
        client.on_response(request, Bright().predict(request))
    with pytest.raises(ClientError, match="outputs a, b. Expected one"):
        client.on_response(request, {"a": None, "b": None})
    assert not (tmp_path / "maps").exists(), "nothing is half-written"
