"""The GPUs of a job of SLURM."""

import logging
import types

import pytest

from experiments_manager.settings import load_settings
from experiments_manager.training.devices import devices
from experiments_manager.training.devices.job_gpus import gpus_of_job, in_job_with_gpus

SLURM = ("SLURM_JOB_ID", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "SLURM_GPUS_ON_NODE", "CUDA_VISIBLE_DEVICES")


@pytest.fixture
def job(monkeypatch):
    """Set the variables of a job, and only these."""

    def begin(**variables):
        for name in SLURM:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return begin


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "abcd"),
        ({"SLURM_JOB_ID": "7"}, "abcd"),  # a job without GPUs
        ({"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "2", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, "abcd"),
        ({"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_GPUS": "4-7"}, "abcd"),  # confined by cgroups
        ({"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "2", "SLURM_JOB_GPUS": "1,3"}, "bd"),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_GPUS": "1-2"}, "bc"),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_GPUS": "0-2", "SLURM_STEP_GPUS": "2"}, "c"),
        ({"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "2"}, "ab"),
        ({"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "tesla:1,kepler:2"}, "abc"),
    ],
)
def test_of_the_gpus_that_are_seen_those_of_the_job_are_taken(job, variables, expected):
    job(**variables)
    assert gpus_of_job("abcd") == list(expected)
    assert in_job_with_gpus() == any("GPUS" in name for name in variables)


def test_a_job_whose_gpus_tensorflow_does_not_see_says_so(job, caplog):
    job(SLURM_JOB_ID="7", SLURM_JOB_GPUS="0,1")
    with caplog.at_level(logging.WARNING):
        assert gpus_of_job([]) == []
        assert "The job has GPUs (SLURM_JOB_GPUS=0,1), but TensorFlow sees none" in caplog.text
        caplog.clear()
        gpus_of_job([], wanted=False)
    assert caplog.text == ""


@pytest.fixture
def chosen(job, settings_file, monkeypatch, tensorflow):
    """Which of four GPUs are chosen, and for which memory grows as needed."""
    tf = tensorflow

    def choose(source="", **variables):
        job(**variables)
        visible, grows = [], []
        present = [types.SimpleNamespace(name=f"/physical_device:GPU:{number}") for number in range(4)]
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: present)
        monkeypatch.setattr(tf.config, "set_visible_devices", lambda gpus, kind: visible.extend(gpus))
        monkeypatch.setattr(
            tf.config.experimental, "set_memory_growth", lambda gpu, grow: grows.extend([gpu] if grow else [])
        )
        devices._visible_gpus(load_settings(settings_file(source)))
        assert visible == grows
        return [present.index(gpu) for gpu in visible]

    return choose


IN_JOB = {"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "2", "SLURM_JOB_GPUS": "1,3"}


def test_without_a_choice_a_run_takes_all_gpus_of_its_job_and_elsewhere_the_first(chosen):
    assert chosen(**IN_JOB) == [1, 3]
    assert chosen() == [0]


def test_indices_count_the_gpus_of_the_job(chosen):
    assert chosen("gpus = [1]", **IN_JOB) == [3]
    assert chosen("gpus = []", **IN_JOB) == []
    assert chosen("gpus = [2, 3]") == [2, 3]
