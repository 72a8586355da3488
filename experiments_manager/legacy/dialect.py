"""DeepLearningTools as a form of settings files and command lines: what the plug-in table has of it.

Whatever needs more than names is imported where it is asked for, so that other files wait for none of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments_manager.dialects import Dialect
from experiments_manager.legacy import attributes, names

if TYPE_CHECKING:
    from experiments_manager.client.client_hook import ClientHook
    from experiments_manager.settings import Problem, Settings
    from experiments_manager.settings.schema import Values
    from experiments_manager.settings.source.module_source import Source


class Legacy(Dialect):
    """Settings files of DeepLearningTools, which were written for Keras 2."""

    name = "legacy"
    about = (
        "A name in the column *legacy* is what the legacy framework called the same thing. It still works; see\n"
        "[how such a project moves](from-deeplearningtools.md)."
    )
    settings = names.SETTINGS
    hooks = names.HOOKS
    parameters = names.PARAMETERS
    attributes = attributes.NAMES
    names_before = names.NAMES_BEFORE
    is_strict = False
    session_folder = "expe_0"
    first_epoch = 0
    logs_in_callbacks = True
    replaced_by_callbacks = names.CALLBACKS
    gpus_are_wishes = True
    any_client_number = True
    keras_names = names.KERAS_2
    lists_for_each_output = True
    client_methods = ("getInputData", "decodeResponse")
    module_remedies = names.MODULE_REMEDIES
    framework = "DeepLearningTools"
    run_settings = "experiment_settings.py"

    def settings_class(self) -> type:
        """Return settings with the attributes and methods that there were."""
        from experiments_manager.legacy.legacy_settings import LegacySettings

        return LegacySettings

    def attribute(self, settings: Settings, name: str) -> Any:
        """Return one of the attributes that there were."""
        from experiments_manager.legacy.legacy_settings import legacy_attribute

        return legacy_attribute(settings, name)

    def fill_in(self, values: Values) -> None:
        """Give the plateau the values that the framework fixed."""
        from experiments_manager.legacy.defaults import apply_legacy_defaults

        apply_legacy_defaults(values)

    def rewritten(self, source: Source) -> Source:
        """Return the source with the names that Keras 3 has for those that it renamed."""
        from experiments_manager.legacy.renamed_keras_symbols import with_renamed

        return with_renamed(source)

    def module_finder(self, folders: Iterable[Path]) -> MetaPathFinder:
        """Return what reads the user's modules, and the framework's, with the names that Keras 3 has."""
        from experiments_manager.legacy.imported_modules import LegacyModules

        return LegacyModules(folders)

    def metric(self, metric: Any) -> Any:
        """Return a metric that sees what it saw in Keras 2."""
        from experiments_manager.legacy.keras_2 import as_keras_2_did

        return as_keras_2_did(metric)

    def targets(self, targets: Any, predictions: Any) -> Any:
        """Return the targets in the rank and the type of the predictions."""
        from experiments_manager.legacy.keras_2 import matched

        return matched(targets, predictions)

    def before_compile(self, *given: Any) -> None:
        """Let Keras find the file's own losses and metrics when it copies a compiled model."""
        from experiments_manager.legacy.keras_2 import make_known_to_keras

        make_known_to_keras(*given)

    def client_hook(self, settings: Settings, debug: bool) -> ClientHook:
        """Make the `Client_IO` of a file."""
        from experiments_manager.legacy.client_io import make_client_io

        return make_client_io(settings, debug)

    def removed_names(self, source: Source, is_own: bool) -> list[Problem]:
        """Find the names of Keras 2 and of former releases of TensorFlow that are gone."""
        from experiments_manager.legacy import removed_keras_symbols

        return removed_keras_symbols.removed_names(source, is_own)

    def is_removed(self, dotted: str, is_own: bool) -> bool:
        """Return whether `removed_names` speaks of a full name."""
        from experiments_manager.legacy import removed_keras_symbols

        return removed_keras_symbols.is_removed(dotted, is_own)

    def is_removed_argument(self, dotted: str, argument: str) -> bool:
        """Return whether `removed_names` speaks of an argument of a full name."""
        from experiments_manager.legacy import removed_keras_symbols

        return removed_keras_symbols.is_removed_argument(dotted, argument)

    def command_line(self, arguments: Sequence[str]) -> list[str] | None:
        """Translate a command line of the framework's scripts; it begins with an option, ours with a command."""
        if not arguments or not (arguments[0].startswith("-") or tuple(arguments[:2]) == ("federate", "server")):
            return None
        from experiments_manager.legacy.command_line import translate

        return translate(arguments)


DIALECT = Legacy()
