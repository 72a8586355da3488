"""The command line of the legacy framework, translated into the present one."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from experiments_manager.common.console import warn
from experiments_manager.common.errors import CommandLineError
from experiments_manager.legacy.federation import is_server_command, server_form, with_canonical_options
from experiments_manager.legacy.options import (
    LEGACY_OPTIONS,
    NO_DISTRIBUTION,
    is_legacy_option,
    legacy_parser,
)


def translate(arguments: Sequence[str]) -> list[str] | None:
    """Read a command line of the legacy form, and print the new form once, as a hint.

    Args:
        arguments: What follows the program's name.

    Returns:
        The same in the canonical form; `None` where it is in the canonical form already.

    Raises:
        CommandLineError: It cannot be translated; the message says why.
    """
    if arguments[:1] == ["federate"] and is_server_command(arguments):
        return with_canonical_options(arguments)
    if not (arguments and arguments[0].startswith("-") and any(map(is_legacy_option, arguments))):
        return None
    if is_server_command(arguments):
        canonical = server_form(arguments)
    else:
        canonical = canonical_form(legacy_parser().parse_args(arguments))
    warn(f"The command line has a new form: experiments_manager {shlex.join(canonical)}")
    return canonical


def canonical_form(given: argparse.Namespace) -> list[str]:
    """Translate parsed options, as the legacy parser gives them.

    Raises:
        CommandLineError: They say too little, or ask for what is not there; the message says what to use.
    """
    if given.commands:
        return ["--help"]
    if given.distributed:
        raise CommandLineError(NO_DISTRIBUTION)
    number = _whole_number(given.predict_stream, "--predict_stream", "a number of predictions, or -1 for all")
    if given.start_server:
        canonical = _serve(given)
    elif given.predict or number:
        canonical = _predict(given, number)
    else:
        canonical = _train(given)
    _warn_unused_options(given, canonical[0])
    return [*canonical, "--debug"] if given.debug else canonical


_USED = {
    "serve": {"start_server", "model_dir", "singularity_tf_server_container_path", "version"},
    "predict": {"predict", "predict_stream", "model_dir", "version"},
    "train": {"usersettings", "procID"},
    "resume": {"model_dir", "restart_interrupted", "procID"},
}
"""For each of the commands, the legacy options that tell it something; `debug` tells all."""


def _warn_unused_options(given: argparse.Namespace, command: str) -> None:
    idle = [
        option.flags[1]
        for option in LEGACY_OPTIONS
        if option.dest not in _USED[command] and option.dest != "debug" and getattr(given, option.dest) not in _ABSENT
    ]
    if idle:
        own = " The run has its own copy of the settings." if "--usersettings" in idle else ""
        warn(f"Ignored options: {', '.join(idle)}.{own}")


_ABSENT = (None, False, "", 0, "0")


def _serve(given: argparse.Namespace) -> list[str]:
    if not given.model_dir:
        raise CommandLineError("--start_server does not say what to serve. Expected --model_dir DIR with it. Add it.")
    image = given.singularity_tf_server_container_path
    engine = ["--engine", "apptainer", "--image", image] if image else []
    return ["serve", run_of(given.model_dir), *engine, *_version(given)]


def _predict(given: argparse.Namespace, number: int) -> list[str]:
    """Ask for one prediction, or so many; a negative number says: until the client has no more data."""
    if not given.model_dir:
        raise CommandLineError("--predict does not say which model to ask. Expected --model_dir DIR with it. Add it.")
    amount = ["--stream"] if number < 0 else ["--count", str(max(number, 1))]
    return ["predict", run_of(given.model_dir), *amount, *_version(given)]


def _train(given: argparse.Namespace) -> list[str]:
    """Return the command for a new run, or, given a run folder, for the same run with its own copy of the settings."""
    process = [] if given.procID is None else ["--set", f"procID={given.procID}"]
    if _version(given):
        raise CommandLineError(
            "-v (--version) says which version to serve. Expected it beside --start_server. Omit it to train."
        )
    if given.model_dir:
        return ["resume", run_of(given.model_dir), *process]
    if given.restart_interrupted:
        raise CommandLineError(
            "--restart_interrupted does not say which run to go on with. Expected --model_dir DIR with it. Add it, or "
            "omit --restart_interrupted to start a new run."
        )
    if given.usersettings:
        return ["train", given.usersettings, *process]
    raise CommandLineError(
        "Missing arguments. Expected --usersettings=FILE to train, or --model_dir DIR "
        "--restart_interrupted to go on with a run. `experiments_manager --help` lists the commands."
    )


def run_of(folder: str) -> str:
    """Return the run folder; legacy command lines named the folder `expe_0` in it, where all the rest was."""
    path = Path(folder)
    is_session = path.name.startswith("expe_") and not (path / "run.json").exists()
    return str(path.parent) if is_session and (path.parent / "run.json").exists() else folder


def _version(given: argparse.Namespace) -> list[str]:
    number = _whole_number(given.version, "--version", "the number of an exported version, or 0 for the newest")
    return ["--model-version", str(number)] if number > 0 else []


def _whole_number(text: str | int | None, option: str, expected: str) -> int:
    try:
        return int(text or 0)
    except ValueError as error:
        raise CommandLineError(f"{option} is {text!r}. Expected {expected}.") from error
