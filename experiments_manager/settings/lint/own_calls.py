"""Calls of the file's own functions and classes with arguments that these do not take."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from experiments_manager.common.suggestions import nearest_name
from experiments_manager.settings.lint.inspected import Inspected, own_nodes, written
from experiments_manager.settings.problems import Problem


def wrong_calls(file: Inspected) -> Iterator[Problem]:
    """Find calls of functions at the top level, bound once and undecorated, that cannot succeed."""
    functions = dict(_functions(file))
    for node in file.nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions:
            yield from _call(file, node, functions[node.func.id])
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            function = functions.get(getattr(node.value.func, "id", ""))
            if isinstance(function, ast.FunctionDef):
                yield from _unpacking(file, node, function)


def _functions(file: Inspected) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    for statement in file.source.tree.body:
        if not isinstance(statement, (ast.FunctionDef, ast.ClassDef)) or statement.decorator_list:
            continue
        if file.bound.get(statement.name) == 1 and statement.name not in file.aliases:
            yield statement.name, statement


def _call(file: Inspected, call: ast.Call, called: ast.FunctionDef | ast.ClassDef) -> Iterator[Problem]:
    function: ast.FunctionDef | None = called if isinstance(called, ast.FunctionDef) else None
    if isinstance(called, ast.ClassDef):
        function = _constructor(called)
    if function is None:
        return
    arguments = function.args
    names = [item.arg for item in (*arguments.posonlyargs, *arguments.args)][isinstance(called, ast.ClassDef) :]
    every = [*names, *(item.arg for item in arguments.kwonlyargs)]
    starred = any(isinstance(item, ast.Starred) for item in call.args)
    spread = any(keyword.arg is None for keyword in call.keywords)
    if len(call.args) > len(names) and not arguments.vararg and not starred:
        text = f"too many arguments. Expected at most {len(names)}, got {len(call.args)}. Leave some out."
        yield file.problem(call, f"{called.name}(…)", text)
        return
    given = [keyword.arg for keyword in call.keywords if keyword.arg]
    unknown = [name for name in given if name not in every] if not arguments.kwarg else []
    for name in unknown:
        near = nearest_name(name, [item for item in every if item not in given])
        hint = f"Did you mean `{near}`?" if near else "Leave it out."
        has = f"Expected {', '.join(every)}" if every else "Expected none"
        text = f"`{called.name}` (line {called.lineno}) has no such parameter. {has}. {hint}"
        yield file.problem(call, f"{called.name}({name}=…)", text, (name, near or ""))
    if starred or spread or unknown:
        return
    optional = len(arguments.defaults)
    required = [*names[: len(names) - optional][len(call.args) :]]
    required += [
        item.arg for item, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if not default
    ]
    missing = [name for name in required if name not in given]
    if missing:
        text = f"`{called.name}` (line {called.lineno}) needs {', '.join(missing)}. Expected a value for each. Add it."
        yield file.problem(call, f"{called.name}(…)", text)


def _constructor(kind: ast.ClassDef) -> ast.FunctionDef | None:
    if any(keyword.arg == "metaclass" for keyword in kind.keywords):
        return None
    found = [item for item in kind.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
    if any(isinstance(item, ast.FunctionDef) and item.name == "__new__" for item in kind.body):
        return None
    ok = found and found[-1].args.args and not found[-1].decorator_list
    return found[-1] if ok else None


def _unpacking(file: Inspected, assignment: ast.Assign, function: ast.FunctionDef) -> Iterator[Problem]:
    """Find an assignment to more or fewer names than the function returns, where all its returns are tuples."""
    target = assignment.targets[0]
    if not isinstance(target, ast.Tuple) or any(isinstance(item, ast.Starred) for item in target.elts):
        return
    nodes = list(own_nodes(function))
    if any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in nodes):
        return
    returned = [node.value for node in nodes if isinstance(node, ast.Return)]
    tuples = [value for value in returned if isinstance(value, ast.Tuple)]
    if not returned or len(tuples) < len(returned):
        return
    lengths = {len(value.elts) for value in tuples if not any(isinstance(item, ast.Starred) for item in value.elts)}
    if len(lengths) == 1 and len(target.elts) not in lengths and len(tuples) == len(returned):
        [length] = lengths
        if any(isinstance(item, ast.Starred) for value in tuples for item in value.elts):
            return
        text = (
            f"`{function.name}` (line {function.lineno}) returns {length} values. Expected as many names, got "
            f"{len(target.elts)}. Correct one of the two."
        )
        yield file.problem(assignment, written(target), text)
