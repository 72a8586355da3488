"""Publishing versions while training goes on.

Nearly all of an export is tracing and serialising the graph, and the graph is the same each time. So a run traces once,
saves once, and each version is a copy of that first SavedModel with other variables in it: staged beside its place,
read back, run on a batch, compared with the live model, and only then renamed to its number.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from experiments_manager.common.background import LatestJobWorker
from experiments_manager.common.error_text import reason
from experiments_manager.export import versions
from experiments_manager.export.servable import ExportError, Servable
from experiments_manager.export.warmup_file import write_warmup_requests

logger = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""Relative difference allowed between the live model's outputs and the reloaded version's, in float32 on a CPU."""
LOW_PRECISION_TOLERANCE = 2e-2
"""The same where half precision, TF32 or another device rounds differently."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Weights to be published, with what the live model made of the probe batch under just these weights."""

    version: int
    values: list[tf.Tensor]
    """Values of the servable's variables, in its order."""
    expected: Mapping[str, np.ndarray]


class Publisher:
    """Writes versions of one servable, one at a time, in a thread of its own.

    An improvement that comes while another is being written waits; a still newer one takes its place.

    Args:
        servable: What is published.
        folder: The run's `exported_models/`.
        probe: A small batch of inputs by name.
        keep: How many versions to keep, 0 for all.
        tolerance: Relative difference allowed at verification.
        warmup: Inputs of the requests that a model server warms a version up with.
    """

    def __init__(
        self,
        servable: Servable,
        folder: Path,
        probe: Mapping[str, tf.Tensor],
        *,
        keep: int = 3,
        tolerance: float = TOLERANCE,
        warmup: Sequence[Mapping[str, tf.Tensor]] = (),
    ) -> None:
        self._servable, self._folder, self._probe = servable, folder, dict(probe)
        self._keep, self._tolerance, self._warmup = keep, tolerance, warmup
        self._template: _Template | None = None
        self._outcomes: collections.deque[tuple[int, str | None]] = collections.deque()
        self.published: list[int] = []
        self._failing = False
        copy = tf.function(lambda: [tf.identity(variable) for variable in servable.variables], autograph=False)
        self._copy = copy.get_concrete_function()
        self._worker: LatestJobWorker[Candidate] = LatestJobWorker(self._publish, self._failed, name="exports")
        versions.remove_stages(folder)

    def submit(self, version: int) -> None:
        """Hand in the model as it is at this moment (with its averages in place); costs a copy and one small batch."""
        expected = {name: value.numpy() for name, value in self._servable(self._probe).items()}
        self._worker.submit(Candidate(version, self._copy(), expected))

    def outcomes(self) -> list[tuple[int, str | None]]:
        """Return what came of versions since the last call: `(version, None)` if published, else the reason.

        Of several failures in a row, only the first is told.
        """
        return [self._outcomes.popleft() for _ in range(len(self._outcomes))]

    @property
    def idle(self) -> bool:
        """Whether nothing is being published."""
        return self._worker.idle

    def move_to(self, folder: Path) -> None:
        """Publish into a folder that was moved."""
        self._folder = folder

    def wait(self) -> None:
        """Wait for what is being published."""
        self._worker.wait()

    def close(self) -> None:
        """Wait for what is being published and clear the staging folders."""
        self._worker.close()
        versions.remove_stages(self._folder)

    def _publish(self, candidate: Candidate) -> None:
        if self._template is None:
            self._folder.mkdir(exist_ok=True)
            self._template = _Template.save(
                self._servable, self._folder / f"{versions.STAGE_PREFIX}template", self._warmup
            )
        stage = self._folder / f"{versions.STAGE_PREFIX}{candidate.version}"
        try:
            self._template.write(candidate.values, stage)
            self._template.verify(stage, candidate, self._probe, self._tolerance)
            target = self._folder / str(candidate.version)
            if target.exists():  # the same step of a run that was resumed from before it
                versions.remove(self._folder, candidate.version)
            stage.rename(target)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
        self.published.append(candidate.version)
        versions.prune(self._folder, self._keep)
        self._failing = False
        self._outcomes.append((candidate.version, None))

    def _failed(self, candidate: Candidate, error: BaseException) -> None:
        logger.debug("version %s was not published", candidate.version, exc_info=error)
        if not self._failing:
            self._outcomes.append((candidate.version, f"{reason(error)}."))
        self._failing = True


@dataclasses.dataclass
class _Template:
    """The first SavedModel, its checkpoint's other entries, and a loaded copy to verify versions with."""

    path: Path
    keys: list[str]
    others: dict[str, tf.Tensor]
    loaded: tf.Module | None = None
    read_back: Callable[[tf.Tensor], None] | None = None

    @classmethod
    def save(cls, servable: Servable, path: Path, warmup: Sequence[Mapping[str, tf.Tensor]]) -> _Template:
        shutil.rmtree(path, ignore_errors=True)
        try:
            servable.save(path)
            write_warmup_requests(path, warmup, servable.model_name)
        except Exception as error:
            shutil.rmtree(path, ignore_errors=True)
            if isinstance(error, OSError | tf.errors.OpError):
                raise
            raise ExportError(
                f"The model cannot be exported: {reason(error)}. "
                "Give a `serving` hook that uses only what TensorFlow can save, or set `export = False`."
            ) from error
        # It names the values that these variables had; versions hold others.
        (path / "fingerprint.pb").unlink(missing_ok=True)
        reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
        entries = set(reader.get_variable_to_shape_map())
        keys = [f"captured/{number}/.ATTRIBUTES/VARIABLE_VALUE" for number in range(len(servable.variables))]
        others = {name: tf.constant(reader.get_tensor(name)) for name in sorted(entries - set(keys))}
        return cls(path, keys, others)

    def write(self, values: list[tf.Tensor], stage: Path) -> None:
        shutil.rmtree(stage, ignore_errors=True)
        shutil.copytree(
            self.path, stage, ignore=lambda folder, names: ["variables"] if Path(folder) == self.path else []
        )
        (stage / "variables").mkdir()
        names = [*self.keys, *self.others]
        tf.raw_ops.SaveV2(
            prefix=str(stage / "variables" / "variables"),
            tensor_names=names,
            shape_and_slices=[""] * len(names),
            tensors=[*values, *self.others.values()],
        )

    def verify(self, stage: Path, candidate: Candidate, probe: Mapping[str, tf.Tensor], tolerance: float) -> None:
        with tf.device("CPU:0"):
            if self.loaded is None:
                self.loaded = self._load(stage, probe, tolerance)
            else:
                self.read_back = self.read_back or self._reader()
                self.read_back(tf.constant(str(stage / "variables" / "variables")))
            _compare(_answers(self.loaded, probe), candidate.expected, "Reloaded", "the live model's", tolerance)

    def _load(self, stage: Path, probe: Mapping[str, tf.Tensor], tolerance: float) -> tf.Module:
        loaded = tf.saved_model.load(str(stage))
        # Random numbers from a fixed seed can make a first answer the live model's, but not two of them.
        before, again = _answers(loaded, probe), _answers(loaded, probe)
        _compare(again, before, "Asked twice", "what it was before", tolerance)
        return loaded

    def _reader(self) -> Callable[[tf.Tensor], None]:
        """Make a function that reads variables from a prefix into the loaded copy, in the graph.

        One by one from Python, hundreds of variables would hold up training, which needs the interpreter too.
        """
        variables = list(self.loaded.captured)

        def read(prefix: tf.Tensor) -> None:
            values = tf.raw_ops.RestoreV2(
                prefix=prefix,
                tensor_names=self.keys,
                shape_and_slices=[""] * len(self.keys),
                dtypes=[variable.dtype for variable in variables],
            )
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)

        return tf.function(read, autograph=False)


def _answers(loaded: tf.Module, probe: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in loaded.signatures["serving_default"](**probe).items()}


def _compare(
    outputs: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    occasion: str,
    reference: str,
    tolerance: float,
) -> None:
    for name, values in expected.items():
        if not _agree(outputs[name], values, tolerance):
            raise ExportError(
                f"{occasion}, its output `{name}` differs from {reference} by up to "
                f"{_largest_difference(outputs[name], values):.3g}. Expected a model that gives the same output for "
                "the same input. If it draws random numbers at inference, give a `serving` hook without them."
            )


def _agree(got: np.ndarray, expected: np.ndarray, tolerance: float) -> bool:
    if got.shape != expected.shape:
        return False
    if not np.issubdtype(expected.dtype, np.number):
        return bool(np.array_equal(got, expected))
    sizes = np.abs(expected[np.isfinite(expected)])  # of masked scores, some are infinite
    scale = float(sizes.max(initial=0.0))
    return bool(np.allclose(got, expected, rtol=tolerance, atol=tolerance * max(scale, 1e-6), equal_nan=True))


def _largest_difference(got: np.ndarray, expected: np.ndarray) -> float:
    if got.shape != expected.shape or not np.issubdtype(expected.dtype, np.number):
        return float("nan")
    with np.errstate(invalid="ignore"):
        apart = np.abs(got.astype(np.float64) - expected.astype(np.float64))
    return float(np.nanmax(apart, initial=0.0))
