"""One hook of a loaded settings module, ready to be called."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from experiments_manager.settings.hooks import HookSpec
from experiments_manager.settings.source.hook_parameters import Binding, bind, is_hook_function, parameters_of


@dataclasses.dataclass(frozen=True)
class Lazy:
    """Something offered to hooks that is only made when one asks for it."""

    make: Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Hook:
    """What a settings module gives under the name of a hook.

    Attributes:
        entry: Its row in the table.
        given_name: The canonical or another name, as the user wrote it.
        value: The function, class or value.
        file: The file that gives it.
        line: Line of its last binding there, 0 where the source does not show it.
        bindings: What its parameters mean; empty for a value.
        is_function: Whether it is called; otherwise it is a value.
    """

    entry: HookSpec
    given_name: str
    value: Any
    file: Path
    line: int
    bindings: tuple[Binding, ...] = ()
    is_function: bool = False

    def arguments(self, offered: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Pick what the hook asks for.

        Args:
            offered: Values by canonical names of the parameters; those that are `Lazy` are made when they are picked.

        Returns:
            The positional and the named arguments.

        Raises:
            TypeError: The engine does not offer a parameter that the table promises.
        """
        positional, named = [], {}
        for binding in self.bindings:
            asked = binding.asked
            if binding.meaning not in offered:
                if asked.optional:
                    continue
                raise TypeError(f"`{asked.name}` is not available when `{self.given_name}` is called here.")
            value = offered[binding.meaning]
            value = value.make() if isinstance(value, Lazy) else value
            if asked.positional_only:
                positional.append(value)
            else:
                named[asked.name] = value
        return positional, named


def make_hook(
    entry: HookSpec, given_name: str, value: Any, file: Path, line: int, by_position: bool
) -> tuple[Hook, list[str]]:
    """Make a hook from what a module gives under its name.

    Returns:
        The hook, and one sentence for each thing that is wrong with it.
    """
    if not is_hook_function(entry, value, by_position):
        hook = Hook(entry, given_name, value, file, line)
        if entry.value:
            return hook, []
        return hook, [f"not a function. Expected a function, got {type(value).__name__}. Define it with `def`."]
    bindings, violations = bind(entry, parameters_of(value), by_position)
    return Hook(entry, given_name, value, file, line, tuple(bindings), is_function=True), [
        text for _, text, _ in violations
    ]
