"""`clients.csv`: one row a round and client, for spreadsheets and the report."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from experiments_manager.common.atomic import write_text
from experiments_manager.federated.server.federation_state import RoundReport

_FIXED = ("round", "client", "took_part", "left_out")
Row = Mapping[str, str]


class ClientsCsv:
    """Writes round, client, whether it took part, why not, and its metrics; those of its evaluation begin with `val_`.

    A metric that comes up later gets a new last column. Like `metrics.csv`, the file holds nothing that depends on the
    clock.

    Args:
        path: The file.
        first_round: The first round that will be written; rows of this one and later ones are dropped.

    Raises:
        OSError: From any method, where the file cannot be written; its content is what it was then.
    """

    def __init__(self, path: Path | str, first_round: int = 1) -> None:
        self.path = Path(path)
        kept = [row for row in read_rows(self.path) if int(row["round"]) < first_round]
        self._columns = list(dict.fromkeys([*_FIXED, *(name for row in kept for name in row)]))
        if kept or self.path.exists():
            self._rewrite(kept)

    def write(self, report: RoundReport) -> None:
        """Append the rows of a round."""
        rows = client_rows(report)
        new = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in self._columns]
        if new or not self.path.exists():
            before = read_rows(self.path)
            self._columns += new
            self._rewrite([*before, *rows])
            return
        with self.path.open("a", encoding="utf-8", newline="") as stream:
            stream.write(_lines(self._columns, rows))

    def _rewrite(self, rows: Iterable[Row]) -> None:
        write_text(self.path, ",".join(self._columns) + "\n" + _lines(self._columns, rows))


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
        "round": str(report.round),
        "client": "" if proc_id is None else str(proc_id),
        "took_part": str(int(proc_id in report.participants)),
        "left_out": " ".join(why.split()),
        **{name: repr(float(value)) for name, value in train.items()},
        **{f"val_{name}": repr(float(value)) for name, value in evaluation.items()},
    }


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read all whole rows, without their empty cells; a row that was cut off ends the table."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    try:
        columns, *records = [*csv.reader(io.StringIO(text[: text.rfind("\n") + 1]))] or [[]]
    except csv.Error:  # bytes that no row holds
        return []
    rows = []
    for cells in records:
        if columns[:1] != ["round"] or len(cells) != len(columns) or not cells[0].isdecimal():
            break
        rows.append({name: cell for name, cell in zip(columns, cells, strict=True) if cell})
    return rows


def _lines(columns: list[str], rows: Iterable[Row]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, columns, restval="", lineterminator="\n").writerows(rows)
    return text.getvalue()
