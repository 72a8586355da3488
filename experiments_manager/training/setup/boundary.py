"""Where the user's values and code are at work: whose fault an error is, and how it is said.

An exception on the way through Keras and TensorFlow is the user's where one of the frames lies in the user's files, or
where the innermost one lies in a library that works on the user's data and model. It is ours where the innermost one
lies in this package; only such an error may end as a fault of experiments_manager.
"""

from __future__ import annotations

import contextlib
import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

import experiments_manager
from experiments_manager.common.checksums import DamagedError
from experiments_manager.common.error_text import named_reason
from experiments_manager.common.errors import UserError
from experiments_manager.common.machine.disk_space import FULL
from experiments_manager.runs import RunError
from experiments_manager.settings import Settings, SettingsError, UserCodeError
from experiments_manager.training.errors import DataError, StreamEndedError, TrainingError
from experiments_manager.training.hook_calls import hook_error

_PACKAGE = str(Path(experiments_manager.__file__).parent) + "/"
_STANDARD = (sysconfig.get_path("stdlib") + "/", "<frozen ")
_INSTALLED = tuple(sysconfig.get_path(name) + "/" for name in ("purelib", "platlib"))
_QUOTED_FRAME = re.compile(r'File "([^"]+)", line (\d+)')

OF_THE_ENGINE = (SettingsError, UserCodeError, TrainingError, RunError, DamagedError, StreamEndedError)
"""Errors of the engine itself; others come from code of the user's, even those that our readers or the client raise."""

_EXPECTED = {
    "dataset": "Expected data that the model, `loss` and `metrics` can take. Change `dataset`, or the model.",
    "model": "Expected a model that runs on the data. Correct `model`, or what `dataset` returns.",
    "learning_rate": "Expected a float above 0, or a Keras schedule. Correct it.",
    "loss": "Expected a loss that takes the targets and the outputs of the model. Correct it, or take another.",
    "optimizer": "Expected a Keras optimizer or its name. Correct it.",
    "metrics": "Expected metrics that take the targets and the outputs of the model. Correct them.",
    "loss_weights": "Expected a number for each output. Correct it.",
    "class_weight": "Expected a dict with a float for the index of each class. Correct it.",
    "augment": "Expected a function that returns a sample of the same structure. Correct it.",
    "prepare_datasets": "Expected a function that prepares the data. Correct it.",
    "serving": "Expected a function of tensors alone. Correct it.",
    "callbacks": "Expected a list or dict of Keras callbacks. Correct it.",
    "training": "Expected data, model, loss and metrics that go together. Correct the one that this is about.",
}


_KNOWN_TEXTS = (
    (
        "No loss to compute",
        "loss",
        "there is none: `loss` gives None, and the model has no loss of its own. Expected a loss, got None. Name one, "
        "or add `return` to the hook.",
    ),
)
"""What Keras says, the setting that it is about, and how that is said here."""


_AT_WORK = (
    ("training/engine/steps.py", "training"),
    ("training/engine/evaluation.py", "training"),
    ("training/engine/replicas.py", "training"),
    ("training/observe/", "training"),
    ("federated/local/proximal.py", "training"),
    ("training/setup/class_weights.py", "training"),
    ("compat/keras.py", "training"),
    ("models/", "training"),
    ("training/engine/user_callbacks.py", "callbacks"),
    ("training/feeds/topics/", "kafka_topics"),
    ("training/feeds/", "dataset"),
    ("data/", "dataset"),
    ("export/servable.py", "serving"),
)
"""Parts of this package that hand over to the user's model and data, and what is at work behind each."""
_USED_BY_USERS = (_PACKAGE + "models/", _PACKAGE + "data/", _PACKAGE + "gallery/")
"""What the user's files import, and so what complains of what they give it."""


@contextlib.contextmanager
def at_work(settings: Settings, name: str) -> Iterator[None]:
    """Inside, a value or code of the user's is at work; an error that it causes is said as that, and where.

    Args:
        settings: The experiment's.
        name: The setting or hook that is at work, or `training`.

    Raises:
        UserCodeError: Code of the user's own raised.
        SettingsError: A library refused what the user gave it.
        DataError: The same, of data.
        TrainingError: The same, of the whole.
    """
    try:
        yield
    except OF_THE_ENGINE:
        raise
    except Exception as error:
        found = translated(settings, name, error)
        if found is None:
            raise
        raise found from error


def translated(settings: Settings, name: str, error: Exception) -> UserError | None:
    """Return an error as it is to be said of the user's value; `None` where the fault is ours, or the machine's."""
    within = error.__context__ or error.__cause__
    if type(error).__name__ == "StagingError" and isinstance(within, OF_THE_ENGINE):
        return within  # AutoGraph has wrapped it on its way through a function of a pipeline
    place = settings.place_of(error) or quoted_place(settings, error)
    if place is not None:
        return UserCodeError(name, place, error, settings.explained(error) or _users_text(error))
    if isinstance(error, UserError) or is_ours(error) or (isinstance(error, OSError) and error.errno in FULL):
        return None
    for words, about, said in _KNOWN_TEXTS:
        if words in str(error):
            return hook_error(settings, about, said)
    text = f"{named_reason(error)}. {_EXPECTED.get(name, 'Correct it.')}"
    if name == "dataset":
        return DataError(f"dataset: {text}", settings.location("dataset"))
    if name == "training":
        return TrainingError(f"training: {text}", settings.location("model"))
    if name == "kafka_topics":
        return DataError(f"kafka_topics: {text}", settings.location("kafka_topics"))
    return hook_error(settings, name, text)


def what_was_at_work(error: BaseException) -> str | None:
    """Return what of the user's was at work when a library raised, by the last frame of ours before that one."""
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    own = [file.removeprefix(_PACKAGE) for file in files if file.startswith(_PACKAGE)]
    if any("/keras/src/callbacks/" in file for file in files):
        return "callbacks"
    return next((name for part, name in _AT_WORK if own and own[-1].startswith(part)), None)


def quoted_place(settings: Settings, error: BaseException) -> str | None:
    """Return the innermost place in the user's files that the text of an error quotes, as TensorFlow's texts do."""
    text = str(error).partition("Detected at node")[0]  # where a graph was made; whoever started it is there, too
    frames = [(file, int(line)) for file, line in _QUOTED_FRAME.findall(text)]
    return settings.place_among(frames) if frames else None


def is_ours(error: BaseException) -> bool:
    """Return whether the innermost frame of an exception, the standard library's aside, lies in this package."""
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    telling = [file for file in files if file.startswith(_INSTALLED) or not file.startswith(_STANDARD)]
    return not telling or (telling[-1].startswith(_PACKAGE) and not telling[-1].startswith(_USED_BY_USERS))


def _users_text(error: Exception) -> str:
    return named_reason(error)
