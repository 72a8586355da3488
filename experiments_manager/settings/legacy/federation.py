"""The command line of the legacy script that started the server of a federation, translated into the present one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from experiments_manager.common.console import warn
from experiments_manager.common.errors import CommandLineError
from experiments_manager.settings.legacy.options import FEDERATED_OPTIONS, is_federated_option, legacy_parser

_NUMBERS = {"-rounds": "--rounds", "-minCl": "--minCl", "-minFit": "--minFit", "-minEval": "--minEval"}
_NUMBERS["-locEpoch"] = "--local-epochs"
_IDLE = {
    "-w": "Load weights in `model`",
    "-log": "Use --working-dir",
    "-layerSim": "The strategies ClusteredCosine and ClusteredSpectral compare clients",
    "-saveC": "Each client has its own run folder",
    "-mulmt": "All metrics are told",
}
"""Options that have nothing to do here, and what is there instead."""


def is_server_command(words: Sequence[str]) -> bool:
    """Return whether a command line has an option that only the script for servers had."""
    return any(is_federated_option(word) for word in words)


def server_form(words: Sequence[str]) -> list[str]:
    """Translate a command line of that script.

    Raises:
        CommandLineError: It names no settings file, or an option has no number.
    """
    given = _parser().parse_args(words)
    if not given.usersettings:
        raise CommandLineError(
            "The server of a federation needs a settings file. Expected --usersettings FILE with these options. Add it."
        )
    simulated = given.simulation not in (None, False, "False", "false", "0")
    numbers = {flag: getattr(given, name[2:]) for flag, name in FEDERATED_OPTIONS.items() if flag in _NUMBERS}
    told = ["--strategy", given.agregation] if given.agregation else []
    told += [word for flag, value in numbers.items() if value is not None for word in (_NUMBERS[flag], str(value))]
    for flag, instead in _IDLE.items():
        if getattr(given, FEDERATED_OPTIONS[flag][2:]) is not None:
            warn(f"Ignored option: {flag} ({FEDERATED_OPTIONS[flag]}). {instead}.")
    further = ["--debug"] if given.debug else []
    if not simulated:
        return ["federate", "server", given.usersettings, "--insecure", *told, *further]
    rounds = [] if given.num_rounds is None else ["--rounds", str(given.num_rounds)]
    clients = given.min_available_clients or given.min_fit_clients
    return [
        *("federate", "simulate", given.usersettings),
        *([] if clients is None else ["--clients", str(clients)]),
        *rounds,
        *further,
    ]


def _parser() -> argparse.ArgumentParser:
    parser = legacy_parser()
    for flag, name in FEDERATED_OPTIONS.items():
        options = {"type": int} if flag in _NUMBERS else {}
        if flag in _IDLE or flag == "-sim":
            options = {"nargs": "?", "const": True}
        parser.add_argument(flag, name, dest=name[2:], **options)
    return parser
