"""Whether a run has anything left to do, and what is said of one that has not."""

from experiments_manager.training.engine.completion import continue_hint, may_go_on, training_is_over
from experiments_manager.training.state.progress import TrainingProgress

IDLE = "no new sample in topic clicks for 5 s"


def test_a_run_whose_stream_had_ended_goes_on_whatever_the_patience():
    progress = TrainingProgress(epoch=3, stop_reason=IDLE, epochs_without_improvement=7)
    assert may_go_on(progress, 5)
    assert may_go_on(progress, 0)
    assert not training_is_over(progress, 10, 5)
    assert training_is_over(progress, 3, 5)


def test_after_a_stream_more_patience_is_no_remedy():
    assert "resume with more epochs, e.g. `--set epochs=6`" in continue_hint(3, IDLE)
    assert "more epochs or patience" in continue_hint(3, "no improvement for 5 epochs")


def test_the_epochs_of_a_federation_are_rounds():
    hint = continue_hint(3, None, "round")
    assert "finished, after 3 rounds. To go on, resume with more rounds or patience, e.g. `--set epochs=6`" in hint
