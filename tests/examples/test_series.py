"""Examples in one dimension, from end to end: heartbeats, forecasts, anomalies."""

import numpy as np
import pytest

from experiments_manager import load_settings
from tests.helpers.modules import ROOT
from tests.helpers.tried_examples import predicted, trained


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    ["embedding/mysettings_heartbeats.py", "timeseries/mysettings_forecast.py", "timeseries/mysettings_anomalies.py"],
)
def test_it_is_trained_exported_served_and_asked(tmp_path, monkeypatch, settings):
    monkeypatch.chdir(tmp_path)  # examples draw their data below the working directory
    result = trained(settings, tmp_path)
    answers = predicted(result.run_dir, 4)
    outputs = [values for name, values in answers.items() if name not in ("sample", "version")]
    assert outputs
    for values in outputs:
        assert len(values) == 4
        assert np.isfinite(values).all()


def test_series_timed_by_numbers_need_no_calendar(tmp_path):
    (tmp_path / "a.csv").write_text("time,value\n" + "".join(f"{row},{row % 7}\n" for row in range(400)))
    settings = load_settings(ROOT / "examples/timeseries/mysettings_forecast.py")
    past, future = settings.experiment_settings.dataset("train", tmp_path)
    assert past.shape[1:] == (104, 3)
    assert future.shape[1:] == (26,)
    assert not past[..., 1:].any()


def test_windows_for_anomalies_share_no_step_between_splits(tmp_path):
    (tmp_path / "a.csv").write_text("time,value\n" + "".join(f"{row},{row}\n" for row in range(1000)))
    settings = load_settings(ROOT / "examples/timeseries/mysettings_anomalies.py")
    train, validation, test = (
        settings.experiment_settings.read_windows(split, tmp_path) for split in ("train", "validation", "test")
    )
    assert train.max() < validation.min()
    assert validation.max() < test.min()
