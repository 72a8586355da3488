"""Print how long tests took: minutes by folder, then the slowest files and tests, from a JUnit file.

    python -m pytest --junitxml=/tmp/tests.xml
    python tools/test_minutes.py /tmp/tests.xml [--before OLDER.xml] [--most 20]

The time of a test is that of a clock on the wall, its fixtures included, and the files of a run stand beside each other
in several processes: so the sum of all is more than the run took, and a busy machine makes all of them longer.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

Times = dict[tuple[str, str], float]
"""Seconds of each test, by its file and its name."""


def read_times(path: Path) -> Times:
    """Return the times in a JUnit file of pytest, where a test is named by the module that it is in."""
    times: Times = defaultdict(float)
    for case in ElementTree.parse(path).iter("testcase"):
        times[_file_of(case.get("classname") or case.get("name", "")), case.get("name", "")] += float(
            case.get("time", 0)
        )
    return times


def _file_of(module: str) -> str:
    parts = [part for part in module.split(".") if not part.startswith("Test")]
    return "/".join(parts) + ".py"


def folder_of(test: tuple[str, str]) -> str:
    """Return the room that a test belongs to: the folder below `tests`."""
    parts = test[0].split("/")
    return "/".join(parts[: min(2, len(parts) - 1)])


def sums(times: Times, group: Callable[[tuple[str, str]], str]) -> dict[str, tuple[float, int]]:
    """Return the seconds and the number of tests of each group."""
    seconds: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for test, time in times.items():
        seconds[group(test)] += time
        counts[group(test)] += 1
    return {name: (seconds[name], counts[name]) for name in seconds}


def print_table(title: str, now: Times, before: Times | None, group: Callable, most: int | None = None) -> None:
    """Print one line a group, the longest first, with what it took before where that is known."""
    found = sums(now, group)
    older = sums(before, group) if before is not None else {}
    print(f"\n{'minutes':>8}" + (f"{'before':>9}" if before is not None else "") + f"{'tests':>7}  {title}")
    for name, (seconds, count) in sorted(found.items(), key=lambda item: -item[1][0])[:most]:
        then = f"{older.get(name, (0.0, 0))[0] / 60:9.2f}" if before is not None else ""
        print(f"{seconds / 60:8.2f}{then}{count:7d}  {name}")


def main() -> None:
    """Print the tables of the file that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("junit", type=Path, help="file that pytest --junitxml wrote")
    parser.add_argument("--before", type=Path, help="the same of an older state, for comparison")
    parser.add_argument("--most", type=int, default=20, help="how many files and tests to print")
    given = parser.parse_args()
    now, before = read_times(given.junit), read_times(given.before) if given.before else None
    print_table("all", now, before, lambda test: "all")
    print_table("folder", now, before, folder_of)
    print_table("file", now, before, lambda test: test[0], given.most)
    print_table("test", now, before, lambda test: "::".join(test), given.most)


if __name__ == "__main__":
    main()
