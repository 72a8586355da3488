"""`experiments_manager explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from experiments_manager.cli import options
from experiments_manager.cli.commands.evaluate import Split
from experiments_manager.common.console import warn

if TYPE_CHECKING:
    from experiments_manager.attribution.run_files import RunExplanation

Samples = Annotated[int, typer.Option(min=1, metavar="N", help="Samples that are explained.")]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help="integrated-gradients, grad-cam, occlusion or shap (extra xai). May be given several times. By default "
        "all but shap, as far as they go together with the model.",
    ),
]
ClassName = Annotated[
    str | None,
    typer.Option("--class", metavar="NAME", help="The class, by name or number. By default what the model tells."),
]
Head = Annotated[str | None, typer.Option(metavar="NAME", help="The head. By default the first that tells classes.")]
Input = Annotated[
    str | None,
    typer.Option("--input", metavar="NAME", help="The input. By default the one of floating point with most axes."),
]
Baseline = Annotated[
    str,
    typer.Option(metavar="mean|NUMBER", help="What stands for nothing: the mean of the samples, or a number."),
]
Layer = Annotated[
    str | None, typer.Option(metavar="NAME", help="The layer of grad-cam. By default the last convolution.")
]
Steps = Annotated[int, typer.Option(min=1, metavar="N", help="Points of the integration of integrated-gradients.")]
Window = Annotated[int | None, typer.Option(min=1, metavar="N", help="Side of the window of occlusion.")]
Batch = Annotated[int, typer.Option(min=1, metavar="N", help="Samples that go through the model together.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Of the choice of samples, random weights and random order.")]


def explain(
    run: options.RunFolder,
    samples: Samples = 8,
    split: Annotated[Split, typer.Option(help="The part of the data.")] = Split.VALIDATION,
    method: Methods = None,
    class_name: ClassName = None,
    head: Head = None,
    input_name: Input = None,
    baseline: Baseline = "mean",
    layer: Layer = None,
    steps: Steps = 32,
    window: Window = None,
    batch: Batch = 16,
    seed: Seed = 0,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Show which parts of its inputs a run's model goes by.

    Draws maps for a classification or segmentation into the folder `figures`, for the report, and measures each method
    by insertion and deletion, and by what it makes of random weights.
    """
    from experiments_manager.attribution.verb import explain as explain_run
    from experiments_manager.cli.results import ResultLine
    from experiments_manager.cli.training_session import start_engine
    from experiments_manager.runs import open_run

    opened = open_run(run)
    output = ResultLine() if json else None
    start_engine(debug=debug)
    tell = (lambda text: None) if quiet or json else warn
    found = explain_run(
        opened,
        samples=samples,
        split=split.value,
        methods=method or None,
        layer=layer,
        steps=steps,
        window=window,
        seed=seed,
        tell=tell,
        input=input_name,
        head=head,
        class_name=class_name,
        baseline=baseline,
        batch=batch,
    )
    if output:
        from experiments_manager.attribution.run_files import numbers_of

        files = {"figures": found.figures, "numbers": found.numbers, "maps": found.maps}
        result = {"run_dir": opened.path, "split": found.split, "epoch": found.epoch}
        output.write(result | numbers_of(found.explanation) | files)
    else:
        _print(found, opened.unit)


def _print(found: RunExplanation, unit: str) -> None:
    from experiments_manager.cli.tables import new_table, print_table, short

    explanation = found.explanation
    target = explanation.target
    typer.echo(
        f"{found.split}: {len(target.question)} samples, input {target.input_name}, head {target.head_name}, "
        f"weights of {unit} {found.epoch}"
    )
    table = new_table("method", "insertion ↑", "deletion ↓", "worth ↑", "correlation with random weights")
    for name, result in explanation.methods.items():
        curves = result.curves
        numbers = (curves.insertion_area, curves.deletion_area, curves.worth, result.sanity)
        table.add_row(name, *(f"{number:.3f}" for number in numbers))
    curves = explanation.random
    table.add_row(
        "random order", *(f"{number:.3f}" for number in (curves.insertion_area, curves.deletion_area, curves.worth))
    )
    print_table(table)
    for name, reason in explanation.skipped.items():
        typer.echo(f"without {short(name)}: {reason}")
    for figure in found.figures:
        typer.echo(f"  {figure}")
    typer.echo(f"  {found.maps}")
