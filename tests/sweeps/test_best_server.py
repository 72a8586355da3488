"""`sweep --serve`: which model is served when."""

from types import SimpleNamespace

import pytest

from experiments_manager.common.errors import CommandLineError
from experiments_manager.export.versions import versions
from experiments_manager.sweeps import best_server
from experiments_manager.sweeps.state.folder import SweepFolder
from experiments_manager.sweeps.state.trials import SweepState


class FakeSidecar:
    """Records what a server is told."""

    def __init__(self, tell):
        self.started, self.stops = [], 0

    def start(self, service, log_file):
        self.started.append(service)

    def stop(self):
        self.stops += 1


@pytest.fixture
def server(tmp_path, monkeypatch, free_port):
    monkeypatch.setattr(best_server, "Sidecar", FakeSidecar)
    told = {
        "export": True,
        "ports": [free_port(), free_port()],
        "model_name": "line",
        "limits": {},
        "serve_on_gpu": False,
    }
    return best_server.BestServer(SweepFolder(tmp_path), SimpleNamespace(settings=told, modes=("min",)))


def end(state, server, folder, number, value, version=10):
    """Lets a trial end with a model whose file names the trial."""
    state.apply({"event": "proposed", "trial": number, "point": {}, "overrides": {}, "space": "", "by": "tpe"})
    event = {"event": "ended", "trial": number, "state": "finished", "values": [value]}
    state.apply(event)
    model = folder / "trials" / f"trial_{number:05d}" / "exported_models" / str(version)
    model.mkdir(parents=True)
    (model / "saved_model.pb").write_text(str(number))
    server.on_event(state, event)


def served(folder):
    newest = max(versions(folder / "best_model"))
    return (folder / "best_model" / str(newest) / "saved_model.pb").read_text()


def test_a_new_best_trial_takes_the_place_of_the_one_before(server, tmp_path):
    state = SweepState()
    end(state, server, tmp_path, 0, 0.5)
    assert served(tmp_path) == "0"
    end(state, server, tmp_path, 1, 0.7)
    assert served(tmp_path) == "0"
    end(state, server, tmp_path, 2, 0.3)
    end(state, server, tmp_path, 3, 0.1)
    assert served(tmp_path) == "3"
    assert versions(tmp_path / "best_model") == [2, 3]
    flags = server._server.started[0].flags
    assert (flags.model_name, flags.model_base_path) == ("line", str(tmp_path / "best_model"))


def test_it_ends_with_the_sweep(server):
    server.close()
    assert server._server.stops == 1


def test_an_experiment_without_exports_is_refused(tmp_path):
    experiment = SimpleNamespace(settings={"export": False}, modes=("min",))
    with pytest.raises(CommandLineError, match="--serve has nothing to serve"):
        best_server.BestServer(SweepFolder(tmp_path), experiment)
