"""Federations of a few clients in this process, for tests."""

import csv
import textwrap

import numpy as np

SETTINGS = """
import keras
import numpy as np
import tensorflow as tf

session_name = "clients"
batch_size = 4
early_stopping_patience = None
ema_momentum = None
shuffle = False
tensorboard = False
figures = False
export = False
loss = "mean_squared_error"
learning_rate = 0.01
optimizer = "sgd"
federated = {"rounds": 2, "clients": 2}


def arrays(split, partition):
    generator = np.random.default_rng([{"train": 1, "validation": 2}[split], partition or 0])
    x = generator.normal(size=(18, 3)).astype("float32")
    return x, (x @ np.array([[1.0], [2.0], [3.0]])).astype("float32") * (1 + 0.2 * (partition or 0))


def dataset(split, partition=None):
    return arrays(split, partition)


def model():
    return keras.Sequential([
        keras.layers.Input((3,)), keras.layers.Dense(4, name="body"), keras.layers.Dense(1, name="head")
    ])
"""


class Watching:
    """Notes what is said in a run, and stops it as Ctrl-C does after a round."""

    def __init__(self, stop_after=None):
        self.said, self.stop_after = [], stop_after

    def on_message(self, text):
        self.said.append(text)

    def on_epoch(self, report):
        import os
        import signal

        if report.epoch == self.stop_after:
            os.kill(os.getpid(), signal.SIGTERM)

    def __getattr__(self, name):
        return lambda *content: None


class Federation:
    """A settings module, and the federations that it came to."""

    def __init__(self, folder):
        self.folder, self.file = folder, folder / "mysettings_clients.py"
        self.file.write_text(SETTINGS)
        self.watching = Watching()

    def write(self, *added, **replaced):
        """Replaces settings by name, and adds lines."""
        lines = [line for line in SETTINGS.splitlines() if not any(line.startswith(f"{name} = ") for name in replaced)]
        place = lines.index("batch_size = 4") if "batch_size" not in replaced else 6
        lines[place:place] = [f"{name} = {value}" for name, value in replaced.items()]
        self.file.write_text("\n".join([*lines, *map(textwrap.dedent, added)]) + "\n")
        return self

    def printed(self, work):
        """What is printed by hooks and callbacks while some work is done, line by line."""
        import contextlib
        import io

        with contextlib.redirect_stdout(io.StringIO()) as out:
            work()
        return out.getvalue().splitlines()

    def simulate(self, name="run", *, workers=1, stop_after=None, also=()):
        """Gives the result of a federation, or of the first rounds of it."""
        from experiments_manager import api

        self.watching = Watching(stop_after)
        settings = api.federation_settings(self.file)
        return api.simulate_federation(
            settings,
            workers=workers,
            working_dir=self.folder / "runs",
            run_name=name,
            quiet=True,
            watchers=[self.watching, *also],
        )


def rows(result):
    """The rows of `metrics.csv`."""
    with (result.run_dir / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def arrays(result, group="global"):
    """What a checkpoint holds of the federation: `global` variables, or those of the `clients`."""
    from experiments_manager.runs import open_run
    from experiments_manager.training.state.checkpoints import read_latest

    _, snapshot = read_latest(open_run(result.run_dir).checkpoints_dir)
    prefix = f"epoch_trainer/{group}/"
    return {
        name.removeprefix(prefix): np.asarray(value)
        for name, value in snapshot.tensors.items()
        if name.startswith(prefix)
    }


def same(first, second, group="global"):
    """Whether two federations ended with the same bits."""
    first, second = arrays(first, group), arrays(second, group)
    assert first
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def trained_alone(federation, client=0, epochs=1, **overrides):
    """The weights that central training on the data of one client comes to."""
    from experiments_manager import api
    from experiments_manager.runs import open_run
    from experiments_manager.training.state.checkpoints import read_latest

    given = {"epochs": epochs, "hparams.procID": client, **overrides}
    settings = api.load_settings(federation.file, given)
    result = api.train(settings, working_dir=federation.folder / "alone", quiet=True)
    _, snapshot = read_latest(open_run(result.run_dir).checkpoints_dir)
    return [np.asarray(value) for name, value in sorted(snapshot.tensors.items()) if name.startswith("model/")]
