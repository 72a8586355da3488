"""Whether XLA compiles the loop of a training: decided before the first step, by rules in which no clock has a part.

A small net's step is a hundred operations of some microseconds each, most of which TensorFlow spends on calling them.
XLA makes one program of the whole loop, its gathering of batches, steps and averages. But it takes seconds to compile,
convolves and multiplies large matrices in one thread on a CPU, and rounds elsewhere than TensorFlow does. So the
choice follows from the graph, the data, the device and the planned steps alone; it stands in run.json, and a resume
keeps it, or its bits would be others.

The limits come from `tools/bench/compilation.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from experiments_manager.common.error_text import reason
from experiments_manager.compat.tensorflow import graphs_within
from experiments_manager.training.engine.steps import CompiledLoop, CompiledLoops, XlaScope
from experiments_manager.training.feeds.feed import Feed
from experiments_manager.training.observe.gradient_norm import GradientNorm
from experiments_manager.training.observe.step_statistics import StepStatistics
from experiments_manager.training.setup.experiment import Experiment
from experiments_manager.training.state.graph_state import operations

STEPS_THAT_REPAY = 20_000
"""Planned steps of a training that repay the second or more that XLA compiles for. 3,000 to 12,000 steps do so for
small dense nets; early stopping leaves many trainings with half of their plan."""
RECURRENT_STEPS_THAT_REPAY = 2_000
"""The same where the step has a loop of its own, on which ten times as much is saved: 300 to 800 steps."""
LARGEST_PRODUCT = 2**21
"""Multiplications of one matrix product up to which one thread is as quick as all."""


@dataclasses.dataclass(frozen=True)
class XlaChoice:
    """What XLA compiles of a run, and why."""

    setting: bool | str
    """`jit_compile`, as it was when this was chosen."""
    scope: XlaScope
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return what stands in run.json under `xla`."""
        return {"jit_compile": self.setting, "compiles": self.scope.value, "reason": self.reason}


def chosen_loops(
    experiment: Experiment,
    gradient_norm: GradientNorm | None = None,
    statistics: StepStatistics | tuple[()] = (),
    *,
    calls_by_batch: bool = False,
    former: Mapping[str, Any] | None = None,
) -> tuple[CompiledLoops, XlaChoice]:
    """Make the loops of a run, by XLA where that is wanted and possible.

    Args:
        experiment: What is trained.
        gradient_norm: What records the norm of the gradients, where it is measured.
        statistics: What the training loop adds up.
        calls_by_batch: Whether callbacks look at single batches, so that a call makes one step.
        former: run.json of the run that is gone on with; `None` for a new one.
    """
    setting = experiment.settings.jit_compile
    choice = former_choice(setting, former) or _choice_by_data(experiment, calls_by_batch)
    if choice is None:
        plain = CompiledLoops.of(experiment, gradient_norm)
        choice = choice_by_graph(experiment, plain.traced["training"])
        if choice.scope is XlaScope.NOTHING:
            return plain, choice
    loops = CompiledLoops.of(experiment, gradient_norm, xla=choice.scope)
    problem = _compiled(loops, experiment, statistics) if choice.scope is XlaScope.LOOP else None
    if problem is None:
        return loops, choice
    fallback = XlaScope.STEP if setting is True else XlaScope.NOTHING
    choice = XlaChoice(setting, fallback, f"the loop cannot be compiled: {problem}")
    return CompiledLoops.of(experiment, gradient_norm, xla=fallback), choice


def former_choice(setting: bool | str, former: Mapping[str, Any] | None) -> XlaChoice | None:
    """Return what was chosen for a run that is gone on with, if the setting is still the same."""
    if former is None:
        return None
    recorded = former.get("xla")
    if recorded is not None:
        same = recorded["jit_compile"] == setting
        return XlaChoice(setting, XlaScope(recorded["compiles"]), recorded["reason"]) if same else None
    before = (former.get("settings") or {}).get("jit_compile")
    if isinstance(before, bool) and setting in ("auto", before):  # an earlier release compiled single steps
        return XlaChoice(setting, XlaScope.STEP if before else XlaScope.NOTHING, "as the run was begun")
    return None


def _choice_by_data(experiment: Experiment, calls_by_batch: bool) -> XlaChoice | None:
    """Return the choice where the graph has no part in it."""
    settings, feed = experiment.settings, experiment.train
    setting = settings.jit_compile
    if setting is False:
        return XlaChoice(setting, XlaScope.NOTHING, "`jit_compile` is False")
    obstacle = None
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        obstacle = "the step runs on several devices"
    elif not (feed.in_memory and feed.whole_batches):
        obstacle = "the batches are no parts of arrays in memory"
    elif calls_by_batch:
        obstacle = "callbacks look at each batch"
    elif settings.prequential:
        obstacle = "samples are tested before they are trained on"
    if setting is True:
        return XlaChoice(setting, XlaScope.STEP if obstacle else XlaScope.LOOP, obstacle or "`jit_compile` is True")
    if obstacle is None and experiment.devices.names != ("CPU",):
        obstacle = "`auto` compiles for a CPU alone"
    planned = settings.epochs * (feed.steps or 0)
    if obstacle is None and planned < min(STEPS_THAT_REPAY, RECURRENT_STEPS_THAT_REPAY):
        obstacle = _too_few(planned, RECURRENT_STEPS_THAT_REPAY)
    return None if obstacle is None else XlaChoice(setting, XlaScope.NOTHING, obstacle)


def choice_by_graph(experiment: Experiment, step: Any) -> XlaChoice:
    """Return what `auto` compiles where data and number of steps suit: the loop, unless its step is no small one.

    Args:
        experiment: What is trained.
        step: The traced training step, a concrete function.
    """
    setting, planned = experiment.settings.jit_compile, experiment.settings.epochs * experiment.train.steps
    found = list(operations(step.graph))
    is_recurrent = any(operation.kind in ("While", "StatelessWhile") for operation in found)
    repaying = RECURRENT_STEPS_THAT_REPAY if is_recurrent else STEPS_THAT_REPAY
    if planned < repaying:
        return XlaChoice(setting, XlaScope.NOTHING, _too_few(planned, repaying))
    for operation in found:
        if operation.is_random or operation.runs_python or operation.changes_structures:
            return XlaChoice(setting, XlaScope.NOTHING, f"the step has {operation.kind}, which XLA does not repeat")
        if operation.kind.startswith("StatelessRandom"):
            text = f"the step draws random numbers ({operation.kind}), for which XLA takes longer, and draws others"
            return XlaChoice(setting, XlaScope.NOTHING, text)
        if "Conv" in operation.kind or "Pool" in operation.kind:
            return XlaChoice(setting, XlaScope.NOTHING, f"the step has {operation.kind}, which XLA does in one thread")
    largest = max(products(step.graph, experiment.train), default=0)
    if largest > LARGEST_PRODUCT:
        text = f"the step multiplies matrices by {largest:,} multiplications, which XLA does in one thread"
        return XlaChoice(setting, XlaScope.NOTHING, text)
    return XlaChoice(setting, XlaScope.LOOP, "a small step in memory, repeated often")


def _too_few(planned: int, repaying: int) -> str:
    return f"{planned:,} steps do not repay the compilation, {repaying:,} would"


def products(graph: Any, feed: Feed) -> Iterator[int]:
    """Yield the multiplications of each matrix product of a graph; a size that is not known counts as a batch's."""
    for operation in graph.get_operations():
        if operation.type in ("MatMul", "BatchMatMulV2", "BatchMatMul", "BatchMatMulV3"):
            left, right = operation.inputs[0].shape, operation.outputs[0].shape
            if left.rank is None or right.rank is None:
                yield LARGEST_PRODUCT + 1
                continue
            turned = operation.get_attr("transpose_a" if operation.type == "MatMul" else "adj_x")
            inner = left[-2] if turned else left[-1]
            sizes = [feed.batch_size if size is None else size for size in [*right, inner]]
            count = 1
            for size in sizes:
                count *= size
            yield count
    for inner_graph in graphs_within(graph).values():
        yield from products(inner_graph, feed)


def _compiled(loops: CompiledLoops, experiment: Experiment, statistics: Any) -> str | None:
    """Compile the loops that XLA shall compile; return why it cannot."""
    parts: list[tuple[CompiledLoop, Feed, Any]] = [(loops.train, experiment.train, statistics)]
    if loops.validation is not None and loops.validation.xla is XlaScope.LOOP:
        parts.append((loops.validation, experiment.validation, ()))
    try:
        for loop, feed, added_up in parts:
            loop.compile(feed.open(0), added_up)
    except (tf.errors.OpError, ValueError, TypeError) as error:
        return reason(error)
    return None
