"""Executing a module of the user's, and saying where it failed."""

from __future__ import annotations
import __future__

import ast
import dataclasses
import functools
import importlib.machinery
import importlib.util
import operator
import traceback
from collections.abc import Collection, Mapping
from types import MappingProxyType, ModuleType

from experiments_manager.settings.problems import Problem, problem_at
from experiments_manager.settings.source.explanations import explain
from experiments_manager.settings.source.heavy_imports import NotImportedError
from experiments_manager.settings.source.local_modules import LocalModules
from experiments_manager.settings.source.module_source import Source, bound_names
from experiments_manager.settings.source.namespace import Namespace
from experiments_manager.settings.source.source_checks import removed_names
from experiments_manager.settings.source.static_values import Interpreter

_FUTURE_FLAGS = functools.reduce(
    operator.or_, (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
)
"""The bits of a compiled unit that `from __future__ import …` sets."""


def new_module(source: Source) -> ModuleType:
    """Make the module of a source, not executed yet, by the name under which it can be imported."""
    name, path = source.file.stem, str(source.file)
    loader = importlib.machinery.SourceFileLoader(name, path)
    return importlib.util.module_from_spec(importlib.util.spec_from_file_location(name, path, loader=loader))


@dataclasses.dataclass
class Execution:
    """How the execution of a module ended.

    Attributes:
        problems: What went wrong.
        error: The first exception that it raised.
    """

    problems: list[Problem] = dataclasses.field(default_factory=list)
    error: BaseException | None = None


def execute(
    source: Source,
    namespace: Namespace,
    module: ModuleType,
    local_modules: LocalModules,
    *,
    unknown_elsewhere: Mapping[str, Collection[str]] = MappingProxyType({}),
    reported: Collection[str] = (),
) -> Execution:
    """Execute a module of the user's, and go on after what fails as far as that is safe.

    Where an import fails, or what an assignment computes by itself, what comes after it is executed without the names
    that it would have bound. After any other exception nothing is: of the statements that are left, only what their
    source shows is bound. A statement that reads a name which is unknown
    because of an earlier problem, or which needs a heavy package that must not be imported, is passed over silently.

    Args:
        source: Its source, without syntax errors.
        namespace: Where its top level binds names, over the dictionary of the module.
        module: The module that it fills.
        local_modules: What it finds by `import`; it is added there itself.
        unknown_elsewhere: For modules that it may import, by name, the names that are unknown there.
        reported: Places of which it is said already what is wrong there.
    """
    with local_modules.active():
        local_modules.register(module)
        run = _Run(source, namespace, module, local_modules, {**unknown_elsewhere, module.__name__: ()})
        run.reported |= set(reported)
        run.statements()
    return run.ended


class _Run:
    def __init__(
        self,
        source: Source,
        namespace: Namespace,
        module: ModuleType,
        local_modules: LocalModules,
        unknown_elsewhere: Mapping[str, Collection[str]],
    ) -> None:
        self.ended = Execution()
        self._source = source
        self._namespace = namespace
        self._globals = vars(module)
        self._local_modules = local_modules
        self.reported = {problem.place for problem in removed_names(source)}
        """Places of which those who read the source have said what is wrong."""
        self._unknown_elsewhere = unknown_elsewhere
        self._flags = compile(source.tree, str(source.file), "exec", dont_inherit=True).co_flags & _FUTURE_FLAGS

    def statements(self) -> None:
        """Execute the statements one by one.

        Python's compiler lets the whole top level write around the namespace where any function of the same unit
        declares a name `global`. So each statement is a unit of its own.
        """
        body = self._source.tree.body
        for position, statement in enumerate(body):
            if position and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                continue  # a bare text would be taken for the docstring of its unit
            if not self._goes_on_after(statement):
                interpreter = Interpreter(self._source, self._namespace)
                interpreter.give_up(statement)
                interpreter.follow(body[position + 1 :])
                return

    def _goes_on_after(self, statement: ast.stmt) -> bool:
        unit = ast.Module(body=[statement], type_ignores=[])
        code = compile(unit, str(self._source.file), "exec", flags=self._flags, dont_inherit=True)
        try:
            exec(code, self._globals, self._namespace)
            return True
        except NotImportedError:
            return self._passed_over(statement)
        except (Exception, SystemExit) as error:
            if self._follows_from_another(error):
                return self._passed_over(statement)
            self._report(statement, error)
            return _left_nothing(error, statement) and self._passed_over(statement)

    def _passed_over(self, statement: ast.stmt) -> bool:
        """Forget what a statement binds; say whether what comes after it can be executed without it."""
        names = {*bound_names(statement), *_changed_names(statement)}
        if "*" in names:
            self._namespace.forget_all()
        if _only_binds(statement):
            self._namespace.forget(names)
            return True
        return False

    def _follows_from_another(self, error: BaseException) -> bool:
        """Return whether an exception comes of a name that is unknown because of another problem."""
        if isinstance(error, NameError):
            return self._namespace.is_unknown(getattr(error, "name", None) or "")
        if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
            return error.name in self._unknown_in(error.obj.__name__)
        if isinstance(error, ImportError) and not isinstance(error, ModuleNotFoundError):
            unknown = self._unknown_in(error.name or "")
            return getattr(error, "name_from", None) in unknown or any(f"'{name}'" in error.msg for name in unknown)
        return False

    def _unknown_in(self, module: str) -> Collection[str]:
        return (
            self._namespace.unknown if module == self._globals["__name__"] else self._unknown_elsewhere.get(module, ())
        )

    def _report(self, statement: ast.stmt, error: BaseException) -> None:
        self.ended.error = self.ended.error or error
        problem = _failure(self._source, error, self._local_modules)
        lines = range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)
        places = [self._source.problem(line, "", "").place for line in lines] if _only_binds(statement) else []
        if self.reported.isdisjoint([problem.place, *places]):
            self.ended.problems.append(problem)


_IMPORTS = (ast.Import, ast.ImportFrom)


_OF_EXPRESSIONS = (ArithmeticError, AttributeError, LookupError, NameError, TypeError, ValueError)


def _left_nothing(error: BaseException, statement: ast.stmt) -> bool:
    """Return whether a statement that failed has surely done nothing that what comes after it could suffer from."""
    if isinstance(statement, _IMPORTS):
        return isinstance(error, (ImportError, SyntaxError))
    frames = list(traceback.walk_tb(error.__traceback__))
    within_itself = len(frames) == 2  # ours, which executes it, and its own
    return within_itself and isinstance(error, _OF_EXPRESSIONS)


def _only_binds(statement: ast.stmt) -> bool:
    """Return whether nothing but the names that it binds is lost where a statement is not executed."""
    if isinstance(statement, (ast.If, ast.Try)):
        handlers = [item for handler in getattr(statement, "handlers", ()) for item in handler.body]
        inner = [*statement.body, *statement.orelse, *getattr(statement, "finalbody", ()), *handlers]
        return all(_only_binds(item) for item in inner)
    if isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
        return not any(isinstance(target, ast.Attribute) for target in _targets(statement))
    return isinstance(statement, (*_IMPORTS, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Pass))


def _targets(statement: ast.stmt) -> list[ast.expr]:
    return getattr(statement, "targets", None) or [target for target in [getattr(statement, "target", None)] if target]


def _changed_names(statement: ast.stmt) -> set[str]:
    """Return names of the containers to whose elements a statement assigns."""
    elements = [target for target in _targets(statement) if isinstance(target, ast.Subscript)]
    return {node.id for element in elements for node in ast.walk(element.value) if isinstance(node, ast.Name)}


def _failure(source: Source, error: BaseException, local_modules: LocalModules) -> Problem:
    place = local_modules.deepest_place(error.__traceback__) or (str(source.file), 1)
    if isinstance(error, SyntaxError) and error.filename:
        place = error.filename, error.lineno or 1
    what, remedy = explain(error, place)
    text = f"executing this raised {what}. Expected code that runs. {remedy}"
    return problem_at(*place, type(error).__name__, text)
