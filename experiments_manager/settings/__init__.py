"""The settings module: its schema, loading, overrides and messages."""

from experiments_manager.settings.bound_hook import Lazy
from experiments_manager.settings.loading import (
    SourceValues,
    check_source,
    load_despite_problems,
    load_settings,
    read_values,
)
from experiments_manager.settings.problems import Problem, SettingsError, UserCodeError
from experiments_manager.settings.settings import Settings

__all__ = [
    "Lazy",
    "Problem",
    "Settings",
    "SettingsError",
    "SourceValues",
    "UserCodeError",
    "check_source",
    "load_despite_problems",
    "load_settings",
    "read_values",
]
