"""Callbacks of the user's, from the hook."""

from __future__ import annotations

import inspect
from typing import Any

import keras

from experiments_manager.settings import Lazy, Settings
from experiments_manager.training.feeds.feed import Feed
from experiments_manager.training.hook_calls import hook_error
from experiments_manager.training.setup.boundary import at_work


def callbacks_of(
    settings: Settings, model: keras.Model, train: Feed, validation: Feed | None, run: Any
) -> list[keras.callbacks.Callback]:
    """Ask the hook for callbacks."""
    return checked_callbacks(settings, given_callbacks(settings, model, train, validation, run))


def given_callbacks(settings: Settings, model: keras.Model, train: Feed, validation: Feed | None, run: Any) -> Any:
    """Return what the hook gives: a list, or a dictionary in files of a dialect that keys them."""
    if not settings.has("callbacks"):
        return []
    with at_work(settings, "callbacks"):
        return settings.resolve(
            "callbacks",
            model=model,
            train_data=Lazy(train.as_dataset),
            validation_data=Lazy(lambda: validation.as_dataset() if validation else None),
            run=run,
        )


def checked_callbacks(settings: Settings, given: Any) -> list[keras.callbacks.Callback]:
    """Return a list of what the hook gave."""
    if isinstance(given, keras.callbacks.Callback):
        text = f"Expected a list or dict of Keras callbacks, got one, {type(given).__name__}. Write `[…]` around it."
        raise hook_error(settings, "callbacks", text)
    if given is not None and not isinstance(given, (list, tuple, dict)):
        text = f"Expected a list or dict of Keras callbacks, got {type(given).__name__}. Return a list."
        raise hook_error(settings, "callbacks", text)
    found = list(given.values()) if isinstance(given, dict) else list(given or [])
    for callback in found:
        if inspect.isclass(callback):
            name = callback.__name__
            text = f"Expected Keras callbacks, got the class {name}. Write `{name}(…)`, with its arguments."
            raise hook_error(settings, "callbacks", text)
        if not isinstance(callback, keras.callbacks.Callback):
            text = f"Expected a list or dict of Keras callbacks, got a {type(callback).__name__} in it. Remove it."
            raise hook_error(settings, "callbacks", text)
    return found
