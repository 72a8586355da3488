"""What a round has for `metrics.csv` and all others who watch a run: an epoch's report, whose epoch is the round."""

from __future__ import annotations

import math

from experiments_manager.events import EpochReport
from experiments_manager.federated.server.federation_state import RoundReport

CLIENTS_PREFIX = "clients/"


def epoch_report(report: RoundReport) -> EpochReport:
    """Return a round as the report of an epoch.

    Values of the clients' training have their own names, those of the server's evaluation the prefix `val_`, those of
    the clients' evaluation the prefix `clients/`. What depends on the clock stands outside of `logs`: a federation
    that was killed and resumed writes the same `metrics.csv` as one that was not.

    Args:
        report: A round that counts.

    Returns:
        Its report: the step is the round, too; the learning rate is the clients' mean, NaN where they do not tell
        theirs.
    """
    train = dict(report.train)
    learning_rate = train.pop("learning_rate", math.nan)
    logs = {
        **train,
        **{f"val_{name}": value for name, value in report.server.items()},
        **{f"{CLIENTS_PREFIX}{name}": value for name, value in report.clients.items()},
        "participants": float(len(report.participants)),
        "left_out": float(len({entry.node_id for entry in report.left_out})),
        "bytes_sent": float(report.bytes_sent),
        "bytes_received": float(report.bytes_received),
    }
    return EpochReport(
        epoch=report.round,
        global_step=report.round,
        logs=logs,
        learning_rate=learning_rate,
        seconds=report.seconds,
        improved=report.improved,
        measures={"round_seconds": report.seconds},
    )
