"""Layers that stay at the clients, and the evaluation of global weights at the clients."""

import numpy as np
import pytest

from experiments_manager import api
from experiments_manager.runs import open_run
from experiments_manager.settings import SettingsError
from tests.helpers.simulated_federations import arrays, rows, same

pytest.importorskip("flwr")
pytestmark = pytest.mark.slow

BODY, HEAD = ("0000/kernel", "0001/bias"), ("0002/kernel", "0003/bias")


def test_local_layers_are_neither_sent_nor_aggregated_and_stay_at_each_client(federation):
    federation.write(federated_local_layers='["head"]')
    first = federation.simulate()
    assert set(arrays(first)) == set(BODY)
    kept = arrays(first, "clients")
    assert set(kept) == {f"{client}/{rest}" for client in (0, 1) for rest in ("plain", *(f"layers/{n}" for n in HEAD))}
    assert not np.array_equal(kept["0/layers/0002/kernel"], kept["1/layers/0002/kernel"])


def test_local_layers_go_on_over_rounds_workers_and_a_resume(federation, several_models):
    federation.write(federated_local_layers='["he*"]', federated='{"rounds": 4, "clients": 3, "fraction_train": 0.67}')
    whole = federation.simulate("whole")
    resumed = api.resume(federation.simulate("stopped", workers=3, stop_after=3).run_dir, quiet=True)
    assert same(whole, resumed)
    assert same(whole, resumed, "clients")
    one_round = federation.write(federated_local_layers='["he*"]', federated='{"rounds": 1, "clients": 3}')
    assert not same(whole, one_round.simulate("one"), "clients")


def test_clients_evaluate_the_global_weights_with_their_own_layers(federation):
    federated = '{"rounds": 2, "clients": 2, "fraction_evaluate": 1.0}'
    result = federation.write(federated=federated, federated_local_layers='["head"]').simulate()
    body, kept = arrays(result), arrays(result, "clients")
    losses = []
    for client in (0, 1):
        x = np.random.default_rng([2, client]).normal(size=(18, 3)).astype("float32")
        y = x @ np.array([[1.0], [2.0], [3.0]]) * (1 + 0.2 * client)
        hidden = x @ body["0000/kernel"] + body["0001/bias"]
        predicted = hidden @ kept[f"{client}/layers/0002/kernel"] + kept[f"{client}/layers/0003/bias"]
        losses.append(np.square(predicted - y).mean())
    assert float(rows(result)[-1]["clients/loss"]) == pytest.approx(np.mean(losses), rel=1e-4)


def test_what_clients_measure_may_decide_which_round_is_the_best(federation):
    federated = '{"rounds": 3, "clients": 2, "fraction_evaluate": 1.0}'
    result = federation.write(federated=federated, monitor='"clients/loss"').simulate()
    assert open_run(result.run_dir).manifest["best"]["value"] == min(float(row["clients/loss"]) for row in rows(result))


def test_clients_evaluate_as_the_server_does_where_they_have_its_data(federation):
    federation.write(
        """
        def dataset(split, partition=None):
            return arrays(split, None if split == "validation" else partition)
        """,
        federated='{"rounds": 2, "clients": 2, "fraction_evaluate": 1.0}',
    )
    for row in rows(federation.simulate()):
        assert float(row["clients/loss"]) == pytest.approx(float(row["val_loss"]), rel=1e-6)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ('["haed"]', "Did you mean `head`?"),
        ('["body", "*"]', "All weights of the model would stay at the clients"),
        ('["nothing*"]', "Expected some of body, head; got 'nothing*'"),
    ],
)
def test_layers_that_are_not_there_are_refused_with_the_names_of_those_that_are(federation, layers, words):
    with pytest.raises(SettingsError, match="federated_local_layers") as caught:
        federation.write(federated_local_layers=layers).simulate()
    assert words in str(caught.value)
