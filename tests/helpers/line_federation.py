"""A simulated federation in a process of its own: `python -m tests.helpers.line_federation FOLDER ROUNDS`."""

import sys
import time
from pathlib import Path

from flwr.serverapp.strategy import FedAdam

from experiments_manager.events import RunStart
from experiments_manager.federated.server.clients_csv import ClientsCsv
from experiments_manager.federated.server.federation_metrics import epoch_report
from experiments_manager.federated.server.rounds.plan import RoundHooks, RoundPlan
from experiments_manager.federated.server.simulation import simulate
from experiments_manager.federated.server.state_files import states
from experiments_manager.monitoring.metrics_csv import MetricsCsv
from tests.helpers.line_clients import first_arrays, line_client


def federate(folder, rounds, workers=2, seconds=0.0):
    """Trains, or goes on where a process that was killed left off, and gives the last state."""

    def slowly(number, result):
        time.sleep(seconds)
        return result

    checkpoints = folder / "checkpoints"
    newest = next(iter(states(checkpoints)), None)
    first = int(newest.name.removeprefix("round_")) + 1 if newest else 1
    metrics, clients = MetricsCsv(folder / "metrics.csv"), ClientsCsv(folder / "clients.csv", first)
    metrics.on_start(RunStart(folder, "lines", {}, rounds, first, None, 3, (), "loss"))

    def on_round(report, state):
        metrics.on_epoch(epoch_report(report))
        clients.write(report)

    try:
        return simulate(
            lambda proc_id: line_client(proc_id, slowly),
            6,
            strategy=FedAdam(eta=0.05, beta_1=0.9, beta_2=0.99, fraction_train=0.5),
            arrays=first_arrays(),
            plan=RoundPlan(rounds, seed=3, min_clients=2),
            workers=workers,
            checkpoints=checkpoints,
            hooks=RoundHooks(on_round=on_round),
        )
    finally:
        metrics._close()


if __name__ == "__main__":
    print("begins", flush=True)
    federate(Path(sys.argv[1]), int(sys.argv[2]), seconds=0.004)
    print("ended", flush=True)
