"""A source in which misspelt words are what was probably meant, so that a dry run can look at all else.

Without it one mistake hides another: a model whose activation has no such name is not built, and nothing can be said of
how it goes with the data.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
from collections.abc import Iterable

from experiments_manager.settings.problems import Problem
from experiments_manager.settings.source.module_source import Source, names_at_top

_WORDS = (
    (ast.Name, "id"),
    (ast.Attribute, "attr"),
    (ast.keyword, "arg"),
    (ast.Constant, "value"),
    (ast.FunctionDef, "name"),
    (ast.ClassDef, "name"),
)
"""Where a word may stand in a syntax tree."""


def repaired(source: Source, problems: Iterable[Problem]) -> Source:
    """Return a source with what is meant in the place of what is wrong.

    Args:
        source: The source; it stays as it is.
        problems: What is wrong, of whatever file.
    """
    here = [problem for problem in problems if problem.meant and problem.place == _place(source, problem.line)]
    if not here:
        return source
    tree = _Repair(here).visit(copy.deepcopy(source.tree))
    missing = {problem.meant[1] for problem in here if _is_import(problem)}
    for line in sorted(missing):
        tree.body.insert(_after_head(tree), ast.parse(line).body[0])
    names = names_at_top(ast.fix_missing_locations(tree))
    return dataclasses.replace(source, tree=tree, names=names, used=source.used | {new for _, new in _meant(here)})


def _place(source: Source, line: int) -> str:
    return source.problem(line, "", "").place


def _is_import(problem: Problem) -> bool:
    return bool(problem.meant) and " " in problem.meant[1]


def _meant(problems: Iterable[Problem]) -> list[tuple[str, str]]:
    return [problem.meant for problem in problems if problem.meant and not _is_import(problem)]


def _after_head(tree: ast.Module) -> int:
    """Return where imports may stand: below the docstring and what is imported from `__future__`."""
    heads = [
        index + 1
        for index, item in enumerate(tree.body)
        if (isinstance(item, ast.ImportFrom) and item.module == "__future__")
        or (index == 0 and isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant))
    ]
    return max(heads, default=0)


class _Repair(ast.NodeTransformer):
    """Puts words in the place of others: where the problem is, and names that nothing binds everywhere."""

    def __init__(self, problems: list[Problem]) -> None:
        self._everywhere = {p.meant[0]: p.meant[1] for p in problems if p.name == p.meant[0] or p.line == 1}
        self._everywhere = {old: new for old, new in self._everywhere.items() if " " not in new}
        self._at: dict[int, dict[str, str]] = {}
        for problem in problems:
            if not _is_import(problem):
                self._at.setdefault(problem.line, {})[problem.meant[0]] = problem.meant[1]

    def visit(self, node: ast.AST) -> ast.AST:
        at = self._at.get(getattr(node, "lineno", 0), {})
        if isinstance(node, ast.Call):
            node.keywords = [item for item in node.keywords if self._at.get(item.lineno, {}).get(item.arg) != ""]
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            _rename_parameters(node, at)
        node = self.generic_visit(node)
        if at and isinstance(node, ast.expr) and isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
            new = at.get(ast.unparse(node))
            if new:
                return ast.copy_location(ast.parse(new, mode="eval").body, node)
        for kind, field in _WORDS:
            if isinstance(node, kind):
                word = getattr(node, field)
                words = self._everywhere | at if isinstance(node, (ast.Name, ast.FunctionDef, ast.ClassDef)) else at
                if isinstance(word, str) and words.get(word):
                    setattr(node, field, words[word])
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if at.get(alias.name):
                    alias.name, alias.asname = at[alias.name], alias.asname or alias.name
        return node


def _rename_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef, words: dict[str, str]) -> None:
    """Rename parameters of a function that has none of the new names, and their uses in it."""
    every = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    names = {item.arg for item in every}
    renamed = {old: new for old, new in words.items() if old in names and new and new not in names}
    for item in every:
        item.arg = renamed.get(item.arg, item.arg)
    for node in ast.walk(function):
        if isinstance(node, ast.Name):
            node.id = renamed.get(node.id, node.id)
