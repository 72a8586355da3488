"""Which processes take part in a training, told by `TF_CONFIG` or by the variables of a SLURM step."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping

from experiments_manager.training.errors import TrainingError

STRATEGY = "MultiWorkerMirroredStrategy"
FIRST_PORT, PORTS = 20000, 10000
"""Ports that the processes of a SLURM job listen on; its number tells which."""


@dataclasses.dataclass(frozen=True)
class HostCluster:
    """The processes of a training, the same list in each of them.

    Attributes:
        addresses: `host:port` of each; the first is the chief, which alone writes.
        index: Which of them this process is.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes."""
        return self.index == 0


def node_address(node: str) -> str:
    """Return the address of a SLURM node: its name, unless only SLURM knows where that is."""
    try:
        socket.getaddrinfo(node, None)
    except OSError:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            told = subprocess.run(["scontrol", "show", "node", node], capture_output=True, text=True, timeout=60)
            if found := re.search(r"NodeAddr=(\S+)", told.stdout):
                return found[1]
    return node


def read_cluster(environment: Mapping[str, str], address_of: Callable[[str], str] = node_address) -> HostCluster | None:
    """Return the processes that train together; `None` where this one is alone.

    Args:
        environment: Where `TF_CONFIG`, or SLURM's variables where there is none, are looked for.
        address_of: Gives the address of a node of SLURM's by its name.

    Raises:
        TrainingError: They are there, and make no sense.
    """
    text = environment.get("TF_CONFIG", "").strip()
    cluster = _from_tf_config(text) if text else _from_slurm(environment, address_of)
    return cluster if cluster is not None and len(cluster.addresses) > 1 else None


def _from_tf_config(text: str) -> HostCluster:
    try:
        config = json.loads(text)
        workers = {job: list(addresses) for job, addresses in config["cluster"].items()}
        kind, index = config["task"]["type"], int(config["task"]["index"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _no_config(f"it cannot be read ({type(error).__name__}: {error})", text) from error
    if further := sorted(set(workers) - {"chief", "worker"}):
        raise _no_config(f"it has the job {further[0]!r}, which this strategy does not know", text)
    chief = workers.get("chief", [])
    addresses = [*chief, *workers.get("worker", [])]
    number = index + (len(chief) if kind == "worker" else 0)
    if kind not in workers or not 0 <= index < len(workers[kind]):
        raise _no_config(f"it has no task {index} of job {kind!r}", text)
    for address in addresses:
        host, _, port = str(address).rpartition(":")
        if not host or not port.isdecimal():
            raise _no_config(f"{address!r} is no address", text)
    return HostCluster(tuple(addresses), number)


def _no_config(problem: str, text: str) -> TrainingError:
    example = '{"cluster": {"worker": ["host1:5000", "host2:5000"]}, "task": {"type": "worker", "index": 0}}'
    return TrainingError(f"TF_CONFIG: {problem}. Expected e.g. {example}, got {text[:200]}. Correct the variable.")


def _from_slurm(environment: Mapping[str, str], address_of: Callable[[str], str]) -> HostCluster | None:
    """Return the tasks of this step, one a line of srun's output, in the order of their numbers."""
    names = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST")
    number, tasks = environment.get("SLURM_PROCID"), environment.get("SLURM_STEP_NUM_TASKS")
    if not names or not number or int(tasks or 1) < 2:
        return None
    nodes, counts = list(host_names(names)), environment.get("SLURM_STEP_TASKS_PER_NODE", "1")
    of_nodes = list(_counts(counts))
    if len(of_nodes) != len(nodes) or sum(of_nodes) != int(tasks):
        raise TrainingError(
            f"SLURM's variables do not fit together: {len(nodes)} nodes in {names!r}, {counts!r} tasks on them, "
            f"{tasks} in all. Start the processes by `srun`, or set TF_CONFIG."
        )
    job, step = environment.get("SLURM_JOB_ID", "0"), environment.get("SLURM_STEP_ID", "0")
    first = FIRST_PORT + (int(job) * 64 + int(step) * 16) % PORTS if (job + step).isdecimal() else FIRST_PORT
    placed = [(node, local) for node, count in zip(nodes, of_nodes, strict=True) for local in range(count)]
    if environment.get("SLURM_DISTRIBUTION", "block").startswith("cyclic"):
        placed.sort(key=lambda place: place[1])  # stable: the first of each node, then the second of each
    hosts = {node: address_of(node) for node in nodes}
    return HostCluster(tuple(f"{hosts[node]}:{first + task}" for task, (node, _) in enumerate(placed)), int(number))


def host_names(text: str) -> Iterator[str]:
    """Expand a list of SLURM's, e.g. `node[01-03,07],login1`."""
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        yield from _expanded(part)


def _expanded(part: str) -> Iterator[str]:
    match = re.fullmatch(r"([^\[]*)\[([^\]]*)\](.*)", part)
    if match is None:
        yield part
        return
    before, numbers, after = match.groups()
    for span in numbers.split(","):
        first, _, last = span.partition("-")
        for number in range(int(first), int(last or first) + 1):
            for rest in _expanded(after):
                yield f"{before}{number:0{len(first)}d}{rest}"


def _counts(text: str) -> Iterator[int]:
    """Expand a list of SLURM's counts, e.g. `2(x3),1`."""
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        yield from [int(count)] * int(times or 1)
