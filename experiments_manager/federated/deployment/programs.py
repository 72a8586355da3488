"""Programs of Flower as child processes: with our own interpreter, a home of their own, and an end with ours."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import experiments_manager
from experiments_manager.common.machine.processes import kill_processes_with, try_lock, wait_or_kill_session
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.flower import QUIET

PATIENCE = 10.0
"""Seconds that a program has to end after SIGTERM."""
_CHILDREN_PATIENCE = 2.0
"""Seconds that what it started has to end by itself after it: that looks for its parent five times a second."""
_HOME = "FLWR_HOME"
"""The variable by which programs of one home are found, also those that Flower starts in sessions of their own."""
QUICK_POLL = {"FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1"}
"""How often Flower looks for a message whose process it should start; every second otherwise."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_BOUND = """\
import sys
from experiments_manager.common.machine.processes import die_with_parent
die_with_parent(int(sys.argv.pop(1)))
"""
"""A program asks by itself to end with its parent, since our process has threads."""
_TO_ITS_END = """\
import os, sys, traceback
try:
    code = main()
except SystemExit as end:
    code = end.code
except BaseException:
    traceback.print_exc()
    code = 1
sys.stdout.flush()
sys.stderr.flush()
os._exit(code if isinstance(code, int) else 0 if code is None else 1)
"""
"""Ends a SuperNode (1.41) that gave its server up: the thread of its own API would let it wait for ever."""


class Program:
    """A program of Flower that runs, and all that it started itself.

    Attributes:
        name: What it is called in messages.
        log: The file that it writes its output to.
        process: It.
    """

    def __init__(self, name: str, process: subprocess.Popen, home: Path, log: Path, begin: int) -> None:
        self.name, self.process, self.log, self._home = name, process, log, home
        self._begin = begin

    @property
    def ended(self) -> bool:
        """Whether the program has ended."""
        return self.process.poll() is not None

    def output(self) -> str:
        """Return all that it wrote, without what is in its log from before."""
        with self.log.open("rb") as log:
            log.seek(self._begin)
            return _COLOUR.sub("", log.read().decode(errors="replace"))

    def output_before(self) -> str:
        """Return what is in its log from before it was started."""
        with self.log.open("rb") as log:
            return _COLOUR.sub("", log.read(self._begin).decode(errors="replace"))

    def said(self, lines: int = 15) -> str:
        """Return the last lines that it wrote."""
        return "\n".join(self.output().splitlines()[-lines:])

    def check(self) -> None:
        """Raise when it ended.

        Raises:
            FederationError: It did.
        """
        if self.ended:
            raise FederationError(
                f"{self.name} ended by itself with exit code {self.process.returncode}. Expected it to run on. "
                f"Its log is {self.log}, which ends with:\n{self.said()}"
            )

    def stop(self, patience: float = PATIENCE) -> None:
        """End it and what it started, by SIGTERM and then by SIGKILL."""
        self.process.terminate()
        wait_or_kill_session(self.process, patience)
        kill_processes_with(_HOME, str(self._home), _CHILDREN_PATIENCE)


def make_home(folder: Path) -> Path:
    """Make a folder for everything that programs of Flower write, and return it.

    Flower starts its own programs by name (`flwr-clientapp`). They come from `bin/` here, so that they run in this very
    environment, whichever one the path would name.
    """
    home = Path(folder).absolute()
    (home / "bin").mkdir(parents=True, mode=0o700, exist_ok=True)
    home.chmod(0o700)
    for program in ("flower-superexec", "flwr-serverapp", "flwr-clientapp", "flwr"):
        script = home / "bin" / program
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(_code(program))} "$@"\n')
        script.chmod(0o700)
    return home


def environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a program: quiet, in its own home, and able to import this package."""
    package = str(Path(experiments_manager.__file__).parents[1])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        **QUIET,
        **QUICK_POLL,
        _HOME: str(home),
        "PATH": os.pathsep.join([str(home / "bin"), os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
        **(extra or {}),
    }


def start(program: str, arguments: Sequence[str | Path], home: Path, extra: Mapping[str, str] | None = None) -> Program:
    """Start a program of Flower. It ends when the thread that started it does, however that comes.

    Args:
        program: Its name, such as `flower-superlink`.
        arguments: Its command line.
        home: The folder that `make_home` made; its log goes there.
        extra: More variables for its environment.
    """
    log = home / f"{program}.log"
    with log.open("ab") as output:
        begin = output.tell()
        process = subprocess.Popen(
            [sys.executable, "-c", _BOUND + _code(program), str(os.getpid()), *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment(home, extra),
            cwd=home,
            start_new_session=True,
        )
    return Program(program, process, home, log, begin)


def call(program: str, arguments: Sequence[str | Path], home: Path) -> str:
    """Run a program of Flower to its end and return what it printed.

    Raises:
        FederationError: It failed.
    """
    told = subprocess.run(
        [home / "bin" / program, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(home),
        cwd=home,
    )
    if told.returncode:
        raise FederationError(
            f"`{program} {' '.join(map(str, arguments))}` failed with exit code {told.returncode}. Expected Flower to "
            f"do it. It said:\n{(told.stdout + told.stderr).strip()}"
        )
    return told.stdout


def _code(program: str) -> str:
    """Return the Python code that is a program of Flower."""
    (entry,) = (entry for entry in metadata.distribution("flwr").entry_points if entry.name == program)
    main = f"from {entry.module} import {entry.attr} as main\n"
    return main + (_TO_ITS_END if program == "flower-supernode" else "import sys; sys.exit(main())")


@contextlib.contextmanager
def held_alone(home: Path, proc_id: int) -> Iterator[None]:
    """Let no other process use a home while the block runs, and end what one that was killed left.

    Raises:
        FederationError: Another process uses it.
    """
    with (home / "lock").open("w") as file:
        if not try_lock(file):
            raise FederationError(
                f"Client {proc_id} runs already: another process uses {home}. Expected each number once. Stop that "
                "one, or choose another --proc-id."
            )
        kill_processes_with(_HOME, str(home))
        yield
