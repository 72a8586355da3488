"""What the statements of a module bind, told from its source alone; where that cannot be told, nothing is claimed."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from experiments_manager.settings.source.literals import NotLiteralError, evaluate
from experiments_manager.settings.source.module_source import Source, bound_names
from experiments_manager.settings.source.namespace import Namespace

_REACHES_NAMES = {"globals", "locals", "vars", "exec", "eval", "setattr"}
"""Functions by which a module may bind names of its own that its source does not show."""

_WITHOUT_EFFECT = {"print", "len", "str", "int", "float", "min", "max", "sum", "sorted", "list", "tuple", "dict", "set"}
"""Functions that leave their arguments as they are."""


class Interpreter:
    """Follows the top level of a module without executing it.

    Assignments of literals, and of what follows from them, are bound in the namespace. Whatever else a statement may
    bind or change is forgotten there.
    """

    def __init__(self, source: Source, namespace: Namespace) -> None:
        """Prepare the reading.

        Args:
            source: The module.
            namespace: Where names are bound; what it holds already is taken as it is.
        """
        self._namespace = namespace
        self._own_names = frozenset(source.names)
        self._functions = [item for item in source.tree.body if isinstance(item, _DEFINITIONS)]
        self._callable_here = {item.name for item in self._functions} | {
            name for name, bindings in source.names.items() if any(isinstance(b.node, ast.Lambda) for b in bindings)
        }
        named = {node.id for node in ast.walk(source.tree) if isinstance(node, ast.Name)}
        namespace.withhold(source.names if named & _REACHES_NAMES else _declared_global(source.tree))

    def follow(self, statements: Iterable[ast.stmt]) -> None:
        """Follow statements in their order."""
        for statement in statements:
            step = getattr(self, f"_{type(statement).__name__.lower()}", None)
            if step is None:
                self.give_up(statement)
            else:
                step(statement)

    def give_up(self, statement: ast.stmt) -> None:
        """Forget all that a statement may have bound or changed."""
        names = set(bound_names(statement))
        if "*" in names:
            self._namespace.forget_all()
        self._namespace.forget(names | self._mutable(self._handed_over(statement)) | self._changed_by_calls(statement))

    def _definition(self, statement: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        for part in ast.iter_child_nodes(statement):  # a class' own statements are executed, a function's are not
            if not isinstance(part, _DEFINITIONS) and (
                isinstance(statement, ast.ClassDef) or part in statement.decorator_list
            ):
                self._after_calls(part)
        self._namespace.forget({statement.name})

    _functiondef = _asyncfunctiondef = _classdef = _definition

    def _assign(self, statement: ast.Assign) -> None:
        self._bind_all(statement, statement.targets, statement.value)

    def _annassign(self, statement: ast.AnnAssign) -> None:
        if statement.value is not None:
            self._bind_all(statement, [statement.target], statement.value)

    def _augassign(self, statement: ast.AugAssign) -> None:
        target = statement.target
        if isinstance(target, ast.Name):  # a list or dictionary is changed in place, for all who hold it
            self._namespace.forget(self._mutable({target.id}) - {target.id})
            read = ast.Name(target.id, ast.Load())
        elif isinstance(target, ast.Subscript):
            read = ast.Subscript(target.value, target.slice, ast.Load())
        else:
            self.give_up(statement)
            return
        self._bind_all(statement, [target], ast.BinOp(read, statement.op, statement.value))

    def _if(self, statement: ast.If) -> None:
        try:
            holds = self._value(statement.test)
        except NotLiteralError:
            self.give_up(statement)
        else:
            self.follow(statement.body if holds else statement.orelse)

    def _expr(self, statement: ast.Expr) -> None:
        if not isinstance(statement.value, ast.Constant):
            self._after_calls(statement)

    def _pass(self, statement: ast.Pass) -> None:
        pass

    def _bind_all(self, statement: ast.stmt, targets: Iterable[ast.expr], expression: ast.expr) -> None:
        try:
            value = self._value(expression)
        except NotLiteralError:
            self._after_calls(statement)
            self._namespace.forget({*bound_names(statement), *self._mutable(_changed_by(targets))})
        else:
            for target in targets:
                self._bind(target, value)

    def _bind(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self._namespace[target.id] = value
        elif isinstance(target, (ast.Tuple, ast.List)) and self._pairs_up(target, value):
            for part, item in zip(target.elts, value, strict=True):
                self._bind(part, item)
        elif not (isinstance(target, ast.Subscript) and self._put(target, value)):
            self._namespace.forget({*_stored(target), *self._mutable(_changed_by([target]))})

    def _pairs_up(self, target: ast.Tuple | ast.List, value: Any) -> bool:
        starred = any(isinstance(part, ast.Starred) for part in target.elts)
        return not starred and isinstance(value, (list, tuple)) and len(value) == len(target.elts)

    def _put(self, target: ast.Subscript, value: Any) -> bool:
        """Assign an element of a container that is known, and say whether that was possible."""
        try:
            container = self._value(target.value)
            container[self._value(target.slice)] = value
        except (NotLiteralError, TypeError, LookupError, ValueError):
            return False
        return True

    def _value(self, node: ast.expr) -> Any:
        return evaluate(node, self._namespace, self._own_names)

    def _after_calls(self, node: ast.AST) -> None:
        """Forget what the calls in a statement may change: their arguments, and what functions of this file reach."""
        walked = list(ast.walk(node))
        names = {item.target.id for item in walked if isinstance(item, ast.NamedExpr)}
        for call in (item for item in walked if isinstance(item, ast.Call)):
            if not (isinstance(call.func, ast.Name) and call.func.id in _WITHOUT_EFFECT - self._own_names):
                names |= self._mutable(self._handed_over(call))
        self._namespace.forget(names | self._changed_by_calls(node))

    def _changed_by_calls(self, node: ast.AST) -> set[str]:
        walked = list(ast.walk(node))
        named = {item.id for item in walked if isinstance(item, ast.Name)}
        if named.isdisjoint(self._callable_here) or not any(isinstance(item, ast.Call) for item in walked):
            return set()
        return self._mutable({name for function in self._functions for name in self._handed_over(function)})

    def _handed_over(self, node: ast.AST) -> set[str]:
        """Return names in a piece of source through which their values may be changed, and not only read."""
        if isinstance(node, ast.expr) and isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
            with contextlib.suppress(NotLiteralError):
                if not isinstance(self._value(node), (list, dict, set, tuple)):
                    return set()
        inner = [name for child in ast.iter_child_nodes(node) for name in self._handed_over(child)]
        return {node.id, *inner} if isinstance(node, ast.Name) else set(inner)

    def _mutable(self, names: set[str]) -> set[str]:
        """Those of the names that hold a list, dictionary or set, and all further names of the same object."""
        held = {name: self._namespace[name] for name in names if name in self._namespace}
        objects = {id(value) for value in held.values() if isinstance(value, (list, dict, set))}
        return {name for name, value in self._namespace.items() if id(value) in objects}


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _declared_global(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield from node.names


def _stored(target: ast.expr) -> Iterator[str]:
    for node in ast.walk(target):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _changed_by(targets: Iterable[ast.expr]) -> set[str]:
    """Name whose values an assignment to elements or attributes changes."""
    inner = (
        node for target in targets for node in ast.walk(target) if isinstance(node, (ast.Subscript, ast.Attribute))
    )
    return {part.id for node in inner for part in ast.walk(node.value) if isinstance(part, ast.Name)}
