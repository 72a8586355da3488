import configparser
import shutil

import pytest

from experiments_manager.runs import RunError
from experiments_manager.runs.serving_setup import SETUP_FILE, ServingSetup, read_serving_setup, write_serving_setup

SETUP = ServingSetup(host="localhost", port=9000, rest_port=8501, model_name="mysettings_50%")


def test_what_is_written_is_read_again_also_after_the_folder_was_moved(tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    write_serving_setup(before, SETUP)
    shutil.move(before, after)
    assert read_serving_setup(after) == SETUP
    assert str(tmp_path) not in (after / SETUP_FILE).read_text()


def test_the_file_has_the_section_and_keys_of_the_earlier_framework(tmp_path):
    write_serving_setup(tmp_path, SETUP)
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(tmp_path / SETUP_FILE)
    assert dict(parser["SERVER"]).items() >= {
        ("host", "localhost"),
        ("port", "9000"),
        ("model_name", "mysettings_50%"),
    }


def test_a_file_of_the_earlier_framework_is_read(tmp_path):
    (tmp_path / SETUP_FILE).write_text("[SERVER]\nhost = gpu7\nport = 9001\nmodel_name = rings\n")
    assert read_serving_setup(tmp_path) == ServingSetup("gpu7", 9001, 8501, "rings")


def test_a_folder_without_the_file_has_no_setup(tmp_path):
    assert read_serving_setup(tmp_path) is None


@pytest.mark.parametrize("text", ["", "nonsense", "[SERVER]\nport = 9000\n", "[SERVER]\nport = x\nmodel_name = m\n"])
def test_a_damaged_file_is_told(text, tmp_path):
    (tmp_path / SETUP_FILE).write_text(text)
    with pytest.raises(RunError, match=SETUP_FILE):
        read_serving_setup(tmp_path)
