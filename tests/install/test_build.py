import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments_manager.common.version import __version__

ROOT = Path(__file__).resolve().parents[2]
INSTALL = ROOT / "install"
_SPEC = importlib.util.spec_from_file_location("engines", INSTALL / "engines.py")
engines = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(engines)


def recipe_of(target, folder, base=None, **names):
    told = {"version": __version__, "commit": "abc", "list": engines.LISTS[target], **names}
    return engines.definition(target, folder / "context", base, told)


@pytest.mark.parametrize("target", engines.DEFINITIONS)
def test_of_a_recipe_only_the_base_changes_where_there_is_no_registry(target, tmp_path):
    usual = recipe_of(target, tmp_path).splitlines()
    local = recipe_of(target, tmp_path, tmp_path / "base").splitlines()
    assert [line for line in usual if line not in local] == ["Bootstrap: docker", "From: debian:bookworm-20250520-slim"]
    assert [line for line in local if line not in usual] == ["Bootstrap: localimage", f"From: {tmp_path / 'base'}"]


@pytest.mark.parametrize("target", engines.DEFINITIONS)
def test_a_recipe_says_how_it_is_run_and_tried_and_what_it_was_made_of(target, tmp_path):
    recipe = recipe_of(target, tmp_path)
    assert set(re.findall(r"^%(\w+)", recipe, re.MULTILINE)) >= {"files", "post", "runscript", "test", "labels", "help"}
    assert f"Version {__version__}\n" in recipe
    assert "@VERSION@" not in recipe and "@COMMIT@" not in recipe
    assert "Commit abc\n" in recipe
    assert f"{tmp_path / 'context'} /opt/build" in recipe
    assert f"post.sh {engines.LISTS[target]}\n" in recipe


def test_with_gpus_a_recipe_takes_the_list_with_cuda(tmp_path):
    recipe = recipe_of("train", tmp_path, list="requirements-gpu.txt")
    assert "post.sh requirements-gpu.txt\n" in recipe
    assert "requirements.txt" not in recipe


def test_an_image_is_refused_to_root_with_what_to_do():
    command = [sys.executable, INSTALL / "build.py", "serve", "--engine", "chroot"]
    if os.geteuid() != 0:
        command = ["unshare", "--user", "--map-root-user", *command]
    told = subprocess.run(command, capture_output=True, text=True)
    assert told.returncode == 2
    assert "built by an ordinary user. Expected one, got root" in told.stderr


@pytest.mark.parametrize("script", sorted((INSTALL / "image").glob("*.sh")), ids=lambda file: file.name)
def test_scripts_of_the_images_are_valid(script):
    assert subprocess.run(["sh", "-n", script], capture_output=True, text=True).stderr == ""
    if shutil.which("shellcheck"):
        assert subprocess.run(["shellcheck", script], capture_output=True, text=True).stdout == ""


def test_building_leaves_the_temporary_folder_of_the_machine_alone():
    """Apptainer mounts it at /tmp while it builds, and an ordinary user may remove what is theirs there."""
    for script in (INSTALL / "image").glob("*.sh"):
        assert not re.search(r"\brm\b[^;&|#]*?\s/(var/)?tmp\b", script.read_text(encoding="utf-8")), script


def test_the_dockerfile_has_a_target_for_each_image_made_of_its_list():
    text = (INSTALL / "Dockerfile").read_text(encoding="utf-8")
    for target, name in engines.LISTS.items():
        assert f"FROM run AS {target}\nCOPY --from={target}-build / /\n" in text
        stage = text.partition(f"FROM source AS {target}-build\n")[2].partition("\nFROM")[0]
        assert f"post.sh {name}" in stage or f"ARG LIST={name}\n" in stage
    base = re.search(r"^ARG BASE=docker.io/library/(\S+)", text, re.MULTILINE).group(1)
    for name in engines.DEFINITIONS.values():
        assert f"From: {base}\n" in (INSTALL / name).read_text(encoding="utf-8")


@pytest.fixture
def image(tmp_path):
    """Gives a function that calls the run script, with programs that print how they were called."""
    (tmp_path / "bin").mkdir()
    for name in ("experiments_manager", "experiments-model-server"):
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\necho {name} "$@" "HOME=$HOME$PYTHONPATH"\n')
        (tmp_path / "bin" / name).chmod(0o755)
    text = (INSTALL / "image" / "run.sh").read_text()
    (tmp_path / "run.sh").write_text(text.replace("home=/opt/experiments_manager", f"home={tmp_path}"))

    def call(*arguments):
        command = [
            "env",
            "-i",
            "PATH=/usr/bin:/bin",
            "PYTHONPATH=/elsewhere",
            "sh",
            str(tmp_path / "run.sh"),
            *arguments,
        ]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    return call


@pytest.mark.parametrize(
    ("given", "called"),
    [
        ("train settings.py", "experiments_manager train settings.py"),
        ("experiments_manager.py --usersettings s.py", "experiments_manager --usersettings s.py"),
        ("-m RUN --predict_stream=-1 --model_dir=M", "experiments_manager -m RUN --predict_stream=-1 --model_dir=M"),
        ("experiments-model-server --port=1", "experiments-model-server --port=1"),
    ],
)
def test_the_run_script_takes_all_commands_and_the_earlier_forms_without_a_home_folder(image, given, called):
    assert image(*given.split()) == f"{called} HOME=/tmp"


def test_sizes_count_a_file_with_two_names_once(tmp_path):
    (tmp_path / "one").write_bytes(b"12345")
    os.link(tmp_path / "one", tmp_path / "two")
    (tmp_path / "three").symlink_to("one")
    assert engines.size_of(tmp_path) == 5
