"""Private names of other libraries are used in the room `compat` alone; ruff finds all but those that are text."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "experiments_manager"
_DOCUMENTED = {"_fields"}  # of named tuples


def private_names_as_text(file):
    """Yields each `getattr(value, "_name")` and the like."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        if node.func.id not in ("getattr", "hasattr", "setattr", "delattr") or len(node.args) < 2:
            continue
        name = node.args[1].value if isinstance(node.args[1], ast.Constant) else None
        if isinstance(name, str) and name.startswith("_") and not name.startswith("__") and name not in _DOCUMENTED:
            yield f"{file.relative_to(PACKAGE)}:{node.lineno}: {name}"


def test_no_private_name_is_used_as_text_outside_of_the_room():
    found = [
        use
        for file in sorted(PACKAGE.rglob("*.py"))
        if file.relative_to(PACKAGE).parts[0] != "compat"
        for use in private_names_as_text(file)
    ]
    assert found == [], "move these into a function in experiments_manager/compat/<library>.py, with a test"
