"""Names that other programs give what is a setting here, in files where nothing uses them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from experiments_manager.settings.hooks import HOOKS_BY_ANY_NAME
from experiments_manager.settings.lint.inspected import Inspected
from experiments_manager.settings.problems import Problem
from experiments_manager.settings.schema import BY_ANY_NAME

_USUAL: dict[str, tuple[str, ...]] = {
    "batch_size": ("bs", "batch", "train_batch_size"),
    "class_names": ("classes", "label_names"),
    "early_stopping_patience": ("patience", "early_stopping", "early_stop", "es_patience"),
    "epochs": ("n_epochs", "num_epochs", "max_epochs", "nb_epochs", "number_of_epochs", "total_epochs"),
    "gradient_clip_norm": ("clipnorm", "clip_norm", "grad_clip", "gradient_clip", "max_grad_norm"),
    "hparams": ("hyperparameters", "hyperparams", "hyper_params", "hp"),
    "jit_compile": ("use_xla", "xla"),
    "learning_rate": ("lr", "base_lr", "initial_lr", "initial_learning_rate"),
    "loss": ("loss_fn", "loss_function", "criterion"),
    "mixed_precision": ("precision", "amp", "fp16", "use_amp"),
    "optimizer": ("optim", "optimiser"),
    "random_seed": ("seed", "rng_seed"),
    "reduce_lr_patience": ("lr_patience", "plateau_patience"),
    "session_name": ("experiment_name", "run_name", "exp_name"),
    "steps_per_epoch": ("train_steps", "n_steps"),
    "train_data_dir": ("train_dir", "train_path", "train_folder"),
    "validation_data_dir": ("val_dir", "val_path", "val_data_dir", "valid_dir"),
    "validation_steps": ("val_steps",),
    "working_dir": ("output_dir", "out_dir", "log_dir", "results_dir", "save_dir", "workdir"),
}
_MEANT = {usual: name for name, words in _USUAL.items() for usual in words}


def missing_data_folders(file: Inspected) -> Iterator[Problem]:
    """Find folders and files of data that are not there."""
    if not file.dialect.is_strict or file.is_model_file:
        return
    for name in ("train_data_dir", "validation_data_dir", "test_data_dir"):
        path = file.names.get(name)
        if not isinstance(path, str) or not path or "://" in path or any(sign in path for sign in "*?$~,"):
            continue
        if not any((folder / path).exists() for folder in (Path.cwd(), *file.folders)):
            text = f"{path!r} is not there. Expected a folder or file, seen from {Path.cwd()}. Check the path."
            yield file.warning(file.source.line(name) or 1, name, text)


def names_without_use(file: Inspected) -> Iterator[Problem]:
    """Find values that nothing uses, under names that settings have elsewhere and not here."""
    if not file.dialect.is_strict or file.is_model_file or file.source.has_star_import:
        return
    for name, bindings in file.source.names.items():
        meant = _MEANT.get(name.lower())
        known = name in BY_ANY_NAME or name in HOOKS_BY_ANY_NAME
        if meant is None or known or name in file.source.used or meant in file.source.names:
            continue
        if isinstance(bindings[-1].node, ast.expr):
            text = f"this is no setting, and nothing here uses it. Expected a setting or hook. Did you mean `{meant}`?"
            yield file.warning(bindings[-1].line, name, text)
