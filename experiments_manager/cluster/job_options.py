"""What a job asks of the cluster, and where that comes from: the site's file, the settings file, the command line."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments_manager.cluster.errors import ClusterError
from experiments_manager.settings.options.cluster import ClusterOptions, Lines

SITE_FILE = Path("experiments_manager", "cluster.toml")
"""Below `$XDG_CONFIG_HOME`, by default `~/.config`."""

_TIME_OF_SBATCH = re.compile(r"(?:--time=|-t[= ]?)(\S+)")
_FIELDS_OF_TIME = re.compile(r"(?:\d+-)?\d+(?::\d+){0,2}")
_URI = re.compile(r"[a-z+]+://")
_EARLY = 60
"""Seconds by which SLURM may send a signal before it was asked to (sbatch's manual)."""


class JobOptions(ClusterOptions):
    """What a job asks for, where some of it was left open; `None` leaves it to the site.

    Attributes:
        partition: Of the cluster.
        time: Limit: minutes, `MM:SS`, `HH:MM:SS`, `D-HH` or `D-HH:MM:SS`.
        gpus: A number, or `TYPE:NUMBER`, a node.
        nodes: How many.
        cpus: Processors of each node's task.
        mem: Memory of each node, e.g. `16G`.
        account: Who pays.
        constraint: Features that a node must have.
        image: An Apptainer image in which the command runs.
        bind: Folders that the image sees, besides the working folder, the run folder and the home folder.
        setup: Shell lines before the command, e.g. `module load …`.
        python: The Python that runs the command where there is no image.
        stage_dir: The folder on a node's own disk that `--stage-data` copies to; may name variables of the node.
        warning: Seconds before the time limit at which the run is told to stop.
        max_requeues: How often the job is queued again.
        sbatch: Further options of sbatch, e.g. `--qos=long`.
    """

    nodes: int = 1
    bind: Lines = []
    setup: Lines = []
    python: str = sys.executable
    warning: int = 120
    max_requeues: int = 20
    sbatch: Lines = []


_LISTS = ("bind", "setup", "sbatch")
_COUNTS = ("nodes", "cpus", "warning", "max_requeues")


def site_file() -> Path:
    """Return where the defaults of the site are, whether the file exists or not."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / SITE_FILE


def read_site_file() -> dict[str, Any]:
    """Return the site's defaults; none where there is no such file.

    Raises:
        ClusterError: It cannot be read.
    """
    try:
        import tomllib
    except ImportError:  # Python 3.10
        import tomli as tomllib
    file = site_file()
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ClusterError(
            f'{file}: it cannot be read: {error}. Expected TOML, such as `partition = "gpu"`.'
        ) from error


def job_options(*layers: tuple[str, Mapping[str, Any]]) -> JobOptions:
    """Return the options that follow from the site's file and from the places that count more; see `merged_options`."""
    return merged_options((str(site_file()), read_site_file()), *layers)


def merged_options(*layers: tuple[str, Mapping[str, Any]]) -> JobOptions:
    """Return the options that follow from several places; later ones count, lists are joined.

    Args:
        *layers: Names of the places, as messages give them, with what each says; `None` says nothing.

    Raises:
        ClusterError: With everything that is wrong in them.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for place, layer in layers:
        layer = {name: value for name, value in layer.items() if value is not None}
        wrong = ClusterOptions.problems(layer)
        problems += [f"{place}: {text}" for text in wrong.values()]
        for name, value in layer.items():
            if name in wrong:
                continue
            if name in _LISTS:
                values[name] = [*values.get(name, ()), *([value] if isinstance(value, str) else value)]
            else:
                values[name] = value
    if problems:
        raise ClusterError(" ".join(problems))
    options = JobOptions(**values)
    _check_warning(options)
    return options


def _check_warning(options: JobOptions) -> None:
    """Refuse a warning that may come as soon as the job begins: it would be queued again and again, and train nothing.

    Raises:
        ClusterError: It leaves no time before it, where the time limit is known.
    """
    further = [found.group(1) for text in options.sbatch if (found := _TIME_OF_SBATCH.fullmatch(text))]
    limit = seconds_of((further or [options.time])[-1])
    if limit and options.warning + _EARLY > limit:  # 0 stands for no limit
        raise ClusterError(
            f"warning leaves the job no time to train in. Expected at most {limit - _EARLY} of the {limit} seconds of "
            f"its time limit, as SLURM may warn {_EARLY} s earlier, got {options.warning}. Give the job more --time, "
            "or a shorter --warning, which must be enough for a checkpoint."
        )


def seconds_of(time: str | None) -> int | None:
    """Return a time limit in seconds; `None` where there is none, or it is none of SLURM's forms."""
    if time is None or not _FIELDS_OF_TIME.fullmatch(time):
        return None
    days, dash, rest = time.rpartition("-")
    parts = list(map(int, rest.split(":")))
    if dash:  # D-HH, D-HH:MM, D-HH:MM:SS
        parts += [0] * (3 - len(parts))
    elif len(parts) < 3:  # MM, MM:SS
        parts = [0, *parts, 0][:3]
    return 86400 * int(days or 0) + 3600 * parts[0] + 60 * parts[1] + parts[2]


def check_image(options: JobOptions) -> None:
    """Refuse an image that is not there.

    Raises:
        ClusterError: There is no such file or folder.
    """
    if options.image is not None and not _URI.match(options.image) and not Path(options.image).exists():
        raise ClusterError(
            f"image: there is no {options.image}. Expected an Apptainer image on a disk that the nodes see. Check the "
            "path, or build one (docs/containers.md)."
        )


def options_of_texts(texts: Sequence[str]) -> dict[str, Any]:
    """Return what texts `NAME=VALUE` say; a name of a list may come several times.

    Raises:
        ClusterError: One has no such form.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not value:
            raise ClusterError(f"{text}: expected NAME=VALUE, e.g. partition=gpu.")
        if name in _LISTS:
            found[name] = [*found.get(name, ()), value]
        else:
            found[name] = int(value) if name in _COUNTS and value.isdecimal() else value
    return found


def words(options: JobOptions) -> list[str]:
    """Return the options of sbatch, in the order of the script."""
    given = {
        "--partition": options.partition,
        "--account": options.account,
        "--constraint": options.constraint,
        "--time": options.time,
        "--nodes": options.nodes,
        "--ntasks-per-node": 1,
        "--cpus-per-task": options.cpus,
        "--mem": options.mem,
        "--gpus-per-node": options.gpus,
    }
    return [f"{name}={shlex.quote(str(value))}" for name, value in given.items() if value is not None] + [
        *options.sbatch
    ]
