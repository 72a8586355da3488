"""The reference of settings and hooks, rendered from the tables: as plain text for a terminal, and as Markdown.

`docs/settings.md` is written by

    python -m experiments_manager.settings.reference > docs/settings.md
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from experiments_manager.dialects import plugins
from experiments_manager.settings.hooks import COMMON, HOOKS, PARAMETERS, HookSpec
from experiments_manager.settings.schema import SETTINGS, SettingSpec

_INTRODUCTION = """\
# Settings and hooks

Written by `python -m experiments_manager.settings.reference`; do not edit.

A *settings module* is a Python file that declares one experiment. What it assigns at its top level under a name of the
first table is a setting; what it defines under a name of the second is a hook, a function that the engine calls.
Required are `dataset`, a model (`model` in the same file, or `model_file` naming a file that defines it), `loss` and
`learning_rate`; all else has a default.

ABOUT_OTHER_NAMES## What is checked, and when

`experiments_manager check FILE`, and every command that loads the file, says all that is wrong in one list, sorted
by file and line, each thing once: `file:line: name: what is wrong. Expected …, got …. How to fix it.`

1. The source is read. Misspelt and missing names, parameters of hooks, names that Keras 3 no longer has, and all
   values that the source shows (literals, arithmetic on them, `hparams` and what is read from it) are checked,
   together with `--set` and the model file. Beside a syntax error this goes for the statements that Python can
   read; then nothing is executed.
2. The file is executed, and what it computes is checked in the same way. An exception is one more problem. After an
   import or an assignment that failed the rest is executed without its names; after any other exception the rest is
   only read. What merely follows from another problem, such as the use of a value that is wrong, is not reported.
3. **Where step 1 found something, TensorFlow and Keras are not imported in step 2**, since that takes seconds:
   statements that need them are passed over, so what they come to is checked once the rest is fixed. Everything
   else is executed as ever, so a broken file can still read data or write files at its top level.
"""

_HOOKS_TEXT = """\
## Hooks

A hook asks for what it needs by the names of its parameters. Parameters with a default may bear any name. Where *value*
is yes, a value may stand under the same name in place of a function: `loss = "mse"`, `learning_rate = 0.01`. Only
functions, methods, lambdas, `functools.partial` and decorated functions are called there; a Keras loss, schedule or
optimizer is a value, and so is a function of `(y_true, y_pred)` under `loss` or `metrics`.
"""

_PARAMETERS_TEXT = """\
## Parameters of hooks

Those marked with ✓ are offered to every hook.
"""


def markdown() -> str:
    """Return the whole reference as Markdown."""
    about = "".join(f"{plugin.about}\n\n" for plugin in plugins())
    parts = [_INTRODUCTION.replace("ABOUT_OTHER_NAMES", about), "## Settings\n"]
    for group, entries in _groups():
        rows = [_setting_row(entry) for entry in entries]
        parts.append(f"### {group}\n\n{_table(('name', 'type', 'default', 'meaning', column_of_other_names()), rows)}")
    hook_rows = [_hook_row(hook) for hook in HOOKS.values()]
    header = ("hook", "returns, or does", "value", "asks for", column_of_other_names())
    parts.append(_HOOKS_TEXT + "\n" + _table(header, hook_rows))
    parameter_rows = [
        (f"`{item.name}`", "✓" if item.name in COMMON else "", item.doc, _code(item.other_names))
        for item in PARAMETERS.values()
    ]
    header = ("parameter", "", "what it is", column_of_other_names())
    parts.append(_PARAMETERS_TEXT + "\n" + _table(header, parameter_rows))
    return "\n".join(parts)


def text(width: int = 100) -> str:
    """Return the whole reference as plain text.

    Args:
        width: Columns of the terminal.
    """
    lines: list[str] = []
    for group, entries in _groups():
        lines += [group, ""]
        for entry in entries:
            lines += _paragraph(
                f"{entry.name} = {entry.default!r}", f"{entry.doc} [{entry.type_text}]{_also_called(entry)}", width
            )
        lines.append("")
    lines += ["Hooks", ""]
    for hook in HOOKS.values():
        asks = f"Asks for: {', '.join(hook.offers) or 'nothing of its own'}."
        kind = "Required. " if hook.required else ""
        lines += _paragraph(f"{hook.name}(…)", f"{kind}{hook.doc} {asks}{_also_called(hook)}", width)
    lines += ["", "Parameters that every hook may ask for", ""]
    for name in COMMON:
        lines += _paragraph(name, PARAMETERS[name].doc, width)
    lines += ["", "Parameters that some hooks may ask for", ""]
    for name in (name for name in PARAMETERS if name not in COMMON):
        lines += _paragraph(name, PARAMETERS[name].doc, width)
    return "\n".join(lines) + "\n"


def _groups() -> Iterator[tuple[str, list[SettingSpec]]]:
    for group in dict.fromkeys(entry.group for entry in SETTINGS.values()):
        yield group, [entry for entry in SETTINGS.values() if entry.group == group]


def _setting_row(entry: SettingSpec) -> tuple[str, ...]:
    other = _code(filter(None, [entry.other_name]))
    return f"`{entry.name}`", entry.type_text, f"`{entry.default!r}`", entry.doc, other


def _hook_row(hook: HookSpec) -> tuple[str, ...]:
    name = f"`{hook.name}`" + (" (required)" if hook.required else "")
    return name, hook.doc, "yes" if hook.value else "", _code(hook.offers), _code(filter(None, [hook.other_name]))


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def column_of_other_names() -> str:
    """Return what the column of other names is called."""
    return ", ".join(plugin.name for plugin in plugins())


def _also_called(entry: SettingSpec | HookSpec) -> str:
    return f" {column_of_other_names().capitalize()}: {entry.other_name}." if entry.other_name else ""


def _paragraph(head: str, body: str, width: int) -> list[str]:
    return [f"  {head}", *textwrap.wrap(body, width, initial_indent=" " * 6, subsequent_indent=" " * 6)]


if __name__ == "__main__":
    sys.stdout.write(markdown())
