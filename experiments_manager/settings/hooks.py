"""The tables of hooks and of the parameters that they may ask for.

A hook is a function of the settings module (or of the model file) that the engine calls. It asks for what it needs by
the names of its parameters; the second table here says which names there are, the first one which of them a hook is
offered.
"""

from __future__ import annotations

import dataclasses

from experiments_manager.dialects import alias_of_hook, other_parameters


@dataclasses.dataclass(frozen=True)
class Parameter:
    """Something that a hook may ask for.

    Attributes:
        name: The parameter's name.
        doc: What the hook gets.
    """

    name: str
    doc: str

    @property
    def other_names(self) -> tuple[str, ...]:
        """Other names of the same thing, which plug-ins have."""
        return other_parameters(self.name)


@dataclasses.dataclass(frozen=True)
class HookSpec:
    """One hook.

    Attributes:
        name: The canonical name.
        doc: What it returns, or does.
        offers: Parameters that it may ask for, besides the common ones.
        required: Whether a settings module must have it.
        value: Whether a value may stand in its place.
        keras_function: Whether a function of `(y_true, y_pred)` is a value here, as Keras takes it, and not a hook.
    """

    name: str
    doc: str
    offers: tuple[str, ...] = ()
    required: bool = False
    value: bool = False
    keras_function: bool = False

    @property
    def other_name(self) -> str | None:
        """Its other name, where a plug-in has one."""
        return alias_of_hook(self.name).name

    @property
    def positions(self) -> tuple[str, ...]:
        """Order of its parameters under its other name, by which those of any other name are understood."""
        return alias_of_hook(self.name).positions

    @property
    def expected(self) -> str:
        """What the hook should be, as a message says it after "Expected"."""
        kind = "a value or a function" if self.value else "a function"
        return f"{kind} of that name ({self.doc[0].lower()}{self.doc[1:].rstrip('.')})"


COMMON = (
    *("settings", "hparams", "batch_size", "epochs", "seed", "class_names", "debug", "model_name"),
    *("partition", "partitions"),
)
"""Parameters that every hook may ask for: they follow from the settings alone."""

_PARAMETERS = (
    Parameter("settings", "All settings, by canonical and by other names."),
    Parameter("hparams", "The dictionary `hparams`."),
    Parameter("batch_size", "The setting of that name."),
    Parameter("epochs", "The setting of that name."),
    Parameter("seed", "The setting `random_seed`. In `augment`: int64 [2], another for each sample and epoch."),
    Parameter("class_names", "The setting of that name."),
    Parameter("debug", "The setting of that name."),
    Parameter("model_name", "Name of the model file without `.py`, or of the settings file where the model is there."),
    Parameter("partition", "Number of the federation's client, from 0; `None` outside of one and at its server."),
    Parameter("partitions", "Number of the federation's clients; `None` where that is not known."),
    Parameter("split", "`train`, `validation` or `test`."),
    Parameter("data_dir", "The data folder of the split, from the settings."),
    Parameter("is_training", "Whether the split is `train`."),
    Parameter("model", "The Keras model."),
    Parameter("loss", "The loss, as the hook of that name gave it."),
    Parameter("learning_rate", "The learning rate or schedule, as the hook of that name gave it."),
    Parameter("steps_per_epoch", "Training steps an epoch, or `None` while that is unknown."),
    Parameter("train_data", "The training data, as the engine iterates over it."),
    Parameter("validation_data", "The validation data, or `None`."),
    Parameter("run", "The run: `run.path` is its folder."),
    Parameter("epoch", "Number of the epoch, counted from 1."),
    Parameter("logs", "Loss and metrics of that epoch by name."),
    Parameter("x", "A batch of inputs."),
    Parameter("y", "The targets of that batch."),
    Parameter("record", "The value of a Kafka record, as bytes."),
    Parameter("options", "Dictionary with which the client was started."),
)

PARAMETERS: dict[str, Parameter] = {parameter.name: parameter for parameter in _PARAMETERS}
"""All parameters by canonical name."""

_HOOKS = (
    HookSpec(
        "dataset",
        "The data of a split: arrays (tuple, dict, nested), a batched `tf.data.Dataset`, or a `keras.utils.PyDataset`.",
        ("split", "data_dir", "is_training", "epoch"),
        required=True,
    ),
    HookSpec("model", "A Keras model, not compiled."),
    HookSpec(
        "loss",
        "A Keras loss: name, instance, function of `(y_true, y_pred)`, or a list or dict of these, one an output.",
        ("model",),
        required=True,
        value=True,
        keras_function=True,
    ),
    HookSpec("loss_weights", "Weight of each output's loss.", ("model",), value=True),
    HookSpec(
        "learning_rate",
        "A number or a Keras schedule.",
        ("model", "steps_per_epoch"),
        required=True,
        value=True,
    ),
    HookSpec(
        "optimizer",
        "A Keras optimizer, or its name. Adam where it is not given.",
        ("model", "loss", "learning_rate", "steps_per_epoch"),
        value=True,
    ),
    HookSpec(
        "metrics",
        "Keras metrics, as `keras.Model.compile` takes them.",
        ("model", "loss"),
        value=True,
        keras_function=True,
    ),
    HookSpec(
        "callbacks",
        "A list or dict of Keras callbacks.",
        ("model", "train_data", "validation_data", "run"),
        value=True,
    ),
    HookSpec("class_weight", "Weight of each class, by its index.", ("train_data",), value=True),
    HookSpec(
        "augment",
        "A training sample, changed at random: `x`, or `(x, y)` where it asks for `y`. Runs in parallel, in the graph.",
        ("x", "y"),
    ),
    HookSpec(
        "serving",
        "A `tf.Module` whose `tf.function` `served_model` is what a server runs. Made from the model if not given.",
        ("model", "run"),
    ),
    HookSpec(
        "client",
        "A class that talks to a model server: `requests()` yields dictionaries of arrays by input name, "
        "`on_response(request, outputs)` takes each answer, and `close()`, if it is there, ends it.",
        ("options",),
    ),
    HookSpec(
        "tensorboard_logs",
        "Nothing: writes summaries of its own with `tf.summary` after an epoch.",
        ("model", "epoch", "logs", "train_data", "validation_data", "run"),
    ),
    HookSpec(
        "federated_strategy",
        "A strategy of Flower (`flwr.serverapp.strategy.Strategy`) that makes one model of those of the clients.",
        (),
    ),
    HookSpec(
        "kafka_decode",
        "The sample that a Kafka record holds: `x`, `(x, y)` or `(x, y, sample_weight)`, without a batch dimension.",
        ("record",),
    ),
    HookSpec("prepare_datasets", "Nothing: is called once before the data is asked for.", ("run",)),
    HookSpec(
        "test_data",
        "The test data, as `dataset` gives it; without this hook `dataset` is asked for the split `test`.",
        ("split", "data_dir", "is_training", "epoch"),
    ),
)

HOOKS: dict[str, HookSpec] = {hook.name: hook for hook in _HOOKS}
"""All hooks by canonical name."""

HOOKS_BY_OTHER_NAME: dict[str, HookSpec] = {hook.other_name: hook for hook in _HOOKS if hook.other_name}
"""The hooks that have another name, by that name."""

HOOKS_BY_ANY_NAME: dict[str, HookSpec] = HOOKS | HOOKS_BY_OTHER_NAME
"""All hooks by canonical and by other name."""

_PARAMETER_OF_NAME = {
    name: parameter.name for parameter in _PARAMETERS for name in (parameter.name, *parameter.other_names)
}


def parameter_names(hook: HookSpec) -> dict[str, str]:
    """Return the names that parameters of this hook may bear, other ones included, each with the canonical one."""
    offered = {*COMMON, *hook.offers}
    return {name: canonical for name, canonical in _PARAMETER_OF_NAME.items() if canonical in offered}
