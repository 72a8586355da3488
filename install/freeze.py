#!/usr/bin/env python3
"""Freeze what the images and wheelhouses are made of: every package with its version and hashes.

    pip install uv
    python3 install/freeze.py            # renews all lists
    python3 install/freeze.py --check    # says whether they are in step with setup.cfg; needs no network

`requirements.in` is printed from setup.cfg: what the package needs, and its extras. `uv` freezes from it

| list | for |
| --- | --- |
| `requirements.txt` | everything but SHAP, on CPU |
| `requirements-gpu.txt` | the same with CUDA's libraries, as wheels |
| `requirements-serving.txt` | the embedded model server: TensorFlow and little else |
| `requirements-lite.txt` | the embedded model server for TensorFlow Lite models alone, without TensorFlow |
| `requirements-client.txt` | the streaming client, without TensorFlow |

All lists have the same versions of the same packages. They hold for Python 3.11 to 3.13 on Linux, Intel and ARM. What
is for CPU alone has TensorFlow's build for CPU, which is smaller by more than a half.
"""

from __future__ import annotations

import argparse
import configparser
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
OLDEST_PYTHON = "3.11"
"""Flower has no release for an older one."""
_NOT_INSTALLED = {"all", "test", "gpu", "sweeps-gp", "xai"}
"""PyTorch is as large as all else together. SHAP brings LLVM, 230 MB for one method of `explain`."""
_OURS = "keras-experiments-manager["
_SERVER = ("numpy", "pydantic", "typer", "rich", "pillow", "jinja2", "psutil")
"""Packages of install_requires that the model server needs beside TensorFlow and Keras."""
_CLIENT = ("pydantic", "typer", "rich", "pillow")
_BOUNDS = (
    "backports-strenum<1.3",  # of the releases from there on, uv does not heed that they are for Pythons before 3.11
)
"""What uv would choose wrongly without, for packages that ours need."""
_NAME = re.compile(r"[\w.-]+")


def extras(root: Path = HERE.parent) -> dict[str, list[str]]:
    """Return the requirements in setup.cfg, as they stand there, by extra; those of the package itself under ``""``."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(root / "setup.cfg", encoding="utf-8")
    found = {"": _requirements(config["options"]["install_requires"])}
    for extra, text in config["options.extras_require"].items():
        found[extra] = _requirements(text)
    return found


def render(root: Path = HERE.parent) -> dict[str, str]:
    """Return what the files to freeze from hold, by their names."""
    given = extras(root)
    everything = {extra: names for extra, names in given.items() if extra not in _NOT_INSTALLED}
    base = {_NAME.match(line).group().lower(): line for line in given[""]}
    tensorflow = _for_cpu(base["tensorflow"])
    on_cpu = [line for line in given[""] if line != base["tensorflow"]]
    server = [*(base[name] for name in _SERVER), *given["serving"]]
    client = [*(base[name] for name in _CLIENT), *given["client"]]
    return {
        "requirements.in": _render({**everything, "": [*tensorflow, *on_cpu]}),
        "requirements-gpu.in": _render({**everything, "gpu": given["gpu"]}),
        "requirements-serving.in": _render({"": [*tensorflow, base["keras"], *server]}),
        "requirements-lite.in": _render({"": server, "lite": given["lite"]}),
        "requirements-client.in": _render({"": client}),
    }


def stale(root: Path = HERE.parent) -> list[str]:
    """Return the names of the files that are not in step with setup.cfg."""
    folder = root / HERE.name
    return [name for name, text in render(root).items() if _read(folder / name) != text]


def freeze(root: Path = HERE.parent) -> None:
    """Write all lists anew."""
    folder = root / HERE.name
    for name, text in render(root).items():
        (folder / name).write_text(text, encoding="utf-8")
    _compile(folder, "requirements")
    for other in sorted(set(render(root)) - {"requirements.in"}):
        _compile(folder, other.removesuffix(".in"), "--constraints", "requirements.txt")


def _compile(folder: Path, name: str, *options: str) -> None:
    command = ["uv", "pip", "compile", f"{name}.in", "--output-file", f"{name}.txt", "--universal", "--upgrade"]
    command += ["--python-version", OLDEST_PYTHON, "--generate-hashes", "--no-annotate", "--no-emit-index-url"]
    command += ["--no-config", "--no-header", "--quiet", "--constraints", "-", *options]
    try:
        subprocess.run(command, cwd=folder, check=True, input="\n".join(_BOUNDS), text=True)
    except FileNotFoundError:
        sys.exit("freeze.py: there is no uv here. Expected it on the PATH. Install it: pip install uv")
    except subprocess.CalledProcessError as error:
        sys.exit(f"freeze.py: uv ended with code {error.returncode}; its messages are above.")


def _for_cpu(tensorflow: str) -> list[str]:
    """Return TensorFlow's build for CPU where there is one; that for ARM has no other."""
    smaller = tensorflow.replace("tensorflow", "tensorflow-cpu")
    return [f'{smaller}; platform_machine != "aarch64"', f'{tensorflow}; platform_machine == "aarch64"']


def _render(groups: dict[str, list[str]]) -> str:
    lines = ["# Printed from setup.cfg by install/freeze.py."]
    for extra, requirements in groups.items():
        lines += [f"# {extra}"] * bool(extra) + requirements
    return "\n".join(lines) + "\n"


def _requirements(text: str) -> list[str]:
    return list(_lines(text))


def _lines(text: str) -> Iterator[str]:
    for line in re.split(r"\n|;(?=\s*[a-z-]+>=)", text):  # an extra on one line parts its packages by semicolons
        line = line.strip()
        if line and not line.startswith(("#", _OURS)):
            yield line


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether the lists are in step with setup.cfg")
    if parser.parse_args().check:
        names = stale()
        if names:
            print(f"Not in step with setup.cfg: {', '.join(names)}. Run: python3 install/freeze.py", file=sys.stderr)  # noqa: T201
        return 2 if names else 0
    freeze()
    return 0


if __name__ == "__main__":
    sys.exit(main())
