"""A settings module that was loaded: its values, its hooks, and the way to call them."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments_manager.dialects import Dialect, plugins
from experiments_manager.settings.bound_hook import Hook
from experiments_manager.settings.hooks import HOOKS, HOOKS_BY_ANY_NAME
from experiments_manager.settings.keras.remedies import keras_remedy
from experiments_manager.settings.keras.symbolic_tensors import explain_symbolic_tensor
from experiments_manager.settings.problems import SettingsError, UserCodeError, display_path, problem_at
from experiments_manager.settings.schema import BY_ANY_NAME, SETTINGS, Values
from experiments_manager.settings.source.explanations import explain, import_remedy
from experiments_manager.settings.source.local_modules import LocalModules
from experiments_manager.settings.source.module_source import Source

_log = logging.getLogger(__name__)
_DATA_DIRS = {"train": "train_data_dir", "validation": "validation_data_dir", "test": "test_data_dir"}


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


class Settings:
    """One experiment, as its settings module declares it.

    Every setting is an attribute, by its canonical and its other name; `hparams` is the module's own dictionary. Hooks
    are called with `call` and `resolve`.

    Attributes:
        file: Absolute path of the settings module.
        module: The module itself, executed.
        overrides: What was overridden, by canonical name (`hparams.KEY` for entries of `hparams`), in its final type.
        warnings: What was found when it was loaded with which it can be used all the same.
        dialect: The form of the file.
        session: What is known of a run while its hooks are called.
        start_dir: The folder that relative paths of the module start from, as long as none of its hooks is called.
    """

    def __init__(
        self,
        source: Source,
        module: ModuleType,
        values: Values,
        hooks: Mapping[str, Hook],
        overrides: Mapping[str, Any],
        model_file: Path | None,
        local_modules: LocalModules,
        dialect: Dialect,
        start_dir: Path,
        warnings: Iterable[str] = (),
    ) -> None:
        self.file = source.file
        self.warnings = tuple(warnings)
        self.module = module
        self.overrides = dict(overrides)
        self.dialect = dialect
        self.start_dir = start_dir
        self._source = source
        self._values = values
        self._hooks = dict(hooks)
        self._model_file = model_file
        self._local_modules = local_modules
        self.session = Session()
        self._given = frozenset(values.model_fields_set)
        dialect.fill_in(values)

    @property
    def model_file(self) -> Path | str | None:
        """Absolute path of the model file, or `None` where the settings module defines the model itself."""
        return self._model_file

    @property
    def model_name(self) -> str:
        """Name of the model file without `.py`, else that of the settings file."""
        return (self._model_file or self.file).stem

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_values" not in self.__dict__:  # copying and pickling ask before there is anything
            raise AttributeError(name)
        entry = BY_ANY_NAME.get(name)
        if entry is not None:
            value = getattr(self._values, entry.name)
            return value if name == entry.name else entry.alias.from_canonical(value)
        if name in HOOKS_BY_ANY_NAME:
            hook = self._hooks.get(HOOKS_BY_ANY_NAME[name].name)
            return hook.value if hook else None
        for plugin in plugins():  # model files and helpers may be of another form than the settings file
            if name in plugin.attributes:
                return plugin.attribute(self, name)
        raise AttributeError(f"There is no setting {name!r}. `experiments_manager settings` lists them.")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *SETTINGS})

    def __repr__(self) -> str:
        return f"Settings({display_path(self.file)!r}, session_name={self.session_name!r})"

    def values(self) -> dict[str, Any]:
        """Return all settings by canonical name, those of default value included."""
        return {name: getattr(self._values, name) for name in SETTINGS}

    def summary(self) -> str:
        """Write all settings to the log, one a line, and return the same text."""
        text = "\n".join(f"{name} = {value!r}" for name, value in self.values().items())
        _log.info("%s", text)
        return text

    def is_given(self, name: str) -> bool:
        """Return whether the file, or an override, gives a setting; otherwise its value is a default."""
        return name in self._given

    @contextlib.contextmanager
    def during(self, session: Session) -> Iterator[None]:
        """Inside, what is said of a run here is the `session`."""
        before, self.session = self.session, session
        try:
            yield
        finally:
            self.session = before

    def location(self, name: str) -> str:
        """Return where a setting or hook is given.

        Args:
            name: The canonical or another name.

        Returns:
            `file:line` of the last binding at the top level; the file alone where there is none; `override` where an
            override gives it.
        """
        entry = BY_ANY_NAME.get(name) or HOOKS_BY_ANY_NAME.get(name)
        if entry is None:
            return problem_at(self.file, self._source.line(name), name, "").place
        if entry.name in self.overrides:
            return "override"
        hook = self._hooks.get(entry.name)
        if hook is not None:
            return problem_at(hook.file, hook.line, name, "").place
        line = (self._source.line(entry.other_name) if entry.other_name else 0) or self._source.line(entry.name)
        return problem_at(self.file, line, name, "").place

    def given_name(self, name: str) -> str:
        """Return the name under which the file gives a setting or hook; the canonical one where the file does not.

        Args:
            name: The canonical or another name.
        """
        entry = BY_ANY_NAME.get(name) or HOOKS_BY_ANY_NAME.get(name)
        if entry is None or entry.name in self.overrides:
            return entry.name if entry else name
        if entry.name in self._hooks:
            return self._hooks[entry.name].given_name
        other = entry.other_name
        return other if other and hasattr(self.module, other) else entry.name

    def has(self, hook: str) -> bool:
        """Return whether a hook, by its canonical name, is given, as a function or as a value other than `None`."""
        found = self._hooks.get(HOOKS[hook].name)
        return found is not None and found.value is not None

    def first_epoch(self, hook: str) -> int:
        """Return the number of the first epoch, as a hook expects it."""
        has_other_name = self.has(hook) and self._hooks[hook].given_name != hook
        return self.dialect.first_epoch if has_other_name else 1

    def is_function(self, hook: str) -> bool:
        """Return whether a hook is given as a function or class that is called, and not as a value."""
        return self.has(hook) and self._hooks[hook].is_function

    def asks_for(self, hook: str, parameter: str) -> bool:
        """Return whether a hook is a function with a parameter of this meaning, by canonical name of both."""
        return self.is_function(hook) and any(binding.meaning == parameter for binding in self._hooks[hook].bindings)

    def resolve(self, noun: str, **offered: Any) -> Any:
        """Return the value that stands under a noun, or what the function of that name returns.

        Args:
            noun: The canonical name of a hook.
            **offered: As for `call`.

        Returns:
            The value; `None` where the settings module does not give it.

        Raises:
            UserCodeError: The function raised.
        """
        if not self.has(noun):
            return None
        return self.call(noun, **offered) if self.is_function(noun) else self._hooks[noun].value

    def call(self, hook: str, **offered: Any) -> Any:
        """Call a hook with those of the offered values that its parameters name.

        What follows from the settings (`hparams`, `batch_size`, `seed`, …) need not be offered, nor `data_dir` and
        `is_training` where `split` is.

        Args:
            hook: The canonical name of the hook.
            **offered: Values by canonical names of the parameters. Those that are `Lazy` are made only if asked for.

        Returns:
            What the hook returns; for a class, its instance.

        Raises:
            UserCodeError: The hook raised.
            SettingsError: The settings module has no such hook, or a value in its place.
        """
        if not self.is_function(hook):
            text = f"function not found. Expected {HOOKS[hook].expected}. Define it."
            raise SettingsError([problem_at(self.file, 1, hook, text)])
        found = self._hooks[hook]
        positional, named = found.arguments(self._everything_offered(offered))
        try:
            return self.run_user_code(found.given_name, found.value, *positional, **named)
        except StopIteration as error:
            raise UserCodeError(found.given_name, self.place_of(error) or self.location(hook), error) from error

    def active(self) -> contextlib.AbstractContextManager[None]:
        """While this lasts, `import` finds the modules beside the user's files, also from code outside of hook calls.

        Such code is a generator that feeds a `tf.data.Dataset`, or a Keras callback. Hook calls do this by themselves.
        """
        return self._local_modules.active()

    def run_user_code(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call something of the user's, such as a function that a hook returned, with local imports and error report.

        Args:
            name: What to call it in the message.
            function: What to call.
            *args: Its positional arguments.
            **kwargs: Its named arguments.

        Returns:
            What it returns.

        Raises:
            UserCodeError: It raised.
            StopIteration: It raised this, which is how a client says that it has no more data.
        """
        with self.active():
            try:
                return function(*args, **kwargs)
            except (StopIteration, UserCodeError):
                raise
            except (Exception, SystemExit) as error:
                place = self.place_of(error) or self.location(name)
                raise UserCodeError(name, place, error, self.explained(error)) from error

    def explained(self, error: BaseException) -> str | None:
        """Return what to say of an error in the user's code where its own words do not help, else `None`."""
        remedy = import_remedy(error) or keras_remedy(error)
        if remedy:
            return f"{type(error).__name__}: {str(error).rstrip('.')}. {remedy}"
        if isinstance(error, (KeyError, FileNotFoundError)):
            what, remedy = explain(error, self._local_modules.deepest_place(error.__traceback__))
            return f"{what}. {remedy}"
        return explain_symbolic_tensor(error, self._local_modules.deepest_frame(error.__traceback__))

    def place_of(self, error: BaseException) -> str | None:
        """`file:line` of the deepest frame of an exception in the user's own files, or `None` where none is in them."""
        place = self._local_modules.deepest_place(error.__traceback__)
        return problem_at(*place, "", "").place if place else None

    def place_among(self, frames: Iterable[tuple[str, int]]) -> str | None:
        """Return `file:line` of the innermost frame in the user's files, of frames given from the outermost on."""
        place = self._local_modules.deepest_of(frames)
        return problem_at(*place, "", "").place if place else None

    @property
    def hook_values(self) -> dict[str, Any]:
        """What stands under each hook that is given, by canonical name: a function, a class or a value."""
        return {name: found.value for name, found in self._hooks.items() if found.value is not None}

    @property
    def user_modules(self) -> list[ModuleType]:
        """The settings module and the modules beside it that it imported."""
        return list({id(module): module for module in (self.module, *self._local_modules.loaded)}.values())

    def _everything_offered(self, offered: dict[str, Any]) -> dict[str, Any]:
        from_settings = {
            "settings": self,
            "hparams": self.hparams,
            "batch_size": self.batch_size,
            "epochs": self.epochs,
            "seed": self.random_seed,
            "class_names": self.class_names,
            "debug": self.debug,
            "model_name": self.model_name,
            "partition": self.overrides.get("hparams.procID"),  # what the file has is nobody's number
            "partitions": self.federated.get("clients"),
            "steps_per_epoch": self.steps_per_epoch,
        }
        split = offered.get("split")
        if split in _DATA_DIRS:
            from_settings |= {"data_dir": getattr(self, _DATA_DIRS[split]), "is_training": split == "train"}
        return from_settings | offered
