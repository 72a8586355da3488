"""Checks of settings that concern more than the type of one value.

Each is a small function that looks at the values and yields the name and the text of what is wrong. To add one, write
it and decorate it with `check`; nothing else needs to know of it.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.util
import math
import re
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

from experiments_manager.common.installation import install_command
from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.settings.options.cluster import ClusterOptions
from experiments_manager.settings.options.federated import federated_problems
from experiments_manager.settings.options.kafka_fields import KafkaFields
from experiments_manager.settings.problems import shown
from experiments_manager.settings.schema import Values

Violations = Iterator[tuple[str, ...]]
Check = Callable[[Values, Mapping[str, Any]], Violations]

SPLITS = ("train", "validation", "test")

CHECKS: list[Check] = []
"""All checks, in the order of this file."""


def check(function: Check) -> Check:
    """Add a function to the checks.

    The function gets the values, and what stands under the names of the hooks; it yields pairs of a name and a text, or
    triples whose third is the key of a dictionary that the text is about.
    """
    CHECKS.append(function)
    return function


def violations(values: Values, hooks: Mapping[str, Any], unknown: Container[str] = ()) -> Violations:
    """Run all checks.

    Args:
        values: All values, their types checked.
        hooks: What stands under the names of the hooks, as far as it is given.
        unknown: Names of settings whose values are not those of the module; a check ends where it comes to one.

    Yields:
        The name of a setting and what is wrong with it; where it is about a key of a dictionary, also that.
    """
    known = _Known(values, unknown)
    for function in CHECKS:
        with contextlib.suppress(_UnknownValueError):
            yield from function(known, hooks)


class _UnknownValueError(Exception):
    """A check looks at a value that is not known."""


class _Known:
    """Those of the values that are known."""

    def __init__(self, values: Values, unknown: Container[str]) -> None:
        self._values = values
        self._unknown = unknown

    def __getattr__(self, name: str) -> Any:
        if name in self._unknown:
            raise _UnknownValueError(name)
        return getattr(self._values, name)


_REFUSED = {
    "quantization_aware_training": "Keras 3 has no quantisation-aware training. Expected False. Quantise after "
    "training instead, when the exported model is converted to TensorFlow Lite.",
}
"""Switches that may be written down, and not be on."""


@check
def _no_unsupported_features(values: Values, hooks: Mapping[str, Any]) -> Violations:
    for name, text in _REFUSED.items():
        with contextlib.suppress(_UnknownValueError):  # one that is not known says nothing of the others
            if getattr(values, name):
                yield name, text


@check
def _optional_packages_are_installed(values: Values, hooks: Mapping[str, Any]) -> Violations:
    if values.consume_data_from_kafka and importlib.util.find_spec("confluent_kafka") is None:
        yield (
            "consume_data_from_kafka",
            "confluent-kafka is not installed. Expected this package, got none. Install it by "
            f"`{install_command('kafka')}`, or set this to False.",
        )
    if values.mlflow and importlib.util.find_spec("mlflow") is None:
        yield (
            "mlflow",
            "MLflow is not installed. Expected the package mlflow or mlflow-skinny, got none. Install it by "
            f"`{install_command('mlflow')}`, or set this to False.",
        )


@check
def _the_session_can_name_a_folder(values: Values, hooks: Mapping[str, Any]) -> Violations:
    if values.session_name is not None and any(sign in values.session_name for sign in "/\\:\0"):
        got = shown(values.session_name)
        yield "session_name", f"it names a folder. Expected no slash, backslash or colon, got {got}. Leave them out."


@check
def _something_is_watched(values: Values, hooks: Mapping[str, Any]) -> Violations:
    if not values.monitor:
        yield (
            "monitor",
            "it is empty. Expected the name of a logged value, e.g. 'val_loss'. Name one, or remove the line.",
        )


def _check_of_names(name: str) -> None:
    @check
    def _names_are_usable(values: Values, hooks: Mapping[str, Any]) -> Violations:
        names = getattr(values, name)
        if names is None:
            return
        repeated = sorted({item for item in names if names.count(item) > 1})
        if not names:
            yield name, "it is empty. Expected at least one name, or None. Add the names, or remove the line."
        elif repeated:
            text = f"duplicate name {', '.join(map(repr, repeated))}. Expected each name once. Rename one."
            yield name, text


for _name in ("class_names", "input_names", "output_names"):
    _check_of_names(_name)


@check
def _hparams_are_plain(values: Values, hooks: Mapping[str, Any]) -> Violations:
    for key, value in values.hparams.items():
        if not _is_plain(value):
            yield (
                "hparams",
                f"the entry {key!r} is not a plain value. Expected None, bool, int, float, str, or a list, "
                f"tuple or dict with str keys of these, got {shown(value)}. Store a name and create it in a hook.",
            )


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str)) or type(value).__module__ == "numpy"


@check
def _one_gradient_clipping(values: Values, hooks: Mapping[str, Any]) -> Violations:
    if values.gradient_clip_norm is not None and values.gradient_clip_value is not None:
        text = "`gradient_clip_norm` is given, too. Expected one of the two. Remove the other."
        yield "gradient_clip_value", text


_FITTING: dict[str, tuple[tuple[type, ...], str]] = {
    "loss": ((bool, int, float), "the name of a Keras loss, a loss, or a list or dict of these"),
    "learning_rate": ((bool, str, list, tuple, dict), "a float above 0, or a Keras schedule"),
    "optimizer": ((bool, int, float, list, tuple, dict), "the name of a Keras optimizer, or an optimizer"),
    "metrics": ((bool, int, float), "a list or dict of Keras metrics"),
    "callbacks": ((bool, int, float, str), "a list or dict of Keras callbacks"),
    "loss_weights": ((bool, str), "a list or dict of floats"),
    "class_weight": ((bool, int, float, str, list, tuple), "a dict with a float for the index of each class"),
}
"""For hooks that may be values: Python types that surely do not fit, and what does."""


def fits(hook: str, value: Any) -> bool:
    """Return whether a value may stand under the name of a hook, as far as its Python type tells."""
    return hook not in _FITTING or not isinstance(value, _FITTING[hook][0])


@check
def _values_of_hooks_fit(values: Values, hooks: Mapping[str, Any]) -> Violations:
    for name, value in hooks.items():
        if not fits(name, value):
            remedy = "Correct it."
            with contextlib.suppress(TypeError, ValueError):
                remedy = f"Write {float(value)}." if name == "learning_rate" and not isinstance(value, bool) else remedy
            yield name, f"invalid value. Expected {_FITTING[name][1]}, got {shown(value)}. {remedy}"


@check
def _learning_rates_agree(values: Values, hooks: Mapping[str, Any]) -> Violations:
    rate = hooks.get("learning_rate")
    if isinstance(rate, bool) or not isinstance(rate, (int, float)):
        return
    if math.isnan(rate) or rate == math.inf:
        return  # which is said of all numbers alike
    if rate <= 0:
        yield "learning_rate", f"it is not positive. Expected a float above 0, got {rate!r}. Raise it."
    elif values.min_learning_rate >= rate:
        lowest = values.min_learning_rate
        yield "min_learning_rate", f"it is not below the learning rate. Expected less than {rate!r}, got {lowest!r}."


@check
def _numbers_of_hooks_are_finite(values: Values, hooks: Mapping[str, Any]) -> Violations:
    for name in ("learning_rate", "loss_weights", "class_weight"):
        for number in _numbers(hooks.get(name)):
            if not math.isfinite(number):
                yield name, f"it is not finite. Expected a finite number, got {number!r}. Correct it."
            elif number < 0 and name == "class_weight":
                yield name, f"a weight is negative. Expected a number of 0 or more, got {number!r}. Correct it."


def _numbers(value: Any) -> Iterator[float]:
    """Yield the numbers in a value, in lists and in dictionaries."""
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    for item in items:
        yield from _numbers(item)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value


@check
def _hparams_are_numbers(values: Values, hooks: Mapping[str, Any]) -> Violations:
    for key, value in values.hparams.items():
        if isinstance(value, float) and math.isnan(value):
            yield "hparams", f"the entry {key!r} is no number. Expected one, got nan. Correct it."


@check
def _weights_are_of_outputs(values: Values, hooks: Mapping[str, Any]) -> Violations:
    losses, weights = hooks.get("loss"), hooks.get("loss_weights")
    if not isinstance(weights, Mapping) or not isinstance(losses, Mapping):
        return
    for key in weights:
        if key not in losses:
            known = [str(name) for name in losses]
            hint = did_you_mean(str(key), known, "Correct it.", shown="'{}'")
            text = f"the key {key!r} is no output that has a loss. Expected some of {', '.join(map(repr, known))}."
            yield "loss_weights", f"{text} {hint}"


@check
def _federations_are_possible(values: Values, hooks: Mapping[str, Any]) -> Violations:
    for key, text in federated_problems(values.federated, "federated_strategy" not in hooks).items():
        yield "federated", text, str(key)


@check
def _jobs_can_be_asked_for(values: Values, hooks: Mapping[str, Any]) -> Violations:
    for key, text in ClusterOptions.problems(values.cluster, "cluster['{}']").items():
        yield "cluster", text, str(key)


@check
def _fields_make_samples(values: Values, hooks: Mapping[str, Any]) -> Violations:
    for key, text in KafkaFields.problems(values.kafka_fields, "kafka_fields['{}']").items():
        yield "kafka_fields", text, str(key)
    if values.kafka_fields and "x" not in values.kafka_fields:
        yield "kafka_fields", "it has no 'x'. Expected 'x', and as wanted 'y' and 'sample_weight'. Add it."


@check
def _gpu_indices_are_unique(values: Values, hooks: Mapping[str, Any]) -> Violations:
    if values.gpus is not None and len(set(values.gpus)) < len(values.gpus):
        yield "gpus", f"duplicate index. Expected each once, got {shown(values.gpus)}. Remove it."


@check
def _ports_differ(values: Values, hooks: Mapping[str, Any]) -> Violations:
    if values.grpc_port == values.rest_port:
        yield "rest_port", f"`grpc_port` is {values.grpc_port}, too. Expected another one. Change one of them."


@check
def _topics_are_named(values: Values, hooks: Mapping[str, Any]) -> Violations:
    for split, topic in values.kafka_topics.items():
        if split not in SPLITS:
            remedy = f"Write one of {', '.join(map(repr, SPLITS))}."
            yield "kafka_topics", f"unknown split. Expected {', '.join(SPLITS)}, got {split!r}. {remedy}"
        elif topic is not None and not (isinstance(topic, str) and re.fullmatch(r"[A-Za-z0-9._-]{1,249}", topic)):
            text = f"invalid topic of the {split} split. Expected None or up to 249 letters, digits, dots, dashes and"
            yield "kafka_topics", f"{text} underscores, got {shown(topic)}. Correct it."


@check
def _live_epochs_have_a_length(values: Values, hooks: Mapping[str, Any]) -> Violations:
    if values.consume_data_from_kafka and values.kafka_mode == "live" and values.steps_per_epoch is None:
        text = "it is missing. Expected the number of batches of an epoch, since a live topic never ends, got None."
        yield "steps_per_epoch", f"{text} Set it, or `kafka_mode = 'bounded'`."


@check
def _reading_starts_at_a_time(values: Values, hooks: Mapping[str, Any]) -> Violations:
    start = values.kafka_start
    try:
        known = isinstance(start, datetime.datetime) or start in ("earliest", "latest") or milliseconds(start) >= 0
    except (TypeError, ValueError, OverflowError):
        known = False
    if not known:
        text = "Expected 'earliest', 'latest', or a time such as '2026-11-22 14:00', a datetime, or seconds since 1970"
        yield "kafka_start", f"invalid value. {text}, got {shown(start)}. Correct it."


def milliseconds(start: Any) -> int:
    """Return a time of `kafka_start` in milliseconds since 1970; without a zone it is local time."""
    if isinstance(start, str):
        start = datetime.datetime.fromisoformat(start)
    seconds = start.timestamp() if isinstance(start, datetime.datetime) else float(start)
    return round(1000 * seconds)


SECRET_WORDS = ("password", "secret", "token", "key.pem", "credentials")
"""In names of librdkafka's options whose values nobody else may see."""


@check
def _secrets_stay_in_the_environment(values: Values, hooks: Mapping[str, Any]) -> Violations:
    for option, value in values.kafka_options.items():
        is_secret = any(word in option for word in SECRET_WORDS) and "endpoint" not in option
        if is_secret and isinstance(value, str) and "${" not in value:
            text = f"the secret {option!r} stands in the file, and would be copied into run folders."
            yield (
                "kafka_options",
                f"{text} Expected a variable of the environment such as '${{KAFKA_PASSWORD}}', got a value. Set that "
                "variable and name it here.",
            )
    registry = values.kafka_schema_registry
    if registry and re.search(r"://[^/@]*:[^/@$]+@", registry):
        yield (
            "kafka_schema_registry",
            "a password stands in the file, and would be copied into run folders. Expected a variable of the "
            "environment such as 'https://user:${REGISTRY_PASSWORD}@host', got a value. Set that variable and name it "
            "here.",
        )
