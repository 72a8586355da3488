"""Names that settings, hooks and what hooks ask for had in DeepLearningTools, by the names that they have here."""

from __future__ import annotations

from typing import Any

from experiments_manager.dialects import Alias, HookAlias


def _switch(name: str, on: Any) -> Alias:
    """Return a legacy boolean that is a value or `None` now."""

    def to_canonical(value: Any) -> Any:
        return (on if value else None) if isinstance(value, bool) else value

    return Alias(name, to_canonical, lambda value: value is not None)


def _last_version_only(name: str) -> Alias:
    """Return a legacy boolean that is a number of versions now (0 keeps all)."""

    def to_canonical(value: Any) -> Any:
        return int(value) if isinstance(value, bool) else value

    return Alias(name, to_canonical, lambda value: value == 1)


SETTINGS = {
    "working_dir": Alias("workingFolder"),
    "train_data_dir": Alias("raw_data_dir_train"),
    "validation_data_dir": Alias("raw_data_dir_val"),
    "test_data_dir": Alias("raw_data_dir_test"),
    "data_extension": Alias("raw_data_filename_extension"),
    "train_size": Alias("nb_train_samples"),
    "validation_size": Alias("nb_val_samples"),
    "class_names": Alias("reference_labels"),
    "epochs": Alias("nbEpoch"),
    "monitor": Alias("monitored_loss_name"),
    "ema_momentum": _switch("weights_moving_averages", 0.99),
    "jit_compile": Alias("useXLA"),
    "mixed_precision": _switch("enable_mixed_precision", "float16"),
    "gpus": Alias("used_gpu_IDs"),
    "strategy": Alias("distribution_strategy"),
    "keep_versions": _last_version_only("save_only_last_best_model"),
    "input_names": Alias("served_input_names"),
    "output_names": Alias("served_head_names"),
    "profile": Alias("use_profiling"),
    "server_host": Alias("tensorflow_server_address"),
    "grpc_port": Alias("tensorflow_server_port"),
    "request_timeout": Alias("serving_client_timeout_int_secs"),
    "wait_for_server": Alias("wait_for_server_ready_int_secs"),
    "max_message_bytes": Alias("grpc_max_message_length"),
}

HOOKS = {
    "dataset": HookAlias("get_input_pipeline", ("data_dir", "is_training", "batch_size", "epochs")),
    "model": HookAlias(None, ("settings",)),
    "loss": HookAlias("get_total_loss", ("model",)),
    "loss_weights": HookAlias("get_loss_weights", ("model",)),
    "learning_rate": HookAlias("get_learningRate", ("model",)),
    "optimizer": HookAlias("get_optimizer", ("model", "loss", "learning_rate")),
    "metrics": HookAlias("get_metrics", ("model", "loss")),
    "callbacks": HookAlias("addon_callbacks", ("model", "train_data", "validation_data")),
    "serving": HookAlias("get_served_module", ("model", "model_name")),
    "client": HookAlias("Client_IO", ("options", "debug")),
    "tensorboard_logs": HookAlias("custom_tensorboard_logs", ("model", "epoch", "logs")),
    "test_data": HookAlias("get_all_test_data", ("data_dir", "is_training", "batch_size", "epochs")),
}

PARAMETERS = {
    "settings": ("usersettings",),
    "epochs": ("nbEpoch",),
    "debug": ("debugMode",),
    "data_dir": ("raw_data_files_folder",),
    "is_training": ("isTraining",),
    "train_data": ("train_samples",),
    "validation_data": ("val_samples",),
    "options": ("clientInitSpecs",),
}

NAMES_BEFORE = frozenset({"hparams", "batch_size", "random_seed", "session_name", "model_file"})
"""Settings that had the same name there, and that every file of its kind gives."""

CALLBACKS = {"early_stopping": "earlystopping_callback", "plateau": "reduceLROnPlateau_callback"}
"""Keys under which callbacks took the place of what the framework did by itself."""

KERAS_2 = {
    "kullback_leibler_divergence": "kl_divergence",
    "kld": "kl_divergence",
    "logcosh": "log_cosh",
    "huber_loss": "huber",
}
"""Names of losses and metrics that Keras 2 knew, in small letters, and how Keras 3 calls the same."""

MODULE_REMEDIES = {
    "deeplearningtools": "Install that package, or copy the helpers that you use beside the settings file.",
}
"""What helps where a package of the framework is missing."""
