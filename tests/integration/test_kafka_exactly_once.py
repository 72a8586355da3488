"""A run that follows a topic and is killed anywhere trains on each sample once, and ends with the same bits.

`EXPERIMENTS_MANAGER_KILLS` says how often it is killed.
"""

import contextlib
import importlib.util
import os
import random
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.survival import WarmTraining
from tools.bench import survival

pytestmark = [pytest.mark.slow]
SETTINGS = Path(__file__).parent / "streaming" / "mysettings_counted.py"
KILLS = int(os.environ.get("EXPERIMENTS_MANAGER_KILLS", "3"))
PARTITIONS = 3


def counted():
    spec = importlib.util.spec_from_file_location("mysettings_counted", SETTINGS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def produced(kafka, topic, at_once=48):
    """Sends counted samples all the time, in another thread; what is given stops it and says how many there are."""
    from experiments_manager.kafka.producing.producer import SampleProducer
    from experiments_manager.kafka.records.structure import Structure

    module, stop = counted(), threading.Event()
    producer = SampleProducer(kafka, topic, Structure.of(module.samples(0, 1)), partitions=PARTITIONS)
    sent = [0]

    def send():
        while not stop.wait(0.1):
            producer.send(module.samples(sent[0], sent[0] + at_once))
            sent[0] += at_once
        producer.flush()

    def finish():
        stop.set()
        thread.join()
        return sent[0]

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield finish
    finally:
        finish()


def case(name, broker, topic, *overrides):
    servers, topics = (
        f"kafka_bootstrap_servers=['{broker}']",
        f"kafka_topics={{'train': '{topic}', 'validation': None}}",
    )
    return survival.Case(name, SETTINGS, (servers, topics, *overrides))


def train_to_the_end(a_case, folder):
    with WarmTraining(a_case, folder) as training:
        assert training.wait() == 0, training.output
    return survival.outcome_of(training.run_dir), training


def counts_of(outcome):
    [name] = [name for name in outcome.tensors if name.startswith("model/") and name.endswith("counts")]
    return np.frombuffer(outcome.tensors[name], np.int32)


def test_a_killed_run_counts_each_sample_once_and_equals_one_that_was_not_killed(kafka_broker, kafka, topic, tmp_path):
    chance = random.Random(2026)
    with produced(kafka, topic) as finish:
        a_case = case("killed", kafka_broker, topic)
        for _ in range(KILLS):
            with WarmTraining(a_case, tmp_path) as training:
                assert training.wait_for(lambda training=training: training.trains), training.output
                training.wait_for(lambda: False, seconds=chance.uniform(0.0, 1.5))
                assert training.process.poll() is None, training.output
                training.process.kill()
        samples = finish()
    killed, _ = train_to_the_end(a_case, tmp_path)
    assert samples > 16 * 7
    counts = counts_of(killed)
    wrong = np.flatnonzero(counts != (np.arange(len(counts)) < samples))
    assert wrong.tolist() == [], f"{len(wrong)} of {samples}"

    undisturbed, _ = train_to_the_end(case("undisturbed", kafka_broker, topic), tmp_path)
    assert survival.differences(undisturbed, killed) == []
