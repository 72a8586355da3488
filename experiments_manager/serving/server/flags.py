"""The console script `experiments-model-server`: our server with the flags of `tensorflow_model_server`."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from experiments_manager.common.exit_codes import ExitCode
from experiments_manager.common.machine.imports import imported_for_good
from experiments_manager.common.signals import exit_process
from experiments_manager.common.suggestions import nearest_name
from experiments_manager.protocol.errors import ServerStartError
from experiments_manager.serving.server.flag_table import FLAGS, IGNORED, ServerFlags
from experiments_manager.serving.server.preflight import check_embedded, check_port, check_socket

if TYPE_CHECKING:
    from experiments_manager.serving.server.server import Server

logger = logging.getLogger(__name__)

_REACHED_AS_LOCALHOST = frozenset({"127.0.0.1", "0.0.0.0", "localhost", "::", "::1"})
_DEFAULTS = {name: field.default for name, field in FLAGS.items()} | {name: it for name, (it, _) in IGNORED.items()}
_TENSORFLOW = ("tensorflow", "tensorflow-cpu")
"""Names of its distribution: in images for CPU it is the second, which is smaller."""
_EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ServerStartError(message.removeprefix("argument "))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        "experiments-model-server",
        usage="%(prog)s --model_base_path=DIR [--port=8500] [--rest_api_port=8501] ...",
        allow_abbrev=False,
    )
    for name, field in FLAGS.items():
        default = "" if field.default == "" else f" Default: {_text(field.default)}"
        _add(parser, name, help=f"{field.metadata['doc']}{default}", default=field.default)
    ignored = parser.add_argument_group("accepted, and without meaning here")
    for name, (_, why) in IGNORED.items():
        _add(ignored, name, help=f"{why[0].upper()}{why[1:]}.", default=argparse.SUPPRESS)
    return parser


def _add(parser: Any, name: str, **about: Any) -> None:
    kind = type(_DEFAULTS[name])
    parser.add_argument(f"--{name}", type=_reader(kind), metavar={bool: "BOOL", str: "TEXT"}.get(kind, "N"), **about)


def _reader(kind: type) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()] if kind is bool else kind(text)
        except (ValueError, KeyError) as error:
            raise argparse.ArgumentTypeError(f"Expected {_EXPECTED[kind]}, got {text!r}. Change it.") from error

    return read


def parse(arguments: Sequence[str]) -> ServerFlags:
    """Read a command line: `--flag=value`, `--flag value`, and `--flag` alone where it is true or false.

    Args:
        arguments: What follows the program's name.

    Raises:
        ServerStartError: A flag is unknown (the nearest known one is named), or its value is invalid.
    """
    given, unknown = _parser().parse_known_args([_canonical(argument) for argument in arguments])
    if unknown:
        raise _unknown(unknown[0])
    values = vars(given)
    for name in [name for name in values if name in IGNORED]:
        del values[name]
        logger.warning("--%s is ignored: %s.", name, IGNORED[name][1])
    for name, value in values.items():
        if "fixed" in FLAGS[name].metadata and value != FLAGS[name].default:
            raise ServerStartError(f"--{name}={_text(value)} is not supported. {FLAGS[name].metadata['fixed']}")
    return ServerFlags(**values)


def _canonical(argument: str) -> str:
    """Return `--flag-name` as `--flag_name`, and a flag that is true where it stands alone as `--flag=true`."""
    if not argument.startswith("--"):
        return argument
    name, equals, text = argument[2:].partition("=")
    name = name.replace("-", "_")
    return f"--{name}=true" if not equals and isinstance(_DEFAULTS.get(name), bool) else f"--{name}{equals}{text}"


def _unknown(argument: str) -> ServerStartError:
    name = argument.lstrip("-").partition("=")[0]
    near = name if name in _DEFAULTS else nearest_name(name, _DEFAULTS)
    hint = f"Did you mean --{near}?" if near else "`experiments-model-server --help` lists all flags."
    return ServerStartError(f"unknown argument: {argument}. {hint}")


def command_line(flags: ServerFlags) -> list[str]:
    """Return the arguments of another process that `parse` reads as these flags; defaults are left out."""
    values = {name: getattr(flags, name) for name in FLAGS}
    if flags.model_config_file:
        del values["model_name"], values["model_base_path"]
    return [f"--{name}={_text(value)}" for name, value in values.items() if value != FLAGS[name].default]


def _text(value: bool | int | float | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def versions() -> str:
    """Return what `--version` prints; without importing TensorFlow."""
    from importlib import metadata

    from experiments_manager.common.version import __version__

    library = "none; TensorFlow Lite models alone"
    for name in _TENSORFLOW:
        with contextlib.suppress(metadata.PackageNotFoundError):
            library = metadata.version(name)
            break
    return f"TensorFlow ModelServer: experiments-manager {__version__}\nTensorFlow Library: {library}"


def run(arguments: Sequence[str], *, on_ready: Callable[[], None] = lambda: None) -> int:
    """Run a server until it is told to end.

    Args:
        arguments: Its flags.
        on_ready: Called when it answers, each model having a version.

    Returns:
        The exit code: 0, or 2 where it cannot be started as it was asked for.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname).1s %(message)s")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if {"--help", "-h"} & set(arguments):
        _parser().print_help()
        return ExitCode.DONE
    try:
        flags = parse(arguments)
        if flags.version:
            sys.stdout.write(f"{versions()}\n")
            return ExitCode.DONE

        check_embedded()

        with imported_for_good():
            from experiments_manager.serving.server.options import server_options
            from experiments_manager.serving.server.server import run_server

        options = server_options(flags)
        for name, port in (("port", flags.port), ("rest_api_port", flags.rest_api_port)):
            if port:  # now, and not when all models are loaded
                check_port(flags.host, port, f"--{name}")
        if flags.grpc_socket_path:
            check_socket(flags.grpc_socket_path, "--grpc_socket_path")

        def announce(server: Server) -> None:
            on_ready()
            _announce(flags, server)

        run_server(options, on_ready=announce, on_waiting=_report_waiting)
    except ServerStartError as error:
        logger.error("Failed to start server. %s", error)
        return error.exit_code
    return ExitCode.DONE


def _announce(flags: ServerFlags, server: Server) -> None:
    """Say that the server answers, in the words of `tensorflow_model_server`, which scripts wait for."""
    if server.grpc is not None and server.grpc.port is not None:
        logger.info("Running gRPC ModelServer at %s:%s ...", flags.host, server.grpc.port)
    if flags.grpc_socket_path:
        logger.info("Running gRPC ModelServer at UNIX socket %s ...", flags.grpc_socket_path)
    if server.rest is not None:
        host = "localhost" if flags.host in _REACHED_AS_LOCALHOST else flags.host
        logger.info("Exporting HTTP/REST API at:%s:%s ...", host, server.rest.port)
        logger.info("Entering the event loop ...")


def _report_waiting(problems: Mapping[str, str]) -> None:
    for name, problem in problems.items():
        logger.info("Waiting for %s: %s", name, problem)


def main() -> None:
    """Run the console script."""
    code = run(sys.argv[1:])
    exit_process(code)  # gRPC's thread lives to the end, and may abort the process while Python takes itself down


if __name__ == "__main__":
    main()
