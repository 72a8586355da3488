"""Two trainers that share a live topic, of which one is killed and the other stopped, train on each sample once."""

import contextlib
import json
import signal

import numpy as np
import pytest

from tests.helpers.survival import WarmTraining
from tests.integration.test_kafka_exactly_once import PARTITIONS, case, counts_of, produced
from tools.bench import survival

pytestmark = [pytest.mark.slow]


def require_each_sample_once(trainings, samples):
    """Looks that the final states of all runs together count each sample once, and each run's a share of them."""
    outcomes = [survival.outcome_of(training.run_dir) for training in trainings]
    counts = np.sum([counts_of(outcome) for outcome in outcomes], axis=0)
    assert all(counts_of(outcome).sum() > 100 for outcome in outcomes)
    wrong = np.flatnonzero(counts != (np.arange(len(counts)) < samples))
    assert wrong.tolist() == [], f"{len(wrong)} of {samples}"


def test_each_sample_is_counted_once_over_both_final_states(kafka_broker, kafka, topic, tmp_path):
    group = (f"kafka_group='{topic}'", "kafka_partition_wait=0.5", "kafka_idle_timeout=15.0")
    one, two = (case(name, kafka_broker, topic, *group) for name in ("one", "two"))
    with produced(kafka, topic) as finish, WarmTraining(one, tmp_path) as first:
        assert first.wait_for(lambda: first.step > 20), first.output
        with WarmTraining(two, tmp_path) as second:
            assert second.wait_for(lambda: second.step > 20), second.output
            assert "shared out again" in first.output
            first.kill()
            with WarmTraining(one, tmp_path) as resumed:
                reached = resumed.step
                assert resumed.wait_for(lambda: resumed.step > reached + 20), resumed.output
                second.process.send_signal(signal.SIGTERM)
                assert second.wait() == 75, second.output
                samples = finish()
                assert resumed.wait() == 0, resumed.output
    require_each_sample_once([resumed, second], samples)


def partitions_of(training):
    """Gives the partitions whose samples the newest checkpoint of a run counts on."""
    folder = training.run_dir / "checkpoints"
    with contextlib.suppress(OSError):  # not yet there, or just being replaced
        state = json.loads((folder / (folder / "latest").read_text().strip() / "state.json").read_text())
        return set(state["extras"]["positions"]["train"]["place"]["records"]["offsets"])
    return set()


def test_a_run_that_stood_still_counts_nothing_that_another_was_given(kafka_broker, kafka, topic, tmp_path):
    group = (
        f"kafka_group='{topic}'",
        "kafka_partition_wait=0.5",
        "kafka_idle_timeout=15.0",
        "kafka_options={'session.timeout.ms': 6000}",
    )
    one, two = (case(name, kafka_broker, topic, *group) for name in ("one", "two"))
    with produced(kafka, topic) as finish, WarmTraining(one, tmp_path) as first:
        assert first.wait_for(lambda: first.step > 20), first.output
        with WarmTraining(two, tmp_path) as second:
            assert second.wait_for(lambda: second.step > 20), second.output
            first.process.send_signal(signal.SIGSTOP)
            assert second.wait_for(lambda: len(partitions_of(second)) == PARTITIONS), second.output
            reached = second.step
            assert second.wait_for(lambda: second.step > reached + 20), second.output
            first.process.send_signal(signal.SIGCONT)
            assert first.wait_for(lambda: "its last checkpoint" in first.output), first.output
            reached = first.step
            assert first.wait_for(lambda: first.step > reached + 20), first.output
            second.process.send_signal(signal.SIGTERM)
            assert second.wait() == 75, second.output
            samples = finish()
            assert first.wait() == 0, first.output
    require_each_sample_once([first, second], samples)


def test_runs_of_the_same_name_in_other_folders_are_not_taken_for_each_other(kafka_broker, kafka, topic, tmp_path):
    group = (f"kafka_group='{topic}'", "kafka_partition_wait=0.5", "kafka_idle_timeout=15.0")
    a_case = case("same", kafka_broker, topic, *group)
    with produced(kafka, topic) as finish, WarmTraining(a_case, tmp_path / "here") as first:
        assert first.wait_for(lambda: first.step > 20), first.output
        with WarmTraining(a_case, tmp_path / "there") as second:
            assert second.wait_for(lambda: second.step > 20), second.output
            reached = first.step
            assert first.wait_for(lambda: first.step > reached + 20), first.output
            first.kill()
            assert second.wait_for(lambda: len(partitions_of(second)) == PARTITIONS), second.output
            with WarmTraining(a_case, tmp_path / "here") as resumed:
                reached = resumed.step
                assert resumed.wait_for(lambda: resumed.step > reached + 20), resumed.output
                second.process.send_signal(signal.SIGTERM)
                assert second.wait() == 75, second.output
                samples = finish()
                assert resumed.wait() == 0, resumed.output
    require_each_sample_once([resumed, second], samples)
