"""Federations of a few clients in this process."""

import pytest

from tests.helpers.simulated_federations import Federation


@pytest.fixture
def federation(tmp_path):
    """A settings module for a federation of two clients."""
    return Federation(tmp_path)


@pytest.fixture
def several_models(monkeypatch):
    """Lets each worker have a model from the second round on, however short rounds are."""
    place = "experiments_manager.federated.simulation.simulated_fleet._SECONDS_OF_A_SHORT_ROUND"
    monkeypatch.setattr(place, 0.0)
