"""A simulated federation has one result: by hand, with any number of workers, and after any number of kills."""

import random
import subprocess
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.serverapp.strategy import FedAvg

from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.server.rounds.plan import RoundHooks, RoundPlan
from experiments_manager.federated.server.simulation import simulate
from experiments_manager.federated.server.state_files import read_state, states
from tests.helpers.line_clients import Line, bits, first_arrays, line_client
from tests.helpers.line_federation import federate

ROOT = Path(__file__).resolve().parents[3]
KILLS = 20


def by_hand(clients, rounds, epochs):
    """Gives what FedAvg comes to, written out in NumPy."""
    trainers = [Line(proc_id) for proc_id in range(clients)]
    arrays = first_arrays()
    for number in range(1, rounds + 1):
        results = [trainer.train(arrays, round=number, epochs=epochs, proximal_mu=0.0) for trainer in trainers]
        total = sum(float(result.samples) for result in results)
        arrays = {
            name: sum(result.weights[name] * (float(result.samples) / total) for result in results) for name in arrays
        }
    return {name: np.asarray(array, "float32") for name, array in arrays.items()}


@pytest.mark.parametrize(("clients", "epochs"), [(2, 1), (5, 3)])
def test_the_result_is_that_of_federated_averaging_by_hand(clients, epochs):
    plan = RoundPlan(4, min_clients=clients, train_config={"local-epochs": epochs})
    after = simulate(line_client, clients, strategy=FedAvg(), arrays=first_arrays(), plan=plan)
    expected = by_hand(clients, 4, epochs)
    assert bits(after.arrays) == bits(expected)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_result_does_not_depend_on_how_many_work_at_a_time_or_how_fast(workers):
    def sleepy(proc_id):
        pace = random.Random(10 * workers + proc_id)

        def disturb(number, result):
            time.sleep(pace.uniform(0, 0.01))
            return result

        return line_client(proc_id, disturb)

    reports = []
    after = simulate(
        sleepy,
        5,
        strategy=FedAvg(fraction_train=0.8),
        arrays=first_arrays(),
        plan=RoundPlan(4, min_clients=2, seed=2),
        workers=workers,
        hooks=RoundHooks(on_round=lambda report, state: reports.append(report)),
    )
    alone = simulate(
        line_client, 5, strategy=FedAvg(fraction_train=0.8), arrays=first_arrays(), plan=RoundPlan(4, seed=2), workers=1
    )
    assert bits(after.arrays) == bits(alone.arrays)
    assert [len(report.participants) for report in reports] == [4] * 4


def test_a_simulation_goes_on_from_its_checkpoints(tmp_path):
    whole = simulate(line_client, 3, strategy=FedAvg(), arrays=first_arrays(), plan=RoundPlan(5))
    options = {"strategy": FedAvg(), "arrays": first_arrays(), "checkpoints": tmp_path}
    asked = []

    def stop_in_round_three(proc_id):
        return line_client(proc_id, lambda number, result: asked.append(number) or result)

    simulate(
        stop_in_round_three,
        3,
        plan=RoundPlan(5),
        hooks=RoundHooks(should_stop=lambda: 3 in asked),
        workers=1,
        **options,
    )
    assert states(tmp_path)[0].name == "round_2"
    again = simulate(line_client, 3, plan=RoundPlan(5), **{**options, "strategy": FedAvg()})
    assert bits(again.arrays) == bits(whole.arrays)
    assert simulate(line_client, 3, plan=RoundPlan(5), **{**options, "strategy": FedAvg()}).round == 5


def test_variables_of_every_type_are_those_of_the_model_after_a_round():
    arrays = {
        **first_arrays(),
        "flag": np.array(True),
        "count": np.array(2**40 + 1),
        "seed": np.array([7, 2**32 - 1], "uint32"),
        "brain": np.array([1.0, 3.140625], ml_dtypes.bfloat16),
        "half": np.array([0.5], "float16"),
    }

    def make(proc_id):
        client = line_client(proc_id, lambda number, result: keep(result))

        def keep(result):
            result.weights.update({name: array for name, array in arrays.items() if name not in result.weights})
            return result

        return client

    after = simulate(make, 3, strategy=FedAvg(), arrays=arrays, plan=RoundPlan(2))
    kept = set(arrays) - set(first_arrays())
    assert bits({name: after.arrays[name] for name in kept}) == bits({name: arrays[name] for name in kept})


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"w": np.zeros(3, "float32")}, r"w. Expected float32 \[3\] .*, got float32 \[2\]"),
        ({"w": np.zeros(2, "float64")}, r"w. Expected float64 \[2\] .*, got float32 \[2\]"),
        ({"c": np.zeros(1)}, r"c. Expected float64 \[1\] .*, got no such variable"),
    ],
)
def test_checkpoints_of_another_model_are_refused(tmp_path, other, sentence):
    options = {"strategy": FedAvg(), "plan": RoundPlan(1), "checkpoints": tmp_path}
    simulate(line_client, 2, arrays=first_arrays(), **options)
    with pytest.raises(FederationError, match=f"The state is that of another model: {sentence}"):
        simulate(line_client, 2, arrays={**first_arrays(), **other}, **options)


def test_fewer_clients_than_a_round_needs_are_refused_at_once():
    with pytest.raises(FederationError, match="There are 2 clients. Expected at least 3"):
        simulate(line_client, 2, strategy=FedAvg(), arrays=first_arrays(), plan=RoundPlan(1, min_clients=3))


def content(folder):
    """Gives what a federation left behind: its tables, and the bits of its newest state."""
    state = read_state(states(folder / "checkpoints")[0])
    tables = {name: (folder / name).read_bytes() for name in ("metrics.csv", "clients.csv")}
    return state.round, bits(state.arrays), bits(state.strategy_arrays), state.strategy, state.best, tables


@pytest.mark.slow
def test_a_simulation_that_is_killed_at_random_moments_ends_with_the_same_bits(tmp_path):
    rounds, moments = 400, random.Random(0)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    federate(whole, rounds)
    command = [sys.executable, "-m", "tests.helpers.line_federation", str(killed), str(rounds)]
    reached = []
    for _ in range(KILLS):
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout.readline() == "begins\n"
            time.sleep(moments.uniform(0, 0.3))
            process.kill()
        reached.append(
            max([int(path.name.removeprefix("round_")) for path in states(killed / "checkpoints")], default=-1)
        )
    assert reached == sorted(reached)
    assert 0 < reached[-1] < rounds, "the kills were to come while it ran"
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert content(killed) == content(whole)
