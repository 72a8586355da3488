"""Overrides: values given from outside (`--set`, a sweep, a resume) that take the place of what a module assigns.

Their types come from what they replace, their effect begins at the assignment, and nothing is ever written to a file.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pydantic

from experiments_manager.common.machine import local_copies
from experiments_manager.common.suggestions import nearest_name
from experiments_manager.settings.hooks import HOOKS, HOOKS_BY_ANY_NAME, HookSpec
from experiments_manager.settings.problems import OVERRIDE, Problem, shown
from experiments_manager.settings.schema import BY_ANY_NAME, SETTINGS, SettingSpec, Values
from experiments_manager.settings.types import allows_none, plain_value

HPARAMS = "hparams."
ADDED_BY_LAUNCHERS = ("procID", "cid", "isFLserver")
"""Keys of `hparams` that a launcher of several processes may add although the file does not have them."""

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


class InvalidValueError(ValueError):
    """A value that cannot take the place of the one it overrides; the text says why."""


@dataclasses.dataclass
class Override:
    """One value from outside.

    Attributes:
        name: The canonical name, or `hparams.` and a key.
        given_name: The name as it was given.
        value: The value as it was given; a text where it comes from a command line.
        is_text: Whether it comes from a command line, so that its type must still be found.
        is_update: Whether it updates `hparams` as `dict.update` does: the key may be new, and the type another.
    """

    name: str
    given_name: str
    value: Any
    is_text: bool
    is_update: bool = False


def read_overrides(overrides: Mapping[str, Any] | Sequence[str]) -> tuple[dict[str, Override], list[Problem]]:
    """Read overrides into a table by canonical name.

    Args:
        overrides: A mapping, or texts of the form `NAME=VALUE`.

    Returns:
        The overrides by canonical name (`hparams.KEY` for entries of `hparams`), and what cannot be understood.
    """
    if isinstance(overrides, str):
        overrides = [overrides]
    table, problems = {}, []
    for given, value, is_text in _pairs(overrides):
        if value is _NO_VALUE:
            problems.append(Problem(OVERRIDE, 0, given, "invalid override. Expected NAME=VALUE, e.g. epochs=5."))
            continue
        name = _canonical_name(given)
        if name != "working_dir":
            value = local_copies.to_copies(value, is_path=name.endswith("_data_dir"))
        table[name] = Override(name, given, value, is_text)
    return table, problems


def add_updates(table: dict[str, Override], hparams: Mapping[str, Any]) -> None:
    """Add overrides that update `hparams`, whatever is in it, to a table of overrides, which count for more.

    Args:
        table: Overrides by canonical name.
        hparams: Values by key, without `hparams.` before it.
    """
    for key, value in hparams.items():
        name = HPARAMS + key
        update = Override(name, name, local_copies.to_copies(value), is_text=False)
        table.setdefault(name, update).is_update = True


_NO_VALUE = object()


def _pairs(overrides: Mapping[str, Any] | Iterable[str]) -> Iterable[tuple[str, Any, bool]]:
    if isinstance(overrides, Mapping):
        yield from ((str(name).strip(), value, False) for name, value in overrides.items())
        return
    for text in overrides:
        name, equals, value = text.partition("=")
        yield name.strip(), (value if equals and name.strip() else _NO_VALUE), True


def _canonical_name(given: str) -> str:
    if given in BY_ANY_NAME:
        return BY_ANY_NAME[given].name
    hook = HOOKS_BY_ANY_NAME.get(given)
    if hook is not None and hook.value:
        return hook.name
    return given if given.startswith(HPARAMS) else HPARAMS + given


def convert_for_setting(override: Override, entry: SettingSpec) -> Any:
    """Return the value of a setting that an override gives.

    Raises:
        InvalidValueError: Its type or range does not fit.
    """
    if entry.annotation is Any:
        return convert_like(override, None)
    alias = entry.alias if override.given_name == entry.other_name else None
    check = pydantic.TypeAdapter(entry.annotation, config=Values.model_config).validate_python
    for candidate in _candidates(override, allows_none(entry.annotation)):
        try:
            return check(alias.to_canonical(candidate) if alias else candidate)
        except pydantic.ValidationError:
            continue
    raise InvalidValueError(f"invalid value. Expected {entry.type_text}, got {shown(override.value)}.")


def _candidates(override: Override, none_allowed: bool) -> Iterable[Any]:
    """Yield the ways to understand a text, the narrowest first; the last is the text itself."""
    value = override.value
    if not isinstance(value, str):
        yield value
        return
    if not override.is_text:
        yield value
    text = value.strip()
    if none_allowed and text.lower() in ("none", "null"):
        yield None
    if text.lower() in _WORDS:
        yield _WORDS[text.lower()]
    literal = _literal(text)
    if literal is not _NO_VALUE:
        yield literal
        yield [literal]
    yield value
    if text and literal is _NO_VALUE:
        yield [item.strip() for item in text.split(",")]


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return _NO_VALUE


def convert_for_hook(override: Override, hook: HookSpec, current: Any) -> Any:
    """Return the value that an override puts in the place of a hook.

    Raises:
        InvalidValueError: It is a text that does not read as what it replaces.
    """
    if hook.name == "learning_rate" and (current is None or callable(current)):
        current = 0.0
    if current is None or isinstance(current, (bool, int, float, str)):
        return convert_like(override, current)
    literal = _literal(override.value.strip()) if isinstance(override.value, str) else override.value
    return override.value if literal is _NO_VALUE else literal


def convert_like(override: Override, current: Any) -> Any:
    """Return the value of an override, in the type of the one that it replaces.

    Raises:
        InvalidValueError: It cannot be had in that type, for instance 0.5 for an `int`.
    """
    value, current = plain_value(override.value), plain_value(current)
    if value is None or (
        isinstance(value, str) and value.strip().lower() in ("none", "null") and not isinstance(current, str)
    ):
        return None
    if current is None:
        literal = _literal(value.strip()) if override.is_text else value
        return value if literal is _NO_VALUE else literal
    converted = _CONVERTERS.get(type(current), _any_value)(value, current)
    if converted is _NO_VALUE and override.is_update:
        return value
    if converted is _NO_VALUE:
        raise InvalidValueError(
            f"invalid value. Expected {type(current).__name__} as {shown(current)}, got {shown(value)}."
        )
    return converted


def _to_bool(value: Any, current: Any) -> Any:
    if isinstance(value, str):
        return _WORDS.get(value.strip().lower(), _NO_VALUE)
    return value if isinstance(value, bool) else _NO_VALUE


def _to_int(value: Any, current: Any) -> Any:
    literal = _literal(value.strip()) if isinstance(value, str) else value
    return literal if isinstance(literal, int) and not isinstance(literal, bool) else _NO_VALUE


def _to_float(value: Any, current: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return _NO_VALUE
    try:
        return float(value)
    except ValueError:
        return _NO_VALUE


def _to_str(value: Any, current: Any) -> Any:
    return value if isinstance(value, str) else _NO_VALUE


def _to_sequence(value: Any, current: Any) -> Any:
    if isinstance(value, str):
        literal = _literal(value.strip())
        value = [item.strip() for item in value.split(",")] if literal is _NO_VALUE else literal
    items = value if isinstance(value, (list, tuple)) else [value]
    return type(current)(items)


def _to_dict(value: Any, current: Any) -> Any:
    literal = _literal(value.strip()) if isinstance(value, str) else value
    return literal if isinstance(literal, dict) else _NO_VALUE


def _any_value(value: Any, current: Any) -> Any:
    return value


_CONVERTERS = {
    bool: _to_bool,
    int: _to_int,
    float: _to_float,
    str: _to_str,
    list: _to_sequence,
    tuple: _to_sequence,
    dict: _to_dict,
}


def overrides_of_unassigned(
    overrides: Mapping[str, Override], hparams: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Problem]]:
    """Return what overrides come to that no assignment in the module has met.

    Args:
        overrides: These overrides, by canonical name.
        hparams: The dictionary `hparams` of the module.

    Returns:
        Their values by canonical name, and the problems of those that are invalid or unknown.
    """
    effective, problems = {}, []
    for name, override in overrides.items():
        try:
            if name in SETTINGS:
                effective[name] = convert_for_setting(override, SETTINGS[name])
            elif name in HOOKS:
                effective[name] = convert_for_hook(override, HOOKS[name], None)
            else:
                problems.append(_unknown(override, hparams))
        except InvalidValueError as error:
            problems.append(Problem(OVERRIDE, 0, override.given_name, str(error)))
    return effective, problems


def _unknown(override: Override, hparams: Iterable[str]) -> Problem:
    """Return the problem of an override whose name is neither a setting nor in `hparams`."""
    keys = sorted(map(str, hparams))
    key = override.name.removeprefix(HPARAMS)
    inside = override.given_name.startswith(HPARAMS)
    if key in HOOKS_BY_ANY_NAME and not inside:
        text = "a function cannot be overridden. Expected a setting or a key of `hparams`."
        return Problem(OVERRIDE, 0, override.given_name, text)
    near = nearest_name(key, keys if inside else [*keys, *BY_ANY_NAME, *HOOKS_BY_ANY_NAME])
    if near:
        hint = f"Did you mean `{HPARAMS if near in keys and near not in SETTINGS else ''}{near}`?"
    elif keys:
        hint = f"`hparams` has {', '.join(keys)}."
    else:
        hint = "`experiments_manager settings` lists the settings."
    where = "key of `hparams`" if inside else "setting or key of `hparams`"
    return Problem(OVERRIDE, 0, override.given_name, f"unknown {where}. {hint}")
