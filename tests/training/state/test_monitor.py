"""What an epoch's result means: best so far, a lower learning rate, the end."""

import numpy as np
import pytest

from experiments_manager.training.errors import TrainingError
from experiments_manager.training.state.monitor import Monitor, decide
from experiments_manager.training.state.progress import TrainingProgress


def decided(values, **rules):
    """Judges epochs of these values, ten steps each, until one stops training."""
    monitor, progress, decisions = Monitor.make("val_loss", "auto", **rules), TrainingProgress(), []
    for value in values:
        progress.epoch, progress.global_step = progress.epoch + 1, progress.global_step + 10
        decisions.append(decide(monitor, progress, {"val_loss": value}))
        if decisions[-1].stop_reason:
            break
    return decisions, progress


def test_training_stops_after_so_many_epochs_without_improvement():
    decisions, progress = decided([3.0, 2.0, 2.5, 2.0, 1.0], patience=2)
    assert [decision.improved for decision in decisions] == [True, True, False, False]
    assert decisions[-1].stop_reason == "val_loss has not improved for 2 epochs; best 2 in epoch 2"
    assert (progress.best.epoch, progress.best.step, progress.best.value) == (2, 20, 2.0)


def test_the_reason_to_stop_calls_the_epochs_of_a_federation_rounds():
    monitor, progress = Monitor.make("val_loss", "auto", patience=1), TrainingProgress(epoch=1)
    decide(monitor, progress, {"val_loss": 1.0}, "round")
    reason = decide(monitor, progress, {"val_loss": 2.0}, "round").stop_reason
    assert reason == "val_loss has not improved for 1 rounds; best 1 in round 1"


def test_no_patience_at_all_stops_at_the_first_epoch_without_improvement():
    assert len(decided([3.0, 2.0, 2.5, 1.0], patience=0)[0]) == 3


def test_without_a_limit_training_never_stops_by_itself():
    assert decided([1.0] * 50)[0][-1].stop_reason is None


def test_a_change_below_the_smallest_one_is_no_improvement():
    decisions, _ = decided([3.0, 2.95, 2.85], min_delta=0.1)
    assert [decision.improved for decision in decisions] == [True, False, True]


def test_a_value_that_is_not_finite_is_never_the_best():
    decisions, progress = decided([float("nan"), float("inf"), -float("inf"), 5.0])
    assert [decision.improved for decision in decisions] == [False, False, False, True]
    assert progress.best.epoch == 4


def test_the_rate_falls_again_and_again_while_nothing_improves():
    decisions, _ = decided([1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5], plateau_patience=2)
    lowered = [number for number, decision in enumerate(decisions) if decision.lower_learning_rate]
    assert lowered == [2, 4, 7]


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [("val_loss", "min"), ("val_accuracy", "max"), ("val_auc", "max"), ("val_mean_iou", "max"), ("mae", "min")],
)
def test_the_name_tells_whether_more_is_better(monitor, mode):
    assert Monitor.make(monitor, "auto").mode == mode
    assert Monitor.make(monitor, "max").mode == "max"


def test_a_watched_value_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(TrainingError, match="monitor: `val_mae` is not among .* Expected one of loss, val_loss"):
        decide(Monitor.make("val_mae", "min"), TrainingProgress(), {"val_loss": 1.0, "loss": 2.0})


RISING = """
    ema_momentum = None

    def dataset(split):  # what is learnt in training makes the validation worse
        sign = 1.0 if split == "train" else -1.0
        x = np.ones([40, 3], "float32")
        return x, sign * np.ones([40, 1], "float32")

    def model(hparams):
        return keras.Sequential([keras.Input([3]), keras.layers.Dense(1, kernel_initializer="zeros")])
"""


def test_early_stopping_keeps_the_best_weights(experiment):
    trained = experiment(RISING, {"epochs": 20, "early_stopping_patience": 3})
    losses = trained.history["val_loss"]
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 3
    assert trained.result.best["epoch"] == best + 1
    assert trained.result.best["value"] == losses[best]
    assert trained.result.stop_reason.startswith("val_loss has not improved for 3 epochs")
    improved = [loss < min([np.inf, *losses[:epoch]]) for epoch, loss in enumerate(losses)]
    assert [report.improved for report in trained.epochs] == improved
    kernel, bias = trained.tensors["best/0000"], trained.tensors["best/0001"]
    assert (-1.0 - (kernel.sum() + bias[0])) ** 2 == pytest.approx(losses[best], rel=1e-5)
    assert not np.array_equal(kernel, trained.weights[0])


@pytest.mark.slow
def test_more_patience_goes_on_where_early_stopping_had_ended_the_run(experiment, resume):
    trained = experiment(RISING, {"epochs": 6, "early_stopping_patience": 1})
    assert trained.result.epochs == 2
    assert resume(trained.run.path).result.epochs == 2
    assert resume(trained.run.path, {"early_stopping_patience": 100}).result.epochs == 6


def test_the_learning_rate_falls_on_a_plateau_and_says_so(experiment):
    rules = {"reduce_lr_patience": 1, "reduce_lr_factor": 0.1, "min_learning_rate": 0.001, "learning_rate": 0.05}
    trained = experiment(RISING, {"epochs": 5, "early_stopping_patience": None, **rules})
    assert [report.learning_rate for report in trained.epochs] == pytest.approx([0.05, 0.05, 0.005, 0.001, 0.001])
    assert trained.messages == [
        "Learning rate lowered from 0.05 to 0.005.",
        "Learning rate lowered from 0.005 to 0.001.",
    ]


def test_without_validation_data_the_training_loss_is_watched(experiment):
    source = """
        def dataset(split):
            return (np.ones([8, 3]), np.ones([8, 1])) if split == "train" else None
    """
    trained = experiment(source)
    assert trained.result.best["name"] == "loss"
    assert trained.history.keys() == {"loss"}


def test_a_metric_can_be_watched(experiment):
    source = 'metrics = ["mae"]\nmonitor = "val_mae"\n'
    trained = experiment(source)
    assert trained.result.best["value"] == min(trained.history["val_mae"])


def test_a_plateau_may_ask_for_more_than_early_stopping():
    values = [1.0, 0.99995, 0.9999, 0.5, 0.49999]
    decisions, progress = decided(values, plateau_patience=2, plateau_min_delta=1e-3)
    assert [decision.improved for decision in decisions] == [True] * 5
    assert [number for number, decision in enumerate(decisions) if decision.lower_learning_rate] == [2]
    assert (progress.plateau_best, progress.epochs_on_plateau) == (0.5, 1)


def test_a_checkpoint_without_a_value_of_the_plateaus_own_goes_on_from_the_best():
    progress = TrainingProgress.from_json({"epoch": 3, "best": {"value": 1.0, "epoch": 3, "step": 30}})
    monitor = Monitor.make("val_loss", "auto", plateau_patience=1)
    assert decide(monitor, progress, {"val_loss": 1.0}).lower_learning_rate
