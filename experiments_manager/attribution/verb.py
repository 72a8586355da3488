"""The verb `explain`, for notebooks and the command line; nothing here imports TensorFlow before it is called."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments_manager.runs import Run, open_run

if TYPE_CHECKING:
    from experiments_manager.attribution.run_files import RunExplanation

logger = logging.getLogger(__name__)


def explain(
    run: Run | Path | str,
    *,
    samples: int = 8,
    split: str = "validation",
    methods: Sequence[str] | None = None,
    layer: str | None = None,
    steps: int = 32,
    window: int | None = None,
    seed: int = 0,
    tell: Callable[[str], None] = logger.info,
    input: str | None = None,
    head: str | None = None,
    class_name: str | None = None,
    baseline: str = "mean",
    batch: int = 16,
) -> RunExplanation:
    """Show which parts of its inputs a run's model goes by.

    Maps and curves are drawn into `figures/` of the run folder, where `report` finds them; the maps themselves and what
    each method is worth are in `explanations/`.

    Args:
        run: The run, or its folder, of a classification or segmentation.
        samples: How many samples of the split are explained.
        split: `train`, `validation` or `test`.
        methods: Some of `integrated-gradients`, `grad-cam`, `occlusion` and `shap`; by default all but the last, as far
            as they go together with the model.
        layer: The layer that Grad-CAM looks at; by default the last convolution.
        steps: Points of the integration of integrated gradients.
        window: Side of the window of occlusion.
        seed: Of the choice of samples, random weights and random order.
        tell: Called with what is being done, as that may take minutes.
        input: Name of the input; by default the one with most axes among those of floating point.
        head: Name of the head; by default the first that tells classes.
        class_name: Name or number of the class; by default what the model tells of each sample.
        baseline: What stands for nothing: `mean` of the samples, or a number.
        batch: Samples that go through the model together.

    Returns:
        The maps, what each method is worth, and the files.

    Raises:
        RunError: There is no run in that folder.
        ExplainError: The model, its data and the methods do not go together.
        TrainingError: The run has no checkpoint, or there is no data for the split.
        UserCodeError: A hook raised.
    """
    from experiments_manager.attribution.explanation import MethodOptions
    from experiments_manager.attribution.run_files import explain_run
    from experiments_manager.attribution.targets import TargetOptions

    return explain_run(
        run if isinstance(run, Run) else open_run(run),
        samples=samples,
        split=split,
        methods=methods,
        target_options=TargetOptions(input, head, class_name, baseline, batch),
        options=MethodOptions(steps, layer, window, seed),
        tell=tell,
    )
