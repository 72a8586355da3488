"""`experiments_manager settings`."""

from __future__ import annotations

import shutil
from typing import Annotated

import typer

WIDEST = 120


def settings(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One setting, hook or parameter.")] = None,
) -> None:
    """Explain all settings and hooks, or one of them."""
    from experiments_manager.settings import reference

    width = min(shutil.get_terminal_size((100, 24)).columns, WIDEST)
    typer.echo(reference.text(width) if name is None else _explain(name, width), nl=False)


def _explain(name: str, width: int) -> str:
    """Return what is known by this name, canonical or another.

    Raises:
        typer.BadParameter: Nothing is; the nearest name is given.
    """
    import textwrap

    from experiments_manager.settings.hooks import HOOKS_BY_ANY_NAME, PARAMETERS
    from experiments_manager.settings.reference import column_of_other_names
    from experiments_manager.settings.schema import BY_ANY_NAME

    parts = []
    if name in BY_ANY_NAME:
        entry = BY_ANY_NAME[name]
        parts.append((f"{entry.name} = {entry.default!r}", entry.doc, f"Setting, {entry.type_text}.", entry.other_name))
    if name in HOOKS_BY_ANY_NAME:
        hook = HOOKS_BY_ANY_NAME[name]
        kind = "Hook, required." if hook.required else "Hook."
        kind += " A value may stand in its place." if hook.value else ""
        kind += f" Asks for: {', '.join(hook.offers)}." if hook.offers else ""
        parts.append((f"{hook.name}(…)", hook.doc, kind, hook.other_name))
    if name in PARAMETERS and name not in BY_ANY_NAME:
        parts.append((name, PARAMETERS[name].doc, "Parameter of hooks.", None))
    if not parts:
        raise _unknown(name)
    lines = []
    for head, doc, kind, other in parts:
        called = f" {column_of_other_names().capitalize()} name: {other}." if other else ""
        body = textwrap.fill(f"{doc} {kind}{called}", width, initial_indent="  ", subsequent_indent="  ")
        lines += [head, body]
    return "\n".join(lines) + "\n"


def _unknown(name: str) -> Exception:
    from experiments_manager.common.suggestions import did_you_mean
    from experiments_manager.settings.hooks import HOOKS_BY_ANY_NAME, PARAMETERS
    from experiments_manager.settings.schema import BY_ANY_NAME

    known = [*BY_ANY_NAME, *HOOKS_BY_ANY_NAME, *PARAMETERS]
    hint = did_you_mean(name, known, "`experiments_manager settings` lists them all.")
    return typer.BadParameter(f"Unknown setting, hook or parameter {name!r}. {hint}")
