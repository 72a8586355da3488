"""A file that is looked through for mistakes, with what the finders need to know of it."""

from __future__ import annotations

import ast
import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments_manager.dialects import CANONICAL, Dialect
from experiments_manager.settings.hooks import HOOKS, HOOKS_BY_ANY_NAME
from experiments_manager.settings.problems import Problem
from experiments_manager.settings.source.dotted_names import full_name, import_aliases
from experiments_manager.settings.source.literals import NotLiteralError, evaluate
from experiments_manager.settings.source.module_source import Source

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_CONDITIONS = ("__version__", "hasattr", "version_info", "TYPE_CHECKING", "find_spec", "platform", "getattr")
"""Words in a condition that asks what there is: what stands below it need not suit this machine."""
_CAUGHT = {"ImportError", "ModuleNotFoundError", "AttributeError", "NameError", "Exception", "BaseException"}
_MOST_LETTERS = 60


@dataclasses.dataclass(frozen=True)
class Inspected:
    """One file.

    Attributes:
        source: Its source.
        names: Values of names of its top level, as far as they are known.
        dialect: Its form.
        is_model_file: Whether it is a model file, whose only hook is `model`.
        folders: Where its own modules are.
        companion: The text of the model file, for the settings file.
        unknown: Names that are not bound because of something that is reported already.
    """

    source: Source
    names: Mapping[str, Any]
    dialect: Dialect = CANONICAL
    is_model_file: bool = False
    folders: tuple[Path, ...] = ()
    companion: str = ""
    unknown: frozenset[str] = frozenset()

    def problem(
        self, node: ast.AST | int, name: str, text: str, meant: tuple[str, str | None] | None = None
    ) -> Problem:
        """Return a problem at the line of a node, with a word there and what is meant by it, where that is known."""
        found = self.source.problem(node if isinstance(node, int) else node.lineno, name, text)
        return dataclasses.replace(found, meant=meant) if meant is not None and meant[1] is not None else found

    def warning(self, node: ast.AST | int, name: str, text: str) -> Problem:
        """Return a problem with which the file can be used all the same."""
        return dataclasses.replace(self.problem(node, name, text), is_warning=True)

    def in_doubt(self, node: ast.AST, name: str, text: str, meant: tuple[str, str | None] | None = None) -> Problem:
        """Return a problem, which is a warning where nothing tells that the node is ever reached."""
        return dataclasses.replace(self.problem(node, name, text, meant), is_warning=not self.is_reached(node))

    def is_reached(self, node: ast.AST) -> bool:
        """Return whether a node stands outside of functions and classes that nothing uses, or may use."""
        around = [item for item in self.source.tree.body if isinstance(item, _DEFINITIONS) and _is_within(node, item)]
        if not around:
            return True
        name = around[0].name
        return self.dialect.is_strict and (name in self.source.used or name in HOOKS_BY_ANY_NAME)

    @functools.cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes but those that may fail because the file provides for it."""
        return list(_certain(self.source.tree))

    @functools.cached_property
    def _certain_ids(self) -> frozenset[int]:
        return frozenset(map(id, self.nodes))

    def is_certain(self, node: ast.AST) -> bool:
        """Return whether a node is executed without anything that provides for its failure."""
        return id(node) in self._certain_ids

    @functools.cached_property
    def bound(self) -> dict[str, int]:
        """How often each name is bound by anything but an import, in whatever scope."""
        counts: dict[str, int] = {}
        for node in ast.walk(self.source.tree):
            for name in _bound_by(node):
                counts[name] = counts.get(name, 0) + 1
        return counts

    @functools.cached_property
    def aliases(self) -> dict[str, str]:
        """What names stand for by imports, and by assignments of what is imported; without those bound otherwise."""
        found: dict[str, set[str]] = {}
        for name, stands_for in import_aliases(self.source.tree):
            found.setdefault(name, set()).add(stands_for)
        known = {name: next(iter(all_)) for name, all_ in found.items() if len(all_) == 1 and name not in self.bound}
        for statement in self.source.tree.body:
            if isinstance(statement, ast.Assign) and isinstance(statement.value, (ast.Attribute, ast.Name)):
                target, dotted = statement.targets[0], full_name(statement.value, known)
                if (
                    isinstance(target, ast.Name)
                    and dotted
                    and self.bound.get(target.id) == 1
                    and target.id not in found
                ):
                    known[target.id] = dotted
        return known

    def full_name(self, node: ast.AST) -> str | None:
        """Return the full dotted name of an expression, where it begins with something imported."""
        return full_name(node, self.aliases)

    @functools.cached_property
    def hooks(self) -> dict[str, Function]:
        """The functions that are hooks, by canonical name."""
        found = {}
        for name, bindings in self.source.names.items():
            node = bindings[-1].node
            spec = HOOKS_BY_ANY_NAME.get(name)
            is_plain = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.decorator_list
            if spec is not None and is_plain and (not self.is_model_file or name == "model"):
                found[spec.name] = node
        return {name: found[name] for name in HOOKS if name in found}

    @functools.cached_property
    def _enclosing(self) -> dict[int, tuple[Function, ...]]:
        found: dict[int, tuple[Function, ...]] = {}

        def visit(node: ast.AST, functions: tuple[Function, ...]) -> None:
            found[id(node)] = functions
            within = (*functions, node) if isinstance(node, _FUNCTIONS) else functions
            for child in ast.iter_child_nodes(node):
                visit(child, within)

        visit(self.source.tree, ())
        return found

    def given_name(self, hook: str) -> str:
        """Return the name under which the file gives a hook: the other one, where it binds that."""
        other = HOOKS[hook].other_name
        return other if other and other in self.source.names else hook

    def functions_around(self, node: ast.AST) -> tuple[Function, ...]:
        """Return the functions that a node stands in, the outermost first."""
        return self._enclosing.get(id(node), ())

    def value(self, node: ast.AST) -> Any:
        """Tell what an expression comes to, by constants of the top level and entries of `hparams`.

        Raises:
            NotLiteralError: It cannot be told.
        """
        around = self.functions_around(node)
        hidden = {name for function in around for name in _locals(function)}
        if "hparams" in hidden and self.hparams_of(around):
            hidden.discard("hparams")
        names = {name: value for name, value in self.names.items() if name not in hidden}
        return evaluate(node, names, frozenset(self.source.names) | hidden)

    def text(self, node: ast.AST) -> str | None:
        """Return the text that an expression comes to, `None` where it is no text or cannot be told."""
        try:
            value = self.value(node)
        except NotLiteralError:
            return None
        return value if isinstance(value, str) else None

    def hparams_of(self, around: tuple[Function, ...]) -> bool:
        """Return whether `hparams` within these functions is the dictionary of the file."""
        for function in reversed(around):
            if "hparams" in _parameters(function):
                return function in self.hooks.values()
            if "hparams" in _locals(function):
                return False
        return True

    @functools.cached_property
    def hparams(self) -> dict[str, Any] | None:
        """The dictionary `hparams`, `None` where its keys are not known."""
        found = self.names.get("hparams")
        return found if isinstance(found, dict) else None


def written(node: ast.AST) -> str:
    """Return an expression as it is written, shortened where it is long."""
    text = ast.unparse(node)
    return text if len(text) <= _MOST_LETTERS else text[: _MOST_LETTERS - 1] + "…"


def own_nodes(function: Function) -> Iterator[ast.AST]:
    """Yield the nodes of a function's body without those of functions and classes in it."""
    waiting: list[ast.AST] = list(function.body) if isinstance(function.body, list) else [function.body]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            waiting.extend(ast.iter_child_nodes(node))


def _is_within(node: ast.AST, other: ast.stmt) -> bool:
    return other.lineno <= getattr(node, "lineno", 0) <= (other.end_lineno or other.lineno)


def _parameters(function: Function) -> set[str]:
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return {argument.arg for argument in every if argument is not None}


def _locals(function: Function) -> set[str]:
    return _parameters(function).union(*(_bound_by(node) for node in own_nodes(function)))


def _bound_by(node: ast.AST) -> tuple[str, ...]:
    if isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del)):
        return (node.id,)
    if isinstance(node, ast.arg):
        return (node.arg,)
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return (node.name,)
    if isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
        return (node.name,)
    return ()


def _certain(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        yield child
        if isinstance(child, ast.Try) and any(map(_provides, child.handlers)):
            for part in (*child.orelse, *child.finalbody):
                yield part
                yield from _certain(part)
        elif isinstance(child, (ast.If, ast.IfExp)) and any(word in ast.unparse(child.test) for word in _CONDITIONS):
            continue
        else:
            yield from _certain(child)


def _provides(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    return any(isinstance(node, ast.Name) and node.id in _CAUGHT for node in ast.walk(handler.type))
