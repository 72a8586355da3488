"""The settings object as code of the legacy framework knows it: what it reads there besides the settings themselves."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments_manager.legacy.attributes import DEFAULT_VALUES, FROM_MODULE
from experiments_manager.settings import Settings

_OF_SETTINGS: dict[str, Callable[[Settings], Any]] = {
    "recoverFromCheckpoint": lambda settings: settings.session.recovers,
    "sessionFolder": lambda settings: settings.session.folder,
    "model_export_filename": lambda settings: settings.session.exports,
    "federated_learning": lambda settings: settings.enable_federated_learning,
    "experiment_settings": lambda settings: settings.module,
}


def legacy_attribute(settings: Settings, name: str) -> Any:
    """Return an attribute that code of the legacy framework reads of settings, by one of `attributes.NAMES`."""
    if name in FROM_MODULE:
        return getattr(settings.module, name, FROM_MODULE[name])
    if name in DEFAULT_VALUES:
        value = DEFAULT_VALUES[name]
        return list(value) if isinstance(value, list) else value
    if name in _OF_SETTINGS:
        return _OF_SETTINGS[name](settings)
    return functools.partial(getattr(LegacySettings, name), settings)


class LegacySettings(Settings):
    """Settings with the methods that there were, and the values as their code takes them."""

    @property
    def model_file(self) -> str | None:
        """The model file as a text, which code of the legacy framework may cut and join."""
        file = super().model_file
        return None if file is None else str(file)

    def has(self, hook: str, error_message: str | None = None) -> Any:
        """Return whether a hook is given; with a message, what the file binds to the name.

        Args:
            hook: The canonical name of the hook, or any name with a message.
            error_message: Given by code of the legacy framework alone.

        Raises:
            ValueError: With `error_message`, if the file does not bind the name.
        """
        return super().has(hook) if error_message is None else _bound(self, hook, error_message)

    def hasOrDefault(self, param: str, defaultValue: Any, message: str | None = None) -> Any:  # noqa: N802, N803
        """Return the value that the file binds to a name, or a default."""
        return getattr(self.module, param, defaultValue)

    def assertType(self, param: str, type: type, param_description: str = "") -> Any:  # noqa: N802, A002
        """Return the value that the file binds to a name.

        Raises:
            ValueError: There is none, or one of another type.
        """
        value = _bound(self, param, param_description)
        if not isinstance(value, type):
            raise ValueError(f"{param}: Expected {type.__name__}, got {value!r}. {param_description}")
        return value

    def assertPositive_above_zero(self, param: str, param_description: str = "") -> Any:  # noqa: N802
        """Return the number that the file binds to a name.

        Raises:
            ValueError: There is none, or it is not above 0.
        """
        value = _bound(self, param, param_description)
        if value <= 0:
            raise ValueError(f"{param}: Expected a number above 0, got {value!r}. {param_description}")
        return value

    def assertPositive_above_equal_zero(self, param: str, param_description: str = "") -> Any:  # noqa: N802
        """Return the number that the file binds to a name.

        Raises:
            ValueError: There is none, or it is below 0.
        """
        value = _bound(self, param, param_description)
        if value < 0:
            raise ValueError(f"{param}: Expected 0 or more, got {value!r}. {param_description}")
        return value


def _bound(settings: Settings, param: str, description: str) -> Any:
    if not hasattr(settings.module, param):
        raise ValueError(f"{param} is missing. Expected it in {Path(settings.module.__file__).name}. {description}")
    return getattr(settings.module, param)
