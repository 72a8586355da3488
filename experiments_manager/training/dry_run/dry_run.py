"""The dry run: everything a training does before its first step, and one batch through all of it.

It collects: where a hook fails, or what it gives does not go with the rest, that is noted, and something else stands in
for it, so that all else is looked at in the same call.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from experiments_manager.settings import Problem, Settings
from experiments_manager.settings.hook_directory import as_in_run_folder
from experiments_manager.training.devices.devices import Devices, prepared_devices
from experiments_manager.training.dry_run import stand_ins
from experiments_manager.training.dry_run.findings import Findings
from experiments_manager.training.dry_run.later_hooks import look_at_callbacks, look_at_client, look_at_logs
from experiments_manager.training.dry_run.one_batch import DryRunBatch, look_at_loss, look_at_metrics, one_batch
from experiments_manager.training.engine.exactness import inexact_reasons
from experiments_manager.training.engine.recovery import user_state_of
from experiments_manager.training.engine.user_callbacks import UserCallbacks
from experiments_manager.training.errors import DataError
from experiments_manager.training.feeds.feed import Feed, Shape
from experiments_manager.training.feeds.pipeline_probe import differ
from experiments_manager.training.feeds.stream_feed import StreamFeed
from experiments_manager.training.hook_calls import seeded
from experiments_manager.training.setup.class_weights import class_weights_of
from experiments_manager.training.setup.compilation import (
    Parts,
    compile_and_build,
    learning_rate_of,
    loss_of,
    loss_weights_of,
    model_of,
    optimizer_of,
)
from experiments_manager.training.setup.datasets import feed_for, prepare_datasets
from experiments_manager.training.setup.experiment import Experiment, check_embeddings, experiment_of_model, servable_of
from experiments_manager.training.setup.fitting import (
    classes_misfit,
    keys_misfit,
    misfits,
    names_misfit,
    weights_misfit,
)
from experiments_manager.training.setup.monitors import monitor_of

_NO_SUCH_SPLIT = (KeyError, ValueError, NotImplementedError, UnboundLocalError, FileNotFoundError, IndexError)
"""What hooks raise that know no test split, which is not owed."""


@dataclasses.dataclass(frozen=True)
class DryRun:
    """What a dry run saw."""

    lines: list[str]
    """Printable rows: data, model, loss, metrics, memory, serving."""
    parameters: int
    """Trainable scalars."""
    not_looked_at: list[str] = dataclasses.field(default_factory=list)
    """What it could not look at."""


def dry_run(settings: Settings, problems: Iterable[Problem] = ()) -> DryRun:
    """Build the experiment and run one batch of each split through model, loss, metrics and serving function.

    Nothing is written.

    Args:
        settings: The settings, with defaults where they are wrong.
        problems: What is known to be wrong with them.

    Returns:
        What was seen, where nothing is wrong.

    Raises:
        DryRunError: With all that is wrong. Where that is a single thing, its own error:
        UserCodeError: If a hook raises.
        TrainingError: If data, model and settings do not fit together.
        SettingsError: If a hook returns what it must not.
    """
    findings = Findings(settings, problems)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dry_run_")))
        devices = Devices(("CPU",), None)
        with findings.part("gpus"):
            devices = stack.enter_context(prepared_devices(settings))
        stack.enter_context(as_in_run_folder(settings))
        stack.enter_context(settings.active())
        seen = _Look(settings, devices, findings, folder).all()
    findings.raise_all()
    return seen


class _Look:
    """One dry run on its way through the parts of an experiment."""

    def __init__(self, settings: Settings, devices: Devices, findings: Findings, folder: Path) -> None:
        self._settings, self._devices, self._findings = settings, devices, findings
        self._run = _run_in(folder)
        self._feeds: dict[str, Feed | None] = {}
        self._failed: set[str] = set()  # splits that there are, but that cannot be used
        self._dropped: list[str] = []  # names of metrics that fail
        self._is_real_model = self._is_real_data = True

    def all(self) -> DryRun:
        """Look at all parts of the experiment, in the order in which training would."""
        settings, findings = self._settings, self._findings
        lines = [f"devices     {', '.join(self._devices.names)}"]
        with findings.part("prepare_datasets"):
            prepare_datasets(settings, self._run)
        lines += [self._split_line(split) for split in ("train", "validation", "test")]
        model = self._model()
        look_at_client(settings, findings)
        if model is None:
            self._without_model()
            return DryRun(lines, 0, findings.not_looked_at)
        experiment = self._experiment(model)
        if experiment is None:
            return DryRun(lines, 0, findings.not_looked_at)
        if findings.is_clean:
            lines += _model_lines(experiment)
        batch = one_batch(experiment, self._feeds["test"] if self._is_real else None, findings)
        lines += batch.lines
        self._complete(batch, experiment)
        with findings.part("serving"):
            lines += self._serving_lines(experiment)
        if findings.is_clean and batch.traced:
            lines += _exactness_lines(settings, experiment, batch.traced)
        look_at_callbacks(experiment, batch, findings, self._run.path)
        look_at_logs(experiment, batch, findings, self._run)
        for feed in filter(None, self._feeds.values()):
            feed.close()
        return DryRun(lines, _trainable(experiment), findings.not_looked_at)

    def _split_line(self, split: str) -> str:
        feed = self._feeds[split] = self._feed(split)
        if feed is None:
            return f"{split:<11} none"
        steps = "unknown number of batches" if feed.steps is None else f"{feed.steps} batches"
        return f"{split:<11} {Shape.of(feed.spec).text}; {steps}; position: {feed.kind}"

    def _feed(self, split: str) -> Feed | None:
        settings, findings = self._settings, self._findings
        if not settings.has("dataset") and not settings.consume_data_from_kafka:
            findings.skip(f"the {split} data, for there is no `dataset` that can be called")
            return None
        with findings.part("dataset"):
            try:
                feed = feed_for(settings, split, follow=split != "test")
                if feed is None and split == "train":
                    raise DataError(
                        "dataset: there is no training data. Expected arrays, a `tf.data.Dataset` or a "
                        '`keras.utils.PyDataset` for the split "train", got None. Return the data.',
                        settings.location("dataset"),
                    )
                if feed is not None and feed.topic is None:
                    feed.sample_batch()
                return feed
            except Exception as error:
                if split == "test" and self._knows_no_test_split(error):
                    return None
                self._failed.add(split)
                raise
        return None

    def _knows_no_test_split(self, error: Exception) -> bool:
        """Return whether a hook raised since there is no test split, which is not owed: many know but the other two."""
        settings, cause = self._settings, getattr(error, "cause", None)
        without_folder = settings.asks_for("dataset", "data_dir") and settings.test_data_dir is None
        return cause is not None and (without_folder or isinstance(cause, _NO_SUCH_SPLIT))

    def _model(self) -> keras.Model | None:
        """Return the model of the hook, or one for the shapes of the data in its place."""
        settings, findings = self._settings, self._findings
        if settings.has("model"):
            with findings.part("model"):
                return model_of(settings)
        self._is_real_model = False
        findings.skip("whether the model goes with the data, `loss` and `metrics`, for there is no model")
        for feed in (*filter(None, self._feeds.values()), stand_ins.any_data()):
            with contextlib.suppress(Exception):  # of whatever is in the data
                model = stand_ins.model_for(feed, len(settings.class_names or ()))
                if model is not None:
                    self._feeds["train"] = feed if self._feeds["train"] is not None else None
                    return model
        return None

    def _without_model(self) -> None:
        """Look at what is left where there is neither model nor data."""
        findings, settings = self._findings, self._settings
        for name, look in (("learning_rate", learning_rate_of), ("loss", loss_of)):
            if settings.has(name) and not settings.asks_for(name, "model"):
                with findings.part(name):
                    look(settings, None, *([None] if name == "learning_rate" else []))
        findings.skip("loss, metrics, callbacks, training step and export, for there is neither model nor data")

    def _experiment(self, model: keras.Model) -> Experiment | None:
        """Compile the model with what goes with it, and whatever stands in for the rest."""
        settings, findings = self._settings, self._findings
        steps = self._feeds["train"].steps if self._feeds["train"] is not None else None
        rate, loss = self._learning_rate(model, steps), None
        with findings.part("loss"), seeded(settings, "optimizer"):
            loss = loss_of(settings, model)
        has_loss = loss is not None
        train = self._train_feed(model, loss)
        if train is None:
            findings.skip("loss, metrics, training step and export, for there is no data that the model can take")
            return None
        batch = train.sample_batch()
        if has_loss:
            has_loss = look_at_loss(settings, model, loss, batch, findings, real=self._is_real)
        metrics, self._dropped = look_at_metrics(settings, model, loss, batch, findings, real=self._is_real)
        weights = self._loss_weights(model)
        if self._is_real_model:
            for name, given in (("loss", loss), ("metrics", metrics), ("loss_weights", weights)):
                by_key = isinstance(given, dict) or name == "loss_weights"
                text = keys_misfit(model, given, any_for_one=name != "loss_weights") if by_key else None
                if text is not None:
                    findings.say(name, text)
                    metrics = None if name == "metrics" else metrics
                    weights = None if name == "loss_weights" else weights
                    has_loss = has_loss and name != "loss"
            for side in ("inputs", "outputs"):
                text = names_misfit(model, getattr(settings, f"{side[:-1]}_names"), side)
                if text is not None:
                    findings.say(f"{side[:-1]}_names", text)
        text = classes_misfit(settings, model, loss)
        if text is not None:
            findings.say("class_names", text)
        optimizer = keras.optimizers.Adam(0.001)
        if rate is not None:
            with findings.part("optimizer"):
                optimizer = optimizer_of(settings, model, loss, rate, steps)
        elif settings.has("optimizer"):
            with findings.part("optimizer"):
                optimizer = optimizer_of(settings, model, loss, 0.001, steps)
        stands_in = not has_loss and (loss is not None or settings.has("loss") or not model.compiled)
        parts = Parts(optimizer, _flat_loss if stands_in else loss, metrics, weights)
        if stands_in:
            parts.loss = keras.tree.map_structure(lambda _: _flat_loss, model.outputs) if _tells(model) else _flat_loss
            parts.loss_weights = None
        return self._built(model, train, parts)

    @property
    def _is_real(self) -> bool:
        return self._is_real_model and self._is_real_data

    def _learning_rate(self, model: keras.Model, steps: int | None) -> Any:
        if not self._settings.has("learning_rate"):
            return None
        with self._findings.part("learning_rate"):
            return learning_rate_of(self._settings, model, steps)
        return None

    def _loss_weights(self, model: keras.Model) -> Any:
        with self._findings.part("loss_weights"):
            return loss_weights_of(self._settings, model)
        return None

    def _train_feed(self, model: keras.Model, loss: Any) -> Feed | None:
        """Return the training data where the model takes it, or data that stands in for it."""
        fits = self._feeds["train"] is not None
        if self._is_real_model:
            for split, feed in self._feeds.items():
                found = list(misfits(model, feed, loss)) if feed is not None else []
                about = self._cause_of_misfit(split, model, loss) if found else ""
                for text in found:
                    self._findings.say(about, text.replace("Change `dataset`", f"Change `{about}`"))
                fits = fits and not (found and split == "train")
                if found:
                    self._failed.add(split)
                if found and split != "train":
                    self._feeds[split] = None
        if fits and self._runs(model, self._feeds["train"], say=self._is_real_model):
            return self._feeds["train"]
        self._is_real_data = False
        for split in ("validation", "test"):  # of the user's own, too, if not what is trained on
            feed = self._feeds[split]
            if self._feeds["train"] is None and feed is not None and self._runs(model, feed, say=False):
                return stand_ins.array_feed(feed.sample_batch(), "train")
        return stand_ins.data_for(model, loss)

    def _cause_of_misfit(self, split: str, model: keras.Model, loss: Any) -> str:
        """Return the hook that data which does not fit comes from: `augment` where only what it changes does not."""
        feed, other = self._feeds[split], self._feeds["validation"]
        if feed is not None and feed.topic is not None:
            return "kafka_topics"
        changed = split == "train" and self._settings.has("augment") and other is not None
        return "augment" if changed and not any(misfits(model, other, loss)) else "dataset"

    def _runs(self, model: keras.Model, feed: Feed, *, say: bool = True) -> bool:
        """Return whether the model runs on a batch; else that is said."""
        x = feed.sample_batch()
        x = x[0] if isinstance(x, tuple) else x
        try:
            model(x, training=False)
            return True
        except Exception as error:
            own_step = type(model).train_step is not keras.Model.train_step
            if own_step:
                return True  # such a model may want its batches otherwise
            if say:
                with self._findings.part("dataset" if self._settings.place_of(error) is None else "model"):
                    raise
            return False

    def _built(self, model: keras.Model, train: Feed, parts: Parts) -> Experiment | None:
        settings, findings = self._settings, self._findings
        less = dataclasses.replace(parts, metrics=None, loss_weights=None)
        bare = dataclasses.replace(less, loss=_flat_loss)
        for number, attempt in enumerate((parts, less, bare)):
            before = findings.is_clean
            try:
                compile_and_build(settings, model, train, attempt)
                break
            except Exception as error:
                if (number == 0 or before) and (self._is_real or settings.place_of(error) is not None):
                    with findings.part("training"):
                        raise
        else:
            findings.skip("the training step and the export, for the model could not be built")
            return None
        weights = None
        with findings.part("class_weight"):
            weights = class_weights_of(settings, train)
            text = weights_misfit(model, parts.loss, weights) if self._is_real_model else None
            if text is not None:
                findings.say("class_weight", text)
        experiment = experiment_of_model(settings, self._devices, model, train, weights, momentum=settings.ema_momentum)
        validation = self._feeds["validation"] if self._is_real else None
        experiment.validation = validation
        with findings.part("embeddings"):
            if self._is_real_model:
                check_embeddings(settings, model)
        measured = attempt is parts and settings.monitor.removeprefix("val_") not in self._dropped
        if measured and self._is_real_model and not findings.said_of("monitor"):
            validates = self._feeds["validation"] or (train if "validation" in self._failed else None)
            with findings.part("monitor"):
                experiment.monitor = monitor_of(settings, model, train, validates)
        return experiment

    def _complete(self, batch: DryRunBatch, experiment: Experiment) -> None:
        """Add to the logs what an epoch would have measured if what failed had not, so that nothing follows from it."""
        names = [*self._dropped, "loss", *(m.name for m in experiment.model.metrics if m.name != "compile_metrics")]
        batch.logs = dict.fromkeys(names, 1.0) | batch.logs
        if self._feeds["validation"] is not None or "validation" in self._failed:
            train = {name: value for name, value in batch.logs.items() if not name.startswith("val_")}
            batch.logs = {f"val_{name}": value for name, value in train.items()} | batch.logs

    def _serving_lines(self, experiment: Experiment) -> list[str]:
        settings = self._settings
        if not settings.export or not (self._is_real_model or settings.has("serving")):
            return ["serving     off (export = False)"] if self._is_real_model else []
        servable, problem = servable_of(settings, experiment.model, experiment.train, self._run)
        experiment.servable = servable
        if servable is None and "cannot be exported" in str(problem) and not self._is_real_model:
            return []  # it is made for another model
        if servable is None:
            about = next((name for name in ("input_names", "output_names") if str(problem).startswith(name)), None)
            about = about or ("serving" if settings.has("serving") else "export")
            text = str(problem).removeprefix(f"{settings.location('serving')}: ").removeprefix(f"{about}: ")
            if not about.endswith("_names"):  # which were compared with the model before
                self._findings.say(about, text)
            return []
        outputs = servable(servable.probe(experiment.train.sample_batch(), 1))
        inputs = ", ".join(f"{name} {tuple(spec.shape)} {spec.dtype.name}" for name, spec in servable.inputs.items())
        results = ", ".join(f"{name} {tuple(value.shape)} {value.dtype.name}" for name, value in outputs.items())
        return [f"serving     {inputs} -> {results}"]


def _run_in(folder: Path) -> Any:
    """Return a run for hooks that ask for one, whose folder does not stay."""
    from experiments_manager.runs import Run

    return Run(folder)


def _flat_loss(y_true: Any, y_pred: Any) -> Any:
    """Stand in for a loss: the same for all targets, with a gradient."""
    return keras.ops.mean(keras.ops.cast(y_pred, "float32")) * 0.0


def _tells(model: keras.Model) -> bool:
    return bool(getattr(model, "outputs", None))


def _trainable(experiment: Experiment) -> int:
    return sum(int(tf.size(weight)) for weight in experiment.model.trainable_weights)


def _model_lines(experiment: Experiment) -> list[str]:
    model, state = experiment.model, experiment.state
    trainable = _trainable(experiment)
    frozen = sum(int(tf.size(weight)) for weight in model.non_trainable_weights)
    held = sum(variable.dtype.size * int(tf.size(variable)) for variable in state.variables.values())
    return [
        f"model       {model.name}: {trainable:,} trainable and {frozen:,} other parameters",
        f"memory      {held / 2**20:.1f} MiB for weights, optimiser and averages",
        f"optimizer   {type(model.optimizer).__name__}, learning rate {state.learning_rate:g}",
        f"watched     {experiment.monitor.name}, {experiment.monitor.mode}imum",
    ]


def _exactness_lines(settings: Settings, experiment: Experiment, steps: dict[str, Any]) -> list[str]:
    """Return whether a resume would be exact; pipelines are read twice from the same seed for it."""
    callbacks = UserCallbacks(experiment.callbacks, experiment.model, settings.epochs, experiment.train.steps)
    feeds = (experiment.train, experiment.validation)
    reasons = inexact_reasons(settings, feeds, steps, callbacks) + user_state_of(experiment).reasons
    reasons += [
        f"the {feed.split} data: two passes from the same seed differ"
        for feed in feeds
        if isinstance(feed, StreamFeed) and not feed.inexact_reasons and differ(feed.beginning(), feed.beginning())
    ]
    return [f"resume      not exact: {reason}" for reason in reasons] or ["resume      exact"]
