#!/usr/bin/env python3
"""Print the figures by which the shape of the package is judged.

    python tools/house.py                    # of this working tree
    python tools/house.py --json             # the same, for a script
    python tools/house.py --names            # and which names, halves and pairs are counted
    python tools/house.py --of 5d8280a       # of a commit

Needs grimp, which comes with import-linter. Imports for type checkers alone count as imports, and so do those inside
of functions.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "experiments_manager"
# A subject with its annexes: the files of other rooms that would go if the subject went.
SUBJECTS = {
    "federated": (
        "federated/**/*.py",
        "training/local/*.py",
        "monitoring/report/federation*.py",
        "monitoring/plots/rounds.py",
        "monitoring/plots/clusters.py",
        "cli/commands/federate.py",
        "cli/federation_session.py",
        "compat/flower.py",
    ),
    "kafka": (
        "kafka/**/*.py",
        "training/feeds/topics/*.py",
        "client/topic_*.py",
        "client/*/topic*.py",
        "client/outputs/dead_letters.py",
        "cli/commands/kafka/*.py",
        "cli/topic_options.py",
    ),
    "sweeps": ("sweeps/**/*.py",),
}


def files_of(package: Path) -> list[Path]:
    """Return the files of the package; the gallery, a link to the examples, is none of them."""
    return sorted(file for file in package.rglob("*.py") if "gallery" not in file.relative_to(package).parts)


def lines_of(files: list[Path]) -> int:
    """Count the lines of some files."""
    return sum(file.read_bytes().count(b"\n") for file in files)


def subject_lines(package: Path, patterns: tuple[str, ...]) -> int:
    """Count the lines of a subject with its annexes."""
    return lines_of(sorted({file for pattern in patterns for file in package.glob(pattern)}))


def ambiguous_classes(files: list[Path]) -> list[str]:
    """Return the public names of classes that several modules define."""
    owners: dict[str, set[Path]] = defaultdict(set)
    for file in files:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                owners[node.name].add(file)
    return sorted(name for name, where in owners.items() if len(where) > 1)


def repeated_stems(modules: list[Path]) -> list[str]:
    """Return the names of files that stand twice or more."""
    return sorted(name for name, count in Counter(file.stem for file in modules).items() if count > 1)


def halves(graph: grimp.ImportGraph, leaves: list[str]) -> list[str]:
    """Return the modules that exactly one module imports, which stands beside them in the same folder."""
    found = []
    for module in leaves:
        importers = graph.find_modules_that_directly_import(module)
        if len(importers) == 1 and next(iter(importers)).rpartition(".")[0] == module.rpartition(".")[0]:
            found.append(module)
    return found


def pairs_inside(graph: grimp.ImportGraph, room: str) -> list[str]:
    """Return the pairs of sub-rooms of a room that import each other."""
    prefix = f"{PACKAGE}.{room}."
    inner = {module: module[len(prefix) :].split(".")[0] for module in graph.modules if module.startswith(prefix)}
    imports = {
        (inner[importer], inner[imported])
        for importer in inner
        for imported in graph.find_modules_directly_imported_by(importer)
        if imported in inner and inner[imported] != inner[importer]
    }
    rooms = sorted({name for pair in imports for name in pair})
    return [f"{a} <-> {b}" for a, b in combinations(rooms, 2) if (a, b) in imports and (b, a) in imports]


def circles(graph: grimp.ImportGraph) -> list[str]:
    """Return the groups of modules that import each other, also in a roundabout way (Tarjan's components).

    The package's own `__init__`, which offers all verbs and is imported for where it lies, is left out.
    """
    sys.setrecursionlimit(10_000)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for imported in sorted(graph.find_modules_directly_imported_by(module) - {PACKAGE}):
            if imported not in index:
                visit(imported)
                low[module] = min(low[module], low[imported])
            elif imported in stack:
                low[module] = min(low[module], index[imported])
        if low[module] == index[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                found.append(" - ".join(sorted(name.removeprefix(f"{PACKAGE}.") for name in group)))

    for module in sorted(graph.modules):
        if module not in index:
            visit(module)
    return sorted(found)


def measure(root: Path) -> tuple[dict[str, int], dict[str, list[str]]]:
    """Return the figures of the package under `root`, and the names behind those that count names."""
    spec = importlib.util.spec_from_file_location(PACKAGE, root / PACKAGE / "__init__.py")
    if spec is None:
        raise SystemExit(f"{root} holds no package {PACKAGE}.")
    sys.path.insert(0, str(root))
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    package = root / PACKAGE
    files = files_of(package)
    modules = [file for file in files if file.name != "__init__.py"]
    leaves = [".".join(file.relative_to(root).with_suffix("").parts) for file in modules]
    leaves = [module for module in leaves if module in graph.modules]
    names = {
        "ambiguous class names": ambiguous_classes(files),
        "repeated stems": repeated_stems(modules),
        "halves": halves(graph, leaves),
        "pairs inside training": pairs_inside(graph, "training"),
        "circles of modules": circles(graph),
    }
    figures = {"package lines": lines_of(files), "modules": len(modules)}
    figures |= {name: len(found) for name, found in names.items()}
    figures |= {f"{name} with annexes": subject_lines(package, patterns) for name, patterns in SUBJECTS.items()}
    return figures, names


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--of", metavar="COMMIT", help="measure this commit instead of the working tree")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--names", action="store_true", help="print which names, halves and pairs are counted, too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.of:
            archive = subprocess.run(
                ["git", "archive", arguments.of, PACKAGE], cwd=ROOT, stdout=subprocess.PIPE, check=True
            )
            subprocess.run(["tar", "x", "-C", folder], input=archive.stdout, check=True)
        figures, names = measure(Path(folder) if arguments.of else ROOT)
    if arguments.json:
        print(json.dumps({**figures, **({"names": names} if arguments.names else {})}, indent=2))
        return 0
    for name, figure in figures.items():
        print(f"{name:<24}{figure:>8,}")
        if arguments.names:
            print("".join(f"    {entry}\n" for entry in names.get(name, ())), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
