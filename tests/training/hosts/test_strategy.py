"""Settings that several processes cannot train are refused before TensorFlow connects them."""

import pytest

from experiments_manager.settings import SettingsError, load_settings
from experiments_manager.training.devices.devices import prepared_devices
from experiments_manager.training.hosts.cluster import HostCluster

CLUSTER = HostCluster(("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"), 0)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"jit_compile": True, "gpus": []}, "jit_compile: XLA compiles no step"),
        ({"batch_size": 32}, "batch_size: the batch size is not divisible by 3 processes"),
    ],
)
def test_what_processes_cannot_train_together_is_named_with_its_setting(tmp_path, curve, changes, problem):
    file = tmp_path / "mysettings_curve.py"
    file.write_text(curve + '\nstrategy = "MultiWorkerMirroredStrategy"\n', encoding="utf-8")
    changes = {"batch_size": 30} | changes
    with pytest.raises(SettingsError, match=problem), prepared_devices(load_settings(file, changes), CLUSTER):
        pass
