"""What one can do with federations, for notebooks, scripts and the command line; `api` offers these functions.

Nothing here imports TensorFlow or Flower before there is something to train.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from experiments_manager.common.signals import stop_signals
from experiments_manager.federated.deployment.client import ServerEndpoint, run_client
from experiments_manager.federated.deployment.server import Deployment
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.fleet import Simulation
from experiments_manager.federated.flower import flower
from experiments_manager.monitoring.watcher_maker import watcher_maker
from experiments_manager.runs import Run
from experiments_manager.runs.naming import require_run_name
from experiments_manager.settings import Settings, load_settings
from experiments_manager.settings.overrides import HPARAMS

if TYPE_CHECKING:
    from experiments_manager.events import Watcher
    from experiments_manager.training.engine.outcome import RunResult

logger = logging.getLogger(__name__)

Overrides = Mapping[str, Any] | Sequence[str]
DEFAULT_ROUNDS = 20


def federation_settings(
    settings: Path | str,
    *,
    clients: int | None = None,
    rounds: int | None = None,
    overrides: Overrides = (),
    federated: Mapping[str, Any] = {},
) -> Settings:
    """Load a settings module for a federation, whose rounds are the epochs of its global model.

    Args:
        settings: The settings module's file.
        clients: Number of clients, instead of `federated["clients"]`.
        rounds: Number of rounds, instead of `federated["rounds"]`.
        overrides: Settings to change, as for `load_settings`.
        federated: Further keys of `federated` to change.

    Raises:
        SettingsError: The settings module cannot be used.
    """
    loaded = load_settings(settings, overrides)
    given = {**federated, "clients": clients, "rounds": rounds}
    merged = {**loaded.federated, **{name: value for name, value in given.items() if value is not None}}
    rounds = merged.get("rounds", DEFAULT_ROUNDS)
    epochs = rounds if isinstance(rounds, int) and rounds > 0 else 1  # what is wrong with it is said with all the rest
    return load_settings(settings, {**loaded.overrides, "epochs": epochs, "federated": merged})


def simulate_federation(
    settings: Settings,
    *,
    engine: Literal["process", "ray"] = "process",
    workers: int | None = None,
    working_dir: Path | str | None = None,
    run_name: str | None = None,
    resume: Literal["never", "auto"] = "never",
    watchers: Sequence[Watcher] = (),
    quiet: bool = False,
    command: Sequence[str] = (),
    on_run: Callable[[Run], None] | None = None,
) -> RunResult:
    """Train a federation whose clients are simulated; `resume` goes on with it as with any run.

    Args:
        settings: From `federation_settings`.
        engine: Where clients are: in this process, or in processes that Ray starts.
        workers: How many clients train at a time; by default one for each processor. Results do not depend on it.
        working_dir: As for `train`.
        run_name: As for `train`.
        resume: As for `train`.
        watchers: As for `train`.
        quiet: As for `train`.
        command: As for `train`.
        on_run: As for `train`.

    Raises:
        FederationError: The setting `federated` is wrong, or a round failed.
        SettingsError, UserCodeError, TrainingError, RunError: As for `train`.
    """
    clients = Simulation(engine, workers)
    return _train(settings, clients, working_dir, run_name, resume, watchers, quiet, command, on_run)


def deploy_federation(
    settings: Settings,
    deployment: Deployment,
    *,
    working_dir: Path | str | None = None,
    run_name: str | None = None,
    resume: Literal["never", "auto"] = "never",
    watchers: Sequence[Watcher] = (),
    quiet: bool = False,
    command: Sequence[str] = (),
    on_run: Callable[[Run], None] | None = None,
) -> RunResult:
    """Train a federation as its server, to which clients of other machines connect; `resume` goes on with it.

    Args:
        settings: From `federation_settings`.
        deployment: Where to listen, and for whom; from `Deployment.make`.
        working_dir: As for `train`.
        run_name: As for `train`.
        resume: As for `train`.
        watchers: As for `train`.
        quiet: As for `train`.
        command: As for `train`.
        on_run: As for `train`.

    Raises:
        FederationError: The setting `federated` or the deployment is wrong, or a round failed.
        SettingsError, UserCodeError, TrainingError, RunError: As for `train`.
    """
    settings = _with_clients(settings, deployment)
    return _train(settings, deployment, working_dir, run_name, resume, watchers, quiet, command, on_run)


def _train(
    settings: Settings,
    clients: Simulation | Deployment,
    working_dir: Path | str | None,
    run_name: str | None,
    resume: Literal["never", "auto"],
    watchers: Sequence[Watcher],
    quiet: bool,
    command: Sequence[str],
    on_run: Callable[[Run], None] | None,
) -> RunResult:
    require_run_name(resume, run_name)
    make_watchers = watcher_maker(watchers, quiet, on_run)
    with stop_signals() as stop:
        with stop.interruptible():
            from experiments_manager.federated.run import for_new_run
            from experiments_manager.training.engine import runner
            from experiments_manager.training.engine.context import RunOptions

        options = RunOptions(make_watchers, should_stop=stop, interruptible=stop.interruptible)
        options = for_new_run(settings, clients, options)
        if resume == "auto":
            return runner.start_or_resume(settings, run_name, options, working_dir=working_dir, command=command)
        return runner.start_run(settings, options, working_dir=working_dir, run_name=run_name, command=command)


def _with_clients(settings: Settings, deployment: Deployment) -> Settings:
    """Return settings that say how many clients there are: as many as keys, or as a round needs."""
    if "clients" in settings.federated:
        return settings
    clients = len(deployment.public_keys or ()) or settings.federated.get("min_clients", 2)
    federated = {**settings.federated, "clients": clients}
    return load_settings(settings.file, {**settings.overrides, "federated": federated}, start_dir=settings.start_dir)


def join_federation(
    settings: Settings | Path | str,
    proc_id: int,
    membership: ServerEndpoint,
    *,
    overrides: Overrides = (),
    partitions: int | None = None,
    working_dir: Path | str | None = None,
    command: Sequence[str] = (),
    tell: Callable[[str], None] = logger.info,
) -> Literal["finished", "interrupted"]:
    """Take part in a federation as one of its clients until it is over, or until this process is asked to stop.

    Args:
        settings: The settings module's file, or what `load_settings` gave: the same as the server's.
        proc_id: The client's number, from 0, which chooses its data; where the dialect of the file says so any integer.
        membership: How the server is reached.
        overrides: Settings to change, as for `load_settings`: the same as the server's; only together with a file.
        partitions: Number of clients; by default as the server says.
        working_dir: Where the folders of runs are; `settings.working_dir` by default.
        command: The command line, for `run.json`.
        tell: Called with each sentence that a person may want to read.

    Raises:
        FederationError: The server is not trusted, or does not know this client's key.
        SettingsError: The settings cannot be used.
    """
    membership.check()
    with stop_signals() as stop:
        with stop.interruptible():
            if not isinstance(settings, Settings):
                settings = load_settings(settings, overrides)
            if proc_id < 0 and not settings.dialect.any_client_number:
                text = f"Expected 0 or more, got {proc_id}. Give --proc-id K."
                raise FederationError(f"The number of a client is wrong. {text}")
            flower()
            from experiments_manager.federated.client.joined_client import ClientOptions, JoinedClient

        client = JoinedClient(settings, ClientOptions(proc_id, partitions, working_dir, command, tell))

        def handle(kind: str, content: Any) -> Any:
            with stop.interruptible():
                return client.answer(kind, content)

        home = Path(working_dir or settings.working_dir).expanduser().absolute() / ".federation" / f"client-{proc_id}"
        try:
            # The home is a hidden folder, found again by a client that is started after a kill.
            run_client(handle, membership, proc_id, home=home, stopping=stop)
        except KeyboardInterrupt:
            client.close("interrupted")
            return "interrupted"
        except BaseException as error:
            client.close("failed", error)
            raise
        state = "interrupted" if stop() else "finished"
        client.close(state)
        return state


def join_as_before(
    settings: Settings,
    *,
    working_dir: Path | str | None = None,
    command: Sequence[str] = (),
    tell: Callable[[str], None] = logger.info,
) -> Literal["finished", "interrupted"]:
    """Take part as settings say: `enable_federated_learning`, and a server's address.

    Args:
        settings: Their `hparams["procID"]` is the client's number.
        working_dir: As for `join_federation`.
        command: As for `join_federation`.
        tell: As for `join_federation`.

    Raises:
        FederationError: There is no number, or the server is on another machine, for which a certificate is needed.
    """
    number, address = settings.hparams.get("procID"), settings.federated_learning_server_address
    if isinstance(number, bool) or not isinstance(number, int):
        raise FederationError(
            f"enable_federated_learning: a client needs a number. Expected an integer, got {number!r}. Give --procID K."
        )
    endpoint = ServerEndpoint(address, insecure=True)
    server = endpoint.address
    if not server.is_loopback:
        raise FederationError(
            f"federated_learning_server_address: {server} is another machine, and the connection would be open to "
            "everybody on the network. Expected a certificate for it. Join by: experiments_manager federate client "
            f"{settings.file} --proc-id {number} --server {server} --ca-certificate FILE --private-key FILE"
        )
    values = {name: value for name, value in settings.overrides.items() if not name.startswith(HPARAMS)}
    entries = {name.removeprefix(HPARAMS): value for name, value in settings.overrides.items() if name not in values}
    entries.pop("procID", None)  # the server has none, and both must say the same
    plain = load_settings(settings.file, values, hparams=entries, start_dir=settings.start_dir)
    return join_federation(plain, number, endpoint, working_dir=working_dir, command=command, tell=tell)


def refuse_client(settings: Settings) -> None:
    """Refuse to train alone where the settings ask to join a federation.

    Raises:
        FederationError: They do.
    """
    if settings.enable_federated_learning:
        raise FederationError(
            f"{settings.location('enable_federated_learning')}: enable_federated_learning: this file joins a "
            "federation. Expected False to train alone. Add --set enable_federated_learning=False, or join by "
            "`experiments_manager federate client`."
        )
