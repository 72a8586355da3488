import sys

import pytest

from experiments_manager.doctor import accelerators
from experiments_manager.doctor.accelerators import gpus, tensorflow
from experiments_manager.doctor.finding import FindingState


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Gives a folder in which a driver of NVIDIA seems to be loaded, with its device files."""
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX Open Kernel Module  550.54\n")
    for name, file in (("_DRIVER", "version"), ("_CONTROL", "nvidiactl"), ("_MEMORY", "nvidia-uvm")):
        (tmp_path / file).touch()
        monkeypatch.setattr(accelerators, name, tmp_path / file)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def nothing_seen(cuda="12.5"):
    return gpus({"gpus": [], "cuda": cuda, "cudnn": "9"})


def test_gpus_that_tensorflow_sees_are_counted():
    found = gpus({"gpus": ["/physical_device:GPU:0"], "cuda": "12.5", "cudnn": "9"})
    assert (found.state, found.text) == (FindingState.OK, "1 seen by TensorFlow, CUDA 12.5, cuDNN 9")


def test_without_a_driver_there_is_nothing_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(accelerators, "_DRIVER", tmp_path / "none")
    assert "no driver" in nothing_seen().text


def test_an_image_without_the_devices_is_told_about_nv(driver):
    (driver / "nvidiactl").unlink()
    assert "--nv" in nothing_seen().remedy


def test_a_missing_device_for_memory_is_told_about_nvidia_modprobe(driver):
    (driver / "nvidia-uvm").unlink()
    assert "nvidia-modprobe" in nothing_seen().remedy


def test_gpus_that_the_environment_hides_are_told_of(driver, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "unset CUDA_VISIBLE_DEVICES" in nothing_seen().remedy


def test_a_build_without_cuda_is_told_from_missing_libraries(driver):
    assert "without CUDA" in nothing_seen(cuda=None).text
    assert "tensorflow[and-cuda]" in nothing_seen().remedy
    assert "550.54" in nothing_seen().text


def test_a_tensorflow_that_does_not_answer_in_time_is_no_fault():
    versions, gpu = tensorflow(seconds=0.001)
    assert versions.state is FindingState.NOTE
    assert versions.text.endswith("importing it took more than 0.001 s")
    assert gpu.name == "GPU"


def test_a_tensorflow_that_cannot_be_imported_is_a_problem_and_its_last_words_are_told(monkeypatch):
    monkeypatch.setattr(accelerators, "_QUESTION", "raise ImportError('libcudart.so is missing')")
    (found,) = tensorflow(seconds=60)
    assert found.state is FindingState.PROBLEM
    assert found.text.endswith("importing it failed: ImportError: libcudart.so is missing")


def test_a_tensorflow_that_is_not_installed_is_a_problem(monkeypatch):
    def missing(*names):
        raise accelerators.importlib.metadata.PackageNotFoundError("tensorflow")

    monkeypatch.setattr(accelerators, "_installed", missing)
    (found,) = tensorflow()
    assert (found.state, found.text) == (FindingState.PROBLEM, "tensorflow is not installed")


def test_tensorflow_is_asked_in_a_process_of_its_own(monkeypatch):
    answer = '{"tensorflow": "2.21.0", "cuda": null, "cudnn": null, "gpus": []}'
    monkeypatch.setattr(accelerators, "_QUESTION", f"print('noise'); print('''{answer}''')")
    before = set(sys.modules)
    found, gpu = tensorflow(seconds=60)
    assert (found.state, gpu.name) == (FindingState.OK, "GPU")
    assert "tensorflow" not in set(sys.modules) - before
