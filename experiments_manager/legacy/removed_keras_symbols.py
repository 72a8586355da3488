"""Names that a settings or model file may still use although Keras 3 or TensorFlow took them away.

Only the source is looked at: imports are followed from their aliases to full dotted names, and each of these is looked
for in the tables below. Nothing is imported.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from experiments_manager.legacy.renamed_keras_symbols import RENAMED, RENAMED_ARGUMENTS
from experiments_manager.settings.problems import Problem
from experiments_manager.settings.source.dotted_names import (
    KERAS_IN_TENSORFLOW,
    below_keras,
    full_name,
    guarded_imports,
    import_aliases,
    longest_prefix,
)
from experiments_manager.settings.source.module_source import Source

_SAME_NAME = "write `keras.optimizers.` and the same name"
_LAYERS = "write `keras.layers.` and the same name"
_PHASE = "pass `training=` when a model or layer is called"
_GRAPH = "TensorFlow runs eagerly: call the functions, or decorate with `tf.function`"
_ESTIMATOR = "return a `keras.Model` from `model`; the engine trains it"
_RANDOM = "write `tf.random.` and the same name"

REMOVED_FROM_KERAS: dict[str, str] = {
    "optimizers.legacy": _SAME_NAME,
    "optimizers.experimental": _SAME_NAME,
    "experimental": "write the name without `experimental`; schedules are in `keras.optimizers.schedules`",
    "layers.experimental.preprocessing": _LAYERS,
    "layers.experimental.preprocessing.CategoryCrossing": "use `keras.layers.HashedCrossing`",
    "layers.experimental.preprocessing.PreprocessingLayer": "derive the layer from `keras.layers.Layer`",
    "layers.experimental": _LAYERS,
    "layers.CuDNNLSTM": "write `keras.layers.LSTM`, which uses cuDNN by itself",
    "layers.CuDNNGRU": "write `keras.layers.GRU`, which uses cuDNN by itself",
    "layers.LocallyConnected1D": "cut the input in patches and apply a `keras.layers.EinsumDense`",
    "layers.LocallyConnected2D": "cut the input in patches and apply a `keras.layers.EinsumDense`",
    "layers.DenseFeatures": "use `keras.utils.FeatureSpace` or preprocessing layers",
    "layers.AbstractRNNCell": "derive the cell from `keras.layers.Layer`, with `state_size` and `call(inputs, states)`",
    "estimator": _ESTIMATOR,
    "mixed_precision.experimental": "use the setting `mixed_precision`",
    "backend.function": "write `keras.Model(inputs, outputs)`",
    "backend.placeholder": "write `keras.Input`",
    "backend.get_session": _GRAPH,
    "backend.set_session": _GRAPH,
    "backend.tensorflow_backend": "write `keras.backend`, or functions of `keras.ops`",
    "backend.learning_phase": _PHASE,
    "backend.learning_phase_scope": _PHASE,
    "backend.set_learning_phase": _PHASE,
    "backend.in_train_phase": _PHASE,
    "backend.in_test_phase": _PHASE,
    "backend.print_tensor": "write `tf.print`",
    "backend.random_binomial": "write `keras.random.binomial`",
    "backend.local_conv1d": "use `keras.ops.conv`",
    "backend.local_conv2d": "use `keras.ops.conv`",
    "callbacks.BaseLogger": "remove it: Keras averages its metrics itself",
    "callbacks.experimental": "remove it: the engine writes checkpoints and resumes from them",
    "constraints.RadialConstraint": "derive a constraint of your own from `keras.constraints.Constraint`",
    "metrics.MeanRelativeError": "use `keras.metrics.MeanAbsolutePercentageError`, or a metric of your own",
    "metrics.MeanTensor": "derive a metric of your own from `keras.metrics.Metric`",
    "models.model_from_config": "write `keras.Model.from_config` or `keras.models.model_from_json`",
    "models.model_from_yaml": "write `keras.models.model_from_json`",
    "models.experimental": "write a `train_step` of your own",
    "utils.GeneratorEnqueuer": "return a `keras.utils.PyDataset` from `dataset`",
    "utils.OrderedEnqueuer": "return a `keras.utils.PyDataset` from `dataset`",
    "utils.SequenceEnqueuer": "return a `keras.utils.PyDataset` from `dataset`",
    "utils.SidecarEvaluator": "remove it: `experiments_manager evaluate RUN` evaluates a run",
    "utils.experimental": "return a `tf.data.Dataset` from `dataset`",
    "utils.generic_utils": "look for the name in `keras.utils`",
    "utils.multi_gpu_model": "use the settings `gpus` and `strategy`",
    "applications.regnet": "choose another of `keras.applications`",
    "applications.resnet_rs": "choose another of `keras.applications`",
}
"""Names below `keras` and `tf.keras`, and what to write instead. Whatever begins with such a name is gone with it."""

_LONG_NAMES = {
    "kl_divergence": "KLD",
    "mean_absolute_error": "MAE",
    "mean_absolute_percentage_error": "MAPE",
    "mean_squared_error": "MSE",
    "mean_squared_logarithmic_error": "MSLE",
}

_SAVING = (
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "get_registered_name",
    "get_registered_object",
    "load_model",
    "register_keras_serializable",
    "save_model",
    "serialize_keras_object",
)

REMOVED_FROM_TF_KERAS: dict[str, str] = {
    **{f"losses.{long}": f"write `tf.keras.losses.{short}`, or '{long}'" for long, short in _LONG_NAMES.items()},
    **{f"metrics.{long}": f"write `tf.keras.metrics.{short}`, or '{long}'" for long, short in _LONG_NAMES.items()},
    "losses.log_cosh": "write `tf.keras.losses.LogCosh()`, or 'log_cosh'",
    "metrics.log_cosh": "write `tf.keras.metrics.LogCoshError()`, or 'log_cosh'",
    **{f"saving.{name}": f"write `keras.saving.{name}`, with `import keras`" for name in _SAVING},
}
"""Names below `tf.keras` that `keras` itself still has."""

REMOVED_ELSEWHERE: dict[str, str] = {
    "tensorflow_addons": (
        "TensorFlow Addons ended in 2024 and cannot be imported with this TensorFlow: use Keras' own layers, losses, "
        "metrics and optimizers; moving averages of the weights are the setting `ema_momentum`"
    ),
    "tensorflow_model_optimization": (
        "it works with Keras 2 only: quantise after training, when the model is exported to TensorFlow Lite"
    ),
    "tensorflow.contrib": "use the function of the same purpose in `tf` or `keras`",
    "tensorflow.estimator": _ESTIMATOR,
    "tensorflow.compat.v1.estimator": _ESTIMATOR,
    "tensorflow.layers": _LAYERS,
    "tensorflow.placeholder": "write `keras.Input`",
    "tensorflow.Session": _GRAPH,
    "tensorflow.global_variables_initializer": _GRAPH,
    "tensorflow.get_variable": "write `tf.Variable`, or a layer's `add_weight`",
    "tensorflow.variable_scope": "write `tf.name_scope`",
    "tensorflow.train.AdamOptimizer": "write `keras.optimizers.Adam`",
    "tensorflow.train.RMSPropOptimizer": "write `keras.optimizers.RMSprop`",
    "tensorflow.train.GradientDescentOptimizer": "write `keras.optimizers.SGD`",
    "tensorflow.train.SessionRunHook": "write a `keras.callbacks.Callback`",
    "tensorflow.OptimizerOptions": "use the setting `jit_compile`",
    "tensorflow.saved_model.signature_constants": "write `tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY`",
    "tensorflow.data.experimental.StatsAggregator": "remove it: use the setting `profile` and TensorBoard",
    "tensorflow.py_func": "write `tf.numpy_function`",
    "tensorflow.random_uniform": _RANDOM.replace("the same name", "`uniform`"),
    "tensorflow.random_normal": _RANDOM.replace("the same name", "`normal`"),
    "tensorflow.set_random_seed": "use the setting `random_seed`",
    "tensorflow.to_float": "write `tf.cast(x, tf.float32)`",
    "tensorflow.log": "write `tf.math.log`",
    "tensorflow.logging": "use Python's `logging`",
    "tensorflow.gfile": "write `tf.io.gfile`",
    "tensorflow.app": "remove it: the engine is the program",
    "tensorflow.flags": "use `hparams`, which the command line can override",
}
"""Names outside Keras, and what to write instead."""

REMOVED_ARGUMENTS: dict[tuple[str, str], str] = {
    ("optimizers", "lr"): "write `learning_rate=`",
    ("callbacks.ModelCheckpoint", "period"): "write `save_freq=`, or use the setting `checkpoint_every_steps`",
    ("callbacks.TensorBoard", "write_grads"): "remove it",
    ("layers.Input", "batch_input_shape"): "write `batch_shape=`",
    ("layers.LSTM", "time_major"): "transpose the input",
    ("layers.GRU", "time_major"): "transpose the input",
}
"""Keyword arguments that classes below a name of Keras no longer take, and what to write instead."""

_TABLE: dict[str, str] = {
    **REMOVED_ELSEWHERE,
    **{f"{root}.{name}": text for root in ("keras", *KERAS_IN_TENSORFLOW) for name, text in REMOVED_FROM_KERAS.items()},
    **{f"{root}.{name}": text for root in KERAS_IN_TENSORFLOW for name, text in REMOVED_FROM_TF_KERAS.items()},
}


def removed_names(source: Source, is_legacy: bool = False) -> list[Problem]:
    """Find the uses of names that are gone, each with what to write instead.

    Args:
        source: The parsed file.
        is_legacy: Whether it was written for the legacy framework; such files are offered what has only been renamed.
    """
    found: dict[tuple[int, str], str] = {}
    for line, dotted, written in _dotted_uses(source.tree):
        gone = longest_prefix(dotted, _TABLE)
        if gone is not None and not (is_legacy and _is_offered(dotted, gone)):
            found.setdefault((line, gone), written)
    problems = [_problem(source, line, written, _TABLE[gone]) for (line, gone), written in found.items()]
    return problems + list(_removed_arguments(source, is_legacy))


def is_removed(dotted: str, is_legacy: bool) -> bool:
    """Return whether `removed_names` speaks of a full name, or offers what it is called now."""
    gone = longest_prefix(dotted, _TABLE)
    return gone is not None or (is_legacy and longest_prefix(dotted, RENAMED) is not None)


def _is_offered(dotted: str, gone: str) -> bool:
    renamed = longest_prefix(dotted, RENAMED)
    return renamed is not None and len(renamed) >= len(gone)


def _problem(source: Source, line: int, name: str, instead: str) -> Problem:
    remedy = instead[0].upper() + instead[1:]
    return source.problem(
        line, name, f"not available any more. Expected what Keras 3 and TensorFlow 2.21 have. {remedy}."
    )


def _dotted_uses(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Yield imports and dotted expressions: line, full name by the file's imports, and what is written."""
    guarded = guarded_imports(tree)
    aliases = dict(import_aliases(tree, guarded))
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from ((node.lineno, name, name) for name in imported)
        elif isinstance(node, (ast.Attribute, ast.Name)) and id(node) not in inner:
            dotted = full_name(node, aliases)
            if dotted:
                yield node.lineno, dotted, ast.unparse(node)


def _removed_arguments(source: Source, is_legacy: bool) -> Iterator[Problem]:
    aliases = dict(import_aliases(source.tree))
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        dotted = full_name(node.func, aliases) or ""
        given = {keyword.arg for keyword in node.keywords}
        for (below, argument), instead in REMOVED_ARGUMENTS.items():
            is_offered = is_legacy and (below, argument) in RENAMED_ARGUMENTS
            if argument in given and _is_below(dotted, below) and not is_offered:
                yield _problem(source, node.lineno, f"{ast.unparse(node.func)}({argument}=…)", instead)


def is_removed_argument(dotted: str, argument: str) -> bool:
    """Return whether `removed_names` speaks of an argument of a full name."""
    return any(argument == gone and _is_below(dotted, below) for below, gone in REMOVED_ARGUMENTS)


def _is_below(dotted: str, below: str) -> bool:
    _, name = below_keras(dotted) or ("", "")
    return f"{name}.".startswith(f"{below}.")
