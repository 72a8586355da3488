"""Image files for models that decode them."""

import numpy as np
import pytest

from experiments_manager.client.inputs.samples import SourceError
from experiments_manager.client.inputs.sources import open_source
from experiments_manager.client.model_info import ModelInfo, TensorInfo

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
