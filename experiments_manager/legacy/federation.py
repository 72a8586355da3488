"""The command line of the legacy script that started the server of a federation, translated into the present one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from experiments_manager.common.console import warn
from experiments_manager.common.errors import CommandLineError
from experiments_manager.legacy.options import FEDERATED_OPTIONS, LegacyParser, is_federated_option, legacy_parser

_TEXT = "--strategy"
"""The one canonical option whose value is no number."""


def is_server_command(words: Sequence[str]) -> bool:
    """Return whether a command line has an option that only the script for servers had."""
    return any(is_federated_option(word) for word in words)


def server_form(words: Sequence[str]) -> list[str]:
    """Translate a command line of that script.

    Raises:
        CommandLineError: It names no settings file, or an option has no number.
    """
    given = _add_options(legacy_parser()).parse_args(words)
    if not given.usersettings:
        raise CommandLineError(
            "The server of a federation needs a settings file. Expected --usersettings FILE with these options. Add it."
        )
    for option in FEDERATED_OPTIONS:
        if option.instead and getattr(given, option.dest) is not None:
            warn(f"Ignored option: {option.flags[0]} ({option.flags[1]}). {option.instead}.")
    told, debug = _told(given), ["--debug"] if given.debug else []
    if given.simulation in (None, False, "False", "false", "0"):
        server = ["federate", "server", given.usersettings, "--insecure"]
        return [*server, *_words(told), *debug]
    clients = given.min_available_clients or given.min_fit_clients
    simulated = {"--clients": clients, "--rounds": told.get("--rounds")}
    return ["federate", "simulate", given.usersettings, *_words(simulated), *debug]


def with_canonical_options(command: Sequence[str]) -> list[str]:
    """Translate the script's options in a command line of ours, `federate server FILE -rounds 3`.

    Raises:
        CommandLineError: An option has no number.
    """
    parser = _add_options(LegacyParser(add_help=False, allow_abbrev=False), ours=True)
    given, rest = parser.parse_known_args(list(command))
    return [*rest, *_words(_told(given))]


def _told(given: argparse.Namespace) -> dict[str, str | int]:
    """Return values by canonical options; where several options are one now, the largest number counts."""
    told: dict[str, str | int] = {}
    for option in FEDERATED_OPTIONS:
        value = getattr(given, option.dest, None)
        if option.canonical and value not in (None, ""):
            told[option.canonical] = max(value, told.get(option.canonical, value))
    return told


def _words(values: dict[str, str | int | None]) -> list[str]:
    return [word for name, value in values.items() if value is not None for word in (name, str(value))]


def _add_options(parser: argparse.ArgumentParser, ours: bool = False) -> argparse.ArgumentParser:
    """Add the options to a parser: for `ours`, those that `federate server` has, in its spelling, too."""
    spelt: set[str] = set()
    for option in FEDERATED_OPTIONS:
        if ours and not option.canonical:
            continue
        flags = [*option.flags, *([option.canonical] if ours and option.canonical not in spelt else [])]
        spelt.update(flags)
        kind = {"type": int} if option.canonical not in (None, _TEXT) else {}
        parser.add_argument(*flags, dest=option.dest, **(kind if option.canonical else {"nargs": "?", "const": True}))
    return parser
