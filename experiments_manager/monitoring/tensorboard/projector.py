"""Embeddings for TensorBoard's Projector, and as arrays for use outside.

    logs/projector_config.pbtxt        what the Projector shows; it reads this file in the folder of each run
    logs/embeddings/epoch-0010/        one set: the model as it was after that epoch
        digit.bytes                    vectors of one output or layer, float32, row by row
        metadata.tsv                   label, prediction, index, … of each sample
        sprite.png                     thumbnails, where the model takes images
        embeddings.npz                 all of it: `vectors/<name>`, `metadata/<column>`, `epoch`, `global_step`
        set.json                       what the configuration is written from

A set is there whole or not at all, and the configuration names only sets that are there: one file that is missing would
close the Projector for all runs of a folder.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments_manager.common import atomic
from experiments_manager.common.error_text import named_reason
from experiments_manager.events import ModelView, RunStart, Watcher
from experiments_manager.monitoring.tensorboard.embeddings import Embeddings, embeddings_of, first_images, reduced
from experiments_manager.monitoring.tensorboard.sprites import sprite

logger = logging.getLogger(__name__)

CONFIG_FILE = "projector_config.pbtxt"
KEPT_SETS = 5
"""Newest sets that are kept, that of the best weights among them."""
LARGEST_TENSOR = 64 * 2**20
"""Bytes of one tensor; wide layers get fewer samples, for the browser loads all of it."""


class Projector(Watcher):
    """Writes what the model makes of the validation samples, every few epochs and of the best weights at the end."""

    def __init__(
        self,
        logs_dir: Path | str,
        *,
        layers: Sequence[str] | None = None,
        every: int | None = None,
        samples: int = 5000,
        class_names: Sequence[str] | None = None,
    ) -> None:
        """Remember what to write; nothing is touched before the first set.

        Args:
            logs_dir: The folder `logs/` of a run.
            layers: Layers whose outputs are shown; `None` for the model's own, and those of the layers before its last.
            every: Epochs from one set to the next; `None` for the best weights alone.
            samples: Most samples in a set.
            class_names: Names of the classes.
        """
        self._logs_dir = Path(logs_dir)
        self._layers = layers if layers is None else tuple(layers)
        self._every = every
        self._samples = samples
        self._class_names = class_names
        self._asked_for = bool(layers or every)
        self._said: set[str] = set()

    def on_start(self, start: RunStart) -> None:
        """After a resume, drop the sets of epochs that will be trained again."""
        try:
            if (self._logs_dir / "embeddings").is_dir():
                atomic.remove_leftovers(self._logs_dir / "embeddings")
                self._keep([found for found in self._sets() if found["epoch"] < start.first_epoch])
        except OSError as error:
            self._warn_unwritable(error)

    def on_validated(self, view: ModelView) -> None:
        """Write a set where this epoch's turn has come."""
        if self._every and view.epoch % self._every == 0:
            earlier = [found | {"best": False} for found in self._sets() if found["epoch"] < view.epoch]
            self._write(view, earlier, is_best=False)

    def on_best(self, view: ModelView) -> None:
        """Write the set of the best weights, or mark it where it stands already."""
        sets = [found | {"best": found["epoch"] == view.epoch} for found in self._sets()]
        if not any(found["best"] for found in sets):
            self._write(view, sets, is_best=True)
            return
        try:
            self._keep(sets)
        except OSError as error:
            self._warn_unwritable(error)

    def _write(self, view: ModelView, others: list[dict[str, Any]], *, is_best: bool) -> None:
        try:
            samples = view.samples(self._samples, self._layers, reduced)
            if samples is None:
                self._say("There are no embeddings: the data cannot be read a second time.")
                return
            points = embeddings_of(samples, self._class_names, with_outputs=self._layers is None)
        except Exception as error:  # a model that is never called as a whole, for instance an adversarial one
            self._say(f"There are no embeddings: {named_reason(error)}")
            logger.debug("traceback", exc_info=True)
            return
        count = self._fitting_count(points)
        shown = {name: vectors[:count] for name, vectors in points.vectors.items() if self._can_be_shown(name, vectors)}
        for name, cause in points.left_out.items():
            self._say(f"The Projector leaves out {name}: {cause}.")
        if not shown:
            return
        images = first_images(samples.x)
        record = {"epoch": view.epoch, "global_step": view.global_step, "best": is_best}
        try:
            record |= self._write_set(record, points, shown, None if images is None else images[:count])
            self._keep([*others, record])
        except OSError as error:
            self._warn_unwritable(error)

    def _can_be_shown(self, name: str, vectors: np.ndarray) -> bool:
        count, width = vectors.shape
        if count > 1 and width > 1:
            return True
        what = "one number a sample" if count > 1 else "a single sample"
        self._say(f"The Projector leaves out {name}: {what} makes no picture.")
        return False

    def _fitting_count(self, points: Embeddings) -> int:
        count = len(points.columns["index"])
        for name, vectors in points.vectors.items():
            fitting = LARGEST_TENSOR // (4 * max(1, vectors.shape[1]))
            if fitting < count:
                self._say(f"The Projector shows {fitting} of {count} samples, as {name} is {vectors.shape[1]} wide.")
                count = max(2, fitting)
        return count

    def _write_set(
        self,
        record: dict[str, Any],
        points: Embeddings,
        shown: dict[str, np.ndarray],
        images: np.ndarray | None,
    ) -> dict[str, Any]:
        """Make the folder of one set beside its place, and rename it."""
        folder = self._logs_dir / "embeddings" / f"epoch-{record['epoch']:04d}"
        stage = atomic.staging_path(folder)
        try:
            stage.mkdir(parents=True)
            count = len(next(iter(shown.values())))
            tensors = []
            for number, (name, vectors) in enumerate(shown.items()):
                file = f"{file_name(name)}.bytes"
                if (stage / file).exists():  # `a/b` and `a_b`
                    file = f"{file_name(name)}-{number}.bytes"
                (stage / file).write_bytes(tensor_bytes(vectors))
                tensors.append({"name": name, "file": file, "shape": list(vectors.shape)})
            columns = {name: values[:count] for name, values in points.columns.items()}
            (stage / "metadata.tsv").write_text(_metadata(columns), encoding="utf-8")
            arrays = {f"vectors/{name}": vectors[:count] for name, vectors in points.vectors.items()}
            arrays |= {f"metadata/{name}": values for name, values in columns.items()}
            with (stage / "embeddings.npz").open("wb") as stream:
                np.savez(stream, epoch=record["epoch"], global_step=record["global_step"], **arrays)
            thumbnail = None
            if images is not None:
                picture, thumbnail = sprite(images)
                (stage / "sprite.png").write_bytes(picture)
            record = {**record, "tensors": tensors, "thumbnail": thumbnail, "folder": folder.name}
            (stage / "set.json").write_text(json.dumps(record), encoding="utf-8")
            atomic.replace_directory(stage, folder)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
        return record

    def _sets(self) -> list[dict[str, Any]]:
        """Return the sets that are there, in any order."""
        found = []
        for path in (self._logs_dir / "embeddings").glob("epoch-*/set.json"):
            with contextlib.suppress(OSError, ValueError):  # damaged: as if it were not there
                record = json.loads(path.read_text(encoding="utf-8"))
                if isinstance(record, dict) and record.keys() >= {"epoch", "best", "tensors", "thumbnail"}:
                    found.append(record | {"folder": path.parent.name})
        return found

    def _keep(self, sets: list[dict[str, Any]]) -> None:
        """Let the Projector show these sets, the best and then the newest first, and remove the others."""
        ordered = sorted(sets, key=lambda found: (found["best"], found["epoch"]), reverse=True)[:KEPT_SETS]
        for found in ordered:
            path = self._logs_dir / "embeddings" / found["folder"] / "set.json"
            if json.loads(path.read_text(encoding="utf-8")) != json.loads(json.dumps(found)):
                atomic.write_json(path, found)
        if ordered:
            atomic.write_text(self._logs_dir / CONFIG_FILE, _configuration(ordered))
        else:
            (self._logs_dir / CONFIG_FILE).unlink(missing_ok=True)
        kept = {found["folder"] for found in ordered}
        for folder in (self._logs_dir / "embeddings").glob("epoch-*"):
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def _warn_unwritable(self, error: OSError) -> None:
        self._say(f"Embeddings cannot be written to {self._logs_dir}: {error.strerror}. Training goes on.", warn=True)

    def _say(self, text: str, *, warn: bool = False) -> None:
        """Say a sentence once in a run; as a warning only where the user asked for embeddings, or it tells of harm."""
        if text not in self._said:
            self._said.add(text)
            logger.log(logging.WARNING if warn or self._asked_for else logging.INFO, "%s", text)


def tensor_bytes(vectors: np.ndarray) -> bytes:
    """Return the content of a tensor file for the Projector.

    It takes a file for binary once it meets bytes that are no UTF-8, and gives up, for all runs, where the numbers
    happen to be text (zeros are). So the last bits of the first number are set to a byte that UTF-8 never has, which
    changes it by 4e-5 of itself at most. What is not finite is shown as zero. `embeddings.npz` has the vectors as they
    are.

    Args:
        vectors: float32 `[samples, width]`.
    """
    finite = np.nan_to_num(vectors.astype("<f4"), nan=0.0, posinf=0.0, neginf=0.0)
    return b"\xff" + finite.tobytes()[1:]


def file_name(name: str) -> str:
    """Return a name that is safe in a file system and in the Projector's addresses, which it does not quote."""
    return re.sub(r"[^\w.\-]", "_", name) or "output"


def _metadata(columns: dict[str, np.ndarray]) -> str:
    """Return a table with tabs between; a single column stands without a header, as the Projector wants it."""
    texts = [[_cell(value) for value in values] for values in columns.values()]
    header = ["\t".join(columns)] if len(columns) > 1 else []
    return "\n".join([*header, *("\t".join(row) for row in zip(*texts, strict=True))]) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return f"{float(value):.6g}"
    return re.sub(r"\s+", " ", str(value)).strip() or "-"


def _configuration(sets: Sequence[dict[str, Any]]) -> str:
    """Return what the Projector shows, in its order: it sorts by name, so each name begins with the rank of its set."""
    from google.protobuf import text_format

    from experiments_manager.compat.tensorboard import ProjectorConfig

    config = ProjectorConfig()
    for rank, found in enumerate(sets, start=1):
        folder = f"embeddings/{found['folder']}"
        for tensor in found["tensors"]:
            name = f"{rank}. {tensor['file'].removesuffix('.bytes')}, epoch {found['epoch']}" + ", best" * found["best"]
            entry = config.embeddings.add(tensor_name=name, tensor_shape=tensor["shape"])
            entry.tensor_path = f"{folder}/{tensor['file']}"
            entry.metadata_path = f"{folder}/metadata.tsv"
            if found["thumbnail"]:
                entry.sprite.image_path = f"{folder}/sprite.png"
                entry.sprite.single_image_dim.extend(found["thumbnail"])
    return text_format.MessageToString(config)
