"""A small federation as Flower's own tutorials write it, run by Flower alone: by its simulation, and as a deployment.

Used by `federated.py`. The app trains the regression example with `keras.Model.fit`, and builds the model anew for each
message, as an app must whose processes end with the message.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

APP = """
import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

from flwr.app import Array, ArrayRecord, MetricRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

FILE, ROUNDS, DONE = {file!r}, {rounds}, {done!r}
client = ClientApp()
server = ServerApp()


def built():
    import keras

    from experiments_manager.settings import load_settings

    settings = load_settings(FILE)
    model = settings.call("model")
    model.compile(keras.optimizers.Adam(settings.learning_rate), settings.loss)
    return settings, model


def record(model):
    return ArrayRecord({{str(number): Array(value) for number, value in enumerate(model.get_weights())}})


@client.train()
def train(message, context):
    settings, model = built()
    model.set_weights([array.numpy() for array in message.content["arrays"].values()])
    x, y = settings.call("dataset", split="train")
    model.fit(x, y, epochs=1, batch_size=settings.batch_size, verbose=0)
    metrics = MetricRecord({{"num-examples": len(x)}})
    return Message(RecordDict({{"arrays": record(model), "metrics": metrics}}), reply_to=message)


@server.main()
def main(grid, context):
    _, model = built()
    FedAvg(fraction_evaluate=0.0).start(grid=grid, initial_arrays=record(model), num_rounds=ROUNDS)
    open(DONE, "w").close()
"""
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "bench"
version = "1.0.0"
description = "A small federation."
license = "MIT"
dependencies = []

[tool.flwr.app]
publisher = "bench"

[tool.flwr.app.components]
serverapp = "bench_app.app:server"
clientapp = "bench_app.app:client"

[tool.flwr.app.config]
"""
PATIENCE = 600.0


def written(folder: Path, file: Path, rounds: int) -> tuple[Path, Path]:
    """Write the app; return its folder, and the file that it makes when it is done."""
    app, done = folder / "app", folder / "done"
    (app / "bench_app").mkdir(parents=True)
    (app / "pyproject.toml").write_text(PROJECT)
    (app / "bench_app" / "__init__.py").write_text("")
    (app / "bench_app" / "app.py").write_text(APP.format(file=str(file), rounds=rounds, done=str(done)))
    return app, done


def by_simulation(folder: Path, file: Path, clients: int, rounds: int) -> float:
    """Run the app by Flower's simulation, and return the seconds."""
    from experiments_manager.federated.ray.fleet import backend_config, environment

    app, done = written(folder, file, rounds)
    sys.path.insert(0, str(app))
    began = time.perf_counter()
    with environment():
        from bench_app.app import client, server
        from flwr.simulation import run_simulation

        run_simulation(server, client, clients, backend_config=backend_config(clients, str(folder / "ray")))
    require(done)
    return time.perf_counter() - began


def by_deployment(folder: Path, file: Path, clients: int, rounds: int) -> float:
    """Run the app by a SuperLink and SuperNodes on this machine, and return the seconds from their start."""
    from experiments_manager.federated.deployment.app_bundle import CONNECTION
    from experiments_manager.federated.deployment.programs import call, make_home
    from experiments_manager.federated.deployment.superlink import running_superlink
    from experiments_manager.federated.deployment.supernode import start_supernode

    app, done = written(folder, file, rounds)
    nodes = []
    began = time.perf_counter()
    try:
        with running_superlink(make_home(folder / "server"), folder / "unused", tls=False) as link:
            for number in range(clients):
                home = make_home(folder / f"client{number}")
                keys = {"ca_certificate": None, "private_key": None}
                nodes.append(start_supernode(home, folder / "unused", link.address, proc_id=number, **keys))
            call("flwr", ["run", app, CONNECTION], folder / "server")
            while not done.exists() and time.perf_counter() - began < PATIENCE:
                link.program.check()
                time.sleep(0.2)
            took = time.perf_counter() - began
            require(done)
            return took
    finally:
        for node in nodes:
            node.stop()


def require(done: Path) -> None:
    """Exit where the app did not come to its end."""
    if not done.exists():
        sys.exit("Flower's app did not come to its end.")


WAYS = {"Flower's simulation (Ray)": by_simulation, "Flower's deployment": by_deployment}

if __name__ == "__main__":
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    way, where, settings, clients, rounds = sys.argv[1:]
    print(WAYS[way](Path(where), Path(settings), int(clients), int(rounds)))
