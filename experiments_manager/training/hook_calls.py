"""Around the call of a hook: reproducible random numbers, and the place in the file of what is wrong with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from experiments_manager.settings import Problem, Settings, SettingsError
from experiments_manager.settings.hooks import HOOKS
from experiments_manager.training.errors import DataError
from experiments_manager.training.seeds import derive, seed_everything


@contextlib.contextmanager
def seeded(settings: Settings, *labels: str | int) -> Iterator[None]:
    """Inside, everything random follows from the seed and `labels`."""
    seed_everything(derive(settings.random_seed, *labels))
    yield


@contextlib.contextmanager
def located_at_hook(settings: Settings, hook: str) -> Iterator[None]:
    """Put `file:line` of the hook before what is wrong with its result."""
    try:
        yield
    except DataError as error:
        if error.place is not None:
            raise
        named = str(error).partition(":")[0]
        raise DataError(str(error), settings.location(named if named in HOOKS else hook)) from error


def hook_error(settings: Settings, name: str, text: str) -> SettingsError:
    """Make the error that something is wrong with a setting or with what a hook gave, at its place in the file."""
    return _problem_at(settings, settings.location(name), name, text)


def located_at(settings: Settings, name: str, text: str, error: BaseException) -> SettingsError:
    """Make the same error at the line of the user's own that raised; at the hook's where none did."""
    return _problem_at(settings, settings.place_of(error) or settings.location(name), name, text)


def _problem_at(settings: Settings, place: str, name: str, text: str) -> SettingsError:
    file, _, line = place.rpartition(":")
    given = settings.given_name(name)
    return SettingsError([Problem(file, int(line), given, text) if file else Problem(line, 0, given, text)])
