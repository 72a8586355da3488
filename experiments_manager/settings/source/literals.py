"""What an expression of a settings module comes to, told from its source alone; nothing of the user's is called."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any

_LARGEST = 10_000
"""Most elements of a sequence, and most bits of a number, that are computed here."""

_PLAIN = (type(None), bool, int, float, complex, str, bytes, list, tuple, dict, set, range)

_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.BitOr: operator.or_,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda item, items: item in items,
    ast.NotIn: lambda item, items: item not in items,
}

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (abs, bool, dict, float, int, len, list, max, min, range, round, set, sorted, str, sum, tuple)
}


class NotLiteralError(ValueError):
    """What an expression comes to cannot be told without executing the module."""


def evaluate(node: ast.AST, names: Mapping[str, Any], own_functions: Collection[str] = ()) -> Any:
    """Tell what an expression comes to.

    Understood are constants, containers, arithmetic, comparisons, f-strings, subscripts, and calls of Python's own
    functions such as `int`, `len` and `dict`, over names whose values are known.

    Args:
        node: The expression.
        names: Values of the names that it may read.
        own_functions: Names that the module binds, and that hence are not Python's own functions.

    Returns:
        Its value; new containers each time.

    Raises:
        NotLiteralError: It cannot be told, would be large, or raises.
    """
    try:
        return _Evaluation(names, own_functions).value(node)
    except NotLiteralError:
        raise
    except Exception as error:  # executing the module raises it too, and says at which line
        raise NotLiteralError(str(error)) from error


class _Evaluation:
    def __init__(self, names: Mapping[str, Any], own_functions: Collection[str]) -> None:
        self._names = names
        self._own_functions = own_functions

    def value(self, node: ast.AST) -> Any:
        understood = getattr(self, f"_{type(node).__name__.lower()}", None)
        if understood is None:
            raise NotLiteralError(type(node).__name__)
        return _small(understood(node))

    def _constant(self, node: ast.Constant) -> Any:
        return node.value

    def _name(self, node: ast.Name) -> Any:
        value = self._names[node.id]
        known = type(value).__module__.partition(".")[0] in ("builtins", "numpy", "experiments_manager")
        if not (known and isinstance(value, _PLAIN)):  # its operators would be the user's own code
            raise NotLiteralError(node.id)
        return value

    def _list(self, node: ast.List | ast.Tuple | ast.Set) -> list[Any]:
        items: list[Any] = []
        for item in node.elts:
            items.extend(self.value(item.value) if isinstance(item, ast.Starred) else [self.value(item)])
        return items

    def _tuple(self, node: ast.Tuple) -> tuple[Any, ...]:
        return tuple(self._list(node))

    def _set(self, node: ast.Set) -> set[Any]:
        return set(self._list(node))

    def _dict(self, node: ast.Dict) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        for key, item in zip(node.keys, node.values, strict=True):
            made.update(self.value(item) if key is None else {self.value(key): self.value(item)})
        return made

    def _unaryop(self, node: ast.UnaryOp) -> Any:
        return self._apply(node.op, self.value(node.operand))

    def _binop(self, node: ast.BinOp) -> Any:
        return self._apply(node.op, self.value(node.left), self.value(node.right))

    def _boolop(self, node: ast.BoolOp) -> Any:
        stops_at = isinstance(node.op, ast.Or)
        for item in node.values:
            value = self.value(item)
            if bool(value) is stops_at:
                break
        return value

    def _compare(self, node: ast.Compare) -> bool:
        left = self.value(node.left)
        for sign, item in zip(node.ops, node.comparators, strict=True):
            right = self.value(item)
            if not self._apply(sign, left, right):
                return False
            left = right
        return True

    def _ifexp(self, node: ast.IfExp) -> Any:
        return self.value(node.body if self.value(node.test) else node.orelse)

    def _subscript(self, node: ast.Subscript) -> Any:
        return self.value(node.value)[self.value(node.slice)]

    def _slice(self, node: ast.Slice) -> slice:
        return slice(*(part and self.value(part) for part in (node.lower, node.upper, node.step)))

    def _joinedstr(self, node: ast.JoinedStr) -> str:
        return "".join(str(self.value(part)) for part in node.values)

    def _formattedvalue(self, node: ast.FormattedValue) -> str:
        if node.format_spec is not None or node.conversion != -1:
            raise NotLiteralError("a format")
        return str(self.value(node.value))

    def _call(self, node: ast.Call) -> Any:
        arguments = [self.value(argument) for argument in node.args]
        named = {keyword.arg: self.value(keyword.value) for keyword in node.keywords if keyword.arg}
        if len(named) < len(node.keywords):
            raise NotLiteralError("**")
        if isinstance(node.func, ast.Attribute) and node.func.attr == "get":
            return dict.get(self.value(node.func.value), *arguments)
        if not isinstance(node.func, ast.Name) or node.func.id in self._own_functions:
            raise NotLiteralError("a call")
        return _FUNCTIONS[node.func.id](*arguments, **named)

    def _apply(self, sign: ast.AST, *operands: Any) -> Any:
        numbers = all(isinstance(operand, (int, float)) for operand in operands)
        if isinstance(sign, ast.Pow) and not (numbers and abs(operands[0]) < _LARGEST and abs(operands[1]) < 100):
            raise NotLiteralError("a power")
        if isinstance(sign, ast.Mod) and not numbers:  # formats a text
            raise NotLiteralError("a format")
        if isinstance(sign, ast.Mult) and not numbers:
            repeated, times = sorted(operands, key=lambda operand: isinstance(operand, int))
            if times * len(repeated) > _LARGEST:
                raise NotLiteralError("a large value")
        return _OPERATORS[type(sign)](*operands)


def _small(value: Any) -> Any:
    """Return the value, unless something that goes through it would take long."""
    if isinstance(value, int):
        too_large = value.bit_length() > _LARGEST
    else:
        too_large = isinstance(value, (str, bytes, list, tuple, dict, set, range)) and len(value) > _LARGEST
    if too_large:
        raise NotLiteralError("a large value")
    return value
