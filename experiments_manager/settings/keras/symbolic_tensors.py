"""What to say when the user's code applies a function of TensorFlow to a symbolic Keras tensor.

Keras 3 refuses that when the model is built, with a page of text that names neither the function nor its equivalent.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from experiments_manager.settings.keras.operations import keras_operation
from experiments_manager.settings.problems import SettingsError
from experiments_manager.settings.source.dotted_names import full_name, import_aliases
from experiments_manager.settings.source.module_source import read_source

_SYMBOL = "KerasTensor"
_ARGUMENTS = "Arguments received by"
"""With this Keras begins the list of arguments that it adds to whatever a layer raises; it tells of no cause."""
_MEMBERS = {
    "get_shape": "Write `.shape`, whose unknown dimensions are `None`",
    "set_shape": "Use `keras.ops.reshape`",
    "numpy": "A symbolic tensor has no values yet: use operations of `keras.ops`, or look at it in a layer's `call`",
    "eval": "A symbolic tensor has no values yet: use operations of `keras.ops`, or look at it in a layer's `call`",
}
"""Members that tensors of TensorFlow have and symbolic Keras tensors lack."""


def explain_symbolic_tensor(error: BaseException, frame: TracebackType | None) -> str | None:
    """Say what is wrong and what to write instead.

    Args:
        error: What the user's code raised.
        frame: The entry of its traceback that is deepest in the user's own files.

    Returns:
        The sentences, or `None` where the error is another one.
    """
    said = str(error).partition(_ARGUMENTS)[0]
    if _SYMBOL not in said or not isinstance(error, (ValueError, TypeError, AttributeError)):
        return None
    member = getattr(error, "name", None) if isinstance(error, AttributeError) else None
    if member in _MEMBERS:
        return f"a symbolic Keras tensor has no `{member}`. Expected what Keras 3 offers. {_MEMBERS[member]}."
    calls = list(_calls(frame)) if frame is not None else []
    failed = _failed_call(calls, frame) if frame is not None else None
    if failed is None:
        return (
            "a symbolic Keras tensor cannot be used here, as it has no values yet. Expected operations of Keras 3. "
            "Write them with `keras.ops`, or do this in the `call` of a layer of your own."
        )
    _, _, written, instead = failed
    others = [call for call in calls if call[0] != failed[0]]
    return (
        f"`{written}` cannot be applied to a symbolic Keras tensor. Expected an operation of Keras 3. "
        f"{_remedy(instead)}{_further(others)}"
    )


_Call = tuple[ast.Call, int, str, str | None]
"""A call of a function of TensorFlow: the node, its line, the function as it is written, and what Keras 3 offers."""


def _calls(frame: TracebackType) -> Iterator[_Call]:
    """Yield the calls of TensorFlow's functions within the function that was running."""
    code = frame.tb_frame.f_code
    try:
        tree = read_source(Path(code.co_filename)).tree
    except SettingsError:
        return
    aliases = dict(import_aliases(tree))
    running = [
        node
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.Lambda))
        and getattr(node, "name", "<lambda>") == code.co_name
        and node.lineno <= frame.tb_lineno <= (node.end_lineno or 0)
    ]
    scope = min(running, key=lambda node: (node.end_lineno or 0) - node.lineno, default=tree)
    for node in ast.walk(scope):
        if isinstance(node, ast.Call):
            function = full_name(node.func, aliases) or ""
            instead = keras_operation(function)
            on_line = node.lineno <= frame.tb_lineno <= (node.end_lineno or node.lineno)
            is_layer = function.startswith("tensorflow.keras.") and not function.startswith("tensorflow.keras.backend.")
            if instead or (on_line and function.startswith("tensorflow.") and not is_layer):
                yield node, node.lineno, ast.unparse(node.func), instead


def _failed_call(calls: list[_Call], frame: TracebackType) -> _Call | None:
    """Return the call that raised: by its columns where Python tells them, else the innermost one on the line."""
    here = [call for call in calls if call[1] <= frame.tb_lineno <= (call[0].end_lineno or call[1])]
    positions = getattr(frame.tb_frame.f_code, "co_positions", None)  # Python 3.11
    if positions is not None:
        wanted = list(positions())[frame.tb_lasti // 2]
        exact = [call for call in here if _position(call[0]) == wanted]
        here = exact or here
    return min(here, key=lambda call: (call[0].end_col_offset or 0) - call[0].col_offset, default=None)


def _position(node: ast.Call) -> tuple[int | None, ...]:
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset


def _remedy(instead: str | None) -> str:
    own_layer = "do it in the `call` of a layer of your own"
    if instead is None:
        return f"Look for its like in `keras.ops`, or {own_layer}."
    return f"Write `{instead}`, with `import keras`, or {own_layer}."


def _further(others: list[_Call]) -> str:
    """Name what will fail next in the same function, so that all can be fixed in one go."""
    lines = [f"line {line} (`{written}`: `{instead}`)" for _, line, written, instead in others if instead]
    listed = ", ".join(dict.fromkeys(lines))
    return f" The same may hold for {listed}." if listed else ""
