"""The script that a job runs: readable, with the reason of each line beside it."""

from __future__ import annotations

import dataclasses
import itertools
import re
import shlex
from pathlib import Path

from experiments_manager.cluster.errors import ClusterError
from experiments_manager.cluster.job_options import JobOptions, words
from experiments_manager.common.version import __version__

SUPERVISE = Path(__file__).with_name("supervise.sh")
"""The shell function that runs the command of a job; install/slurm reads it in too."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NO_NAME = re.compile(r"[\x00-\x1f\x7f/\\]")


@dataclasses.dataclass(frozen=True)
class Job:
    """What is to run.

    Attributes:
        name: As the queue shows it.
        folder: Where its script and its output are; made by who submits.
        directory: The working directory of the command.
        commands: The command lines, without the name of the program; more than one are the tasks of an array.
        binds: Folders that an image must see.
    """

    name: str
    folder: Path
    directory: Path
    commands: tuple[tuple[str, ...], ...]
    binds: tuple[Path, ...] = ()

    @property
    def output(self) -> str:
        """The file of the output, as sbatch names it."""
        name = "slurm-%A_%a.out" if len(self.commands) > 1 else "slurm-%j.out"
        return str(self.folder).replace("%", "%%") + f"/{name}"


def batch_script(job: Job, options: JobOptions) -> str:
    """Return the text of the script.

    Raises:
        ClusterError: The name or a folder would break lines of it.
    """
    if not job.name or _NO_NAME.search(job.name):
        raise ClusterError(
            f"name is wrong. Expected one line without slashes and control characters, got {job.name!r}. Name the job "
            "by --name."
        )
    odd = next((path for path in (job.folder, job.directory) if _CONTROL.search(str(path))), None)
    if odd is not None:
        raise ClusterError(f"The folder {str(odd)!r} has control characters in its name. Rename it.")
    return "\n".join([*_header(job, options), "", *_setup(job, options), "", *_run(job, options), ""])


def _header(job: Job, options: JobOptions) -> list[str]:
    shown = f"experiments_manager {shlex.join(job.commands[0])}" + (" …" if len(job.commands) > 1 else "")
    lines = ["#!/bin/bash", f"# {_one_line(shown)}", f"# Written by experiments_manager submit {__version__}."]
    given = [f"--job-name={shlex.quote(job.name)}", *words(options)]
    if len(job.commands) > 1:
        given.append(f"--array=0-{len(job.commands) - 1}")
    lines += [f"#SBATCH {word}" for word in given]
    return [
        *lines,
        f"#SBATCH --output={shlex.quote(job.output)}",
        "# A job that is queued again writes on in the same file.",
        "#SBATCH --open-mode=append",
        "# After a preemption, or when its node fails, the cluster queues the job again.",
        "#SBATCH --requeue",
        f"# {options.warning} seconds before the time limit the run is told to stop where it can go on.",
        f"#SBATCH --signal=B:USR1@{options.warning}",
    ]


def _one_line(text: str) -> str:
    return text.replace("\n", "\\n").replace("\r", "\\r")


def _setup(job: Job, options: JobOptions) -> list[str]:
    lines = [f"cd {shlex.quote(str(job.directory))} || exit 1", *options.setup]
    if options.image is not None and _staged(job):
        folder = options.stage_dir or "${SLURM_TMPDIR:-${TMPDIR:-/tmp}}"
        lines += [
            "# The image sees the node's own disk, to which data is copied.",
            f'export APPTAINER_BIND="${{APPTAINER_BIND:+$APPTAINER_BIND,}}{folder}"',
        ]
    return lines


def _staged(job: Job) -> list[str]:
    """Return what the commands copy to the node's own disk."""
    words = [part for command in job.commands for word in command for part in _option_and_value(word)]
    return [str(job.directory / path) for option, path in itertools.pairwise(words) if option == "--stage-data"]


def _option_and_value(word: str) -> list[str]:
    return word.split("=", 1) if word.startswith("--stage-data=") else [word]


def _run(job: Job, options: JobOptions) -> list[str]:
    """Return the command, and what its end leads to."""
    start = _program(job, options)
    if options.nodes > 1:
        # A task that ends leaves the others the time to stop by themselves, and to say why.
        start = ["srun", "--kill-on-bad-exit=0", "--wait=60", *start]
    start = ["supervise", str(options.max_requeues), *start]
    shell = SUPERVISE.read_text(encoding="utf-8").splitlines()
    if len(job.commands) == 1:
        return [*shell, "", shlex.join([*start, *job.commands[0]])]
    tasks = [f"  {number}) set -- {shlex.join(command)} ;;" for number, command in enumerate(job.commands)]
    return [*shell, "", 'case "$SLURM_ARRAY_TASK_ID" in', *tasks, "esac", f'{shlex.join(start)} "$@"']


def _program(job: Job, options: JobOptions) -> list[str]:
    if options.image is None:
        return [options.python, "-m", "experiments_manager"]
    folders = dict.fromkeys([*(str(path) for path in (job.directory, *job.binds)), *_staged(job), *options.bind])
    binds = [word for folder in folders for word in ("--bind", folder)]
    gpu = ["--nv"] if options.gpus else []
    own = ["--env", "PYTHONPATH="]  # or Python in the image would import the packages of the machine
    return ["apptainer", "exec", *gpu, *own, *binds, "--pwd", str(job.directory), options.image, "experiments_manager"]
