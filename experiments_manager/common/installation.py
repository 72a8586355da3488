"""How this package is installed, and the command that adds what is missing.

Commands name the packages that are needed, never this package: on the public index, `experiments-manager` is another
author's work with the same import name, and a copy of the source is found by its path alone.
"""

from __future__ import annotations

import configparser
import functools
import importlib.metadata
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

DISTRIBUTION = "keras-experiments-manager"
"""Name of the distribution; the package is imported as `experiments_manager`."""
FORMER_DISTRIBUTION = "experiments-manager"
"""Its name in runs that were made before it had its own; another author's on the public index."""
_EXTRA = re.compile(r"""extra\s*==\s*["']([\w-]+)["']""")
_OURS = re.compile(rf"{re.escape(DISTRIBUTION)}\[([\w,\s-]+)\]$")
SOURCE = Path(__file__).resolve().parents[2]
"""Folder that the package lies in: a copy of the source, or `site-packages`."""


_DISTRIBUTIONS = {
    "Bio": "biopython",
    "OpenSSL": "pyOpenSSL",
    "PIL": "pillow",
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "fitz": "PyMuPDF",
    "git": "GitPython",
    "kafka": "kafka-python",
    "osgeo": "GDAL",
    "pkg_resources": "setuptools",
    "serial": "pyserial",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "umap": "umap-learn",
    "yaml": "PyYAML",
}
"""Distributions by their modules, where the names differ: by the latter pip would find nothing, or another's."""


def distribution_of(module: str) -> str:
    """Return the distribution that a top-level module comes with, which is what pip installs."""
    return _DISTRIBUTIONS.get(module, module)


def install_command(*extras: str) -> str:
    """Return the command that installs what extras need, e.g. ``pip install 'flwr<1.42,>=1.41'``.

    Args:
        *extras: Their names in setup.cfg; without any, what the package itself needs.
    """
    known = requirements_by_extra()
    needed = list(dict.fromkeys(requirement for extra in extras or [""] for requirement in known.get(extra, ())))
    if not needed:
        return f"pip install '.[{','.join(extras)}]'" if extras else "pip install ."
    return f"pip install {' '.join(shlex.quote(requirement) for requirement in needed)}"


@functools.lru_cache(maxsize=1)
def requirements_by_extra() -> dict[str, list[str]]:
    """Return the requirements of each extra as pip takes them; those of the package itself under ``""``.

    They are read from the installed distribution, or from setup.cfg where the package is imported from its source
    without being installed. Extras that name others hold what these need.
    """
    found: dict[str, list[str]] = {}
    for requirement in _declared():
        named, _, condition = requirement.partition(";")
        match = _EXTRA.search(condition)
        others = _EXTRA.sub("", condition).replace("()", "").strip().removesuffix("and").removeprefix("and").strip()
        found.setdefault(match.group(1) if match else "", []).append(named.strip() + (f"; {others}" if others else ""))
    return {extra: list(dict.fromkeys(_resolved(needed, found))) for extra, needed in found.items()}


def _declared() -> list[str]:
    try:
        return importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return _declared_in_source()


def _declared_in_source() -> list[str]:
    config = configparser.ConfigParser(interpolation=None)
    if not config.read(SOURCE / "setup.cfg", encoding="utf-8"):
        return []
    sections = {"": config["options"]["install_requires"], **config["options.extras_require"]}
    found = []
    for extra, text in sections.items():
        for line in text.split("\n") if "\n" in text else text.split("; "):
            requirement, _, condition = line.partition("#")[0].partition(";")
            conditions = [part for part in (condition.strip(), f'extra == "{extra}"' if extra else "") if part]
            if requirement.strip():
                found.append(
                    "; ".join([requirement.strip(), " and ".join(conditions)] if conditions else [requirement.strip()])
                )
    return found


def _resolved(needed: Iterable[str], by_extra: dict[str, list[str]]) -> Iterable[str]:
    for requirement in needed:
        ours = _OURS.match(requirement)
        if ours is None:
            yield requirement
            continue
        for extra in ours.group(1).split(","):
            yield from _resolved(by_extra.get(extra.strip(), ()), by_extra)
