"""A broker that goes away in the middle of training and comes back: training waits, says so, and goes on exactly."""

import signal

import numpy as np
import pytest

from tests.helpers.kafka_brokers import run_tool, unused_port, what_is_missing
from tests.helpers.survival import WarmTraining
from tests.integration.test_kafka_exactly_once import case, counts_of, produced
from tools.bench import survival

pytestmark = [pytest.mark.slow]
SECONDS_TO_END = 60


@pytest.fixture
def broker(tmp_path):
    """Starts and stops a broker of the test's own: its address, and what does so."""
    if missing := what_is_missing():
        pytest.skip(missing)
    data, port = tmp_path / "kafka", unused_port()

    def tell(what):
        options = ("--port", port) if what == "start" else ()
        done = run_tool(what, "--data", data, *options)
        assert done.returncode == 0, done.stderr

    tell("start")
    yield f"127.0.0.1:{port}", tell
    run_tool("stop", "--data", data)


def test_training_waits_for_a_broker_that_is_away_and_goes_on_exactly(broker, topic, tmp_path):
    from experiments_manager.kafka.connection import BrokerConnection

    address, tell = broker
    with produced(BrokerConnection([address]), topic) as finish:
        a_case = case("patient", address, topic, "kafka_idle_timeout=8.0")
        with WarmTraining(a_case, tmp_path) as training:
            assert training.wait_for(lambda: training.step > 20), training.output
            tell("stop")
            waits = f"Training waits: the broker at {address} does not answer"
            assert training.wait_for(lambda: waits in training.output), training.output
            assert not training.wait_for(lambda: False, seconds=10), training.output  # longer than it may be idle
            assert not training.has_ended, training.output
            reached = training.step
            tell("start")
            assert training.wait_for(lambda: training.step > reached + 20), training.output
            samples = finish()
            assert training.wait() == 0, training.output
            assert training.output.count(waits) < 5
    counts = counts_of(survival.outcome_of(training.run_dir))
    wrong = np.flatnonzero(counts != (np.arange(len(counts)) < samples))
    assert wrong.tolist() == [], f"{len(wrong)} of {samples}"


@pytest.mark.parametrize("group", ["None", "'shared'"])
def test_a_run_that_is_to_stop_does_not_wait_for_a_broker_that_is_away(broker, topic, tmp_path, group):
    from experiments_manager.kafka.connection import BrokerConnection

    address, tell = broker
    a_case = case("stopped", address, topic, "kafka_idle_timeout=8.0", f"kafka_group={group}")
    with produced(BrokerConnection([address]), topic) as finish:
        with WarmTraining(a_case, tmp_path) as training:
            assert training.wait_for(lambda: training.step > 20), training.output
            tell("stop")
            assert training.wait_for(lambda: "does not answer" in training.output), training.output
            training.process.send_signal(signal.SIGTERM)
            assert training.process.wait(SECONDS_TO_END) == 75, training.output
        assert training.manifest["state"] == "interrupted"
        before = counts_of(survival.outcome_of(training.run_dir)).sum()
        reached = training.step
        assert before == 16 * reached
        tell("start")
        with WarmTraining(a_case, tmp_path) as resumed:
            assert resumed.wait_for(lambda: resumed.step > reached), resumed.output
            samples = finish()
            assert resumed.wait() == 0, resumed.output
    counts = counts_of(survival.outcome_of(resumed.run_dir))
    wrong = np.flatnonzero(counts != (np.arange(len(counts)) < samples))
    assert wrong.tolist() == [], f"{len(wrong)} of {samples}"
