"""`clients.csv`: one row a round and client, for spreadsheets and the report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from experiments_manager.events import RunEnd
from experiments_manager.federated.watching.round_watcher import RoundWatcher
from experiments_manager.monitoring.growing_csv import GrowingCsv

if TYPE_CHECKING:
    from experiments_manager.federated.server.federation_state import RoundReport
    from experiments_manager.federated.strategies.server_strategy import ServerStrategy

FILE, KEY = "clients.csv", "round"


class ClientsCsv(RoundWatcher):
    """Writes round, client, whether it took part, why not, and its metrics; those of its evaluation begin with `val_`.

    Like `metrics.csv`, the file holds nothing that depends on the clock, and a full disk loses no row.

    Args:
        path: The file.
    """

    def __init__(self, path: Path | str) -> None:
        self.table = GrowingCsv(path, KEY)

    def on_begin(self, first_round: int) -> None:
        """Drop the rows of rounds that come again."""
        self.table.begin(first_round)

    def on_round(self, report: RoundReport, strategy: ServerStrategy) -> None:
        """Append the rows of a round."""
        self.table.append(client_rows(report))

    def on_end(self, end: RunEnd) -> None:
        """Write what is left and close the file."""
        self.table.close()


def client_rows(report: RoundReport) -> list[dict[str, str]]:
    """Return a row for each client that was asked in a round, by their numbers; one who never told it is the last."""
    reasons: dict[tuple[int | None, int], str] = {}
    for entry in report.left_out:
        reasons.setdefault((entry.proc_id, entry.node_id), entry.reason)
    faultless = {*report.train_by_client, *report.clients_by_client} - {proc_id for proc_id, _ in reasons}
    left_out = sorted(reasons.items(), key=lambda item: (item[0][0] is None, item[0][0] or 0, item[0][1]))
    rows = [_row(report, proc_id, why) for (proc_id, _), why in left_out]
    rows += [_row(report, proc_id, "") for proc_id in faultless]
    return sorted(rows, key=lambda row: int(row["client"] or 2**63))


def _row(report: RoundReport, proc_id: int | None, why: str) -> dict[str, str]:
    train, evaluation = report.train_by_client.get(proc_id, {}), report.clients_by_client.get(proc_id, {})
    return {
        KEY: str(report.round),
        "client": "" if proc_id is None else str(proc_id),
        "took_part": str(int(proc_id in report.participants)),
        "left_out": " ".join(why.split()),
        **{name: repr(float(value)) for name, value in train.items()},
        **{f"val_{name}": repr(float(value)) for name, value in evaluation.items()},
    }
