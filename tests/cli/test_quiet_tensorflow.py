import os
import subprocess
import sys

import pytest

IMPORT = """
from experiments_manager.cli import quiet_tensorflow
{before}
quiet_tensorflow.silence_startup_logs()
import tensorflow
import os
os.write(2, b"said later\\n")
print(tensorflow.answer)
"""


@pytest.fixture
def import_stand_in(tmp_path):
    """Imports a package that bears TensorFlow's name, in a process of its own."""

    def run(source, before=""):
        package = tmp_path / "tensorflow"
        package.mkdir()
        (package / "__init__.py").write_text("import os, types\nos.write(2, b'noise while loading\\n')\n" + source)
        command = [sys.executable, "-c", IMPORT.format(before=before)]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    return run


WORKING = """
answer = 42
def list_physical_devices(kind):
    os.write(2, b"noise about drivers\\n")
    return []
config = types.SimpleNamespace(list_physical_devices=list_physical_devices)
"""


def test_what_is_said_while_loading_and_looking_for_devices_is_kept_off_and_nothing_later(import_stand_in):
    done = import_stand_in(WORKING, before="quiet_tensorflow.NVIDIA_DRIVER = __import__('pathlib').Path('/none')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "42\n", "said later\n")


def test_on_a_machine_with_a_gpu_that_is_not_found_all_is_shown(import_stand_in):
    done = import_stand_in(WORKING, before="quiet_tensorflow.NVIDIA_DRIVER = __import__('pathlib').Path('/')")
    assert done.stderr == "noise while loading\nnoise about drivers\nsaid later\n"


def test_where_the_import_fails_all_is_shown(import_stand_in):
    done = import_stand_in("raise ImportError('libcudnn.so.9 is broken')")
    assert done.returncode == 1
    assert done.stderr.startswith("noise while loading\n")
    assert "ImportError: libcudnn.so.9 is broken" in done.stderr
