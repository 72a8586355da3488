"""All finders of mistakes, each of which runs whatever the others find."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from experiments_manager.settings.lint import hook_bodies, hook_values, imports, keras_classes, keras_uses, keras_values
from experiments_manager.settings.lint.inspected import Inspected
from experiments_manager.settings.lint.names_without_use import missing_data_folders, names_without_use
from experiments_manager.settings.lint.own_calls import wrong_calls
from experiments_manager.settings.lint.undefined_names import undefined_at_top, undefined_in_functions
from experiments_manager.settings.problems import Problem

Finder = Callable[[Inspected], Iterator[Problem]]

FINDERS: tuple[Finder, ...] = (
    imports.wrong_imports,
    undefined_in_functions,
    keras_uses.unknown_members,
    keras_uses.wrong_arguments,
    keras_uses.batch_in_shape,
    keras_classes.wrong_methods,
    keras_values.unknown_names,
    keras_values.classes_for_objects,
    keras_values.classes_and_units,
    keras_values.unknown_monitors,
    missing_data_folders,
    names_without_use,
    hook_bodies.missing_returns,
    hook_bodies.wrong_splits,
    hook_bodies.unknown_attributes,
    hook_bodies.unknown_hparams,
    hook_bodies.growing_defaults,
    keras_classes.unknown_attributes_of_self,
    hook_values.tensors_for_models,
    hook_values.objects_for_callbacks,
    hook_values.incomplete_classes,
    hook_values.unmeasured_logs,
    hook_values.constant_learning_rates,
    wrong_calls,
)
"""Those that look at the source alone. To add one, write it and name it here."""

LEFT_TO_EXECUTION: tuple[Finder, ...] = (undefined_at_top,)
"""Those whose findings count only at lines of which executing the file says nothing."""

AFTER_EXECUTION: tuple[Finder, ...] = (imports.unknown_members_of_modules,)
"""Those that look into the modules that executing the file has imported; their findings count in the same way."""


def find_problems(files: Iterable[Inspected], finders: tuple[Finder, ...] = FINDERS) -> list[Problem]:
    """Return what finders find in files, in the order of files and lines."""
    return sorted({problem for file in files for finder in finders for problem in finder(file)})
