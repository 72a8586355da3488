# ruff: noqa: E501
"""Mutate settings files and run commands on them: none may end as a fault of ours, in a traceback, or not at all.

    python tools/fuzz_settings.py FOLDER [--mutants 1000] [--seed 1] [--seconds 60] [FILE ...]

Mutants are made of FILEs, by default of the experiments of `bad_settings.py`. Parts are swapped for ones with a mistake, and
the syntax tree is changed at random: constants of another type, statements and `return`s dropped, names changed, and data,
losses and callbacks replaced by odd ones.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import random
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from bad_settings import BASES, MISTAKES, ORDER
from fuzz_runner import FAULT, HANG, run_forked, warm_up

_ODD = (
    "None", "True", "0", "-1", "10**12", "1.5", "float('nan')", "float('inf')", "''", "'text'", "b'bytes'", "[]", "[1]", "{}",
    "()", "{'a': 1}", "{1: 2}", "object()", "object", "lambda: None", "lambda *a, **k: 1 / 0", "np.zeros(3)", "np.zeros((0, 4))",
    "np.array(['a', 'b'])", "np.array([None, 1], dtype=object)", "np.zeros((8, 4), 'complex64')", "np.zeros((8, 4), bool)",
    "np.full((24, 4), np.nan)", "np.zeros((24, 4), 'datetime64[s]')", "np.zeros(24, [('a', 'f4')])", "tf.constant(1.0)",
    "tf.zeros((24, 4))", "tf.ragged.constant([[1.0], [1.0, 2.0]])", "tf.data.Dataset.range(3)", "iter([1, 2])",
    "(i for i in range(3))", "keras.layers.Dense(1)", "keras.losses.MeanSquaredError()", "keras.optimizers.SGD",
    "keras.Input((4,))", "keras.metrics.Mean()", "keras.callbacks.History()", "keras.Sequential([])", "np.int64(3)", "{None: 1}",
    "{'x': np.zeros((24, 4)), 3: 1}", "[np.zeros((24, 4)), np.zeros((23, 4))]", "{1, 2}", "range(5)", "type('Odd', (), {})()",
)  # fmt: skip
_COMMANDS = (
    ("check", "--dry-run"),
    ("check", "--dry-run"),
    ("train", "--set", "epochs=1", "--set", "tensorboard=False", "--set", "export=False"),
    ("train", "--set", "epochs=1", "--set", "tensorboard=False"),
)


def mutant(random_: random.Random, sources: list[str]) -> str:
    """Return the source of a mutant."""
    source = random_.choice(sources) if sources else _with_mistakes(random_)
    for _ in range(random_.randint(1, 2)):
        source = _mutated(random_, source)
    return source


def _with_mistakes(random_: random.Random) -> str:
    base = random_.choice(list(BASES))
    code = dict(BASES[base])
    for one in random_.sample(MISTAKES[base], random_.randint(0, 2)):
        code[one.part] = one.code
    return "\n".join(code[part] for part in ORDER if code.get(part))


def _mutated(random_: random.Random, source: str) -> str:
    tree = ast.parse(source)
    odd = ast.parse(random_.choice(_ODD), mode="eval").body
    nodes = [
        node for node in ast.walk(tree) if isinstance(node, (ast.Return, ast.Constant, ast.Assign, ast.Tuple, ast.Call))
    ]
    node = random_.choice(nodes)
    if isinstance(node, (ast.Return, ast.Assign)):
        node.value = odd
    elif isinstance(node, ast.Constant):
        node.value = random_.choice([None, 0, -1, 7, 1.5, "text", b"b", True, 10**9, "", float("inf")])
    elif isinstance(node, ast.Tuple) and node.elts:
        place = random_.randrange(len(node.elts))
        node.elts[place : place + 1] = random_.choice([[odd], [], [odd, odd]])
    elif isinstance(node, ast.Call) and (node.args or node.keywords):
        if node.args:
            node.args[random_.randrange(len(node.args))] = odd
        else:
            node.keywords.pop()
    with contextlib.suppress(Exception):
        return ast.unparse(ast.fix_missing_locations(tree))
    return source


def ending(code: int | str, output: str) -> str:
    """Return how a command ended, in a word."""
    if code == HANG:
        return HANG
    if FAULT in output:
        return "fault"
    if "Traceback (most recent call last)" in output:
        return "traceback"
    return str(code)


def main() -> int:
    """Run the mutants and print how they ended; return 1 where one ended as none may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--mutants", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=120, help="after which a command counts as hanging")
    parser.add_argument(
        "--until", type=float, default=float("inf"), help="seconds after which no further mutant is made"
    )
    given = parser.parse_args()
    warm_up()
    sources, ends, started = [file.read_text() for file in given.files], Counter(), time.monotonic()
    given.folder.mkdir(parents=True, exist_ok=True)
    for number in range(given.mutants):
        if time.monotonic() - started > given.until:
            break
        random_ = random.Random(f"{given.seed}/{number}")
        file = given.folder / f"mysettings_mutant{number:05}.py"
        file.write_text(mutant(random_, sources))
        command, *options = random_.choice(_COMMANDS)
        runs = given.folder / "runs"
        more = ["--set", f"working_dir={runs}"] if command == "train" else []
        code, output = run_forked([command, file.name, *options, *more], given.folder, given.seconds)
        end = ending(code, output)
        ends[end] += 1
        if end in ("fault", "traceback", HANG) or not end.isdigit():
            print(f"{file.name}: {command} {options}: {end}\n{output[-1500:]}", flush=True)
        else:
            file.unlink()
        shutil.rmtree(runs, ignore_errors=True)
        if number % 20 == 19:
            print(number + 1, dict(ends), flush=True)
    print(f"{sum(ends.values())} mutants: {dict(ends)}")
    return int(any(not end.isdigit() or end in ("1", "99") for end in ends))


if __name__ == "__main__":
    sys.exit(main())
