"""`--stage-data` of the commands that train."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments_manager.common.console import warn
from experiments_manager.common.machine import local_copies


@contextlib.contextmanager
def staged_data(paths: Sequence[Path], settings: Path, overrides: Sequence[str] = (), *, quiet: bool) -> Iterator[None]:
    """Copy data to the node's own disk, and let settings that are loaded inside name the copies.

    Args:
        paths: What to copy.
        settings: The settings module, whose `cluster` may say where to.
        overrides: Settings to change in it.
        quiet: Whether to say nothing as long as all goes well.

    Raises:
        ClusterError: The data cannot be read, or there is no place or room for it.
        SettingsError: The source of the settings module shows problems.
    """
    if not paths:
        yield
        return
    from experiments_manager.cluster.job_options import job_options
    from experiments_manager.cluster.staging import stage_folder, staged
    from experiments_manager.settings import read_values

    of_settings = read_values(settings, overrides).values.cluster
    options = job_options((f"{settings}: cluster", of_settings))
    with staged(paths, stage_folder(options.stage_dir), (lambda text: None) if quiet else warn):
        yield


def tell_unused_copies() -> None:
    """Say which data was copied although no setting names it, once the settings are loaded."""
    for source in local_copies.unused():
        warn(
            f"--stage-data {source}: no setting names a path below it, so the copy is not used. Expected, for "
            f'instance, train_data_dir = "{source}/…" in the settings file.'
        )
