"""Run folders as training leaves them, made without training."""

import math

import pytest

from experiments_manager.runs import create_run

PIXEL = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89"
    b"\x00\x00\x00\rIDATx\x9cc\xf8\xff\xff?\x03\x00\x08\xfc\x02\xfe\xa7\x9a\xa0\xa0\x00\x00\x00\x00IEND\xaeB`\x82"
)


@pytest.fixture
def make_run(tmp_path):
    """Makes a run of five epochs in `runs/`, whose loss falls to `loss`; further fields go to its run.json."""

    def make(name, *, loss=0.5, epochs=5, hparams=None, state="finished", metrics=("loss",), figures=(), **fields):
        run = create_run(tmp_path / "runs", "demo", hparams or {}, run_name=name)
        best = {"epoch": epochs, "step": 10 * epochs, "value": loss, "name": "val_loss"} if epochs else None
        settings = {"session_name": "demo", "epochs": 5, "batch_size": 32, "monitor_mode": "auto"}
        settings |= {"hparams": hparams or {}} | fields.pop("settings", {})
        defaults = {"hparams": hparams or {}, "settings": settings, "best": best, "epochs": epochs, "seconds": 75.0}
        defaults |= {"packages": {"keras": "3.15", "numpy": "2.1"}, "start": f"2026-01-01T00:00:{len(name):02d}+00:00"}
        run.update(state=state, **{**defaults, **fields})
        if epochs:
            columns = [column for metric in metrics for column in (metric, f"val_{metric}")]
            lines = [",".join(["epoch", "step", "learning_rate", *columns])]
            for epoch in range(1, epochs + 1):
                value = loss * math.exp(epochs - epoch)
                lines.append(",".join(map(repr, [epoch, 10 * epoch, 0.1, *[value] * len(columns)])))
            run.metrics_csv.write_text("\n".join(lines) + "\n")
        for figure in figures:
            folder = run.path / "figures"
            folder.mkdir(exist_ok=True)
            (folder / f"{figure}.png").write_bytes(PIXEL)
        return run

    return make
