import base64
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_SPEC = importlib.util.spec_from_file_location("wheelhouse", ROOT / "install" / "wheelhouse.py")
wheelhouse = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(wheelhouse)

PYTHON = "{}.{}".format(*sys.version_info)
WITHOUT_NETWORK = ["unshare", "--user", "--map-root-user", "--net"]


def make_wheel(folder, name, version="1.0"):
    """Write a wheel of one module, and give its line in a frozen list."""
    file = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    contents = {
        f"{name}.py": f"version = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digests = {path: hashlib.sha256(text.encode()).digest() for path, text in contents.items()}
    rows = [f"{path},sha256={base64.urlsafe_b64encode(d).decode().rstrip('=')}," for path, d in digests.items()]
    with zipfile.ZipFile(file, "w") as archive:
        for path, text in contents.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,"]) + "\n")
    return f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}\n"


@pytest.fixture
def frozen(tmp_path, monkeypatch):
    """Gives a frozen list of two packages that a folder serves in place of a registry."""
    registry = tmp_path / "registry"
    registry.mkdir()
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(registry)}.items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "list.txt"
    file.write_text(make_wheel(registry, "first_stub") + make_wheel(registry, "second_stub"))
    return file


def install(house, venv, *before):
    return subprocess.run(
        [*before, "sh", str(house / "install.sh"), str(venv)],
        capture_output=True,
        text=True,
        env={"PATH": f"{Path(sys.executable).resolve().parent}:/usr/bin:/bin", "PYTHON": sys.executable},
    )


@pytest.mark.slow
@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run([*WITHOUT_NETWORK, "true"], capture_output=True).returncode != 0,
    reason="the network cannot be taken away here",
)
def test_an_environment_is_installed_from_the_folder_alone_without_a_network(frozen, tmp_path):
    house = wheelhouse.make(tmp_path / "house", frozen, PYTHON, own=None)
    (house / "own").mkdir()
    make_wheel(house / "own", "own_stub")
    shutil.rmtree(tmp_path / "registry")
    done = install(house, tmp_path / "venv", *WITHOUT_NETWORK)
    assert done.returncode == 0, done.stderr
    code = "import first_stub, second_stub, own_stub; print(own_stub.version)"
    assert subprocess.run([tmp_path / "venv/bin/python", "-c", code], capture_output=True, text=True).stdout == "1.0\n"


@pytest.mark.slow
def test_a_wheel_that_was_altered_is_refused(frozen, tmp_path):
    house = wheelhouse.make(tmp_path / "house", frozen, PYTHON, own=None)
    make_wheel(house / "wheels", "first_stub")
    with zipfile.ZipFile(house / "wheels/first_stub-1.0-py3-none-any.whl", "a") as archive:
        archive.writestr("more.py", "")
    done = install(house, tmp_path / "venv")
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr


def test_another_python_is_refused_with_the_one_that_is_needed(frozen, tmp_path, monkeypatch):
    monkeypatch.setattr(wheelhouse.subprocess, "run", lambda *arguments, **options: None)
    house = wheelhouse.make(tmp_path / "house", frozen, "3.99", own=None)
    monkeypatch.undo()
    done = install(house, tmp_path / "venv")
    assert done.returncode == 2
    assert "The wheels are for Python 3.99. Expected that, got" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_wheels_of_an_earlier_list_are_not_kept(frozen, tmp_path, monkeypatch):
    monkeypatch.setattr(wheelhouse.subprocess, "run", lambda *arguments, **options: None)
    wheels = tmp_path / "house" / "wheels"
    wheels.mkdir(parents=True)
    make_wheel(wheels, "first_stub")
    make_wheel(wheels, "former_stub")
    wheelhouse.make(tmp_path / "house", frozen, PYTHON, own=None)
    assert [file.name for file in wheels.iterdir()] == ["first_stub-1.0-py3-none-any.whl"]


def test_of_a_list_that_is_for_several_pythons_the_part_for_the_one_is_taken():
    text = (ROOT / "install" / "requirements.txt").read_text(encoding="utf-8")
    chosen = {python: wheelhouse.select(text, python, "x86_64") for python in ("3.11", "3.12")}
    numpy = {python: [line for line in chosen[python].splitlines() if line.startswith("numpy==")] for python in chosen}
    assert len(numpy["3.11"]) == len(numpy["3.12"]) == 1
    assert numpy["3.11"] != numpy["3.12"]
    assert not any("win32" in text for text in chosen.values())
