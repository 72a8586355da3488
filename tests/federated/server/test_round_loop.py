"""Rounds begin from a state and end with one: whoever fails, and wherever they were interrupted."""

import copy
import dataclasses
import random
import re
import threading

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import Array, ArrayRecord, Error, Message
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM

from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.fleet import Federation, Fleet
from experiments_manager.federated.server.federation_state import FederationState
from experiments_manager.federated.server.round_loop import run_round
from experiments_manager.federated.simulation.local_grid import LocalGrid
from experiments_manager.federated.strategies.reply_checks import ProcIds
from experiments_manager.federated.strategies.server_strategy import ServerStrategy
from experiments_manager.settings.options.federated import FederatedOptions
from tests.helpers.line_clients import bits, disturbed, first_arrays, line_client

STRATEGIES = {
    "FedAvg": FedAvg,
    "FedAdam": lambda: FedAdam(eta=0.05, beta_1=0.9, beta_2=0.99),
    "FedAvgM": lambda: FedAvgM(server_learning_rate=0.9, server_momentum=0.5),
    "half of the clients": lambda: FedAvg(fraction_train=0.5, fraction_evaluate=0.5),
}
OF_SETTINGS = ("round_timeout", "min_clients", "secure_aggregation")


def run(
    rounds=4,
    clients=6,
    strategy=FedAvg,
    state=None,
    make_client=line_client,
    workers=2,
    grid=None,
    fleet=None,
    proc_ids=None,
    on_round=lambda report: None,
    **others,
):
    """Gives the states after the rounds, the first one before them, and the reports of the rounds."""
    fleet = fleet or Fleet(grid or LocalGrid(make_client, range(clients), workers=workers))
    of_settings = {"min_clients": 2, "round_timeout": 60.0}
    of_settings |= {name: others.pop(name) for name in OF_SETTINGS if name in others}
    options, proc_ids = FederatedOptions(**of_settings), proc_ids or ProcIds(fleet.grid)
    states, reports = [state or FederationState(0, first_arrays())], []
    while states[-1].round < rounds:
        new = ServerStrategy(strategy())
        ran = run_round(Federation(fleet, new, proc_ids, options, **{"seed": 5, "pause": 0.0, **others}), states[-1])
        if ran is None:
            break
        states.append(ran[0])
        reports.append(ran[1])
        on_round(ran[1])
    return states, reports


def timeless(reports):
    return [dataclasses.replace(report, seconds=0.0) for report in reports]


@pytest.mark.parametrize("name", STRATEGIES)
def test_rounds_that_go_on_from_a_saved_state_end_with_the_same_bits(name):
    (*saved, whole), reports = run(strategy=STRATEGIES[name])
    saved = copy.deepcopy(saved)
    assert not np.array_equal(whole.arrays["w"], first_arrays()["w"])
    for number in range(4):
        random.seed(number)
        np.random.seed(number)
        (*_, resumed), later = run(strategy=STRATEGIES[name], state=saved[number])
        assert bits(resumed.arrays) == bits(whole.arrays)
        assert bits(resumed.strategy_arrays) == bits(whole.strategy_arrays)
        assert resumed.strategy == whole.strategy
        assert timeless(later) == timeless(reports[number:])


def test_half_of_the_clients_are_others_in_each_round_and_depend_on_the_seed():
    _, reports = run(rounds=6, strategy=STRATEGIES["half of the clients"])
    _, others = run(rounds=6, strategy=STRATEGIES["half of the clients"], seed=6)
    asked = [report.participants for report in reports]
    assert {len(each) for each in asked} == {3}
    assert len(set(asked)) > 2
    assert asked != [report.participants for report in others]


def test_the_generators_of_the_process_are_left_as_they_were():
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist()
    run(rounds=2)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_a_report_tells_what_came_of_a_round():
    _, reports = run(rounds=2, clients=3)
    report = reports[1]
    assert (report.round, report.participants, report.left_out, report.tries) == (2, (0, 1, 2), (), 1)
    assert (set(report.train), set(report.clients)) == ({"loss", "num-steps"}, {"loss"})
    assert report.train_by_client[1]["num-examples"] == report.clients_by_client[1]["num-examples"] == 6.0
    assert report.bytes_sent > report.bytes_received > 0


def spoil(change):
    def disturb(number, result):
        change(result)
        return result

    return disturb


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda result: result.weights.update(w=np.array([np.nan, 1], "float32")), "NaN"),
        (lambda result: result.weights.update(w=np.zeros(3, "float32")), r"\(3,\).*\(2,\)"),
        (lambda result: result.weights.pop("b"), "lack 'b'"),
        (lambda result: result.weights.clear(), "lack"),
        (lambda result: setattr(result, "samples", 0), "samples"),
        (lambda result: result.logs.update(loss=float("nan")), "loss"),
        (lambda result: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_a_client_that_answers_nonsense_is_left_out_named_and_does_not_count(change, why):
    (*_, after), reports = run(rounds=2, clients=4, make_client=disturbed(1, spoil(change)))
    (*_, without), _ = run(rounds=2, grid=grid_of(0, 2, 3))
    assert bits(after.arrays) == bits(without.arrays)
    for report in reports:
        assert report.participants == (0, 2, 3)
        assert [entry.proc_id for entry in report.left_out] == [1]
        assert re.search(why, report.left_out[0].reason)


def grid_of(*proc_ids, make_client=line_client):
    return LocalGrid(make_client, proc_ids)


def test_a_client_that_hangs_does_not_hold_up_the_others():
    let_go = threading.Event()
    hangs = disturbed(2, lambda number, result: let_go.wait(60) and result)
    try:
        (*_, after), reports = run(rounds=3, clients=3, make_client=hangs, round_timeout=0.5)
    finally:
        let_go.set()
    assert [report.participants for report in reports] == [(0, 1)] * 3
    assert [[entry.proc_id for entry in report.left_out] for report in reports] == [[2], [], []]
    assert reports[0].left_out[0].reason == "It did not answer within 0.5 s."
    (*_, without), _ = run(rounds=3, grid=grid_of(0, 1))
    assert bits(after.arrays) == bits(without.arrays)


def test_a_client_that_joins_late_takes_part_from_the_next_round():
    grid = grid_of(0, 1)
    _, reports = run(grid=grid, on_round=lambda report: grid.join(2) if report.round == 2 else None)
    assert [report.participants for report in reports] == [(0, 1), (0, 1), (0, 1, 2), (0, 1, 2)]


def test_a_round_with_too_few_answers_is_tried_again_and_ends_with_the_same_bits():
    failures = iter([True, False])

    def disturb(number, result):
        if number == 2 and next(failures, False):
            raise OSError("no data today")
        return result

    messages = []
    (*_, after), reports = run(
        clients=2, make_client=disturbed(1, disturb), strategy=STRATEGIES["FedAdam"], on_message=messages.append
    )
    (*_, undisturbed), _ = run(clients=2, strategy=STRATEGIES["FedAdam"])
    assert bits(after.arrays) == bits(undisturbed.arrays)
    assert [report.tries for report in reports] == [1, 2, 1, 1]
    assert len(messages) == 1
    assert "Round 2: 1 clients answered as expected. Expected at least 2 (min_clients)." in messages[0]
    assert "client 1: " in messages[0] and "no data today" in messages[0]
    assert messages[0].endswith("It is tried again (2 of 3).")


def test_a_round_in_which_all_fail_stops_the_federation_with_the_state_before():
    def fail(proc_id):
        return line_client(proc_id, lambda number, result: 1 / 0 if number == 3 else result)

    done = []
    with pytest.raises(FederationError, match="Round 3 could not be done in 3 tries: 0 clients") as failure:
        run(make_client=fail, on_round=lambda report: done.append(report.round))
    assert done == [1, 2]
    assert "the state of round 2 is kept" in str(failure.value)
    assert "client 5: " in str(failure.value)


def test_the_server_waits_for_enough_clients_and_says_so():
    grid = grid_of(0)
    messages = []

    def on_message(text):
        messages.append(text)
        grid.join(1)

    _, reports = run(rounds=1, grid=grid, on_message=on_message, round_timeout=None)
    assert messages == ["Round 1 waits for clients: 1 of 2 are there."]
    assert len(reports) == 1


def test_the_server_does_not_wait_for_ever():
    with pytest.raises(FederationError, match="1 clients are there. Expected at least 2"):
        run(grid=grid_of(0), round_timeout=0.01)


@pytest.mark.parametrize("moment", ["training", "waiting"])
def test_rounds_stop_when_they_should(moment):
    stop, let_go = threading.Event(), threading.Event()

    def disturb(number, result):
        if moment == "training" and number == 2:
            stop.set()
            let_go.wait(60)
        return result

    grid = LocalGrid(disturbed(1, disturb), range(2), workers=2)

    def on_round(report):
        if moment == "waiting":
            grid.leave(1)

    try:
        states, reports = run(grid=grid, on_round=on_round, on_message=lambda text: stop.set(), should_stop=stop.is_set)
    finally:
        let_go.set()
    assert [state.round for state in states] == [0, 1] and len(reports) == 1


def test_clients_that_fail_are_named_by_what_they_told_in_earlier_rounds():
    def make(proc_id):
        return line_client(proc_id, lambda number, result: 1 / 0 if (proc_id, number) in ((0, 1), (1, 2)) else result)

    known = ProcIds("a grid that knows nodes alone, as Flower's")
    _, reports = run(rounds=2, clients=4, make_client=make, proc_ids=known)
    assert [[entry.proc_id for entry in report.left_out] for report in reports] == [[None], [1]]


def test_a_strategy_that_fails_is_named():
    class Faulty(FedAvg):
        def aggregate_train(self, server_round, replies):
            raise RuntimeError("no idea")

    with pytest.raises(
        FederationError, match="Round 1: the strategy Faulty could not aggregate: RuntimeError: no idea"
    ):
        run(strategy=Faulty)


def test_weights_that_are_no_longer_finite_are_refused():
    with np.errstate(over="ignore"), pytest.raises(FederationError, match="Round 1: the aggregated b is not finite"):
        run(make_client=lambda proc_id: line_client(proc_id, spoil(lambda r: r.weights.update(b=np.array(3e38, "f4")))),
            strategy=lambda: FedAvgM(server_learning_rate=9.0, server_momentum=0.5))  # fmt: skip


def test_a_client_that_hangs_when_it_should_evaluate_is_not_waited_for_after_the_timeout():
    let_go = threading.Event()

    def make(proc_id):
        client = line_client(proc_id)

        def answer(message):
            if proc_id == 0 and message.metadata.message_type == "evaluate":
                assert let_go.wait(60)
            return client(message)

        return answer

    try:
        _, reports = run(rounds=2, make_client=make, clients=3, round_timeout=0.5)
    finally:
        let_go.set()
    assert [report.participants for report in reports] == [(0, 1, 2), (1, 2)]
    assert [sorted(report.clients_by_client) for report in reports] == [[1, 2], [1, 2]]


@pytest.mark.parametrize(("code", "asked"), [(5, ["train"]), (2, ["train", "evaluate"])])
def test_a_client_whose_machine_is_gone_is_not_asked_to_evaluate(code, asked):
    kinds = []

    def make(proc_id):
        client = line_client(proc_id)

        def answer(message):
            if proc_id != 1:
                return client(message)
            kinds.append(message.metadata.message_type)
            return Message(Error(code, "no heartbeat"), reply_to=message)

        return answer

    _, reports = run(rounds=1, make_client=make, clients=3)
    assert kinds == asked
    assert reports[0].participants == (0, 2)


def test_a_client_that_only_fails_to_evaluate_takes_part():
    def make(proc_id):
        client = line_client(proc_id)

        def answer(message):
            if proc_id == 1 and message.metadata.message_type == "evaluate":
                raise ValueError("no validation data")
            return client(message)

        return answer

    _, reports = run(rounds=1, make_client=make, clients=3)
    assert reports[0].participants == (0, 1, 2)
    assert sorted(reports[0].clients_by_client) == [0, 2]
    assert [entry.proc_id for entry in reports[0].left_out] == [1]


@pytest.mark.parametrize("fails", [False, True])
def test_what_clients_keep_is_what_it_was_when_a_round_begins_again(fails):
    """Clients that add to what they keep in each round, as an optimizer does."""

    def run_with(kept, state=None):
        failures = iter([fails])

        def make(proc_id):
            def disturb(number, result):
                kept[str(proc_id)] = kept.get(str(proc_id), np.zeros(())) + result.logs["loss"]
                result.weights["b"] = result.weights["b"] + np.float32(0.01) * kept[str(proc_id)].astype("float32")
                if proc_id == 1 and number == 3 and next(failures, False):
                    raise OSError("no data today")
                return result

            return line_client(proc_id, disturb)

        class Keeping(Fleet):
            def state(self):
                return kept

            def restore(self, arrays):
                kept.clear()
                kept.update(arrays)

        return run(clients=2, fleet=Keeping(LocalGrid(make, range(2), workers=2)), state=state)[0]

    *_, after_two, _, whole = run_with({})
    assert set(whole.client_arrays) == {"0", "1"}
    if fails:
        fails = False
        assert bits(run_with({})[-1].arrays) == bits(whole.arrays)
    resumed = run_with({"0": np.array(99.0)}, state=copy.deepcopy(after_two))[-1]
    assert bits(resumed.arrays) == bits(whole.arrays)
    assert bits(resumed.client_arrays) == bits(whole.client_arrays)


def test_weights_that_are_all_zero_though_no_clients_are_end_the_round():
    class Zero(FedAvg):
        def aggregate_train(self, server_round, replies):
            arrays, metrics = super().aggregate_train(server_round, replies)
            return ArrayRecord({name: Array(np.zeros_like(array.numpy())) for name, array in arrays.items()}), metrics

    with pytest.raises(FederationError, match="all aggregated weights are exactly zero, though those of no client are"):
        run(strategy=Zero, rounds=1)


def test_a_client_that_tells_more_samples_from_one_round_to_the_next_than_it_can_have_is_named():
    def grow(round, result):  # noqa: A002
        return dataclasses.replace(result, samples=result.samples * 11) if round == 2 else result

    (*_, after), reports = run(make_client=disturbed(3, grow), rounds=3)
    assert [report.participants for report in reports] == [(0, 1, 2, 3, 4, 5), (0, 1, 2, 4, 5), (0, 1, 2, 3, 4, 5)]
    (entry,) = reports[1].left_out
    assert (entry.proc_id, "10 times what it told before" in entry.reason) == (3, True)
    assert all(np.isfinite(array).all() for array in after.arrays.values())
