"""Clients whose data are pipelines and Python sequences: whoever trains them, and wherever a resume begins."""

import pytest

from experiments_manager import api
from tests.helpers.simulated_federations import arrays, rows, same

pytest.importorskip("flwr")
pytestmark = pytest.mark.slow

PIPELINE = """
def dataset(split, partition=None):
    data = tf.data.Dataset.from_tensor_slices(arrays(split, partition))
    return data.shuffle(18).batch(batch_size) if split == "train" else data.batch(batch_size)
"""
NOISY_PIPELINE = """
import random

def dataset(split, partition=None):
    x, y = arrays(split, partition)

    def samples():
        for row, goal in zip(x, y):
            yield row + np.random.normal() + random.random(), goal

    spec = (tf.TensorSpec([3], tf.float32), tf.TensorSpec([1], tf.float32))
    return tf.data.Dataset.from_generator(samples, output_signature=spec).batch(batch_size)
"""
SEQUENCE = """
class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return -(-len(self.x) // 4)

    def __getitem__(self, index):
        return self.x[4 * index : 4 * index + 4], self.y[4 * index : 4 * index + 4]

def dataset(split, partition=None):
    return Batches(*arrays(split, partition))
"""
AUGMENTED = """
def augment(x, y, seed):
    return x + tf.random.stateless_normal([3], seed), y
"""
UNEVEN = """
def dataset(split, partition=None):
    x, y = arrays(split, partition)
    samples = 18 if partition is None else 6 * (partition + 1)
    return tf.data.Dataset.from_tensor_slices((x[:samples], y[:samples])).batch(batch_size)
"""
FEDERATED = '{"rounds": 4, "clients": 3, "fraction_train": 0.67}'


@pytest.mark.parametrize(
    ("added", "replaced"),
    [
        (PIPELINE, {}),
        (PIPELINE, {"steps_per_epoch": "3"}),
        (NOISY_PIPELINE, {}),
        (SEQUENCE, {"shuffle": "True"}),
        (AUGMENTED, {"shuffle": "True"}),
    ],
    ids=["pipeline", "pipeline over rounds", "python pipeline", "sequence", "augmented arrays"],
)
def test_results_depend_neither_on_workers_nor_on_an_interruption(federation, several_models, added, replaced):
    federation.write(added, federated=FEDERATED, **replaced)
    whole = federation.simulate("whole")
    stopped = federation.simulate("stopped", workers=3, stop_after=3)
    assert stopped.state == "interrupted"
    resumed = api.resume(stopped.run_dir, quiet=True)
    assert (resumed.state, resumed.epochs) == ("finished", 4)
    assert same(whole, resumed)


def test_clients_with_different_orders_of_a_pipeline_learn_from_all_of_it(federation):
    federation.write(PIPELINE, federated='{"rounds": 12, "clients": 2}')
    losses = [float(row["loss"]) for row in rows(federation.simulate())]
    assert losses[-1] < losses[0] / 1.5


def test_pipelines_are_weighted_by_the_samples_that_they_gave(federation):
    given = '{"rounds": 1, "clients": 2, "local_epochs": %s}'
    federation.write(UNEVEN, federated=given % 3)
    from_pipelines = federation.simulate("pipelines_again")
    federation.write(
        UNEVEN.replace(
            "tf.data.Dataset.from_tensor_slices((x[:samples], y[:samples])).batch(batch_size)",
            "x[:samples], y[:samples]",
        ),
        federated=given % 3,
    )
    assert same(from_pipelines, federation.simulate("arrays"))


def test_a_place_that_goes_on_over_rounds_is_in_the_checkpoint(federation):
    federation.write(PIPELINE, steps_per_epoch="3", federated='{"rounds": 2, "clients": 2}')
    assert {"0/plain", "1/plain"} == set(arrays(federation.simulate(), "clients"))
