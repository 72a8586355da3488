import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments_manager.runs import RunError
from experiments_manager.runs.snapshot import changed_files, take_snapshot

LOAD = """
import importlib.util, json, sys
folder, file = sys.argv[1:]
sys.path[:] = [folder] + [entry for entry in sys.path if "lib" in entry or entry.endswith(".zip")]
specification = importlib.util.spec_from_file_location("loaded", f"{folder}/{file}")
module = importlib.util.module_from_spec(specification)
specification.loader.exec_module(module)
print(json.dumps(module.value))
"""


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def load(folder, file):
    """Load a file in a new process, with nothing but its snapshot to import from, and give its `value`."""
    arguments = [sys.executable, "-I", "-B", "-c", LOAD, str(folder), file]
    return subprocess.check_output(arguments, text=True, cwd="/").strip()


def files_below(folder):
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def test_the_settings_their_model_and_a_local_module_are_copied_verbatim(experiment, tmp_path):
    (experiment / "helper.py").write_bytes(b"VALUE = 41  # \xc3\xa9\r\n")
    snapshot = take_snapshot(tmp_path / "copy", experiment / "mysettings.py", experiment / "model_mlp.py")
    assert snapshot.settings_file == "mysettings.py"
    assert snapshot.model_file == "model_mlp.py"
    assert snapshot.files == ("helper.py", "model_mlp.py", "mysettings.py")
    assert snapshot.sources == tuple(experiment / name for name in snapshot.files)
    assert files_below(tmp_path / "copy") == list(snapshot.files)
    assert (tmp_path / "copy" / "helper.py").read_bytes() == b"VALUE = 41  # \xc3\xa9\r\n"


def test_the_snapshot_loads_after_the_originals_are_gone(experiment, tmp_path, write_file):
    write_file(
        experiment / "mysettings.py",
        "import lib.deep.numbers\n"
        "from lib import words\n"
        "import importlib\n"
        "def late():\n"
        "    from namespace import inner\n"
        "    return inner.FOUR\n"
        "value = [lib.deep.numbers.ONE, words.TWO, importlib.import_module('plugin').THREE, late()]\n",
    )
    write_file(experiment / "lib" / "__init__.py", "")
    write_file(
        experiment / "lib" / "words.py", "from .deep.twice import twice\nfrom . import base\nTWO = twice(base.B)\n"
    )
    write_file(experiment / "lib" / "base.py", "B = 1\n")
    write_file(experiment / "lib" / "unused.py", "")
    write_file(experiment / "lib" / "deep" / "__init__.py", "from . import numbers\n")
    write_file(experiment / "lib" / "deep" / "numbers.py", "from ..base import B as ONE\n")
    write_file(experiment / "lib" / "deep" / "twice.py", "def twice(x):\n    return 2 * x\n")
    write_file(experiment / "plugin.py", "import mysettings_unrelated_cycle\nTHREE = 3\n")
    write_file(experiment / "mysettings_unrelated_cycle.py", "import plugin\n")
    write_file(experiment / "namespace" / "inner.py", "FOUR = 4\n")
    snapshot = take_snapshot(tmp_path / "copy", experiment / "mysettings.py")
    shutil.rmtree(experiment)
    assert load(tmp_path / "copy", snapshot.settings_file) == "[1, 2, 3, 4]"
    assert "lib/unused.py" not in snapshot.files


def test_modules_of_the_working_directory_are_local_too(experiment, tmp_path, monkeypatch, write_file):
    write_file(experiment / "mysettings.py", "from shared.tools import value\n")
    write_file(tmp_path / "elsewhere" / "shared" / "__init__.py", "")
    write_file(tmp_path / "elsewhere" / "shared" / "tools.py", "value = 7\n")
    snapshot = take_snapshot(tmp_path / "copy", experiment / "mysettings.py")
    shutil.rmtree(tmp_path / "elsewhere" / "shared")
    assert snapshot.files == ("mysettings.py", "shared/__init__.py", "shared/tools.py")
    assert load(tmp_path / "copy", "mysettings.py") == "7"


def test_modules_of_a_further_search_root_are_local_too(experiment, tmp_path, write_file):
    write_file(experiment / "mysettings.py", "import far\nvalue = far.VALUE\n")
    write_file(tmp_path / "root" / "far.py", "VALUE = 8\n")
    take_snapshot(tmp_path / "copy", experiment / "mysettings.py", search_roots=[tmp_path / "root"])
    assert load(tmp_path / "copy", "mysettings.py") == "8"


def test_a_namespace_package_is_gathered_from_all_its_folders(experiment, tmp_path, write_file):
    write_file(experiment / "mysettings.py", "from parts import a, b\nvalue = a.A + b.B\n")
    write_file(experiment / "parts" / "a.py", "A = 1\n")
    write_file(tmp_path / "elsewhere" / "parts" / "b.py", "B = 2\n")
    take_snapshot(tmp_path / "copy", experiment / "mysettings.py")
    assert load(tmp_path / "copy", "mysettings.py") == "3"


def test_the_settings_folder_comes_before_the_working_directory(experiment, tmp_path, write_file):
    write_file(tmp_path / "elsewhere" / "helper.py", "VALUE = 'wrong'\n")
    take_snapshot(tmp_path / "copy", experiment / "mysettings.py")
    assert load(tmp_path / "copy", "mysettings.py") == "41"


def test_a_model_below_the_settings_keeps_its_place_and_finds_its_neighbours(experiment, tmp_path, write_file):
    model = write_file(experiment / "models" / "cnn.py", "import layers\nvalue = layers.DEPTH\n")
    write_file(experiment / "models" / "layers.py", "DEPTH = 5\n")
    snapshot = take_snapshot(tmp_path / "copy", experiment / "mysettings.py", model)
    shutil.rmtree(experiment)
    assert snapshot.model_file == "models/cnn.py"
    assert load(tmp_path / "copy", snapshot.model_file) == "5"


def test_a_model_elsewhere_stands_beside_the_settings(experiment, tmp_path, write_file):
    model = write_file(tmp_path / "zoo" / "cnn.py", "import layers\nvalue = layers.DEPTH\n")
    write_file(tmp_path / "zoo" / "layers.py", "DEPTH = 6\n")
    snapshot = take_snapshot(tmp_path / "copy", experiment / "mysettings.py", model)
    shutil.rmtree(tmp_path / "zoo")
    assert snapshot.model_file == "cnn.py"
    assert load(tmp_path / "copy", snapshot.model_file) == "6"


def test_a_model_elsewhere_whose_name_is_taken_gets_a_folder_of_its_own(experiment, tmp_path, write_file):
    model = write_file(tmp_path / "zoo" / "helper.py", "value = 'the model'\n")
    snapshot = take_snapshot(tmp_path / "copy", experiment / "mysettings.py", model)
    assert snapshot.model_file == "model_file/helper.py"
    assert load(tmp_path / "copy", "mysettings.py") == "41"
    assert load(tmp_path / "copy", snapshot.model_file) == '"the model"'


def test_relative_paths_are_relative_to_the_working_directory(experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(experiment.parent)
    snapshot = take_snapshot(tmp_path / "copy", "experiment/mysettings.py", "experiment/model_mlp.py")
    assert snapshot.files == ("helper.py", "model_mlp.py", "mysettings.py")


def test_installed_packages_and_the_standard_library_are_not_copied(experiment, tmp_path, monkeypatch, write_file):
    site = tmp_path / "elsewhere" / "site-packages"
    write_file(site / "installed.py", "")
    monkeypatch.chdir(site)
    write_file(
        experiment / "mysettings.py", "import json, os.path, pytest, installed\nfrom experiments_manager import runs\n"
    )
    snapshot = take_snapshot(tmp_path / "copy", experiment / "mysettings.py", search_roots=sys.path)
    assert snapshot.files == ("mysettings.py",)


def test_a_file_that_only_has_the_name_of_another_module_is_not_taken_for_it(experiment, tmp_path, write_file):
    write_file(experiment / "mysettings.py", "import antigravity, json\nimport pytest\n")
    for name in ("antigravity.py", "json.py", "pytest.py"):
        write_file(tmp_path / "elsewhere" / name, "")
    assert take_snapshot(tmp_path / "copy", experiment / "mysettings.py").files == ("mysettings.py",)


def test_a_local_module_that_cannot_be_parsed_is_copied_all_the_same(experiment, tmp_path, write_file):
    write_file(experiment / "helper.py", "print 'Python 2'\n")
    assert "helper.py" in take_snapshot(tmp_path / "copy", experiment / "mysettings.py").files


def test_a_snapshot_replaces_one_that_is_there(experiment, tmp_path, write_file):
    write_file(tmp_path / "copy" / "stale.py", "")
    take_snapshot(tmp_path / "copy", experiment / "mysettings.py")
    assert files_below(tmp_path / "copy") == ["helper.py", "mysettings.py"]


def test_a_missing_file_is_reported(experiment, tmp_path):
    with pytest.raises(RunError, match=r"There is no model file .*missing\.py"):
        take_snapshot(tmp_path / "copy", experiment / "mysettings.py", experiment / "missing.py")


def test_a_local_module_that_cannot_be_read_is_named(experiment, tmp_path, monkeypatch):
    original = Path.read_bytes

    def refuse(path):
        if path.name == "helper.py":
            raise PermissionError(13, "Permission denied")
        return original(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(RunError, match=r"Cannot read .*helper\.py: Permission denied"):
        take_snapshot(tmp_path / "copy", experiment / "mysettings.py")
    assert not (tmp_path / "copy").exists()


def test_a_full_disk_leaves_no_half_snapshot(experiment, small_disk, full_disk):
    full_disk()
    with pytest.raises(RunError, match=r"Cannot copy the settings to .*: the disk is full"):
        take_snapshot(small_disk / "copy", experiment / "mysettings.py")
    assert names(small_disk) == ["ballast"]


def test_files_that_differ_from_their_copies_are_told(experiment, tmp_path, write_file):
    files = experiment / "mysettings.py", experiment / "model_mlp.py"
    take_snapshot(tmp_path / "copy", *files)
    assert changed_files(tmp_path / "copy", *files) == []
    write_file(experiment / "helper.py", "VALUE = 42\n")
    write_file(experiment / "model_mlp.py", "def model(hparams):\n    return None\n")
    assert changed_files(tmp_path / "copy", *files) == [experiment / "helper.py", experiment / "model_mlp.py"]


def test_of_files_that_are_gone_nothing_is_told(experiment, tmp_path):
    take_snapshot(tmp_path / "copy", experiment / "mysettings.py")
    shutil.rmtree(experiment)
    assert changed_files(tmp_path / "copy", experiment / "mysettings.py") == []
