"""Train, watch, export and serve TensorFlow / Keras 3 experiments from one settings module.

The verbs of the command line, for notebooks and scripts:

    import experiments_manager as em

    result = em.train("mysettings_curve_fitting.py", overrides={"epochs": 20})
    em.evaluate(result.run_dir)                  # {"loss": …, "accuracy": …}
    em.explain(result.run_dir).figures           # what its answers rest on
    em.resume(result.run_dir, overrides={"epochs": 40})
    em.sweep("mysweep_curve_fitting.py", parallel=2).best    # the settings that work best
    run = em.load_run(result.run_dir)            # its paths and what run.json says
    em.list_runs("experiments", sort="best")
    em.compare_runs([first, second]).hparams     # what differs
    em.plot_runs([first, second], "curves.png")  # their curves over each other
    em.report("experiments")                     # one HTML page about all runs
    em.Client.for_run(result.run_dir).predict({"x": x})     # asks the server of its model

`em.load_settings` and `em.check` load a settings module without training. `em.run`, `em.loadExperimentsSettings`,
`em.get_commands` and `em.get_default_args` are those of DeepLearningTools, for scripts that were written for it. Each
verb says in its own help what it takes, gives and raises. They are imported when they are first used, so that importing
the package costs next to nothing; in particular it does not import TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from experiments_manager.common.version import __version__

__all__ = [
    "Client",
    "__version__",
    "check",
    "compare_runs",
    "evaluate",
    "explain",
    "get_commands",
    "get_default_args",
    "list_runs",
    "loadExperimentsSettings",
    "load_run",
    "load_settings",
    "plot_runs",
    "report",
    "resume",
    "run",
    "serve",
    "sweep",
    "train",
]

if TYPE_CHECKING:
    from experiments_manager.api import (
        check,
        compare_runs,
        evaluate,
        list_runs,
        load_run,
        load_settings,
        plot_runs,
        report,
        resume,
        serve,
        train,
    )
    from experiments_manager.attribution.verb import explain
    from experiments_manager.client.client import Client
    from experiments_manager.legacy.functions import get_commands, get_default_args, loadExperimentsSettings, run
    from experiments_manager.sweeps.verb import sweep


_LEGACY = "experiments_manager.legacy.functions"
_ELSEWHERE = {
    "Client": "experiments_manager.client.client",
    "explain": "experiments_manager.attribution.verb",
    "sweep": "experiments_manager.sweeps.verb",
    "run": _LEGACY,
    "loadExperimentsSettings": _LEGACY,
    "get_commands": _LEGACY,
    "get_default_args": _LEGACY,
}
"""Names that do not come from `api`."""

_GONE = {
    "build_run_training_session": "Use `run` or `train`.",
    "run_experiment": "Use `run` or `train`.",
    "do_inference": "Use `Client`, or the command `experiments_manager predict RUN`.",
    "loadModel_def_file": 'Use `load_settings(FILE).call("model")`.',
    "define_callbacks": "The engine has its own; yours are the hook `callbacks` (`addon_callbacks`).",
    "insert_additionnal_hparams": "Use `load_settings(FILE, hparams={…})`; no file is written.",
}
"""Names that scripts of the legacy framework may look for, and what to use instead."""


def __getattr__(name: str) -> Any:
    """Import a verb when it is first asked for (PEP 562)."""
    if name not in __all__:
        text = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(f"{text}. {_GONE[name]}" if name in _GONE else text)
    verb = getattr(importlib.import_module(_ELSEWHERE.get(name, "experiments_manager.api")), name)
    globals()[name] = verb
    return verb


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
