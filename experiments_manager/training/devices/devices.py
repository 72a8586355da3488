"""Which devices a run uses, and how numbers are computed on them; all by TensorFlow's and Keras' own switches."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import signal
import threading
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from experiments_manager.settings import Settings
from experiments_manager.training.devices.job_gpus import gpus_of_job, in_job_with_gpus
from experiments_manager.training.hook_calls import hook_error
from experiments_manager.training.hosts.cluster import STRATEGY, HostCluster

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices of a run.

    Attributes:
        names: For the manifest, e.g. `("GPU:0", "GPU:1")` or `("CPU",)`.
        strategy: How replicas share the work, or `None` on one device.
    """

    names: tuple[str, ...]
    strategy: tf.distribute.Strategy | None

    @property
    def replicas(self) -> int:
        """How many copies of the model train together."""
        return self.strategy.num_replicas_in_sync if self.strategy else 1


@contextlib.contextmanager
def prepared_devices(settings: Settings, cluster: HostCluster | None = None) -> Iterator[Devices]:
    """Choose devices, memory growth, precision and determinism; inside, models are made for these.

    Args:
        settings: Checked settings.
        cluster: The processes that train together; `None` for this one alone.

    Raises:
        SettingsError: If a GPU is asked for that is not there, except as a wish, on a machine without any, where
            the CPU does; or if the batch cannot be shared among the devices.
    """
    gpus = _visible_gpus(settings)
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()
    strategy = _strategy(settings, gpus) if cluster is None else _strategy_of_hosts(settings, gpus, cluster)
    names = tuple(device.name.replace("/physical_device:", "") for device in gpus) or ("CPU",)
    if cluster is not None:
        names = tuple(f"{address} {names[0]}" for address in cluster.addresses)
    elif strategy is not None and not gpus:
        names = tuple(device.name.removeprefix("/device:") for device in tf.config.list_logical_devices("CPU"))
    policy = keras.config.dtype_policy()
    # Names of layers are counted from the start, so that inputs are called the same in each run. Before all else,
    # since Keras forgets the precision, too, and the strategy whose scope is open.
    keras.utils.clear_session()
    keras.config.set_dtype_policy(f"mixed_{settings.mixed_precision}" if settings.mixed_precision else policy)
    try:
        with contextlib.ExitStack() as stack:
            if strategy is not None:
                stack.enter_context(strategy.scope())
            elif settings.gpus == [] and tf.config.list_logical_devices("GPU"):
                stack.enter_context(tf.device("CPU:0"))  # TensorFlow was started with a GPU before
            yield Devices(names, strategy)
    finally:
        keras.config.set_dtype_policy(policy)


def _visible_gpus(settings: Settings) -> list[Any]:
    wanted, present = settings.gpus, gpus_of_job(tf.config.list_physical_devices("GPU"), wanted=settings.gpus != [])
    by_default = present if in_job_with_gpus() and settings.strategy in (None, "MirroredStrategy") else present[:1]
    chosen = by_default if wanted is None else [gpu for number, gpu in enumerate(present) if number in wanted]
    if wanted and len(chosen) < len(set(wanted)):
        refusal = hook_error(settings, "gpus", _missing_gpus(wanted, len(present)))
        if present or not settings.dialect.gpus_are_wishes or "gpus" in settings.overrides:
            raise refusal
        logger.warning("%s The CPU is used.", refusal)  # such files say which GPUs to take where there are any
    try:
        tf.config.set_visible_devices(chosen, "GPU")
        for gpu in chosen:
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError as error:  # TensorFlow runs already, for instance in a notebook
        logger.info("the GPUs cannot be chosen any more in this process: %s", error)
    return chosen


def _missing_gpus(wanted: list[int], present: int) -> str:
    remedy = f"got {wanted}. Change it, or remove the line."
    if not present:
        return (
            "this machine has no GPU that TensorFlow can use. "
            f"Expected `[]` for the CPU, or None for whatever is there, {remedy}"
        )
    missing = ", ".join(str(number) for number in sorted(set(wanted)) if number >= present)
    expected = "`[0]`" if present == 1 else f"indices of its {present} GPUs, 0 to {present - 1}"
    return f"this machine has no GPU {missing}. Expected {expected}, {remedy}"


def _strategy(settings: Settings, gpus: list[Any]) -> tf.distribute.Strategy | None:
    if settings.strategy == STRATEGY:
        return None
    if len(gpus) > 1:
        devices = [f"/GPU:{number}" for number in range(len(gpus))]
    elif settings.strategy and not gpus and len(tf.config.list_logical_devices("CPU")) > 1:
        devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    else:
        return None
    _require_divisible(settings, len(devices), "devices")
    return tf.distribute.MirroredStrategy(devices)


def _strategy_of_hosts(settings: Settings, gpus: list[Any], cluster: HostCluster) -> tf.distribute.Strategy:
    """Return the strategy of one device a process; it waits until TensorFlow runs in all of them."""
    if len(gpus) > 1:
        text = (
            f"each process of {STRATEGY} trains on one device. Expected one index, got {settings.gpus}. "
            "Start one process for each GPU, e.g. by `srun --gpus-per-task=1`."
        )
        raise hook_error(settings, "gpus", text)
    if settings.jit_compile is True and not gpus:
        text = (
            f"XLA compiles no step of {STRATEGY} on a CPU, where it has no collective operations. Expected False, got "
            "True. Remove the line."
        )
        raise hook_error(settings, "jit_compile", text)
    _require_divisible(settings, len(cluster.addresses), "processes")
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.addresses)}), task_type="worker", task_id=cluster.index
    )
    strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    _take_back_sigterm()
    return strategy


def _take_back_sigterm() -> None:
    """Let Python handle SIGTERM again, which TensorFlow's cluster takes for a preemption that it need not act on."""
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _require_divisible(settings: Settings, parts: int, what: str) -> None:
    if settings.batch_size % parts:
        text = (
            f"the batch size is not divisible by {parts} {what}. "
            f"Expected a multiple of {parts}, got {settings.batch_size}. Set it to such a number."
        )
        raise hook_error(settings, "batch_size", text)
