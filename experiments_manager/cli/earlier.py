"""The command line of the framework before this one, translated into today's."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from typing import NoReturn

from experiments_manager.cli.errors import CommandLineError, warn

_SERVING = ("start_server", "predict", "predict_stream")
_TRIGGERS = ("usersettings", "model_dir", "restart_interrupted", "procID", "commands", *_SERVING)


def translate(arguments: Sequence[str]) -> list[str] | None:
    """Reads a command line of the earlier form, and prints the new form once, as a hint.

    Args:
        arguments: What follows the program's name.

    Returns:
        The same in today's form; `None` where it is in today's form already.

    Raises:
        CommandLineError: It cannot be translated; the message says why.
    """
    words = {argument.partition("=")[0] for argument in arguments}
    if not (arguments and arguments[0].startswith("-") and words & {f"--{name}" for name in _TRIGGERS}):
        return None
    todays = _todays(_parser().parse_args(arguments))
    warn(f"The command line has a new form: experiments_manager {shlex.join(todays)}")
    return todays


def _todays(given: argparse.Namespace) -> list[str]:
    if given.commands:
        return ["--help"]
    if given.start_server:
        return _serve(given)
    if given.predict or given.predict_stream is not None:
        return _predict(given)
    debug = ["--debug"] if given.debug else []
    if given.usersettings:
        process = [] if given.procID is None else ["--set", f"procID={given.procID}"]
        return ["train", given.usersettings, *process, *debug]
    if given.model_dir and given.restart_interrupted:
        return ["resume", given.model_dir, *debug]
    raise CommandLineError(
        "This command line says too little. Expected --usersettings=FILE to train, or --model_dir DIR "
        "--restart_interrupted to go on with a run. `experiments_manager --help` lists today's commands."
    )


def _serve(given: argparse.Namespace) -> list[str]:
    if not given.model_dir:
        raise CommandLineError("--start_server does not say what to serve. Expected --model_dir DIR with it. Add it.")
    image = ["--engine", "apptainer", "--image", given.image] if given.image else []
    return ["serve", given.model_dir, *image, *(["--debug"] if given.debug else [])]


def _predict(given: argparse.Namespace) -> list[str]:
    """One prediction, or `--predict_stream` of them; a negative number says: until the client has no more data."""
    if not given.model_dir:
        raise CommandLineError("--predict does not say which model to ask. Expected --model_dir DIR with it. Add it.")
    try:
        number = int(given.predict_stream or 0)
    except ValueError as error:
        raise CommandLineError(
            f"--predict_stream is {given.predict_stream!r}. Expected a number of predictions, or -1 for all."
        ) from error
    amount = ["--stream"] if number < 0 else ["--count", str(max(number, 1))]
    return ["predict", given.model_dir, *amount, *(["--debug"] if given.debug else [])]


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--usersettings")
    parser.add_argument("--model_dir")
    parser.add_argument("--procID")
    parser.add_argument("-psi", "--singularity_tf_server_container_path", dest="image")
    parser.add_argument("--predict_stream", nargs="?", const="-1")
    for flag in ("restart_interrupted", "start_server", "predict", "commands", "debug"):
        parser.add_argument(f"--{flag}", action="store_true")
    return parser


class _Parser(argparse.ArgumentParser):
    """Raises instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise CommandLineError(
            f"{message[0].upper()}{message[1:]}. `experiments_manager --help` lists today's commands."
        )
