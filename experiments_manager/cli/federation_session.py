"""How a client of a federation is announced on the terminal, and its end reported."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from experiments_manager.common.console import warn
from experiments_manager.common.errors import CommandLineError
from experiments_manager.common.exit_codes import ExitCode

if TYPE_CHECKING:
    from experiments_manager.federated.deployment.client import ServerEndpoint
    from experiments_manager.settings import Settings


def key_files(given: Sequence[Path], further: Sequence[str]) -> list[Path]:
    """Return the files of public keys: a shell makes several words of `--public-keys keys/*.pub`.

    Args:
        given: What follows `--public-keys`; a folder stands for its `*.pub`.
        further: What else stands in the command line.

    Raises:
        CommandLineError: There is something else that is no public key, or a folder without any.
    """
    for word in further:
        if not given or not word.endswith(".pub"):
            raise CommandLineError(f"{word!r} is not understood. Expected options after the settings file. Remove it.")
    files = []
    for path in (*given, *map(Path, further)):
        found = sorted(path.glob("*.pub")) if path.is_dir() else [path]
        if not found:
            raise CommandLineError(f"{path} holds no public keys. Expected files *.pub in it, got none. Add them.")
        files += found
    return files


def join(
    settings: Settings,
    proc_id: int,
    membership: ServerEndpoint,
    *,
    partitions: int | None,
    working_dir: Path | None,
    quiet: bool,
) -> None:
    """Take part in a federation until it is over.

    Raises:
        typer.Exit: The process was asked to stop.
    """
    from experiments_manager import api

    if not quiet:
        warn(f"Client {proc_id} of the federation at {membership.server}")
    state = api.join_federation(
        settings,
        proc_id,
        membership,
        partitions=partitions,
        working_dir=working_dir,
        command=["experiments_manager", *sys.argv[1:]],
        tell=_silent if quiet else warn,
    )
    _report(state, quiet)


def join_as_before(settings: Settings, working_dir: Path | None, *, quiet: bool) -> None:
    """Take part as settings say that have `enable_federated_learning = True`."""
    from experiments_manager.federated.verbs import join_as_before

    command = ["experiments_manager", *sys.argv[1:]]
    state = join_as_before(settings, working_dir=working_dir, command=command, tell=_silent if quiet else warn)
    _report(state, quiet)


def _report(state: str, quiet: bool) -> None:
    if state == "interrupted":
        warn("The client was stopped. To take part again, run the same command again.")
        raise typer.Exit(ExitCode.INTERRUPTED)
    if not quiet:
        warn("The federation is over.")


def _silent(text: str) -> None:
    """No-op in place of `warn`, where the command is quiet."""
