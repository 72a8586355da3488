"""A process that sends numbered samples to a topic, to be killed and started again.

python tests/helpers/counting_producer.py SERVER TOPIC SAMPLES PARTITIONS SAMPLES_PER_RECORD RATE [resume]
"""

import sys

import numpy as np

from experiments_manager.kafka.connection import BrokerConnection
from experiments_manager.kafka.producing.production import Plan, Production
from experiments_manager.kafka.records.structure import Structure

BATCH = 100


class Numbers:
    """Samples that count from 0 on, in two epochs."""

    structure = Structure.of(np.arange(1))

    def __init__(self, samples, *, known=True):
        self.samples = samples if known else None
        self._samples = samples

    def epoch(self, number):
        """Yields the numbers of an epoch, in batches of a size that fits no record."""
        for start in range(0, self._samples, BATCH):
            yield np.arange(start, min(start + BATCH, self._samples)) + number * self._samples


def main():
    """Sends two epochs."""
    server, topic, samples, partitions, per_record, rate = sys.argv[1:7]
    plan = Plan(
        topic,
        epochs=2,
        partitions=int(partitions),
        samples_per_record=int(per_record),
        rate=float(rate) or None,
        producer="counter",
        resume="resume" in sys.argv,
    )
    Production(BrokerConnection([server]), Numbers(int(samples), known=int(per_record) > 1), plan).run()


if __name__ == "__main__":
    main()
