"""An example of the gallery, trained for a moment, exported, served, and asked by the real client."""

from pathlib import Path

import numpy as np

from tests.helpers.modules import ROOT
from tests.helpers.running_servers import running_server


def trained(settings: str, folder: Path, **overrides):
    """Train `examples/<settings>` for one epoch, and return the result."""
    import experiments_manager

    overrides = {"epochs": 1, "figures": False, "tensorboard": False, **overrides}
    file = ROOT / "examples" / settings
    return experiments_manager.train(file, overrides=overrides, working_dir=folder, run_name="tried", quiet=True)


def predicted(run_dir: Path, count: int, *, source: Path | None = None) -> dict[str, np.ndarray]:
    """Serve a run's newest version, send it samples by `predict`, and return what was written, by name."""
    from experiments_manager.cli.main import run

    output = run_dir / "answers.npz"
    flags = [f"--model_base_path={(run_dir / 'exported_models').absolute()}", "--model_name=tried"]
    with running_server(flags) as server:
        words = ["predict", str(run_dir), "--address", f"127.0.0.1:{server.grpc}", "--model-name", "tried"]
        words += ["--count", str(count), "--output", str(output)]
        assert run([*words, *(["--from", str(source)] if source else [])]) == 0
    with np.load(output) as answers:
        return dict(answers)
