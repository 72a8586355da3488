"""A little experiment that any test can train: in this process, in well under two seconds."""

import contextlib
import dataclasses
import gc
import os
import signal
import socket
import sys
import textwrap
from pathlib import Path

import pytest

pytest_plugins = [
    "tests.helpers.disks",
    "tests.helpers.kafka_brokers",
    "tests.helpers.model_servers",
    "tests.helpers.slow_disks",
]

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each process that is started compiles all that it imports
sys.dont_write_bytecode = False

CURVE = """
import keras
import numpy as np
import tensorflow as tf

session_name = "curve"
epochs = 2
batch_size = 8
loss = "mse"
learning_rate = 0.05
export = figures = tensorboard = False
samples = {"train": 40, "validation": 16, "test": 16}


def dataset(split):
    x = np.random.default_rng(samples[split]).normal(size=(samples[split], 3)).astype("float32")
    return x, np.tanh(x.sum(axis=1, keepdims=True))


def model(hparams):
    return keras.Sequential([keras.Input([3], name="position"), keras.layers.Dense(1, name="height")])
"""


@dataclasses.dataclass
class Trained:
    """A run that ended, and what was said of it on the way."""

    run: object
    settings: object
    result: object
    epochs: list
    """The `EpochReport` of each epoch."""
    messages: list
    versions: list

    @property
    def history(self):
        """Values of all epochs by name, as Keras' `History.history`."""
        return {name: [report.logs[name] for report in self.epochs] for name in self.epochs[0].logs}

    @property
    def snapshot(self):
        """The newest checkpoint."""
        from experiments_manager.training.state.checkpoints import read_latest

        return read_latest(self.run.checkpoints_dir)[1]

    @property
    def tensors(self):
        """Every variable of the final state by name, as arrays."""
        return {name: value.numpy() for name, value in self.snapshot.tensors.items()}

    @property
    def weights(self):
        """The variables of the model at the end of training."""
        return [value for name, value in sorted(self.tensors.items()) if name.startswith("model/")]


def pytest_configure():
    """Hears Ctrl-C again where a shell that runs the tests in its background has switched it off for all processes."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Runs tests on every processor, a file in one process; those of files that are named, in this process.

    One process more than there are processors, since tests also wait: for processes, browsers and signals; eight at
    the most, as each imports TensorFlow. `-n` decides otherwise, and `-p no:xdist` works.
    """
    is_worker = hasattr(config, "workerinput")  # which would start workers of its own
    if not is_worker and config.pluginmanager.hasplugin("xdist") and config.option.numprocesses is None:
        named = any(".py" in argument for argument in config.args)
        config.option.numprocesses = 0 if named else min(8, (os.cpu_count() or 1) + 1)
        config.option.dist, config.option.loadscopereorder = "loadfile", False


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Lets several processes begin with the files that take long, so that none of them is left for the end."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Looks for no garbage while files of tests are imported: there is none, and more to search each time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.fixture(scope="module", autouse=True)
def quick_collections():
    """Keeps what is there before a file of tests, such as TensorFlow, out of the collection that begins each run.

    It takes a third of a second otherwise, as much as a little training. Again for each file, since reading topics ends
    with `gc.unfreeze`.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def recorder():
    """A watcher that notes all that it is told."""
    from experiments_manager.events import Watcher

    class Recorder(Watcher):
        def __init__(self):
            self.starts, self.epochs, self.messages, self.versions, self.ends, self.steps = [], [], [], [], [], []

        def on_start(self, start):
            self.starts.append(start)

        def on_progress(self, progress):
            self.steps.append(progress.global_step)

        def on_epoch(self, report):
            self.epochs.append(report)

        def on_message(self, text):
            self.messages.append(text)

        def on_version(self, version):
            self.versions.append(version)

        def on_end(self, end):
            self.ends.append(end)

    return Recorder()


@pytest.fixture(scope="session")
def curve():
    """The source of the small curve fitting, for those who write it to a place of their own."""
    return CURVE


@pytest.fixture
def settings_file(tmp_path):
    """Writes a settings module: a small curve fitting, and after it what the test gives, which replaces parts of it."""

    def write(*sources, name="mysettings_curve.py", base=CURVE):
        path = tmp_path / "user" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(base + "".join(map(textwrap.dedent, sources)), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def tensorflow():
    """TensorFlow, imported once; its many objects are kept out of the garbage collections that begin each run."""
    import tensorflow

    gc.collect()
    gc.freeze()
    return tensorflow


@pytest.fixture
def experiment(settings_file, tmp_path, recorder, tensorflow):
    """Writes a settings module, trains it, and gives the `Trained`."""
    from experiments_manager.runs import open_run
    from experiments_manager.settings import load_settings
    from experiments_manager.training.engine.context import RunOptions
    from experiments_manager.training.engine.runner import start_run

    def train(source="", overrides=(), *, working_dir=tmp_path / "runs", run_name=None, **options):
        sources = [source] if isinstance(source, str) else source
        settings = load_settings(settings_file(*sources), overrides)
        watcher = type(recorder)()
        options.setdefault("make_watchers", lambda run, settings: [watcher])
        result = start_run(settings, RunOptions(**options), working_dir=working_dir, run_name=run_name)
        return Trained(open_run(result.run_dir), settings, result, watcher.epochs, watcher.messages, watcher.versions)

    return train


@pytest.fixture
def settle(monkeypatch):
    """Waits until all checkpoints and versions that were handed in so far are done with; gives nothing.

    As `should_stop` of a run it is called between all steps, so that none takes the place of one that waits.
    """
    from experiments_manager.common.background import LatestJobWorker

    workers, begin = [], LatestJobWorker.__init__

    def noted(self, *arguments, **options):
        begin(self, *arguments, **options)
        workers.append(self)

    def wait():
        for worker in workers:
            worker.wait()

    monkeypatch.setattr(LatestJobWorker, "__init__", noted)
    return wait


@pytest.fixture
def free_port():
    """Gives ports of 127.0.0.1 at which nobody listens. A server of the test may; nobody else gets them meanwhile."""
    with contextlib.ExitStack() as keepers:

        def find():
            keeper = keepers.enter_context(socket.socket())
            keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            keeper.bind(("127.0.0.1", 0))
            return keeper.getsockname()[1]

        yield find


@pytest.fixture
def resume(recorder):
    """Resumes a run, and gives the `Trained`."""
    from experiments_manager.runs import open_run
    from experiments_manager.runs.run_settings import load_run_settings
    from experiments_manager.training.engine.context import RunOptions
    from experiments_manager.training.engine.runner import resume_run

    def go_on(run_dir, overrides=(), **options):
        run, watcher = open_run(run_dir), type(recorder)()
        options.setdefault("make_watchers", lambda run, settings: [watcher])
        result = resume_run(run, overrides, RunOptions(**options))
        settings = load_run_settings(run, overrides)
        return Trained(run, settings, result, watcher.epochs, watcher.messages, watcher.versions)

    return go_on


@pytest.fixture
def only_run(tmp_path):
    """Gives the one run that stands in the working directory of the experiments."""
    from experiments_manager.runs import open_run

    def find(working_dir=tmp_path / "runs"):
        [folder] = [path for path in Path(working_dir).iterdir() if path.is_dir() and path.name != "lost+found"]
        return open_run(folder)

    return find


@pytest.fixture
def same_bits():
    """Compares two states variable by variable, bit by bit; gives the names of those that differ."""
    import numpy as np

    def differing(one, other):
        assert one.keys() == other.keys()
        return [name for name in one if not np.array_equal(one[name], other[name], equal_nan=False)]

    return differing
