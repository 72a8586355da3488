"""Devices that a settings file asks for and that the machine lacks."""

import types

import pytest

from experiments_manager.settings import SettingsError, load_settings


@pytest.fixture
def refused(curve, tmp_path, monkeypatch):
    """What is said of a settings file on a machine with so many GPUs."""

    def refuse(line, gpus, overrides=()):
        import tensorflow as tf

        from experiments_manager.training.devices.devices import prepared_devices

        monkeypatch.chdir(tmp_path)
        path = tmp_path / "mysettings_curve.py"
        path.write_text(line + curve, encoding="utf-8")
        present = [types.SimpleNamespace(name=f"/physical_device:GPU:{number}") for number in range(gpus)]
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: present)
        with pytest.raises(SettingsError) as caught, prepared_devices(load_settings(path, overrides)):
            pass
        return str(caught.value)

    return refuse


def test_a_machine_without_a_gpu_says_so_where_one_is_asked_for(refused):
    assert refused("\nused_gpu_IDs = [0]\n", 0) == (
        "mysettings_curve.py:2: used_gpu_IDs: this machine has no GPU that TensorFlow can use. "
        "Expected `[]` for the CPU, or None for whatever is there, got [0]. Change it, or remove the line."
    )


def test_a_legacy_file_is_trained_on_the_cpu_where_there_is_no_gpu(curve, tmp_path, monkeypatch, caplog):
    import tensorflow as tf

    from experiments_manager.training.devices.devices import prepared_devices

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    path = tmp_path / "mysettings_curve.py"
    path.write_text(curve + "\ndef get_optimizer(model): pass\nused_gpu_IDs = [0]\n", encoding="utf-8")
    with prepared_devices(load_settings(path)) as devices:
        assert devices.names == ("CPU",)
    assert "this machine has no GPU that TensorFlow can use" in caplog.text
    assert "The CPU is used" in caplog.text
    with pytest.raises(SettingsError, match="no GPU"), prepared_devices(load_settings(path, ["gpus=0"])):
        pass


def test_a_machine_with_fewer_gpus_says_how_many(refused):
    assert refused("gpus = [1, 5]\n", 2) == (
        "mysettings_curve.py:1: gpus: this machine has no GPU 5. Expected indices of its 2 GPUs, 0 to 1, got [1, 5]. "
        "Change it, or remove the line."
    )


def test_an_override_is_named_where_it_asks_for_a_gpu_that_is_not_there(refused):
    assert refused("", 1, ["gpus=3"]).startswith("override: gpus: this machine has no GPU 3. Expected `[0]`, got [3].")
