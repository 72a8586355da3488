"""Options of a strategy, checked against the signature of its constructor."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError

from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.settings.options.federated import RANGES

_HOOK = "Return a strategy from the hook `federated_strategy` to choose it."
_OURS = {
    "fraction_train": "Set federated['fraction_train'] instead.",
    "fraction_evaluate": "Set federated['fraction_evaluate'] instead.",
    "min_train_nodes": "Set federated['min_clients'] instead.",
    "min_evaluate_nodes": "Set federated['min_clients'] instead.",
    "min_available_nodes": "Set federated['min_clients'] instead.",
    "weighted_by_key": "Clients are always weighted by their number of samples.",
    "arrayrecord_key": "The words of messages are fixed.",
    "configrecord_key": "The words of messages are fixed.",
    "train_metrics_aggr_fn": _HOOK,
    "evaluate_metrics_aggr_fn": _HOOK,
    "strategy": "Set federated['strategy'] instead.",
    "accountant": _HOOK,
}
_STRICT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)


def problems_of_options(place: str, kind: type, options: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Return everything that is wrong with the options of a strategy, a sentence each.

    Args:
        place: Where the options stand in the settings.
        kind: The class that they are for.
        options: What the user wrote.
        given: What we pass besides.
    """
    own = own_parameters(kind)
    hints = typing.get_type_hints(kind.__init__, include_extras=True)
    problems = []
    for name, value in options.items():
        where = f"{place}[{name!r}]"
        if name in _OURS and name not in own:
            problems.append(f"{where} cannot be set here. {_OURS[name]}")
        elif name not in own:
            hint = did_you_mean(str(name), own, otherwise=f"Expected one of: {', '.join(own) or 'none'}.")
            problems.append(f"{where} is not an option of {kind.__name__}. {hint}")
        else:
            problems += problems_of_value(where, value, hints.get(name, Any), RANGES.get(name))
    for name, parameter in own.items():
        if parameter.default is inspect.Parameter.empty and name not in options and name not in given:
            problems.append(
                f"{place}[{name!r}] is missing. {kind.__name__} needs it. Expected {_words(hints.get(name))}."
            )
    return problems


def own_parameters(kind: type) -> dict[str, inspect.Parameter]:
    """Return the parameters of a constructor that users may set."""
    parameters = inspect.signature(kind.__init__).parameters
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {
        name: parameter
        for name, parameter in parameters.items()
        if name != "self" and name not in _OURS and parameter.kind not in variable
    }


def accepted(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those values that a constructor takes."""
    parameters = inspect.signature(kind.__init__).parameters
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    return {name: value for name, value in values.items() if takes_all or name in parameters}


def problems_of_value(where: str, value: Any, annotation: Any, limits: Any = None) -> list[str]:
    """Return what is wrong with one value: its type, and its range where one is known."""
    wanted = annotation if limits is None or value is None else Annotated[annotation, limits]
    try:
        TypeAdapter(wanted, config=_STRICT).validate_python(value)
    except ValidationError as error:
        expected = _words(annotation)
        reasons = sorted({each["msg"] for each in error.errors()})
        return [f"{where} is wrong. Expected {expected}, got {_shown(value)}: {'; '.join(reasons)}."]
    except (PydanticSchemaGenerationError, TypeError):
        return []  # a type that cannot be checked: the constructor will say
    return []


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _words(annotation: Any) -> str:
    if annotation is None or annotation is Any:
        return "a value"
    if typing.get_origin(annotation) is Annotated:
        return _words(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) is typing.get_origin(Callable[[], Any]):
        return "a function"
    names = {float: "a number", int: "an integer", str: "a string", bool: "True or False", type(None): "None"}
    if annotation in names:
        return names[annotation]
    parts = typing.get_args(annotation)
    if parts and type(None) in parts:
        return " or ".join(_words(part) for part in parts)
    if typing.get_origin(annotation) is not None and len(parts) == 1:
        return f"a list, each {_words(parts[0])}"
    return str(annotation)
