#!/usr/bin/env python3
"""Print how fast an image starts: `--help`, and a model server's first answer, also with the same packages outside it.

    python3 install/start_up.py build/serve [build/tf_server_embedded.sif]

The first is a folder made by `build.py --engine chroot`; its packages are those outside, too. The second is the same as
a file, to start instead. For the comparison this Python has to be the image's version.
"""

from __future__ import annotations

import functools
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from engines import HERE, SHARE, apptainer_command, chroot_command  # noqa: E402

_TIMES = 5


def main(folder: Path, file: Path | None = None) -> None:
    """Measure, and print medians.

    Args:
        folder: An image as a folder.
        file: The same image as a file, to start instead.
    """
    start, image = (apptainer_command, file) if file else (chroot_command, folder)
    command = functools.partial(start, str(image))
    helps, inside, outside = [], [], []
    used = 0.0
    with tempfile.TemporaryDirectory() as name:
        model = _model(folder, Path(name))
        packages = next(folder.glob("opt/experiments_manager/lib/python3*/site-packages"))
        other = [sys.executable, str(HERE / "image" / "first_answer.py"), str(model)]
        within = _MAKE_AND_ASK if model.name == "made" else _COPY_AND_ASK
        for _ in range(_TIMES):
            before = _processor_seconds()
            helps.append(_seconds(command("sh", f"{SHARE}/run.sh", "--help")))
            used += _processor_seconds() - before
            inside.append(_answer(command("sh", "-c", within), {}))
            outside.append(_answer(other, {"PYTHONPATH": str(packages)}))
    print(f"--help: {_shown(helps)}; of a processor, {used / _TIMES:.2f} s each")  # noqa: T201
    print(f"first answer inside: {_shown(inside)}; outside: {_shown(outside)}")  # noqa: T201
    print(f"inside / outside: {statistics.median(inside) / statistics.median(outside):.2f}")  # noqa: T201


_ASK = f"exec sh {SHARE}/run.sh python {SHARE}/first_answer.py /tmp/model"
_MAKE_AND_ASK = f"sh {SHARE}/run.sh python {SHARE}/make_model.py /tmp/model 2> /dev/null; {_ASK}"
_COPY_AND_ASK = f"mkdir -p /tmp/model/1; cp {SHARE}/double.tflite /tmp/model/1/model.tflite; {_ASK}"


def _model(image: Path, folder: Path) -> Path:
    """Make the model that the image's own test has, outside of it."""
    packages = next(image.glob("opt/experiments_manager/lib/python3*/site-packages"))
    if not (packages / "tensorflow").is_dir():
        version = folder / "copied" / "1"
        version.mkdir(parents=True)
        (version / "model.tflite").write_bytes((HERE / "image" / "double.tflite").read_bytes())
        return version.parent
    command = [sys.executable, str(HERE / "image" / "make_model.py"), str(folder / "made")]
    environment = {**os.environ, "PYTHONPATH": str(packages), "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)
    return folder / "made"


def _processor_seconds() -> float:
    """Return what all processes that were started and have ended used: on a busy machine they also wait."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _seconds(command: list[str]) -> float:
    begin = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begin


def _answer(command: list[str], more: dict[str, str]) -> float:
    environment = {**os.environ, **more}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(re.search(r"First answer after ([\d.]+) s", done.stdout).group(1))


def _shown(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} s (median of {', '.join(f'{value:.2f}' for value in sorted(seconds))})"


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*(Path(name).resolve() for name in sys.argv[1:]))
