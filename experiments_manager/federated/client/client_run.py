"""The run folder of a client on its own machine: `<working_dir>/<run of the server>/clients/<procID>/`."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from experiments_manager.events import EpochReport, RunEnd
from experiments_manager.monitoring.metrics_csv import MetricsCsv, read_rows
from experiments_manager.runs import Run, create_run, find_run, lock
from experiments_manager.runs.naming import check_run_name
from experiments_manager.settings import Settings

KIND, CLIENTS = "client", "clients"


class ClientRun:
    """Writes what became of the rounds of a client; from `client_run`."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._csv = MetricsCsv(run.metrics_csv)
        self._round, self._steps, self._began = 0, 0, time.monotonic()
        self._logs: dict[str, float] = {}

    def trained(self, round: int, steps: int, logs: Mapping[str, float]) -> None:  # noqa: A002
        """Write the row of a round; those of it and later ones that are there are void."""
        self._round, self._steps, self._logs = round, self._steps_before(round) + steps, dict(logs)
        self._write()

    def evaluated(self, round: int, logs: Mapping[str, float]) -> None:  # noqa: A002
        """Add to the row of a round what the client found of the new global model."""
        if round != self._round:
            self._round, self._steps, self._logs = round, self._steps_before(round), {}
        self._logs |= {f"val_{name}": value for name, value in logs.items()}
        self._write()

    def close(self, state: str, error: BaseException | None = None) -> None:
        """Write to the client's run.json how the federation ended for it."""
        self._csv.on_end(RunEnd(state, self._round, 0.0, None, self._logs, None))
        told = {"error": {"type": type(error).__name__, "text": str(error), "place": None}} if error else {}
        self.run.finish(state, **told)

    def _write(self) -> None:
        now = time.monotonic()
        report = EpochReport(self._round, self._steps, dict(self._logs), math.nan, now - self._began, improved=False)
        self._began = now
        self._csv.on_epoch(report)
        self.run.update(epochs=self._round, global_step=self._steps, metrics=self._logs)

    def _steps_before(self, round: int) -> int:  # noqa: A002
        _, rows = read_rows(self.run.metrics_csv)
        return max((int(row["step"]) for row in rows if int(row["epoch"]) < round), default=0)


@contextlib.contextmanager
def client_run(
    settings: Settings, number: int, federation: str, working_dir: Path | str | None, command: Sequence[str]
) -> Iterator[ClientRun]:
    """Make the run folder of a client, or find it again, and hold it.

    Args:
        settings: Those of the client, loaded without its number.
        number: Of the client.
        federation: Name of the server's run folder.
        working_dir: Where it is made; `settings.working_dir` by default.
        command: The command line.

    Raises:
        RunError: It cannot be written, or another process works on it.
    """
    check_run_name(federation)
    parent = Path(working_dir or settings.working_dir).expanduser().absolute() / federation / CLIENTS
    hparams: Mapping[str, object] = {**settings.hparams, "procID": number}
    name = str(number) if number >= 0 else f"procID={number}"  # a folder must not begin with "-"
    run = find_run(parent, name) or create_run(parent, settings.session_name, hparams, run_name=name)
    with lock(run):
        if run.is_started:
            run.mark_resumed()
        else:
            run.start(
                settings_file=settings.file,
                model_file=settings.model_file,
                command=command,
                overrides={**settings.overrides, "hparams.procID": number},
                hparams=hparams,
                settings=settings.values(),
                seed=settings.random_seed,
                federation={"kind": KIND, "proc_id": number, "of": federation},
            )
        try:
            yield ClientRun(run)
        except BaseException as error:
            run.finish("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
            raise
