"""Simulated clients whose updates are masked train the model of clients whose updates are not."""

import numpy as np
import pytest

pytest.importorskip("flwr")

from experiments_manager import api
from experiments_manager.federated.errors import FederationError
from tests.helpers.simulated_federations import arrays, same

pytestmark = pytest.mark.slow

MASKED = '{"rounds": 3, "clients": 4, "secure_aggregation": True}'


def test_masked_updates_come_to_the_weights_of_open_ones_and_a_resume_to_the_same_bits(federation):
    federation.write(federated='{"rounds": 3, "clients": 4}')
    opened = arrays(federation.simulate("open"))
    federation.write(federated=MASKED)
    whole = federation.simulate("masked")
    for name, value in arrays(whole).items():
        np.testing.assert_allclose(value, opened[name], rtol=0, atol=1e-5, err_msg=name)
    stopped = federation.simulate("stopped", stop_after=1)
    resumed = api.resume(stopped.run_dir, quiet=True)
    assert same(whole, resumed)


def test_what_masks_cannot_be_used_with_is_refused_before_the_first_round(federation):
    federation.write("def federated_strategy():\n    raise AssertionError", federated=MASKED)
    with pytest.raises(FederationError, match="cannot be used with the hook `federated_strategy`"):
        federation.simulate("hook")
    federation.write(federated='{"rounds": 3, "clients": 2, "secure_aggregation": True}')
    with pytest.raises(FederationError, match="Expected at least 3, got 2"):
        federation.simulate("two")
