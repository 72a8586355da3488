import importlib.util
import re
import shutil
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
_SPEC = importlib.util.spec_from_file_location("freeze", ROOT / "install" / "freeze.py")
freeze = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(freeze)

LISTS = [f"requirements{of}.txt" for of in ("", "-gpu", "-serving", "-lite", "-client")]
PYTHON = {"python_version": "3.11", "python_full_version": "3.11.2", "sys_platform": "linux"}
INTEL, ARM = {**PYTHON, "platform_machine": "x86_64"}, {**PYTHON, "platform_machine": "aarch64"}


def frozen(name, environment=INTEL):
    """Give the versions of a list for the images' Python, by normalised name."""
    versions = {}
    for line in (ROOT / "install" / name).read_text(encoding="utf-8").splitlines():
        match = re.match(r"([\w.-]+)==(\S+)\s*(?:;\s*([^\\]+))?", line)
        if match and (not match[3] or Marker(match[3].strip()).evaluate(environment)):
            versions[match[1].lower().replace("_", "-")] = match[2]
    return versions


def test_the_lists_to_freeze_from_are_in_step_with_setup_cfg():
    assert freeze.stale() == []


@pytest.mark.parametrize("name", LISTS)
def test_each_requirement_is_frozen_in_its_range(name):
    text = (ROOT / "install" / name.replace(".txt", ".in")).read_text(encoding="utf-8")
    wanted = [Requirement(line) for line in text.splitlines() if line and not line.startswith(("#", "-r"))]
    versions = frozen(name)
    for requirement in wanted:
        if requirement.marker is None or requirement.marker.evaluate(INTEL):
            assert requirement.specifier.contains(versions[requirement.name.lower()]), requirement
    assert wanted


@pytest.mark.parametrize("name", LISTS)
def test_each_frozen_package_has_hashes_and_no_list_names_a_registry(name):
    text = (ROOT / "install" / name).read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=\S)", text.strip())
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in text


@pytest.mark.parametrize("name", LISTS[1:])
def test_all_lists_have_the_same_versions(name):
    whole, part = frozen("requirements.txt"), frozen(name)
    shared = whole.keys() & part.keys()
    assert len(shared) > 10
    assert {package: part[package] for package in shared} == {package: whole[package] for package in shared}


def test_the_list_for_gpus_adds_cuda_and_leaves_nothing_out():
    cpu, gpu = frozen("requirements.txt"), frozen("requirements-gpu.txt")
    assert cpu.keys() - gpu.keys() == {"tensorflow-cpu"}
    assert {"nvidia-cudnn-cu12", "nvidia-cublas-cu12"} <= gpu.keys() - cpu.keys()
    assert gpu["tensorflow"] == cpu["tensorflow-cpu"]


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-serving.txt"])
def test_of_tensorflow_the_build_for_cpu_is_taken_where_there_is_one(name):
    assert {package for package in frozen(name) if package.startswith("tensorflow")} == {"tensorflow-cpu"}
    assert {package for package in frozen(name, ARM) if package.startswith("tensorflow")} == {"tensorflow"}


@pytest.mark.parametrize("name", ["requirements-lite.txt", "requirements-client.txt"])
def test_the_small_lists_have_no_tensorflow(name):
    assert not {package for package in frozen(name) if package.startswith(("tensorflow", "keras"))}


@pytest.mark.parametrize(
    ("old", "new"), [("numpy>=1.26\n", "numpy>=1.27\n"), ("fastavro>=1.9,<2", "fastavro>=1.9,<2; zstandard>=0.22")]
)
def test_a_change_of_setup_cfg_is_noticed(tmp_path, old, new):
    (tmp_path / "install").mkdir()
    for file in (ROOT / "install").glob("requirements*.in"):
        shutil.copy(file, tmp_path / "install")
    text = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    (tmp_path / "setup.cfg").write_text(text)
    assert freeze.stale(tmp_path) == []
    (tmp_path / "setup.cfg").write_text(text.replace(old, new))
    assert "requirements.in" in freeze.stale(tmp_path)
