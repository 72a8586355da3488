"""A run that is killed anywhere, or asked to stop, ends exactly as one that was not.

The experiments in `survival/` cover, each in a run of some seconds: arrays with an `augment` hook, batch normalisation,
a falling learning rate and early stopping; random operations in a pipeline's map, two inputs and accumulated gradients;
a pipeline whose iterator is saved, in float16 with a growing loss scale; short epochs that share the build of a
shuffled pipeline; a Python generator. Dropout is everywhere, and all checkpoints fall inside epochs. What is compared
includes the curves that TensorBoard shows by epoch and by step, which are not written in step with checkpoints.
"""

import csv
import io
import json
import socket

import pytest

from tests.helpers.survival import DAMAGED, STOP_SIGNALS, Survival
from tools.bench import survival as bench

pytestmark = pytest.mark.slow

POSITIONS = {
    "augmented_arrays": "arrays",
    "random_map": "replayed",
    "half_precision": "saved iterator",
    "short_epochs": "replayed",
    "generator": "replayed",
}
INTERRUPTED = 75
BAD_INPUT = 2


@pytest.fixture(scope="module")
def survival(tmp_path_factory):
    return Survival(tmp_path_factory.mktemp("survival"))


@pytest.mark.parametrize(("name", "position"), POSITIONS.items())
def test_a_run_that_is_asked_to_stop_and_then_killed_ends_with_the_same_bits(survival, name, position):
    disturbed = survival.disturbed(name)
    assert (disturbed.code, disturbed.state) == (INTERRUPTED, "interrupted"), disturbed.told
    assert f"{STOP_SIGNALS[name]}: stopping at the next step." in disturbed.told
    expected = survival.undisturbed(name).outcome
    assert bench.differences(expected, disturbed.outcome) == []
    assert bench.lost_and_doubled(expected, disturbed.outcome) == (0, 0)
    assert disturbed.killed, "it finished before it could be killed: this shows too little"
    assert "Taking over the lock" in disturbed.output
    manifest = json.loads((survival.folder / "undisturbed" / name / "run.json").read_text())
    assert (manifest["state"], manifest["data_position"]) == ("finished", position)


def test_the_curves_by_step_have_each_step_once(survival):
    killed = survival.disturbed("random_map").outcome
    steps = [step for step, _ in killed.curves["train/by_step: by_step/gradient_norm"]]
    assert steps == list(range(4, killed.progress["global_step"] + 1, 4))
    validated = [step for step, _ in killed.curves["validation/by_step: by_step/loss"]]
    assert validated == [step for _, step in killed.rows]


def test_the_experiments_show_what_they_are_there_for(survival):
    arrays = survival.undisturbed("augmented_arrays").outcome
    rates = [row["learning_rate"] for row in csv.DictReader(io.StringIO(arrays.metrics.decode()))]
    assert len(set(rates)) > 1, "the learning rate was never lowered"
    assert "has not improved" in arrays.progress["stop_reason"]
    scales = [name for name in survival.undisturbed("half_precision").outcome.tensors if name.endswith("_scale")]
    assert scales, "there is no loss scale"


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(survival):
    disturbed = survival.disturbed(DAMAGED)
    assert f"A checkpoint is damaged and skipped: {disturbed.damaged} is damaged." in disturbed.output
    assert bench.differences(survival.undisturbed(DAMAGED).outcome, disturbed.outcome) == []


def test_a_second_process_on_the_same_run_is_refused_naming_host_and_process(survival):
    process, code, output, went_on = survival.shared("random_map")
    assert code == BAD_INPUT, output
    assert f"got process {process} on host {socket.gethostname()}" in output
    assert went_on
