"""TensorFlow, Keras and the GPUs that they see, asked in a process of their own: importing them takes seconds."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from experiments_manager.common.installation import install_command
from experiments_manager.doctor.finding import Finding, note, ok, problem

SECONDS = 3.0
_DRIVER = Path("/proc/driver/nvidia/version")
_CONTROL = Path("/dev/nvidiactl")
_MEMORY = Path("/dev/nvidia-uvm")
_LIST_OF_DEVICES = "CUDA_VISIBLE_DEVICES"

_QUESTION = """
import json, tensorflow as tf
build = tf.sysconfig.get_build_info()
print(json.dumps({"tensorflow": tf.__version__, "cuda": build.get("cuda_version"), "cudnn": build.get("cudnn_version"),
                  "gpus": [gpu.name for gpu in tf.config.list_physical_devices("GPU")]}))
"""


def tensorflow(seconds: float = SECONDS) -> list[Finding]:
    """Tell the versions of TensorFlow and Keras, which GPUs they see, and why none.

    Args:
        seconds: How long TensorFlow may take to answer.
    """
    try:
        versions = f"TensorFlow {_installed('tensorflow', 'tensorflow-cpu')}, Keras {_installed('keras')}"
    except importlib.metadata.PackageNotFoundError as error:
        remedy = f"Needed to train and serve: {install_command()}. The client works without."
        return [problem("TensorFlow", f"{error.name} is not installed", remedy)]
    try:
        answer = _ask(seconds)
    except subprocess.TimeoutExpired:
        text = f"{versions}; importing it took more than {seconds:g} s"
        remedy = "The first import after an installation is slow. Run this again; if it stays, use a faster disk."
        return [note("TensorFlow", text, remedy), _gpus_unasked()]
    if "tensorflow" not in answer:
        remedy = "Install it anew in a fresh environment: pip install --force-reinstall tensorflow"
        return [problem("TensorFlow", f"{versions}; importing it failed: {answer['error']}", remedy)]
    return [ok("TensorFlow", versions), gpus(answer)]


def gpus(answer: dict[str, Any]) -> Finding:
    """Tell which GPUs TensorFlow sees, or the most probable reason why it sees none."""
    if answer["gpus"]:
        return ok("GPU", f"{len(answer['gpus'])} seen by TensorFlow, CUDA {answer['cuda']}, cuDNN {answer['cudnn']}")
    return _none_seen(answer.get("cuda"))


def _none_seen(cuda: str | None) -> Finding:
    hidden = os.environ.get(_LIST_OF_DEVICES)
    if not _DRIVER.exists():
        return note("GPU", "none: no driver of NVIDIA is loaded", "Nothing to do where there is no GPU.")
    driver = _DRIVER.read_text(encoding="utf-8").splitlines()[0]
    if not _CONTROL.exists():
        return note("GPU", f"none: no {_CONTROL}. {driver}", "In an image, add --nv; in a job, ask for a GPU.")
    if not os.access(_CONTROL, os.R_OK | os.W_OK):
        return note("GPU", f"none: no permission to use {_CONTROL}", "Ask for a GPU in the job, or for membership.")
    if not _MEMORY.exists():
        return note("GPU", f"none: no {_MEMORY}", "Have root run once after each boot: nvidia-modprobe -u -c=0")
    if hidden is not None and hidden in ("", "-1"):
        return note("GPU", f"none: {_LIST_OF_DEVICES} is {hidden!r}", f"To use them: unset {_LIST_OF_DEVICES}")
    if not cuda:
        remedy = "Install tensorflow in place of tensorflow-cpu; the image is made by: install/build.py train --gpu"
        return note("GPU", "none: this TensorFlow was built without CUDA", remedy)
    remedy = "Install CUDA's libraries: pip install 'tensorflow[and-cuda]'. If they are there, the driver is too old."
    return note("GPU", f"none, though there is a driver: {driver}. TensorFlow needs CUDA {cuda}", remedy)


def _gpus_unasked() -> Finding:
    if _DRIVER.exists():
        return note("GPU", "a driver of NVIDIA is loaded; TensorFlow did not answer in time", "Run this again.")
    return note("GPU", "none: no driver of NVIDIA is loaded", "Nothing to do where there is no GPU.")


def _ask(seconds: float) -> dict[str, Any]:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", _QUESTION]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        env=environment,
        check=False,
    )
    said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    last = said[-1] if said else f"its process ended with code {done.returncode}"
    return json.loads(last) if done.returncode == 0 else {"error": last}


def _installed(*names: str) -> str:
    """Return the version of the first of the distributions that is installed."""
    for name in names[:-1]:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return importlib.metadata.version(names[-1])
