"""The options of the legacy scripts: one table, from which the parser, its messages and the docs' checks follow."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any, NoReturn

from experiments_manager.common.errors import CommandLineError


@dataclasses.dataclass(frozen=True)
class LegacyOption:
    """One option of the legacy command line that works.

    Attributes:
        flags: All its spellings.
        dest: Where argparse puts it.
        canonical: What it is in the canonical form.
        begins: Whether its presence tells that a command line has the legacy form.
        argparse_options: What else `add_argument` is given.
    """

    flags: tuple[str, ...]
    dest: str
    canonical: str
    begins: bool = True
    argparse_options: dict[str, Any] = dataclasses.field(default_factory=dict)


_SWITCH: dict[str, Any] = {"action": "store_true"}

LEGACY_OPTIONS = (
    LegacyOption(("-u", "--usersettings"), "usersettings", "train FILE"),
    LegacyOption(("-m", "--model_dir"), "model_dir", "the run that a command is given"),
    LegacyOption(("-r", "--restart_interrupted"), "restart_interrupted", "resume RUN", True, _SWITCH),
    LegacyOption(("-pid", "--procID"), "procID", "--set procID=N"),
    LegacyOption(("-s", "--start_server"), "start_server", "serve RUN", True, _SWITCH),
    LegacyOption(
        ("-psi", "--singularity_tf_server_container_path", "--tf_server_container_path"),
        "singularity_tf_server_container_path",
        "serve RUN --engine apptainer --image FILE",
        True,
        {"default": ""},
    ),
    LegacyOption(("-v", "--version"), "version", "serve RUN --model-version N", False, {"default": 0}),
    LegacyOption(("-p", "--predict"), "predict", "predict RUN --count 1", True, _SWITCH),
    LegacyOption(
        ("-l", "--predict_stream"),
        "predict_stream",
        "predict RUN --count N",
        True,
        {"nargs": "?", "const": "-1", "default": 0},
    ),
    LegacyOption(("-c", "--commands"), "commands", "--help", True, _SWITCH),
    LegacyOption(("-d", "--debug"), "debug", "--debug", False, _SWITCH),
    LegacyOption(("-dist", "--distributed"), "distributed", "refused", True, _SWITCH),
)
"""The options of `experiments_manager.py` and of `start_model_serving.py`."""

NO_DISTRIBUTION = (
    "-dist (--distributed) is not supported: a run trains on one machine. Omit it. Several of its GPUs "
    "are the settings `gpus` (`used_gpu_IDs`) and `strategy` (`distribution_strategy`); a settings file that reads "
    'hparams["distributed"] gets it by `"distributed": True` in its hparams.'
)


@dataclasses.dataclass(frozen=True)
class FederatedOption:
    """One option of the script that started the server of a federation.

    Attributes:
        flags: Both its spellings.
        canonical: The option of `federate server` that it is; `None` where there is none.
        instead: What to do in its place, where it is ignored.
    """

    flags: tuple[str, str]
    canonical: str | None = None
    instead: str = ""

    @property
    def dest(self) -> str:
        """Where argparse puts it."""
        return self.flags[1][2:]


FEDERATED_OPTIONS = (
    FederatedOption(("-rounds", "--num_rounds"), "--rounds"),
    FederatedOption(("-agr", "--agregation"), "--strategy"),
    FederatedOption(("-minCl", "--min_available_clients"), "--min-clients"),
    FederatedOption(("-minFit", "--min_fit_clients"), "--min-clients"),
    FederatedOption(("-minEval", "--min_eval_clients"), "--min-clients"),
    FederatedOption(("-locEpoch", "--local_epochs"), "--local-epochs"),
    FederatedOption(("-sim", "--simulation")),
    FederatedOption(("-w", "--pretrainedmodelcheckpointpath"), instead="Load weights in `model`"),
    FederatedOption(("-log", "--log_dir"), instead="Use --working-dir"),
    FederatedOption(
        ("-layerSim", "--layer_similarity"),
        instead="The strategies ClusteredCosine and ClusteredSpectral compare clients",
    ),
    FederatedOption(("-saveC", "--save_clients"), instead="Each client has its own run folder"),
    FederatedOption(("-mulmt", "--multi_metric"), instead="All metrics are told"),
)
"""What `start_federated_server.py` took besides."""

_LONG_FLAGS = [flag for option in LEGACY_OPTIONS if option.begins for flag in option.flags if flag.startswith("--")]
_SHORT_FLAGS = tuple(flag for option in LEGACY_OPTIONS if option.begins for flag in option.flags if len(flag) == 2)
_FEDERATED = {flag for option in FEDERATED_OPTIONS for flag in option.flags}
_ALSO_SHORT = ("-dist",)


def is_legacy_option(word: str) -> bool:
    """Return whether a word of a command line is a legacy option: whole, abbreviated, or with its value behind it."""
    flag = word.partition("=")[0]
    if is_federated_option(word):
        return True
    if flag.startswith("--"):
        return len(flag) > 3 and any(long.startswith(flag) for long in _LONG_FLAGS)
    return word.startswith((*_SHORT_FLAGS, *_ALSO_SHORT))


def is_federated_option(word: str) -> bool:
    """Return whether a word is an option of the script that started a federation's server."""
    return word.partition("=")[0] in _FEDERATED


class LegacyParser(argparse.ArgumentParser):
    """Raises instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        raise CommandLineError(
            f"{message[0].upper()}{message[1:]}. `experiments_manager --help` lists the commands; the page "
            "docs/from-deeplearningtools.md has all legacy options."
        )


def legacy_parser() -> argparse.ArgumentParser:
    """Make the parser; like the legacy one it takes long options by their beginnings, too."""
    parser = LegacyParser(prog="experiments_manager", add_help=False)
    for option in LEGACY_OPTIONS:
        parser.add_argument(*option.flags, dest=option.dest, help=option.canonical, **option.argparse_options)
    return parser
