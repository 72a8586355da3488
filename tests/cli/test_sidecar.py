"""The model server of `train --serve`, as a watcher of the run."""

import pytest

import experiments_manager as em
from experiments_manager.cli import sidecar
from experiments_manager.cli.sidecar import SidecarServer
from experiments_manager.common.console import command_line
from experiments_manager.events import RunEnd

LINE = """
import keras
import numpy as np

epochs, batch_size, loss, learning_rate, tensorboard, figures, ema_momentum = 1, 4, "mse", 0.1, False, False, None
max_in_flight = 7


def dataset(split):
    return np.zeros((4, 2)), np.zeros((4, 1))


def model():
    return keras.Sequential([keras.Input([2]), keras.layers.Dense(1)])
"""


class FakeSidecar:
    """Records what a `Sidecar` is told."""

    def __init__(self, tell):
        self.started, self.asked, self.stops = [], 0, 0

    def start(self, service, log_file):
        self.started.append((service, log_file))

    def ask_to_end(self):
        self.asked += 1

    def stop(self):
        self.stops += 1


class BrokenSidecar(FakeSidecar):
    def start(self, service, log_file):
        raise OSError("no processes left")


@pytest.fixture
def train(tmp_path, monkeypatch, free_port):
    """Trains with a watcher whose server process is a fake; gives the watcher and the result."""

    def go(fake, **overrides):
        monkeypatch.setattr(sidecar, "Sidecar", fake)
        file = tmp_path / "mysettings_line.py"
        file.write_text(LINE)
        ports = {"grpc_port": free_port(), "rest_port": free_port()}
        settings = em.load_settings(file, ports | overrides)
        watcher = SidecarServer(settings, quiet=False)
        return watcher, em.train(settings, working_dir=tmp_path, quiet=True, watchers=[watcher])

    return go


def test_the_server_starts_and_ends_with_the_run(train, capsys):
    watcher, result = train(FakeSidecar)
    [(service, log_file)] = watcher._server.started
    assert (watcher._server.asked, watcher._server.stops) == (1, 0), "the run's lock waits for no server"
    watcher.close()
    assert watcher._server.stops == 1
    flags = service.flags
    assert (flags.model_base_path, flags.model_name) == (str(result.run_dir / "exported_models"), "mysettings_line")
    assert (flags.host, flags.enable_batching, flags.max_in_flight, service.gpu) == ("127.0.0.1", True, 7, False)
    assert log_file == result.run_dir / "model_server.log"
    said = capsys.readouterr().err
    assert f"Serving mysettings_line as soon as there is a version:\n  gRPC    127.0.0.1:{flags.port}\n" in said
    assert f"To serve on: {command_line('serve', str(result.run_dir))}" in said


def test_a_server_that_cannot_be_started_does_not_end_the_training(train, caplog, capsys):
    _, result = train(BrokenSidecar)
    assert result.state == "finished"
    assert "SidecarServer failed and is disabled for the rest of the run: no processes left" in caplog.text
    assert "To serve on" not in capsys.readouterr().err


def test_nothing_is_said_of_serving_on_after_a_training_that_failed(train, capsys):
    watcher, _ = train(FakeSidecar)
    capsys.readouterr()
    watcher.on_end(RunEnd("failed", 0, 0.0, None, {}, None))
    assert capsys.readouterr().err == ""
