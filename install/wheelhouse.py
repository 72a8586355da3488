#!/usr/bin/env python3
"""Make an offline bundle: all wheels of a frozen list and of the package itself, for machines without internet.

    python3 install/wheelhouse.py wheelhouse                        # everything, on CPU
    python3 install/wheelhouse.py wheelhouse --list requirements-gpu.txt --python 3.12

Copy the folder, and run in it, on the other machine, with the Python that it was made for:

    sh install.sh VENV

Making it needs a network, Python 3.11 or newer and `pip install packaging`. The script makes a virtual environment from
nothing but the folder, and checks every wheel by its hash.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PLATFORMS = {
    "x86_64": [f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)] + ["manylinux2014_x86_64"],
    "aarch64": [f"manylinux_2_{minor}_aarch64" for minor in range(28, 16, -1)] + ["manylinux2014_aarch64"],
}
"""Platforms of wheels that Debian 12, Ubuntu 20.10 and Red Hat 8, and all newer ones, can load."""
_INSTALL = """\
#!/bin/sh
# Make a virtual environment from the wheels of this folder alone: sh install.sh VENV
set -eu
[ "$#" -eq 1 ] || { echo "Expected the folder of the environment. Run: sh install.sh VENV" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
python="${PYTHON:-python3}"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
[ "$version" = "@PYTHON@" ] || {
    echo "The wheels are for Python @PYTHON@. Expected that, got $version." \\
        "Run: PYTHON=python@PYTHON@ sh install.sh $1" >&2
    exit 2
}
"$python" -m venv "$1"
"$1/bin/python" -m pip install --no-index --find-links "$here/wheels" --require-hashes \\
    --no-cache-dir --disable-pip-version-check --quiet -r "$here/requirements.txt"
for own in "$here"/own/*.whl; do
    [ ! -e "$own" ] || "$1/bin/python" -m pip install --no-index --no-deps --disable-pip-version-check --quiet "$own"
done
echo "Installed. Run: $1/bin/experiments_manager doctor"
"""


def make(
    folder: Path, requirements: Path, python: str, machine: str = "x86_64", own: Path | None = HERE.parent
) -> Path:
    """Fill a folder with wheels, their list and the script that installs them.

    Args:
        folder: Where; a wheelhouse that is there is completed, and loses the wheels that are not in the list.
        requirements: The list, with hashes.
        python: Version of the Python that the wheels are for, e.g. `3.11`.
        machine: Architecture that they are for, a key of `PLATFORMS`.
        own: Folder of a package that is built as a wheel itself; `None`: none.

    Returns:
        The folder.
    """
    wheels = folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest", str(wheels)]
    chosen = folder / "requirements.txt"
    text = select(requirements.read_text(encoding="utf-8"), python, machine)
    chosen.write_text(text, encoding="utf-8")
    command += ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--requirement", str(chosen)]
    command += ["--python-version", python, "--implementation", "cp", "--find-links", str(wheels)]
    for platform in PLATFORMS[machine]:
        command += ["--platform", platform]
    _drop_others(wheels, frozenset(re.findall(r"--hash=sha256:(\w+)", text)))
    subprocess.run(command, check=True)
    (folder / "install.sh").write_text(_INSTALL.replace("@PYTHON@", python), encoding="utf-8")
    if own is not None:
        build_own(own, folder / "own")
    return folder


def select(text: str, python: str, machine: str) -> str:
    """Return the part of a frozen list that holds for another Python: pip would ask the one that runs it."""
    from packaging.markers import Marker, default_environment

    other = {"python_version": python, "python_full_version": f"{python}.0", "platform_machine": machine}
    other |= {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "implementation_name": "cpython"}
    environment = {**default_environment(), **other, "platform_python_implementation": "CPython"}
    kept = []
    for block in re.split(r"\n(?=[\w#])", text):
        condition = re.match(r"[\w.-]+(?:\[[\w,-]+\])?==[^\s;]+\s*;([^\\\n]+)", block)
        if condition is None or Marker(condition.group(1).strip()).evaluate(environment):
            kept.append(block.replace(f";{condition.group(1)}", "", 1) if condition else block)
    return "\n".join(kept).strip() + "\n"


def build_own(source: Path, folder: Path) -> Path:
    """Build the wheel of a package, from a copy of what it is made of, and return it."""
    shutil.rmtree(folder, ignore_errors=True)
    copy = copy_own(source, folder / "source")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(copy)], check=True)
    shutil.rmtree(copy)
    return next(folder.glob("*.whl"))


def copy_own(source: Path, copy: Path) -> Path:
    """Copy what a package is made of, with what its links point to, and return the copy."""
    copy.mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    for entry in source.iterdir():
        if entry.name in {"setup.cfg", "pyproject.toml", "README.md", "LICENSE"}:
            shutil.copy(entry, copy)
        elif (entry / "__init__.py").is_file() and entry.name != "tests":
            shutil.copytree(entry, copy / entry.name, ignore=ignored)
    return copy


def _drop_others(wheels: Path, known: frozenset[str]) -> None:
    """Remove wheels that the list does not know, such as those of an earlier list."""
    for wheel in wheels.glob("*.whl"):
        with wheel.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest not in known:
            wheel.unlink()


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder to fill")
    parser.add_argument("--list", default="requirements.txt", metavar="FILE", help="frozen list of this folder")
    parser.add_argument("--python", default="3.11", metavar="VERSION", help="Python of the other machine")
    parser.add_argument("--machine", default="x86_64", choices=PLATFORMS, help="its architecture")
    given = parser.parse_args()
    requirements = HERE / given.list
    if not requirements.is_file():
        lists = ", ".join(sorted(file.name for file in HERE.glob("requirements*.txt")))
        parser.error(f"there is no list {requirements}. Expected one of {lists}")
    make(given.folder, requirements, given.python, given.machine)
    size = sum(file.stat().st_size for file in given.folder.rglob("*") if file.is_file())
    print(f"{given.folder}: {size / 1e6:.0f} MB. On the other machine: sh {given.folder.name}/install.sh VENV")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
