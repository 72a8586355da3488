"""What a hook asks for, read from its source or from the function itself, and how each parameter is understood."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from experiments_manager.common.suggestions import nearest_name
from experiments_manager.settings.hooks import HookSpec, parameter_names


@dataclasses.dataclass(frozen=True)
class HookParameter:
    """One parameter that a hook's author wrote.

    Attributes:
        name: Its name.
        optional: Whether it has a default.
        positional_only: Whether it can only be given by position.
    """

    name: str
    optional: bool = False
    positional_only: bool = False


@dataclasses.dataclass(frozen=True)
class Binding:
    """A hook's parameter together with what it means.

    Attributes:
        asked: The parameter as it was written.
        meaning: The canonical name of what it asks for, or `None` where nothing bears its name and its default is used.
    """

    asked: HookParameter
    meaning: str | None


def parameters_from_source(
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda,
) -> list[HookParameter]:
    """Read the parameters of a function, or of a class's `__init__`, from the syntax tree."""
    if isinstance(node, ast.ClassDef):
        constructors = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
        return parameters_from_source(constructors[-1])[1:] if constructors else []
    arguments = node.args
    by_position = [*arguments.posonlyargs, *arguments.args]
    first_optional = len(by_position) - len(arguments.defaults)
    asked = [
        HookParameter(argument.arg, index >= first_optional, index < len(arguments.posonlyargs))
        for index, argument in enumerate(by_position)
    ]
    keyword_only = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return asked + [HookParameter(argument.arg, default is not None) for argument, default in keyword_only]


def parameters_of(function: Callable[..., Any]) -> list[HookParameter]:
    """Read the parameters of a callable; of a class those of its constructor.

    Returns:
        An empty list for callables of which Python cannot tell them.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return []
    kinds = inspect.Parameter
    return [
        HookParameter(parameter.name, parameter.default is not kinds.empty, parameter.kind is kinds.POSITIONAL_ONLY)
        for parameter in signature.parameters.values()
        if parameter.kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)
    ]


def bind(
    hook: HookSpec, asked: Sequence[HookParameter], by_position: bool
) -> tuple[list[Binding], list[tuple[str, str, str | None]]]:
    """Find out what each parameter of a hook means.

    Args:
        hook: The row of the hook table.
        asked: The parameters as they were written.
        by_position: Whether parameters of unknown names are understood by the order that they have under its
            other name.

    Returns:
        The bindings, and for each parameter that cannot be given its name, a sentence, and what is probably meant.
    """
    known = parameter_names(hook)
    named = {known.get(parameter.name) for parameter in asked}
    bindings, violations = [], []
    for index, parameter in enumerate(asked):
        meaning = known.get(parameter.name)
        if meaning is None and by_position and index < len(hook.positions) and hook.positions[index] not in named:
            meaning = hook.positions[index]
        if meaning is None and not parameter.optional:
            left = [item for item in _FIRST.get(hook.name, ()) if item not in named]
            violations.append(_unknown_parameter(parameter, known, left))
            named.add(violations[-1][2])
        bindings.append(Binding(parameter, meaning))
    return bindings, violations


_FIRST = {"dataset": ("split",), "test_data": ("split",), "augment": ("x", "y"), "kafka_decode": ("record",)}
"""What nearly every hook of a name asks for, in their order: meant by parameters of other names."""


def _unknown_parameter(
    parameter: HookParameter, known: dict[str, str], left: Sequence[str]
) -> tuple[str, str, str | None]:
    offered = ", ".join(sorted(set(known.values())))
    near = nearest_name(parameter.name, known) or (left[0] if left else None)
    hint = f"Did you mean `{near}`?" if near else "Rename it, or give it a default."
    text = f"no parameter `{parameter.name}` is offered to this hook. Expected some of {offered}. {hint}"
    return parameter.name, text, near


def is_keras_function(hook: HookSpec, asked: Sequence[HookParameter]) -> bool:
    """Return whether a function is itself the value, such as a loss `(y_true, y_pred)`, and not a hook to call."""
    required = [parameter for parameter in asked if not parameter.optional]
    known = parameter_names(hook)
    return hook.keras_function and len(required) == 2 and not any(parameter.name in known for parameter in required)


def is_hook_function(hook: HookSpec, value: Any, by_position: bool) -> bool:
    """Return whether what stands under a hook's name is to be called.

    Functions are called: also methods, lambdas, `functools.partial` and what a decorator made of a function. A Keras
    loss, a schedule, an optimizer and a layer are callable, too, but are values. Classes are called where no value may
    stand.

    Args:
        hook: The row of the hook table.
        value: What stands there.
        by_position: Whether it stands there by the hook's other name, where a function never was a value.
    """
    if isinstance(value, type):
        return not hook.value
    if not (inspect.isroutine(value) or isinstance(value, functools.partial) or hasattr(value, "__wrapped__")):
        return False
    return by_position or not is_keras_function(hook, parameters_of(value))
