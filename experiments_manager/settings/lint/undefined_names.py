"""Names that functions and classes read, and that nothing binds."""

from __future__ import annotations

import ast
import builtins
import symtable
from collections.abc import Iterator

from experiments_manager.common.suggestions import nearest_name
from experiments_manager.settings.lint.inspected import Inspected
from experiments_manager.settings.problems import Problem
from experiments_manager.settings.source.explanations import USUAL_IMPORTS

_OF_MODULES = {"__file__", "__name__", "__doc__", "__path__", "__spec__", "__loader__", "__package__", "__builtins__"}
_OF_CLASSES = {"__class__", "__module__", "__qualname__", "__annotations__"}
_BIND_UNSEEN = {"globals", "exec", "eval", "setattr", "vars"}


def undefined_in_functions(file: Inspected) -> Iterator[Problem]:
    """Find names in functions that would raise `NameError` when they are called."""
    yield from (problem for problem, at_top in _undefined(file) if not at_top)


def undefined_at_top(file: Inspected) -> Iterator[Problem]:
    """Find such names at the top level, which executing the file reports better where it comes as far."""
    yield from (problem for problem, at_top in _undefined(file) if at_top)


def _undefined(file: Inspected) -> Iterator[tuple[Problem, bool]]:
    source = file.source
    named = {node.id for node in ast.walk(source.tree) if isinstance(node, ast.Name)}
    if source.has_star_import or source.readable.nothing or named & _BIND_UNSEEN:
        return
    table = symtable.symtable(source.readable.text, str(source.file), "exec")
    known = {*source.names, *dir(builtins), *_OF_MODULES, *_OF_CLASSES, *_declared_global(table)}
    known |= source.readable.lost_words | file.unknown
    missing = set(_read_globally(table)) - known
    lines: dict[str, list[ast.Name]] = {}
    for node in file.nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in missing:
            lines.setdefault(node.id, []).append(node)
    for name, nodes in lines.items():
        found = [node for node in nodes if not _is_local(file, node)]
        for at_top in (True, False):
            there = [node for node in found if bool(file.functions_around(node)) is not at_top]
            if there:
                text, meant = _text(file, name, there)
                yield file.in_doubt(there[0], name, text, (name, meant)), at_top


def _text(file: Inspected, name: str, nodes: list[ast.Name]) -> tuple[str, str | None]:
    further = sorted({node.lineno for node in nodes[1:]} - {nodes[0].lineno})
    where = f" (also in line {', '.join(map(str, further))})" if further else ""
    if name in USUAL_IMPORTS:
        return f"it is not defined{where}. Add `{USUAL_IMPORTS[name]}` above.", USUAL_IMPORTS[name]
    around = file.functions_around(nodes[0])
    inner = {item for function in around for item in _names_in(function)}
    near = nearest_name(name, {*inner, *file.source.names, *dir(builtins)})
    hint = f"Did you mean `{near}`?" if near else "Define it, or correct the name."
    if name == "self":
        hint = "Write `self` as the first parameter of the method."
    return f"it is not defined{where}. Expected a name that the file binds. {hint}", near


def _names_in(function: ast.AST) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg


def _is_local(file: Inspected, node: ast.Name) -> bool:
    """Return whether a name that some function lacks is bound in the one that it stands in."""
    return any(node.id in set(_names_in(function)) for function in file.functions_around(node))


def _read_globally(table: symtable.SymbolTable) -> Iterator[str]:
    at_top = table.get_type() == "module"
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (symbol.is_global() or (at_top and not symbol.is_assigned())):
            yield symbol.get_name()
    for child in table.get_children():
        yield from _read_globally(child)


def _declared_global(table: symtable.SymbolTable) -> Iterator[str]:
    for child in table.get_children():
        for symbol in child.get_symbols():
            if symbol.is_declared_global() and symbol.is_assigned():
                yield symbol.get_name()
        yield from _declared_global(child)
