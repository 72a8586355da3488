"""A first sweep file for a settings file: a space guessed from the names and values of its `hparams`."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments_manager.runs.errors import explain
from experiments_manager.settings import Settings, load_settings
from experiments_manager.sweeps.errors import SweepError

_LOGARITHMIC = r"learning_?rate|(^|_)lr($|_)|decay|regulari[sz]|(^|_)l[12]($|_)|epsilon|penalty|temperature|sigma|scale"
_SHARE = r"dropout|drop_?rate|(^|_)drop($|_)"
_MOMENTUM = r"momentum|(^|_)beta"
_DEPTH = r"layers?$|depth|blocks?$|stages?$|heads?$"
_NOT_VARIED = r"seed|noise|path|(^|_)dir($|_)|file|data|samples|classes|^procid$|^cid$|isflserver"
_CHOICES = {
    "activation": ["relu", "gelu", "tanh"],
    "optimizer": ["adam", "sgd", "rmsprop"],
    "kernel_initializer": ["glorot_uniform", "he_normal"],
}
_TEMPLATE = '''"""Search for {session}.

experiments_manager sweep {file}
"""

{imports}from hyperopt import hp

settings_file = {settings!r}
space = {{
{space}
}}
# algorithm = "anneal"                           # which of several searches; docs/sweeps.md compares them
max_trials = 30
parallel = 1
# objective = "val_loss"                         # a column of metrics.csv; by default the watched value
# prune = "asha"                                 # ends bad trials early
# stop_when = {{"no_progress": 15, "hours": 8}}
# overrides = {{"epochs": 20}}                     # settings of every trial
start_from = [{{}}]  # the values of the settings file, first
'''


def write_sweep_file(settings_file: Path | str, output: Path | None = None) -> Path:
    """Write a sweep file.

    Args:
        settings_file: The settings file.
        output: The sweep file; `mysweep_<name>.py` beside the settings file by default.

    Returns:
        The sweep file.

    Raises:
        SettingsError: The settings file cannot be used.
        SweepError: The sweep file exists already, or there is nothing to vary.
        RunError: It cannot be written.
    """
    settings = load_settings(settings_file)
    name = settings.file.stem.removeprefix("mysettings_")
    file = output or settings.file.with_name(f"mysweep_{name}.py")
    text = sweep_file_text(settings, file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise SweepError(f"{file} exists already. Expected a new file. Name another one by --output.") from error
    except OSError as error:
        raise explain(error, "write", file) from error
    return file


def sweep_file_text(settings: Settings, file: Path) -> str:
    """Return the text of a sweep file that will stand at `file`.

    Raises:
        SweepError: There is nothing to vary.
    """
    lines = list(_lines(_candidates(settings)))
    if not any(not line.lstrip().startswith("#") for line in lines):
        raise SweepError(
            f"{settings.file} has no hparams that a space could be guessed from. Expected numbers in `hparams`. "
            'Put what you want to vary there, e.g. `hparams = {"learning_rate": 0.01}`.'
        )
    uses_log = any("log(" in line for line in lines)
    return _TEMPLATE.format(
        session=settings.session_name,
        file=_relative(file, Path.cwd()),
        imports="from math import log\n\n" if uses_log else "",
        settings=_relative(settings.file, file.absolute().parent),
        space="\n".join(lines),
    )


def _relative(file: Path, folder: Path) -> str:
    return Path(os.path.relpath(file.absolute(), folder)).as_posix()


def _candidates(settings: Settings) -> dict[str, Any]:
    if settings.hparams:
        return {str(name): value for name, value in settings.hparams.items()}
    rate = settings.learning_rate
    return {"batch_size": settings.batch_size} | ({"learning_rate": rate} if isinstance(rate, float) else {})


def _lines(values: dict[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        expression = guess(name, value)
        if expression is not None:
            yield f'    "{name}": {expression},  # {value!r} in the settings file'
        else:
            yield f'    # "{name}": hp.choice("{name}", [{value!r}, …]),'


def guess(name: str, value: Any) -> str | None:
    """Return an expression for the values of one hyperparameter, or `None` where nothing can be guessed.

    Args:
        name: Its name, which tells the scale: `learning_rate`, `dropout`, `layers`.
        value: Its value now, around which the space lies.
    """
    word = name.lower()
    if re.search(_NOT_VARIED, word):
        return None
    if isinstance(value, bool):
        return f'hp.choice("{name}", [True, False])'
    if isinstance(value, str):
        known = next((choices for key, choices in _CHOICES.items() if key in word), None)
        return known and f'hp.choice("{name}", {list(dict.fromkeys([value, *known]))!r})'.replace("'", '"')
    if isinstance(value, int):
        return _whole_numbers(name, value)
    if not isinstance(value, float) or not math.isfinite(value):
        return None
    if re.search(_SHARE, word) and 0 <= value < 1:
        return f'hp.uniform("{name}", 0.0, {max(0.6, _rounded(min(0.9, value * 1.5)))!r})'
    if re.search(_MOMENTUM, word) and 0 <= value < 1:
        return f'hp.uniform("{name}", {min(0.5, value)!r}, {max(0.99, value)!r})'
    if re.search(_LOGARITHMIC, word) and value > 0 or value >= 10:
        return f'hp.loguniform("{name}", log({_rounded(value / 10)!r}), log({_rounded(value * 10)!r}))'
    if value == 0:
        return f'hp.uniform("{name}", 0.0, 1.0)'
    ends = sorted((0.0, _rounded(2 * value))) if value > 1 or value < 0 else [0.0, max(1.0, value)]
    return f'hp.uniform("{name}", {ends[0]!r}, {ends[1]!r})'


def _whole_numbers(name: str, value: int) -> str:
    if value <= 0:
        return f'hp.quniform("{name}", {min(2 * value, 0)}, {10 if value == 0 else 0}, 1)'
    if re.search(_DEPTH, name.lower()) or value < 8:
        return f'hp.quniform("{name}", 1, {2 * value + 1}, 1)'
    if value & (value - 1) == 0:  # a power of two, as are most widths and batches
        return f'hp.choice("{name}", {[value // 4, value // 2, value, 2 * value, 4 * value]})'
    return f'hp.quniform("{name}", {max(1, value // 4)}, {4 * value}, 1)'


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
