"""The script that a job runs: readable, with the reason of each line beside it."""

from __future__ import annotations

import dataclasses
import itertools
import re
import shlex
from pathlib import Path

from experiments_manager.cluster.errors import ClusterError
from experiments_manager.cluster.job_options import JobOptions, words
from experiments_manager.common.exit_codes import ExitCode
from experiments_manager.common.version import __version__

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


_LOST_TASK = (
    "# srun passes the signals on to its tasks. 137: one of them was killed, and the others have stopped.",
    f'if [ "$code" -eq 137 ]; then warned=yes; code={int(ExitCode.INTERRUPTED)}; fi',
)


def _run(job: Job, options: JobOptions) -> list[str]:
    """Return the command, in the background so that the shell can pass signals on, and what its end leads to."""
    return [
        "# Signals reach this shell, not the command: USR1 ahead of a time limit or a preemption, TERM at the end.",
        "warned=",
        "trap 'warned=yes; kill -USR1 \"$child\" 2>/dev/null' USR1",
        "trap 'kill -TERM \"$child\" 2>/dev/null' TERM",
        *_command(job, options),
        "child=$!",
        "# A signal ends `wait`, not the command.",
        'while wait "$child"; kill -0 "$child" 2>/dev/null; do :; done',
        'wait "$child"; code=$?',
        *(_LOST_TASK if options.nodes > 1 else ()),
        "",
        f"# {int(ExitCode.INTERRUPTED)}: interrupted, and can go on. Without a warning, it was cancelled or the",
        "# cluster queues it again by itself.",
        f'if [ "$code" -eq {int(ExitCode.INTERRUPTED)} ] && [ -n "$warned" ]; then',
        f'  if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {options.max_requeues} ]; then',
        '    scontrol requeue "$SLURM_JOB_ID" && sleep 60  # until the cluster ends this script',
        "  else",
        f'    echo "The job was queued again {options.max_requeues} times (--max-requeues) and is not finished." >&2',
        "  fi",
        "fi",
        'exit "$code"',
    ]


def _command(job: Job, options: JobOptions) -> list[str]:
    start = _program(job, options)
    if options.nodes > 1:
        # A task that ends leaves the others the time to stop by themselves, and to say why.
        start = ["srun", "--kill-on-bad-exit=0", "--wait=60", *start]
    if len(job.commands) == 1:
        return [f"{shlex.join([*start, *job.commands[0]])} &"]
    tasks = [f"  {number}) set -- {shlex.join(command)} ;;" for number, command in enumerate(job.commands)]
    return ['case "$SLURM_ARRAY_TASK_ID" in', *tasks, "esac", f'{shlex.join(start)} "$@" &']


def _program(job: Job, options: JobOptions) -> list[str]:
    if options.image is None:
        return [options.python, "-m", "experiments_manager"]
    folders = dict.fromkeys([*(str(path) for path in (job.directory, *job.binds)), *_staged(job), *options.bind])
    binds = [word for folder in folders for word in ("--bind", folder)]
    gpu = ["--nv"] if options.gpus else []
    own = ["--env", "PYTHONPATH="]  # or Python in the image would import the packages of the machine
    return ["apptainer", "exec", *gpu, *own, *binds, "--pwd", str(job.directory), options.image, "experiments_manager"]
