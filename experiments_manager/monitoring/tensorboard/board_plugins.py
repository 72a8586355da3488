"""TensorBoard's own HParams and Projector pages, with what they lack where runs differ or go on.

- HParams: where a hyperparameter is a number in one run and text or `None` in another, TensorBoard cannot sort by it
  (the request fails), and its filter hides runs. Such a column is shown as text throughout. Only five metrics are shown
  at first, by the alphabet; here they are the last and the best of the validation.
- Projector: TensorBoard reads its files once, and again only when a run comes up. Here they are read when they change,
  the newest run stands first, and files that are missing do not close the page for all runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments_manager.compat.tensorboard_pages import (
    HPARAMS,
    PROJECTOR,
    SESSION_START_INFO_TAG,
    AdjustedHParams,
    AdjustedProjector,
    HParamsContents,
    HParamsPluginData,
)


class HParamsPage(AdjustedHParams):
    """The HParams page for runs whose hyperparameters differ in type."""

    def adjusted_contents(self, contents: HParamsContents, logdir: Path) -> HParamsContents:
        """Return the contents with one type a column, and rows that are called by their runs."""
        return with_run_names(with_one_type_a_column(contents), logdir.name)

    def sorted_metrics(self, metrics: Sequence[Any]) -> Sequence[Any]:
        """Return the metrics, the last and the best of the validation first."""
        return sorted(metrics, key=lambda info: _metric_rank(info.name.group, info.name.tag))


def _metric_rank(group: str, tag: str) -> tuple[bool, bool, str, str]:
    """Return the validation's values before the training's, and those of the best epoch behind those of the last."""
    return group != "validation", "/" in tag, tag, group


def with_one_type_a_column(contents: HParamsContents) -> HParamsContents:
    """Make text of hyperparameters whose values are not of one type in all runs.

    Args:
        contents: What the HParams plugin stored, by run and tag.

    Returns:
        The same, with such values replaced.
    """
    starts = _starts(contents)
    kinds: dict[str, set[str | None]] = {}
    for start in starts.values():
        for name, value in start.session_start_info.hparams.items():
            kinds.setdefault(name, set()).add(value.WhichOneof("kind"))
    mixed = {name for name, found in kinds.items() if len(found) > 1}
    if not mixed:
        return contents
    for start in starts.values():
        hparams = start.session_start_info.hparams
        for name in mixed & set(hparams):
            hparams[name].string_value = _as_text(hparams[name])
    return _with_starts(contents, starts)


def with_run_names(contents: HParamsContents, folder: str) -> HParamsContents:
    """Call rows by the folder of their run, which the path of its logs would be shown for otherwise.

    Args:
        contents: What the HParams plugin stored, by run and tag.
        folder: Name of the folder that is shown, which is the run itself where there is but one.
    """
    starts = _starts(contents)
    for path, start in starts.items():
        run = Path(path).parent.as_posix()
        if Path(path).name == "logs" and not start.session_start_info.group_name:
            start.session_start_info.group_name = folder if run == "." else run
    return _with_starts(contents, starts)


def _starts(contents: HParamsContents) -> dict[str, Any]:
    return {
        run: HParamsPluginData.FromString(tags[SESSION_START_INFO_TAG])
        for run, tags in contents.items()
        if SESSION_START_INFO_TAG in tags
    }


def _with_starts(contents: HParamsContents, starts: dict[str, Any]) -> HParamsContents:
    tag = SESSION_START_INFO_TAG
    return contents | {run: {**contents[run], tag: start.SerializeToString()} for run, start in starts.items()}


def _as_text(value: Any) -> str:
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        return f"{value.number_value:.15g}"
    return str(getattr(value, kind)) if kind else ""


class ProjectorPage(AdjustedProjector):
    """The Projector for runs that go on."""

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self._seen: dict[Path, tuple[int, int]] = {}

    def is_stale(self, files: Sequence[Path]) -> bool:
        """Return whether a configuration changed since the last call."""
        before, self._seen = self._seen, {path: _identity(path) for path in files}
        return self._seen != before

    def adjusted_configs(self, configs: dict[str, Any], files: dict[str, str]) -> dict[str, Any]:
        """Return the configurations, that which was written last first, without tensors that are gone."""
        for run, config in configs.items():
            folder = Path(files[run]).parent
            there = [entry for entry in config.embeddings if (folder / entry.tensor_path).exists()]
            del config.embeddings[:]
            config.embeddings.extend(there)
        newest_first = sorted(configs, key=lambda run: -_modified(files[run]))
        return {run: configs[run] for run in newest_first}


def _identity(path: Path) -> tuple[int, int]:
    """Tell one content from another: each is a file of its own, even where the disk's clock ticks too seldom."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_ino, status.st_mtime_ns


def _modified(path: Path | str) -> int:
    """Nanoseconds; 0 where there is no such file."""
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return 0


REPLACED: Mapping[type, type] = {HPARAMS: HParamsPage, PROJECTOR: ProjectorPage}
"""Pages of TensorBoard, and what stands in for them."""
