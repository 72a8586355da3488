"""What code of the legacy framework reads from its settings object besides the settings themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

DEFAULT_VALUES: dict[str, Any] = {
    "verbose": 1,
    "sample_weight": [],
    "initial_epoch": 0,
    "validation_freq": 1,
    "max_queue_size": 10,
    "workers": 1,
    "use_multiprocessing": False,
}
"""Attributes that always had the same value there."""

FROM_MODULE: dict[str, Any] = {"debug_server_addresses": "127.0.0.1:2333", "init_environment": False}
"""Attributes that are the file's own name of that spelling, and their value where it has none."""


@dataclasses.dataclass(frozen=True)
class Session:
    """What is known of a run while its hooks are called.

    Attributes:
        folder: Absolute path of the working directory; empty outside of a run.
        exports: Absolute path of the folder with the exported versions; empty outside of a run.
        recovers: Whether the run goes on from a checkpoint.
    """

    folder: str = ""
    exports: str = ""
    recovers: bool = False


_OF_SETTINGS: dict[str, Callable[[Any, Session], Any]] = {
    "recoverFromCheckpoint": lambda settings, session: session.recovers,
    "sessionFolder": lambda settings, session: session.folder,
    "model_export_filename": lambda settings, session: session.exports,
    "federated_learning": lambda settings, session: settings.enable_federated_learning,
}

NAMES = frozenset({*DEFAULT_VALUES, *FROM_MODULE, *_OF_SETTINGS})
"""All attributes that `legacy_attribute` knows."""


def legacy_attribute(settings: Any, session: Session, name: str) -> Any:
    """Return the value of one of `NAMES`.

    Args:
        settings: The loaded settings.
        session: What is known of the run.
        name: The attribute.
    """
    if name in FROM_MODULE:
        return getattr(settings.module, name, FROM_MODULE[name])
    if name in DEFAULT_VALUES:
        value = DEFAULT_VALUES[name]
        return list(value) if isinstance(value, list) else value
    return _OF_SETTINGS[name](settings, session)


class LegacyChecks:
    """Methods by which code of the legacy framework looks names up in the settings module.

    They read what the file binds, as they did there; an attribute of the settings says the same in fewer words.
    """

    module: Any

    def hasOrDefault(self, param: str, defaultValue: Any, message: str | None = None) -> Any:  # noqa: N802, N803
        """Return the value that the file binds to a name, or a default."""
        return getattr(self.module, param, defaultValue)

    def assertType(self, param: str, type: type, param_description: str = "") -> Any:  # noqa: N802, A002
        """Return the value that the file binds to a name.

        Raises:
            ValueError: There is none, or one of another type.
        """
        value = self._bound(param, param_description)
        if not isinstance(value, type):
            raise ValueError(f"{param}: Expected {type.__name__}, got {value!r}. {param_description}")
        return value

    def assertPositive_above_zero(self, param: str, param_description: str = "") -> Any:  # noqa: N802
        """Return the number that the file binds to a name.

        Raises:
            ValueError: There is none, or it is not above 0.
        """
        value = self._bound(param, param_description)
        if value <= 0:
            raise ValueError(f"{param}: Expected a number above 0, got {value!r}. {param_description}")
        return value

    def assertPositive_above_equal_zero(self, param: str, param_description: str = "") -> Any:  # noqa: N802
        """Return the number that the file binds to a name.

        Raises:
            ValueError: There is none, or it is below 0.
        """
        value = self._bound(param, param_description)
        if value < 0:
            raise ValueError(f"{param}: Expected 0 or more, got {value!r}. {param_description}")
        return value

    def _bound(self, param: str, description: str) -> Any:
        if not hasattr(self.module, param):
            raise ValueError(f"{param} is missing. Expected it in {Path(self.module.__file__).name}. {description}")
        return getattr(self.module, param)
