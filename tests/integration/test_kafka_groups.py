"""Two trainers that share a live topic, of which one is killed and the other stopped, train on each sample once."""

import signal

import numpy as np
import pytest

from tests.integration.test_kafka_exactly_once import case, counts_of, produced
from tools.bench import survival

pytestmark = [pytest.mark.slow]


def test_each_sample_is_counted_once_over_both_final_states(kafka_broker, kafka, topic, tmp_path):
    group = (f"kafka_group='{topic}'", "kafka_partition_wait=0.5", "kafka_idle_timeout=15.0")
    one, two = (case(name, kafka_broker, topic, *group) for name in ("one", "two"))
    with produced(kafka, topic) as finish, survival.Training(one, tmp_path) as first:
        assert first.wait_for(lambda: first.step > 20), first.output
        with survival.Training(two, tmp_path) as second:
            assert second.wait_for(lambda: second.step > 20), second.output
            assert "shared out again" in first.output
            first.kill()
            with survival.Training(one, tmp_path) as resumed:
                reached = resumed.step
                assert resumed.wait_for(lambda: resumed.step > reached + 20), resumed.output
                second.process.send_signal(signal.SIGTERM)
                assert second.wait() == 75, second.output
                samples = finish()
                assert resumed.wait() == 0, resumed.output
    outcomes = [survival.outcome_of(training.run_dir) for training in (resumed, second)]
    counts = np.sum([counts_of(outcome) for outcome in outcomes], axis=0)
    assert all(counts_of(outcome).sum() > 100 for outcome in outcomes)
    wrong = np.flatnonzero(counts != (np.arange(len(counts)) < samples))
    assert wrong.tolist() == [], f"{len(wrong)} of {samples}"
