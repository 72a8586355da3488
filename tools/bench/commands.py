"""Whole commands, from start to exit: `--help`, `check` of a broken file, and the regression example.

    python tools/bench/commands.py [--rounds 5]

The regression command is set against `import tensorflow` alone, in turn, and against what it may take more than that.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MANAGER = [sys.executable, "-m", "experiments_manager"]
BROKEN = "import keras\nbatchsize = 10\nloss = 3\ndef dataset(splitt):\n    return 1\n"


def seconds(command: Sequence[str], expected: int = 0) -> float:
    """Time a command, which must end with the expected exit code."""
    begun = time.perf_counter()
    ended = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    taken = time.perf_counter() - begun
    if ended.returncode != expected:
        sys.exit(f"{' '.join(command)}: exit code {ended.returncode}, expected {expected}\n{ended.stderr}")
    return taken


ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "mysettings_broken.py").write_text(BROKEN)
        example = str(ROOT / "examples" / "regression" / "mysettings_curve_fitting.py")
        commands = {
            "--help": ([*MANAGER, "--help"], 0),
            "check of a broken file": ([*MANAGER, "check", str(folder / "mysettings_broken.py")], 2),
            "import tensorflow": ([sys.executable, "-c", "import tensorflow"], 0),
            "train regression example": ([*MANAGER, "train", example, "--working-dir", str(folder)], 0),
        }
        times: dict[str, list[float]] = {title: [] for title in commands}
        for number in range(rounds + 1):
            for title, (command, expected) in commands.items():
                taken = seconds(command, expected)
                if number:  # the first round warms the disk's cache
                    times[title].append(taken)
    medians = {title: statistics.median(taken) for title, taken in times.items()}
    for title, median in medians.items():
        print(f"{title:<28}{median:8.2f} s")
    print(
        f"{'training beyond the import':<28}{medians['train regression example'] - medians['import tensorflow']:8.2f} s"
    )


if __name__ == "__main__":
    main()
