from pathlib import Path

import pytest

from experiments_manager.events import EpochReport, Progress, RunEnd, RunStart
from experiments_manager.monitoring.tensorboard.profile import StepProfile


def start(run_dir: Path, epochs: int) -> RunStart:
    return RunStart(run_dir, "s", {}, epochs, 1, 10, 31, ("CPU",), "val_loss")


@pytest.mark.parametrize("epochs", [1, 3])
def test_one_call_of_a_run_is_profiled_also_where_there_is_one_epoch_alone(tmp_path: Path, epochs: int) -> None:
    profile = StepProfile(tmp_path)
    profile.on_start(start(tmp_path, epochs))
    for epoch in range(1, epochs + 1):
        for step in (5, 10):
            profile.on_progress(Progress(epoch, step, step, 10, dict))
        profile.on_epoch(EpochReport(epoch, 10 * epoch, {"loss": 1.0}, 0.1, 0.1, improved=True))
    profile.on_end(RunEnd("finished", epochs, 1.0, None, {}, None))

    recorded = list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))
    assert len(recorded) == 1
    assert recorded[0].stat().st_size > 0
