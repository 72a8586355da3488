"""`experiments_manager federate`."""

from __future__ import annotations

import enum
import functools
import sys
from pathlib import Path
from typing import Annotated

import typer

from experiments_manager.cli import options
from experiments_manager.common.console import warn

DEFAULT = "127.0.0.1:9092"
"""Where the server of a federation listens."""


class SimulationEngine(str, enum.Enum):
    """In which processes simulated clients train."""

    PROCESS = "process"
    RAY = "ray"


federate = typer.Typer(help="Train one model over the data of several clients.", no_args_is_help=True)


@federate.callback()
def several_commands() -> None:
    """Train one model over the data of several clients."""


@federate.command()
def simulate(
    settings: options.SettingsFile,
    clients: Annotated[int | None, typer.Option(metavar="N", help="Number of clients.")] = None,
    rounds: Annotated[int | None, typer.Option(metavar="R", help="Rounds of local training and aggregation.")] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="W", help="Clients that train at a time; results do not depend on it.")
    ] = None,
    engine: Annotated[
        SimulationEngine,
        typer.Option(help="Where clients are: in this process, or in processes that Ray starts."),
    ] = SimulationEngine.PROCESS,
    overrides: options.Overrides = [],  # noqa: B006  (typer copies it)
    working_dir: options.WorkingDir = None,
    run_name: options.RunName = None,
    resume: options.ResumeByName = options.Resume.NEVER,
    serve: options.Serve = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Train a federation whose clients are all simulated.

    Ctrl-C stops it within a round, and `resume` goes on with that round.
    """
    from experiments_manager import api
    from experiments_manager.cli.training_session import run_to_its_end, start_engine

    if not quiet:
        warn(f"Training a federation of {settings}")
    output = start_engine(json=json, debug=debug)
    loaded = api.federation_settings(settings, clients=clients, rounds=rounds, overrides=overrides)
    train_it = functools.partial(
        api.simulate_federation,
        loaded,
        engine=engine.value,
        workers=workers,
        working_dir=working_dir,
        run_name=run_name,
        resume=resume.value,
        command=["experiments_manager", *sys.argv[1:]],
    )
    run_to_its_end(train_it, output, quiet=quiet, serve=loaded if serve else None)


@federate.command(context_settings={"allow_extra_args": True})
def server(
    context: typer.Context,
    settings: options.SettingsFile,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="H:P", help="Where clients connect, 127.0.0.1:9092 by default; 0.0.0.0:P for all networks."
        ),
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificate of this server, in PEM.")
    ] = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="Private key of the certificate, in PEM.")] = None,
    public_keys: Annotated[
        list[Path],
        typer.Option(metavar="FILE…", help="Public keys of the clients that may join: files, or a folder of `*.pub`."),
    ] = [],  # noqa: B006  (typer copies it)
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Use neither TLS nor keys; on the loopback address alone.")
    ] = False,
    rounds: Annotated[int | None, typer.Option(metavar="R", help="Rounds of training and aggregation.")] = None,
    clients: Annotated[
        int | None, typer.Option(metavar="N", help="Number of clients; by default as many as public keys.")
    ] = None,
    min_clients: Annotated[int | None, typer.Option(metavar="N", help="Clients of a round.")] = None,
    strategy: Annotated[str | None, typer.Option(metavar="NAME", help="Strategy, such as FedAvg.")] = None,
    local_epochs: Annotated[int | None, typer.Option(metavar="E", help="Passes over a client's data a round.")] = None,
    overrides: options.Overrides = [],  # noqa: B006  (typer copies it)
    working_dir: options.WorkingDir = None,
    run_name: options.RunName = None,
    resume: options.ResumeByName = options.Resume.NEVER,
    serve: options.Serve = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Train a federation as its server.

    Clients on other machines join it by `federate client`. Ctrl-C stops it within a round, and `resume` goes on with
    that round; clients wait for that.
    """
    from experiments_manager import api
    from experiments_manager.cli.federation_session import key_files
    from experiments_manager.cli.training_session import run_to_its_end, start_engine
    from experiments_manager.federated.deployment.server import Deployment

    keys = key_files(public_keys, context.args)
    if not quiet:
        warn(f"Training a federation of {settings}")
    output = start_engine(json=json, debug=debug)
    federated = {"min_clients": min_clients, "strategy": strategy, "local_epochs": local_epochs}
    loaded = api.federation_settings(settings, clients=clients, rounds=rounds, overrides=overrides, federated=federated)
    address = address or (loaded.federated_learning_server_address if loaded.enable_federated_learning else DEFAULT)
    deployment = Deployment.make(address, certificate=certificate, key=key, public_keys=keys, insecure=insecure)
    train_it = functools.partial(
        api.deploy_federation,
        loaded,
        deployment,
        working_dir=working_dir,
        run_name=run_name,
        resume=resume.value,
        command=["experiments_manager", *sys.argv[1:]],
    )
    run_to_its_end(train_it, output, quiet=quiet, serve=loaded if serve else None)


@federate.command()
def client(
    settings: options.SettingsFile,
    proc_id: Annotated[int, typer.Option(metavar="K", help="Number of this client, from 0: it chooses the data.")],
    server: Annotated[str, typer.Option(metavar="H:P", help="Where the server listens.")],
    ca_certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificate of the authority that signed the server's.")
    ] = None,
    private_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Private key of this client.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Use neither TLS nor keys; to the loopback address alone.")
    ] = False,
    partitions: Annotated[
        int | None, typer.Option(metavar="N", help="Number of clients; by default as the server says.")
    ] = None,
    overrides: options.Overrides = [],  # noqa: B006  (typer copies it)
    working_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Make the run folder below here instead of in working_dir.")
    ] = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Take part in a federation with the data of this machine.

    Give the same settings file and the same --set as on the server. Ctrl-C leaves; the same command joins again.
    """
    from experiments_manager import api
    from experiments_manager.cli.federation_session import join
    from experiments_manager.cli.training_session import start_engine
    from experiments_manager.federated.deployment.client import ServerEndpoint

    start_engine(debug=debug)
    loaded = api.load_settings(settings, overrides)
    membership = ServerEndpoint(server, ca_certificate, private_key, insecure)
    join(loaded, proc_id, membership, partitions=partitions, working_dir=working_dir, quiet=quiet)
