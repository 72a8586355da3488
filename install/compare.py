#!/usr/bin/env python3
"""Compare two images made by `build.py --engine chroot`, package by package and file by file.

    python3 install/compare.py build/serve build2/serve

The exit code is 0 if the versions of all packages are the same, and 3 if not.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from engines import NAMESPACE  # noqa: E402

_INSIDE = "COMPARE_INSIDE"


def main(first: Path, second: Path) -> int:
    """Print what is the same, and what is not."""
    one, other = python_packages(first) | debian_packages(first), python_packages(second) | debian_packages(second)
    differing = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    print(f"packages: {len(one)} and {len(other)}; {len(differing)} differ {', '.join(differing)}".rstrip())  # noqa: T201
    files, others = digests(first), digests(second)
    unlike = sorted(path for path in files.keys() | others.keys() if files.get(path) != others.get(path))
    same = len(files.keys() | others.keys()) - len(unlike)
    print(f"files: {same} the same, {len(unlike)} not")  # noqa: T201
    print("".join(f"  {path}\n" for path in unlike[:50]), end="")  # noqa: T201
    return 3 if differing else 0


def python_packages(root: Path) -> dict[str, str]:
    """Return the versions of Python's packages by their names."""
    found = (
        re.match(r"(.+)-([^-]+)\.dist-info", path.name) for path in root.glob("opt/*/lib/python3*/site-packages/*")
    )
    return {match[1]: match[2] for match in found if match}


def debian_packages(root: Path) -> dict[str, str]:
    """Return the versions of Debian's packages by their names."""
    text = (root / "var/lib/dpkg/status").read_text(encoding="utf-8")
    found = re.findall(r"^Package: (\S+)\nStatus: install ok installed\n(?:.+\n)*?Version: (\S+)", text, re.MULTILINE)
    return {f"{name} (Debian)": version for name, version in found}


def digests(root: Path) -> dict[str, str]:
    """Return the checksums of all files, and the targets of links, by their paths."""
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            shown = str(path.relative_to(root))
            if path.is_symlink():
                found[shown] = str(path.readlink())
            elif path.is_file():
                with path.open("rb") as stream:
                    found[shown] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    if _INSIDE not in os.environ:  # files of an image belong to other users than the one who made it
        command = [*NAMESPACE, sys.executable, *sys.argv]
        sys.exit(subprocess.run(command, env={**os.environ, _INSIDE: "1"}, check=False).returncode)
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
