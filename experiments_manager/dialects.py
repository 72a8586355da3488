"""Other forms of settings files and command lines than this package's own, as plug-ins bring them.

A file of another form gives settings and hooks by other names, and may expect more: values for what it does not say,
modules that are read with other names, a folder of its own for its functions. Whoever needs such a thing asks the
`Dialect` of the file, which has an answer for canonical files, too. No other module knows of any plug-in.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

PLUGINS = ("experiments_manager.legacy.dialect",)
"""Modules with a `DIALECT`. They are loaded by their names: nothing below them imports them."""


@dataclasses.dataclass(frozen=True)
class Alias:
    """Another name of a setting, and how its values read.

    Attributes:
        name: The other name.
        to_canonical: Turns a value under that name into a canonical one.
        from_canonical: Turns a canonical value into one under that name, for code that reads it there.
    """

    name: str
    to_canonical: Callable[[Any], Any] = lambda value: value
    from_canonical: Callable[[Any], Any] = lambda value: value


@dataclasses.dataclass(frozen=True)
class HookAlias:
    """Another name of a hook.

    Attributes:
        name: The other name; `None` where it is the same.
        positions: Order of its parameters, by which those of names that are not known are understood.
    """

    name: str | None
    positions: tuple[str, ...] = ()


class Dialect:
    """One form of settings files: this class is the canonical one, in which nothing has another name.

    Attributes:
        name: What the column of its names is called in the reference.
        about: What the reference says of that column.
        settings: Other names by the canonical names of settings.
        hooks: Other names by the canonical names of hooks.
        parameters: Other names by the canonical names of what hooks may ask for.
        attributes: Names that code finds on the settings object besides.
        names_before: Canonical names that it always gave to what they are now.
        is_strict: Whether names and values that look like mistakes are some. If not, a name that is a setting now and
            does not fit may be the file's own.
        session_folder: Folder in a run folder that its hooks run in; `None` for the folder of the command.
        first_epoch: Number of the first epoch for hooks under their other names.
        logs_in_callbacks: Whether its callbacks find a writer of summaries.
        replaced_by_callbacks: Keys of its callbacks that take the place of what the engine does by itself, by
            `early_stopping` and `plateau`.
        gpus_are_wishes: Whether the CPU will do for GPUs that it names, on a machine without any.
        any_client_number: Whether the numbers of its clients in a federation may be any integers.
        keras_names: Names of losses and metrics in small letters, by which Keras does not know them any more.
        lists_for_each_output: Whether a list of metrics is meant for each output of a model.
        client_methods: Methods by which a class shows that it talks to a server in this form.
        module_remedies: What helps where a package is missing, by its name.
        framework: The framework that the form comes from.
        run_settings: Name of the settings file in a run folder of that framework.
    """

    name = ""
    about = ""
    settings: Mapping[str, Alias] = {}
    hooks: Mapping[str, HookAlias] = {}
    parameters: Mapping[str, tuple[str, ...]] = {}
    attributes: Collection[str] = frozenset()
    names_before: Collection[str] = frozenset()
    is_strict = True
    session_folder: str | None = None
    first_epoch = 1
    logs_in_callbacks = False
    replaced_by_callbacks: Mapping[str, str] = {}
    gpus_are_wishes = False
    any_client_number = False
    keras_names: Mapping[str, str] = {}
    lists_for_each_output = False
    client_methods: tuple[str, ...] = ()
    module_remedies: Mapping[str, str] = {}
    framework = ""
    run_settings: str | None = None

    def binds_by_position(self, hook: str, bound: str) -> bool:
        """Return whether the parameters of a hook, bound to this name, are understood by their order, too."""
        return bound != hook or (hook in self.hooks and self.hooks[hook].name is None)

    def settings_class(self) -> type | None:
        """Return a class of settings objects that knows more than the usual one."""
        return None

    def attribute(self, settings: Any, name: str) -> Any:
        """Return what code finds on the settings object by one of the `attributes`."""
        raise AttributeError(name)

    def fill_in(self, values: Any) -> None:
        """Give the settings that a file does not give the values that it counts on."""

    def rewritten(self, source: Any) -> Any:
        """Return what is executed of a source."""
        return source

    def module_finder(self, folders: Iterable[Path]) -> MetaPathFinder | None:
        """Return what reads the modules in these folders that a file imports, where Python's own way will not do."""
        return None

    def metric(self, metric: Any) -> Any:
        """Return a metric as a model is compiled with it."""
        return metric

    def targets(self, targets: Any, predictions: Any) -> Any:
        """Return the targets as metrics see them."""
        return targets

    def before_compile(self, *given: Any) -> None:
        """Prepare Keras for the losses and metrics that a file gave."""

    def client_hook(self, settings: Any, debug: bool) -> Any:
        """Make the client of settings whose class has the `client_methods`: a `client.client_hook.ClientHook`.

        Args:
            settings: Settings that have the hook.
            debug: Whether the command is to show more.

        Raises:
            UserCodeError: Its constructor raised.
        """
        raise NotImplementedError

    # --- asked of each plug-in, whatever the form of the file

    def removed_names(self, source: Any, is_own: bool) -> Sequence[Any]:
        """Return a problem for each name in a source that is gone, with what to write instead.

        Args:
            source: Any file's.
            is_own: Whether it is one of this form.
        """
        return ()

    def is_removed(self, dotted: str, is_own: bool) -> bool:
        """Return whether `removed_names` speaks of a full name."""
        return False

    def is_removed_argument(self, dotted: str, argument: str) -> bool:
        """Return whether `removed_names` speaks of an argument of a full name."""
        return False

    def command_line(self, arguments: Sequence[str]) -> list[str] | None:
        """Return a command line of another form in the canonical one; `None` where it is not of that form."""
        return None


CANONICAL = Dialect()


@functools.cache
def plugins() -> tuple[Dialect, ...]:
    """Return the forms that plug-ins bring."""
    return tuple(importlib.import_module(name).DIALECT for name in PLUGINS)


def dialect_of(names: Callable[[str], bool]) -> Dialect:
    """Return the form of a file: that of which it gives a hook by its other name.

    Args:
        names: Whether it binds a name.
    """
    for plugin in plugins():
        if any(alias.name and names(alias.name) for alias in plugin.hooks.values()):
            return plugin
    return CANONICAL


def alias_of_setting(name: str) -> Alias | None:
    """Return the other name of a setting."""
    return next((plugin.settings[name] for plugin in plugins() if name in plugin.settings), None)


def alias_of_hook(name: str) -> HookAlias:
    """Return the other name of a hook."""
    return next((plugin.hooks[name] for plugin in plugins() if name in plugin.hooks), HookAlias(None))


def other_parameters(name: str) -> tuple[str, ...]:
    """Return the other names of what hooks may ask for by this one."""
    return tuple(other for plugin in plugins() for other in plugin.parameters.get(name, ()))


def canonical_command_line(arguments: Sequence[str]) -> list[str]:
    """Return a command line in its canonical form.

    Raises:
        CommandLineError: It has another form, and cannot be translated.
    """
    found = (plugin.command_line(arguments) for plugin in plugins())
    return next((line for line in found if line is not None), list(arguments))


def dialect_of_client(client: Any) -> Dialect | None:
    """Return the form of a class or object that talks to a server, where a plug-in knows its methods."""
    for plugin in plugins():
        names = plugin.client_methods
        if names and all(callable(getattr(client, name, None)) for name in names):
            return plugin
    return None


def foreign_run(folder: Path) -> tuple[Dialect, Path] | None:
    """Return whose run folder this is, where it is one of another framework, and the settings file in it."""
    for plugin in plugins():
        if plugin.run_settings and (folder / plugin.run_settings).is_file():
            return plugin, folder / plugin.run_settings
    return None
