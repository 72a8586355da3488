"""TensorBoard shows curves of clients beside those of the global model."""

import pytest

pytest.importorskip("flwr")

from experiments_manager.events import RunEnd
from experiments_manager.federated.server.federation_state import RoundReport
from experiments_manager.federated.watching.client_curves import MOST_CLIENTS, ClientCurves

END = RunEnd("finished", 3, 1.0, None, {}, None)


def report(number, clients=2, scale=1.0):
    trained = {k: {"num-examples": 5.0, "num-steps": 2.0, "loss": scale / (number + k)} for k in range(clients)}
    return RoundReport(number, 1.0, {}, {}, trained, {1: {"loss": 0.5}}, tuple(trained), (), 1, 1)


def scalars(folder):
    """What TensorBoard shows of a folder: the values of each name by their step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {name: {e.step: e.value for e in events.Scalars(name)} for name in events.Tags()["scalars"]}


def write(logs, *reports, first_round=1):
    said = []
    curves = ClientCurves(logs, said.append)
    curves.on_begin(first_round)
    for each in reports:
        curves.on_round(each, None)
    curves.on_end(END)
    return said


def test_each_client_has_a_curve_under_the_names_of_the_global_model(tmp_path):
    assert write(tmp_path, report(1), report(2)) == []
    assert scalars(tmp_path / "clients" / "0") == {"loss": {1: 1.0, 2: 0.5}}
    assert scalars(tmp_path / "clients" / "1")["clients/loss"] == {1: 0.5, 2: 0.5}


def test_there_is_a_limit_which_is_told_once(tmp_path):
    said = write(tmp_path, report(1, MOST_CLIENTS + 5), report(2, MOST_CLIENTS + 5))
    assert len(list((tmp_path / "clients").iterdir())) == MOST_CLIENTS
    assert len(said) == 1
    assert f"{MOST_CLIENTS} clients" in said[0]


def test_rounds_that_come_again_replace_what_was_shown(tmp_path):
    write(tmp_path, report(1), report(2, scale=8.0), report(3, scale=8.0))
    write(tmp_path, report(2), report(2), first_round=2)
    assert scalars(tmp_path / "clients" / "0")["loss"] == {1: 1.0, 2: 0.5}
    twice = tmp_path / "twice"
    write(twice, report(1), report(2, scale=8.0), report(3, scale=8.0), report(2), report(3))
    assert scalars(twice / "clients" / "0")["loss"] == {1: 1.0, 2: 0.5, 3: pytest.approx(1 / 3)}
