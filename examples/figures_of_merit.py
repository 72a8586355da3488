"""Trains examples with several seeds and prints what they reach, as the tables of their pages have it.

python examples/figures_of_merit.py                      # all
python examples/figures_of_merit.py examples/embedding/merit.py --seeds 5

An example has its figures of merit in `merit*.py` beside its settings files: `SETTINGS` is one of these,
`merit(run_dir)` gives figures by name. `VARIANTS`, where they are there, are names with the settings that each changes,
and `draw(run_dir, file)` draws `PICTURE`, the picture of the example's page, of the first variant.
"""

import argparse
import logging
import os
import runpy
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import matplotlib

matplotlib.use("Agg")

import experiments_manager

FOLDER = Path(__file__).parent


def measure(page, overrides, seeds, folder, picture):
    """Trains one example with some seeds; gives their figures, and their seconds on the clock and of a processor."""
    figures, seconds = [], []
    for seed in range(seeds):
        began = time.monotonic(), time.process_time()
        result = experiments_manager.train(
            page["SETTINGS"],
            overrides={"random_seed": seed, "figures": False, **overrides},
            working_dir=folder,
            run_name=f"seed{seed}",
            quiet=True,
        )
        seconds.append((time.monotonic() - began[0], time.process_time() - began[1]))
        figures.append(page["merit"](result.run_dir))
        if picture and seed == 0:
            page["draw"](result.run_dir, picture)
    return figures, seconds


def rows(file, seeds, draw):
    """The rows of one example, a figure of a variant each, as they come."""
    page = runpy.run_path(str(file))
    name = file.absolute().parent.name + file.stem.removeprefix("merit")
    for number, (variant, overrides) in enumerate(page.get("VARIANTS", {"": {}}).items()):
        picture = file.with_name(page["PICTURE"]) if draw and number == 0 and "draw" in page else None
        with tempfile.TemporaryDirectory() as folder:
            figures, seconds = measure(page, overrides, seeds, folder, picture)
        for figure in figures[0]:
            values = [each[figure] for each in figures]
            spread = f"{min(values):.3f} to {max(values):.3f}"
            clock, processor = (statistics.median(times) for times in zip(*seconds, strict=True))
            took = f"{clock:.0f} s ({processor:.0f} s of a processor)"
            yield f"| {f'{name} {variant}'.strip()} | {figure} | {statistics.mean(values):.3f} | {spread} | {took} |"


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="merit*.py of an example; by default all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draw", action="store_true", help="draw the pictures of the pages anew")
    given = parser.parse_args()
    logging.getLogger("experiments_manager").setLevel(logging.ERROR)
    print("| example | figure | mean | lowest to highest | a training |\n| --- | --- | --- | --- | --- |")
    for file in given.files or sorted(FOLDER.rglob("merit*.py")):
        for row in rows(file, given.seeds, given.draw):
            print(row, flush=True)


if __name__ == "__main__":
    main()
