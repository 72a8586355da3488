"""Clients of a deployed federation in processes of their own, which need no TensorFlow.

Run as a program it is such a client: it adds its number to each array.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from experiments_manager.common.machine.processes import processes_with

ROOT = Path(__file__).parents[2]
TIMEOUT = 60


class DeployedClient:
    """A client that takes part; `home` is where its SuperNode writes to."""

    def __init__(self, folder, port, ca_certificate, private_key, proc_id, refused_patience=75.0):
        self.home, self.log = folder / f"client{proc_id}", folder / f"client{proc_id}.log"
        told = {"port": port, "ca": ca_certificate, "key": private_key, "proc_id": proc_id, "home": self.home}
        told["refused_patience"] = refused_patience
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, __file__, json.dumps(told, default=str)],
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                cwd=folder,
            )

    def supernode(self):
        """Gives the number of the process of its SuperNode; None while there is none."""
        for process in processes_with("FLWR_HOME", str(self.home)):
            with contextlib.suppress(psutil.Error):
                if "flower_supernode" in " ".join(process.cmdline()):
                    return process.pid
        return None

    def processes(self):
        """Gives the numbers of all processes that Flower runs for it."""
        return [process.pid for process in processes_with("FLWR_HOME", str(self.home))]

    def kill_supernode(self):
        """Kills its SuperNode, and nothing else."""
        self.killed = self.supernode()
        os.kill(self.killed, signal.SIGKILL)

    def has_supernode_again(self):
        """Whether another SuperNode runs than the one that was killed."""
        return self.supernode() not in (None, self.killed)

    def end(self):
        """Ends it, if it has not, and gives its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def run_round(grid, weights, number, **config):
    """Lets all clients train, and gives their replies."""
    from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

    content = {"arrays": ArrayRecord({"w": Array(weights)}), "config": ConfigRecord({"server-round": number, **config})}
    messages = [Message(RecordDict(content), node, "train", group_id=str(number)) for node in grid.get_node_ids()]
    replies = grid.send_and_receive(messages, timeout=TIMEOUT)
    return sorted(replies, key=lambda reply: reply.content["client"]["proc-id"])


def add_number(proc_id, kind, content):
    """Answers a message: adds the number of the client to each array."""
    from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

    arrays = {name: Array(array.numpy() + proc_id) for name, array in content["arrays"].items()}
    told = {
        "arrays": ArrayRecord(arrays),
        "metrics": MetricRecord({"num-examples": float(proc_id)}),
        "client": ConfigRecord({"proc-id": proc_id, "pid": os.getpid(), "kind": kind}),
    }
    return RecordDict(told)


def main():
    """Is a client until the federation is over, or it is told to end."""
    from experiments_manager.common.errors import UserError
    from experiments_manager.federated.deployment.client import ServerEndpoint, run_client

    told, stopped = json.loads(sys.argv[1]), []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    try:
        run_client(
            lambda kind, content: add_number(told["proc_id"], kind, content),
            ServerEndpoint(f"127.0.0.1:{told['port']}", told["ca"], told["key"], insecure=not told["ca"]),
            told["proc_id"],
            home=Path(told["home"]),
            refused_patience=told["refused_patience"],
            stopping=lambda: bool(stopped),
        )
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
