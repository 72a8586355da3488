"""What the source of a module shows without running it: names bound at the top level, where, by what, and their use."""

from __future__ import annotations

import ast
import dataclasses
import re
import symtable
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path

from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.settings.problems import Problem, SettingsError, display_path, problem_at

_MOST_STATEMENTS = 20
"""Statements that are taken out of a module at most, before none of it counts as readable."""

_GOES_ON = re.compile(r"[\s#)\]}]|$|(else|elif|except|finally)\b")
"""Begins a line that does not begin a statement of the top level."""

_BINDS = re.compile(r"^(?:(?:async\s+)?def\s+|class\s+)?(\w+)", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class PartialSource:
    """A module without the statements that Python cannot read.

    Attributes:
        text: The source, these statements replaced by empty lines.
        lost: Their source.
        error: What Python says of the first one, or `None` where it can read all.
        nothing: Whether no part of the module can be read.
    """

    text: str
    lost: str = ""
    error: SyntaxError | None = None
    nothing: bool = False

    @property
    def lost_words(self) -> frozenset[str]:
        """All words in the statements that were lost, any of which may be a name that they bind or use."""
        return frozenset(re.findall(r"\w+", self.lost))

    @property
    def lost_names(self) -> frozenset[str]:
        """The names that these statements bind, as far as their first words tell."""
        return frozenset(_BINDS.findall(self.lost))


def parse_valid_statements(text: str, file: str) -> PartialSource:
    """Take statements of the top level out of a module until Python can read the rest.

    Args:
        text: The source.
        file: Its path, for messages.

    Raises:
        ValueError: The text holds null bytes.
    """
    first = error = _syntax_error(text, file)
    lines, lost = [line + "\n" for line in text.split("\n")], []  # `splitlines` would part them at form feeds, too
    for _ in range(_MOST_STATEMENTS):
        if error is not None and not error.lineno:  # it is no text at all
            break
        if error is None:
            return PartialSource("".join(lines) if first else text, "".join(lost), first)
        begin, end = _statement_at(lines, error)
        lost += lines[begin:end]
        lines[begin:end] = ["\n"] * (end - begin)
        error = _syntax_error("".join(lines), file)
    return PartialSource("", text, first, nothing=True)


def _syntax_error(text: str, file: str) -> SyntaxError | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python says it again when the module is read to be executed
        try:
            compile(text, file, "exec", dont_inherit=True)
        except SyntaxError as error:
            return error
    return None


def _statement_at(lines: list[str], error: SyntaxError) -> tuple[int, int]:
    """Return the lines of the statement of the top level that an error is in, as a half-open range."""
    begins = [number for number, line in enumerate(lines) if not _GOES_ON.match(line)]
    at = min(error.lineno or 1, len(lines)) - 1
    block = re.search(r"expected an indented block after .* on line (\d+)", error.msg or "")
    at = int(block.group(1)) - 1 if block else at
    begin = max((number for number in begins if number <= at), default=0)
    end = min((number for number in begins if number > at), default=len(lines))
    while begin and lines[begin - 1].startswith("@"):
        begin -= 1
    return begin, end


_FEW = 8
"""Settings files of a folder that a message names."""


@dataclasses.dataclass(frozen=True)
class TopLevelName:
    """One binding of a name at the top level of a module.

    Attributes:
        name: The name.
        line: Its line, counted from 1.
        node: The function or class that it names, or the expression that is assigned to it alone; else `None`.
        imported: Whether an import binds it.
    """

    name: str
    line: int
    node: ast.AST | None = None
    imported: bool = False


@dataclasses.dataclass(frozen=True)
class Source:
    """The source of one module, parsed.

    Attributes:
        file: Absolute path.
        text: The source.
        tree: Its syntax tree, without the statements that Python cannot read.
        names: For each name bound at the top level its bindings, in the order of the lines.
        used: Names of the top level that are read anywhere in the module.
        has_star_import: Whether `from x import *` may bind names that the source does not show.
        readable: What Python can read of it, and what it cannot.
    """

    file: Path
    text: str
    tree: ast.Module
    names: dict[str, list[TopLevelName]]
    used: frozenset[str]
    has_star_import: bool
    readable: PartialSource

    def last(self, name: str) -> TopLevelName | None:
        """Return the last binding of a name, which is the one that counts, or `None`."""
        return self.names[name][-1] if name in self.names else None

    def line(self, name: str) -> int:
        """Line of the last binding, 0 where the source does not bind the name."""
        binding = self.last(name)
        return binding.line if binding else 0

    def line_of_key(self, name: str, key: str) -> int:
        """Line of a key of the dictionary that is bound to a name last; where it shows none, that of the name."""
        binding = self.last(name)
        for node in ast.walk(binding.node) if binding is not None and binding.node is not None else ():
            if isinstance(node, ast.Dict):
                for item in node.keys:
                    if isinstance(item, ast.Constant) and str(item.value) == key:
                        return item.lineno
            elif isinstance(node, ast.keyword) and node.arg == key:
                return node.value.lineno
        return self.line(name)

    @property
    def syntax_problems(self) -> list[Problem]:
        """The first statement that Python cannot read, if there is one; others may only follow from it."""
        error = self.readable.error
        return [self.problem(error.lineno or 0, "syntax", _syntax_text(error))] if error else []

    def may_bind(self, *names: str | None) -> bool:
        """Return whether one of these names may be bound by what the source does not show."""
        lost = self.readable
        return self.has_star_import or lost.nothing or not lost.lost_words.isdisjoint(names)

    def problem(self, line: int, name: str, text: str) -> Problem:
        """Return a problem in this file."""
        return problem_at(self.file, line, name, text)


def read_source(file: Path) -> Source:
    """Read and parse a module; where it is not Python throughout, those of its statements that are.

    Raises:
        SettingsError: The file is missing, cannot be read, or is not text.
    """
    text = _read_text(file)
    try:
        readable = parse_valid_statements(text, str(file))
        tree = ast.parse(readable.text, filename=str(file))
        table = symtable.symtable(readable.text, str(file), "exec")
    except ValueError as error:  # null bytes, on the older Pythons
        raise SettingsError([problem_at(file, 0, "syntax", f"this is not a Python file: {error}.")]) from None
    star = any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in ast.walk(tree))
    used = readable.lost_words.union(_used_names(table))
    return Source(file, text, tree, names_at_top(tree), used, star, readable)


def names_at_top(tree: ast.Module) -> dict[str, list[TopLevelName]]:
    """Return for each name that a module binds at its top level the bindings, in the order of the lines."""
    names: dict[str, list[TopLevelName]] = {}
    for binding in sorted(_bindings(tree), key=lambda binding: binding.line):
        names.setdefault(binding.name, []).append(binding)
    return names


def _read_text(file: Path) -> str:
    try:
        with tokenize.open(file) as stream:  # honours a coding declaration, as Python does
            return stream.read()
    except FileNotFoundError:
        raise SettingsError([problem_at(file, 0, "file", _missing_text(file))]) from None
    except IsADirectoryError:
        text = f"this is a folder. Expected a Python file. {_settings_files(file) or 'Name the settings file in it.'}"
        raise SettingsError([problem_at(file, 0, "file", text)]) from None
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        text = f"the file cannot be read: {reason}. Expected a readable text file."
        raise SettingsError([problem_at(file, 0, "file", text)]) from None


def _missing_text(file: Path) -> str:
    folder = file.parent
    if not folder.is_dir():
        return f"file not found, nor the folder {display_path(folder)}. Check the path."
    there = [path.name for path in folder.glob("*.py")]
    otherwise = _settings_files(folder) or "Check the path."
    return f"file not found. {did_you_mean(file.name, there, otherwise, display_path(folder / '{}'))}"


def _settings_files(folder: Path) -> str:
    """Name the files of a folder that are called as settings modules are, if there are a few."""
    files = sorted(folder.glob("mysettings_*.py"))
    if not 0 < len(files) <= _FEW:
        return ""
    return f"There {'is' if len(files) == 1 else 'are'} {', '.join(map(display_path, files))}."


def _syntax_text(error: SyntaxError) -> str:
    if not error.lineno:
        return f"this is not a Python file: {error.msg}. Expected the source of a Python module. Check the path."
    shown = f" in `{error.text.strip()}`" if error.text and error.text.strip() else ""
    return f"Python cannot read this: {error.msg}{shown}. Correct the line, or the one before it."


def _used_names(table: symtable.SymbolTable) -> Iterator[str]:
    at_top = table.get_type() == "module"
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (at_top or symbol.is_global()):
            yield symbol.get_name()
    for child in table.get_children():
        yield from _used_names(child)


def bound_names(statement: ast.stmt) -> Iterator[str]:
    """Return names that a statement of the top level may bind or unbind; `*` for a star import."""
    for binding in _bindings(ast.Module(body=[statement], type_ignores=[])):
        yield binding.name
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Del):
            yield node.id
        elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
            yield node.name
        elif isinstance(node, ast.MatchMapping) and node.rest:
            yield node.rest


_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def _bindings(node: ast.AST, in_comprehension: bool = False) -> Iterator[TopLevelName]:
    """Yield all bindings in the scope of the module, nested `if`, `for`, `with` and `try` included."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield TopLevelName(child.name, child.lineno, child)
        elif isinstance(child, (ast.Import, ast.ImportFrom)):
            for alias in child.names:
                name = alias.asname or alias.name.partition(".")[0]
                yield TopLevelName(name, child.lineno, imported=True)
        elif isinstance(child, ast.Assign) and len(child.targets) == 1 and isinstance(child.targets[0], ast.Name):
            yield TopLevelName(child.targets[0].id, child.lineno, child.value)
            yield from _bindings(child.value, in_comprehension)
            continue
        elif isinstance(child, ast.AnnAssign) and isinstance(child.target, ast.Name):
            if child.value is not None:
                yield TopLevelName(child.target.id, child.lineno, child.value)
            continue
        elif isinstance(child, ast.NamedExpr):  # binds in the module also from within a comprehension
            yield TopLevelName(child.target.id, child.lineno, child.value)
        elif isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store) and not in_comprehension:
            yield TopLevelName(child.id, child.lineno)
        if not isinstance(child, _SCOPES):
            yield from _bindings(child, in_comprehension or isinstance(child, _COMPREHENSIONS))
