"""Examples in one dimension, from end to end: heartbeats, forecasts, anomalies."""

import numpy as np
import pytest

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
