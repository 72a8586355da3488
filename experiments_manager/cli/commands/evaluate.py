"""`experiments_manager evaluate`."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from experiments_manager.cli import options


class Split(str, enum.Enum):
    """A part of the data."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


def evaluate(
    run: options.RunFolder,
    split: Annotated[Split, typer.Option(help="The part of the data.")] = Split.TEST,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Evaluate the best weights of a run on one split.

    For a classification, the confusion matrix is drawn into its folder `figures`.
    """
    from experiments_manager import api
    from experiments_manager.cli.results import ResultLine
    from experiments_manager.cli.training_session import start_engine

    opened = api.load_run(run)
    output = ResultLine() if json else None
    start_engine(debug=debug)
    evaluation, picture = api.evaluate_and_draw(opened, split.value)
    if output:
        result = {"run_dir": opened.path, "split": split.value, "epoch": evaluation.epoch}
        result |= {"samples": evaluation.samples, "metrics": evaluation.metrics, "confusion_matrix": picture}
        output.write(result)
        return
    typer.echo(f"{split.value}: {evaluation.samples:,} samples, weights of {opened.unit} {evaluation.epoch}")
    width = max(map(len, evaluation.metrics), default=0)
    for name, value in evaluation.metrics.items():
        typer.echo(f"  {name:<{width}}  {value:.6g}")
    if picture:
        typer.echo(f"  confusion matrix in {picture}")
