import pytest

from experiments_manager.runs import create_run
from experiments_manager.runs.reproduction.outcome import compare_outcome

STEP = "epoch-00002-step-00000008"


@pytest.fixture
def make_run(tmp_path):
    def make(name, weights=b"1", loss=0.5, epochs=2, step=STEP):
        run = create_run(tmp_path, "line", run_name=name)
        if weights is not None:
            (run.checkpoints_dir / step).mkdir(parents=True)
            (run.checkpoints_dir / step / "variables.data-00000-of-00001").write_bytes(weights)
            (run.checkpoints_dir / "latest").write_text(f"{step}\n")
        run.finish("finished", epochs=epochs, metrics={"loss": loss})
        return run

    return make


def test_runs_whose_last_checkpoints_have_the_same_bits_are_the_same(make_run):
    outcome = compare_outcome(make_run("then"), make_run("now"))
    assert (outcome.same, outcome.weights, outcome.metrics) == (True, "identical", {})


def test_one_bit_makes_runs_different_and_metrics_say_by_how_much(make_run):
    outcome = compare_outcome(make_run("then"), make_run("now", weights=b"2", loss=0.75))
    assert (outcome.same, outcome.weights) == (False, "different")
    assert outcome.metrics == {"loss": (0.5, 0.75, 0.25)}


def test_checkpoints_of_different_steps_are_different_whatever_they_hold(make_run):
    assert compare_outcome(make_run("then"), make_run("now", step="epoch-00003-step-00000012")).weights == "different"


@pytest.mark.parametrize(("changes", "same"), [({}, True), ({"loss": 0.6}, False), ({"epochs": 3}, False)])
def test_without_a_checkpoint_metrics_and_epochs_decide(make_run, changes, same):
    outcome = compare_outcome(make_run("then"), make_run("now", weights=None, **changes))
    assert (outcome.same, outcome.weights) == (same, "unknown")
