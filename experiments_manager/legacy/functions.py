"""The legacy command line as Python functions, for scripts that start runs themselves, such as a search.

import experiments_manager

result = experiments_manager.run("mysettings_curve.py", external_hparams={"learningRate": 0.01})
result["loss"], result["sessionFolder"]
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments_manager import api
from experiments_manager.common.console import warn
from experiments_manager.common.errors import CommandLineError
from experiments_manager.federated.verbs import join_as_before
from experiments_manager.legacy.command_line import canonical_form, run_of
from experiments_manager.legacy.dialect import DIALECT
from experiments_manager.legacy.options import legacy_parser

if TYPE_CHECKING:
    from experiments_manager.settings import Settings
    from experiments_manager.training.engine.outcome import RunResult


def get_commands() -> argparse.ArgumentParser:
    """Return the parser of the legacy command line."""
    return legacy_parser()


def get_default_args() -> argparse.Namespace:
    """Return the legacy command line's flags, none of them set."""
    return legacy_parser().parse_args([])


def run(
    FLAGS: argparse.Namespace | Path | str | None = None,  # noqa: N803  (callers give it by name)
    train_config_script: Path | str | Mapping[str, Any] | None = None,
    external_hparams: Mapping[str, Any] | None = None,
) -> dict[str, Any] | None:
    """Do what the legacy command line with these flags does: train, go on with a run, serve, or ask.

    Args:
        FLAGS: What `get_default_args()` gives, with attributes changed; or a settings file to train.
        train_config_script: A settings file, which counts for more than `FLAGS.usersettings`. Where `FLAGS` is a file,
            this may be `external_hparams`, too.
        external_hparams: Entries that update the file's `hparams`; keys may be new, and types others. `session_folder`
            among them is none: the run is made in that folder, as `expe_<session_number>` (0 by default).

    Returns:
        After training `loss` (of the last epoch, on the training data), `status` (`"ok"`, hyperopt's word for a trial
        that came to its end), `last_exported_model` (folder of the newest version, or `None`), `sessionFolder` (the run
        folder) and `global_step` (steps trained); else `None`, also for a client of a federation.

    Raises:
        CommandLineError: The flags say too little, or ask for what is not there.
        KeyboardInterrupt: Training was interrupted, so that a loop of runs ends, too; `resume` goes on with the run.
        SettingsError: As for `train`; so are `UserCodeError`, `TrainingError` and `RunError`.
    """
    if isinstance(train_config_script, Mapping):
        train_config_script, external_hparams = None, {**train_config_script, **(external_hparams or {})}
    flags = _flags(FLAGS, train_config_script)
    command, *_ = canonical_form(flags)
    if command == "--help":
        warn(legacy_parser().format_help())
        return None
    if command == "serve":
        return _serve(flags)
    if command == "predict":
        return _predict(flags)
    return _train(flags, dict(external_hparams or {}))


def _flags(given: argparse.Namespace | Path | str | None, settings_file: Path | str | None) -> argparse.Namespace:
    """Return all flags, those of a caller who has fewer or others included."""
    flags = get_default_args()
    if isinstance(given, (str, Path)):
        flags.usersettings = given
    elif given is not None:
        for name in vars(flags):
            setattr(flags, name, getattr(given, name, getattr(flags, name)))
    if settings_file is not None:
        flags.usersettings = settings_file
    flags.usersettings = flags.usersettings and str(flags.usersettings)
    flags.model_dir = flags.model_dir and run_of(str(flags.model_dir))
    return flags


def _serve(flags: argparse.Namespace) -> None:
    image = flags.singularity_tf_server_container_path
    version = int(flags.version) or None
    api.serve(flags.model_dir, image=Path(image) if image else None, model_version=version, tell=warn)


def _predict(flags: argparse.Namespace) -> None:
    from experiments_manager.cli.commands.predict import predict

    number = int(flags.predict_stream or 0)
    predict(
        Path(flags.model_dir),
        count=None if number < 0 else max(number, 1),
        model_version=str(flags.version) if int(flags.version) else None,
        debug=bool(flags.debug),
    )


def _train(flags: argparse.Namespace, hparams: dict[str, Any]) -> dict[str, Any] | None:
    if flags.procID is not None:
        hparams["procID"] = flags.procID
    if "isFLserver" in hparams:
        raise CommandLineError(
            'external_hparams["isFLserver"] is not supported: the server of a federation is a command. Omit it, and '
            f"start: experiments_manager federate server {flags.usersettings}"
        )
    if flags.model_dir:
        result = api.resume(flags.model_dir, overrides={f"hparams.{key}": value for key, value in hparams.items()})
    else:
        entries = {key: value for key, value in hparams.items() if key != "session_folder"}
        settings = api.load_settings(flags.usersettings, hparams=entries)
        if settings.enable_federated_learning:
            return _join(settings, hparams.get("session_folder"))
        result = api.train(
            settings,
            working_dir=hparams.get("session_folder"),
            run_name=f"expe_{hparams.get('session_number', 0)}" if hparams.get("session_folder") else None,
            command=["experiments_manager.run", flags.usersettings],
        )
    if result.state == "interrupted":
        raise KeyboardInterrupt(
            f"The run was interrupted. To go on: experiments_manager.resume({str(result.run_dir)!r})"
        )
    return _summary(result)


def _join(settings: Settings, working_dir: Path | str | None) -> None:
    """Take part in the federation that the settings name, as a client of it."""
    state = join_as_before(settings, working_dir=working_dir, command=["experiments_manager.run", str(settings.file)])
    if state == "interrupted":
        raise KeyboardInterrupt("The client was stopped. Run the same again to take part again.")


def _summary(result: RunResult) -> dict[str, Any]:
    loss = {"loss": result.metrics["loss"]} if "loss" in result.metrics else {}
    return {
        **loss,
        "status": "ok",
        "last_exported_model": result.exported_model and str(result.exported_model),
        "sessionFolder": str(result.run_dir),
        "global_step": api.load_run(result.run_dir).manifest.get("global_step"),
    }


def loadExperimentsSettings(  # noqa: N802  (its legacy name)
    filename: Path | str | None,
    call_from_session_folder: bool = False,
    restart_from_sessionFolder: Path | str | None = None,  # noqa: N803
    isServingModel: bool = False,  # noqa: N803
) -> tuple[Settings, str]:
    """Load a settings file, or the settings of a run.

    Args:
        filename: The settings file; or `experiment_settings.py` in a run folder, whose own copy is loaded then,
            whatever it is called.
        call_from_session_folder: Without meaning here: a run's copy finds its files by itself.
        restart_from_sessionFolder: A run folder, whose settings are loaded instead of the file.
        isServingModel: Without meaning here: the same is checked in any case.

    Returns:
        The settings, with all legacy names as attributes; and the run folder, or the name that a run begun now would
        have.

    Raises:
        SettingsError: The settings cannot be used; all problems are named.
        RunError: There is no run in that folder.
    """
    from experiments_manager.runs.naming import run_name
    from experiments_manager.runs.run_settings import load_run_settings

    folder = restart_from_sessionFolder
    if folder is None and Path(filename).name == DIALECT.run_settings and not Path(filename).exists():
        folder = Path(filename).parent
    if folder is not None:
        run = api.load_run(folder)
        return load_run_settings(run), str(run.path)
    settings = api.load_settings(filename)
    name = run_name(settings.session_name, settings.hparams, datetime.datetime.now())
    return settings, str(Path(settings.working_dir) / name)
