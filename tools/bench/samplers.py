#!/usr/bin/env python3
"""How well the algorithms of sweeps search, beside the plain libraries, on functions that cost nothing.

    python tools/bench/samplers.py                                  # ten functions, 30 seeds: 30, 60 and 100 trials
    python tools/bench/samplers.py --seeds 2 --most 30 --only gp optuna[gp] --results gp.jsonl    # some alone
    python tools/bench/samplers.py report                           # the tables, of what was searched so far
    python tools/bench/samplers.py gallery --seeds 2                # sweeps of 30 trials over three problems that train

A name without brackets is `algorithm` of a sweep file, proposed one trial at a time as a sweep does it; one with
brackets is that library by itself: hyperopt's `fmin`, Optuna's `study.optimize`. Results are appended to `--results`,
and what is there is not searched again. Needs the extras `sweeps` and `sweeps-optuna`; `gp` also PyTorch.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hyperopt import Trials, anneal, fmin, hp, space_eval, tpe

from experiments_manager.sweeps.search.algorithms import Algorithm
from experiments_manager.sweeps.search.history import Known
from experiments_manager.sweeps.search.spaces import Space

BUDGETS = (30, 60, 100)
OURS = ("random", "qmc", "tpe", "anneal", "optuna-tpe", "cma-es")
LIBRARIES = {
    "tpe": "hyperopt[tpe]",
    "anneal": "hyperopt[anneal]",
    "optuna-tpe": "optuna[tpe]",
    "cma-es": "optuna[cma-es]",
}
LIBRARIES |= {"gp": "optuna[gp]"}
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SWEEP = """
from math import log
from hyperopt import hp
settings_file = {settings!r}
space = {{{space}}}
algorithm = {algorithm!r}
seed = {seed}
max_trials = 30
parallel = 2
trials_per_process = 10
overrides = {{"figures": False, "tensorboard": False, "export": False, **{overrides!r}}}
"""
GALLERY = {
    "regression": (
        "regression/mysettings_curve_fitting.py",
        "'hidden_units': hp.quniform('hidden_units', 4, 64, 1), "
        "'learning_rate': hp.loguniform('learning_rate', log(1e-4), log(1.0))",
        {"epochs": 5},
    ),
    "digits": (
        "classification/mysettings_digits.py",
        "'learning_rate': hp.loguniform('learning_rate', log(1e-4), log(1.0)), "
        "'batch_size': hp.choice('batch_size', [16, 32, 64, 128]), 'dropout': hp.uniform('dropout', 0, 0.6)",
        {"epochs": 3},
    ),
    "forecast": (
        "timeseries/mysettings_forecast.py",
        "'learning_rate': hp.loguniform('learning_rate', log(1e-4), log(1.0)), "
        "'batch_size': hp.choice('batch_size', [32, 64, 128, 256])",
        {"epochs": 2},
    ),
}
_SHIFT = np.array([0.37, -0.21, 0.13, -0.44, 0.29, -0.08])
"""Where the optimum lies, in shares of half the box: not in the middle, where CMA-ES begins."""


def branin(x: np.ndarray) -> float:
    """Branin-Hoo; the minimum is 0.397887."""
    a = x[1] - 5.1 / (4 * math.pi**2) * x[0] ** 2 + 5 / math.pi * x[0] - 6
    return a**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x[0]) + 10


def hartmann(x: np.ndarray) -> float:
    """Hartmann in three or six dimensions; the minima are -3.86278 and -3.32237."""
    alpha = np.array([1.0, 1.2, 3.0, 3.2])
    if len(x) == 3:
        a = np.array([[3, 10, 30], [0.1, 10, 35], [3, 10, 30], [0.1, 10, 35]])
        p = 1e-4 * np.array([[3689, 1170, 2673], [4699, 4387, 7470], [1091, 8732, 5547], [381, 5743, 8828]])
    else:
        a = np.array(
            [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
        )
        p = 1e-4 * np.array(
            [
                [1312, 1696, 5569, 124, 8283, 5886],
                [2329, 4135, 8307, 3736, 1004, 9991],
                [2348, 1451, 3522, 2883, 3047, 6650],
                [4047, 8828, 8732, 5743, 1091, 381],
            ]
        )
    return float(-alpha @ np.exp(-(a * (x - p) ** 2).sum(axis=1)))


def rosenbrock(x: np.ndarray) -> float:
    """Rosenbrock's valley."""
    return float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum())


def ackley(x: np.ndarray) -> float:
    """Ackley's function, shifted."""
    z = x - 10 * _SHIFT[: len(x)]
    first = 20 * math.exp(-0.2 * math.sqrt(float((z**2).mean())))
    return 20 + math.e - first - math.exp(float(np.cos(2 * math.pi * z).mean()))


def rastrigin(x: np.ndarray) -> float:
    """Rastrigin's function, shifted."""
    z = x - 5.12 * _SHIFT[: len(x)]
    return float((z**2 - 10 * np.cos(2 * math.pi * z) + 10).sum())


def levy(x: np.ndarray) -> float:
    """Levy's function."""
    w = 1 + (x - 1) / 4
    middle = (w[:-1] - 1) ** 2 * (1 + 10 * np.sin(math.pi * w[:-1] + 1) ** 2)
    last = (w[-1] - 1) ** 2 * (1 + math.sin(2 * math.pi * w[-1]) ** 2)
    return float(math.sin(math.pi * w[0]) ** 2 + middle.sum() + last)


def griewank(x: np.ndarray) -> float:
    """Griewank's function, shifted."""
    z = x - 50 * _SHIFT[: len(x)]
    return float((z**2).sum() / 4000 - np.prod(np.cos(z / np.sqrt(np.arange(1, len(z) + 1)))) + 1)


def conditional(v: dict[str, Any]) -> float:
    """Three branches with hyperparameters of their own, one of them nested; the minimum is 0, in the deepest one."""
    if v["kind"] == "linear":
        return 0.3 + (v["slope"] - 0.2) ** 2
    if v["kind"] == "tree":
        return 0.15 + abs(v["depth"] - 7) / 10 + (math.log10(v["rate"]) + 2) ** 2 / 4
    extra = (v["momentum"] - 0.9) ** 2 * 4 if v["solver"] == "sgd" else 0.1 + (v["beta"] - 0.99) ** 2 * 4
    return extra + (math.log10(v["width"]) - 2) ** 2 / 3


def mixed(v: dict[str, Any]) -> float:
    """A learning rate, a regularisation, whole numbers and two choices that interact; the minimum is 0."""
    best_rate = {"adam": -3.0, "sgd": -1.0, "rmsprop": -3.5}[v["optimizer"]]
    offset = {"adam": 0.0, "sgd": 0.05, "rmsprop": 0.1}[v["optimizer"]] + {"relu": 0.0, "tanh": 0.1, "elu": 0.05}[
        v["act"]
    ]
    return (
        (math.log10(v["rate"]) - best_rate) ** 2 / 4
        + offset
        + (math.log10(v["decay"]) + 4) ** 2 / 20
        + (v["layers"] - 3) ** 2 / 10
        + (v["units"] - 96) ** 2 / 20_000
    )


@dataclasses.dataclass(frozen=True)
class Problem:
    """A function to minimise: its space for hyperopt, the same for Optuna, and its value."""

    space: dict[str, Any]
    ask: Callable[[Any], Any]
    value: Callable[[Any], float]


def _box(function: Callable[[np.ndarray], float], *bounds: tuple[float, float]) -> Problem:
    names = [f"x{number}" for number in range(len(bounds))]
    return Problem(
        {name: hp.uniform(name, *ends) for name, ends in zip(names, bounds, strict=True)},
        lambda trial: {name: trial.suggest_float(name, *ends) for name, ends in zip(names, bounds, strict=True)},
        lambda values: function(np.array([values[name] for name in names])),
    )


def _conditional() -> Problem:
    solvers = [
        {"solver": "sgd", "momentum": hp.uniform("momentum", 0, 1)},
        {"solver": "adam", "beta": hp.uniform("beta", 0.8, 1)},
    ]
    net = {"kind": "net", "width": hp.loguniform("width", 0, math.log(1e4)), "how": hp.choice("how", solvers)}
    tree = {"kind": "tree", "depth": hp.quniform("depth", 1, 20, 1), "rate": hp.loguniform("rate", math.log(1e-4), 0)}
    linear = {"kind": "linear", "slope": hp.uniform("slope", -1, 1)}

    def ask(trial: Any) -> dict[str, Any]:
        kind = trial.suggest_categorical("kind", ["linear", "tree", "net"])
        if kind == "linear":
            return {"kind": kind, "slope": trial.suggest_float("slope", -1, 1)}
        if kind == "tree":
            depth, rate = trial.suggest_int("depth", 1, 20), trial.suggest_float("rate", 1e-4, 1, log=True)
            return {"kind": kind, "depth": depth, "rate": rate}
        width, solver = (
            trial.suggest_float("width", 1, 1e4, log=True),
            trial.suggest_categorical("solver", ["sgd", "adam"]),
        )
        name, ends = ("momentum", (0, 1)) if solver == "sgd" else ("beta", (0.8, 1))
        return {"kind": kind, "width": width, "solver": solver, name: trial.suggest_float(name, *ends)}

    def value(values: dict[str, Any]) -> float:
        flat: dict[str, Any] = {}
        parts = [values]
        while parts:
            for name, item in parts.pop().items():
                parts.append(item) if isinstance(item, dict) else flat.__setitem__(name, item)
        return conditional(flat)

    return Problem({"branch": hp.choice("branch", [linear, tree, net])}, ask, value)


def _mixed() -> Problem:
    optimizers, activations = ["adam", "sgd", "rmsprop"], ["relu", "tanh", "elu"]
    space = {
        "rate": hp.loguniform("rate", math.log(1e-6), 0),
        "decay": hp.loguniform("decay", math.log(1e-7), math.log(1e-1)),
        "layers": hp.uniformint("layers", 1, 8),
        "units": hp.quniform("units", 8, 256, 8),
        "optimizer": hp.choice("optimizer", optimizers),
        "act": hp.choice("act", activations),
    }

    def ask(trial: Any) -> dict[str, Any]:
        return {
            "rate": trial.suggest_float("rate", 1e-6, 1, log=True),
            "decay": trial.suggest_float("decay", 1e-7, 1e-1, log=True),
            "layers": trial.suggest_int("layers", 1, 8),
            "units": trial.suggest_int("units", 8, 256, step=8),
            "optimizer": trial.suggest_categorical("optimizer", optimizers),
            "act": trial.suggest_categorical("act", activations),
        }

    return Problem(space, ask, mixed)


def problems() -> dict[str, Problem]:
    """Return the ten functions by name."""
    return {
        "Branin": _box(branin, (-5, 10), (0, 15)),
        "Hartmann 3": _box(hartmann, *[(0, 1)] * 3),
        "Hartmann 6": _box(hartmann, *[(0, 1)] * 6),
        "Rosenbrock 4": _box(rosenbrock, *[(-2, 2)] * 4),
        "Ackley 5": _box(ackley, *[(-10, 10)] * 5),
        "Rastrigin 4": _box(rastrigin, *[(-5.12, 5.12)] * 4),
        "Levy 4": _box(levy, *[(-10, 10)] * 4),
        "Griewank 4": _box(griewank, *[(-50, 50)] * 4),
        "conditional": _conditional(),
        "mixed": _mixed(),
    }


def search(problem: Problem, algorithm: str, seed: int, trials: int) -> list[float]:
    """Search once, and return the values in their order."""
    if algorithm.startswith("hyperopt"):
        suggest = {"hyperopt[tpe]": tpe.suggest, "hyperopt[anneal]": anneal.suggest}[algorithm]
        kept = Trials()
        generator = np.random.default_rng(seed)
        fmin(
            problem.value,
            problem.space,
            suggest,
            trials,
            trials=kept,
            rstate=generator,
            show_progressbar=False,
            verbose=False,
        )
        return list(kept.losses())
    if algorithm.startswith("optuna["):
        import optuna

        samplers = {"tpe": "TPESampler", "cma-es": "CmaEsSampler", "gp": "GPSampler"}
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        sampler = getattr(optuna.samplers, samplers[algorithm[7:-1]])(seed=seed)
        study = optuna.create_study(sampler=sampler)
        study.optimize(lambda trial: problem.value(problem.ask(trial)), n_trials=trials)
        return [trial.value for trial in study.trials]
    space = Space(problem.space)
    proposals, known = Algorithm(algorithm, space, seed), []
    for number in range(trials):
        point = proposals.propose(number, known)
        known.append(Known(number, point, problem.value(space_eval(space.graph, dict(point)))))
    return [result.loss for result in known]


def _one(case: tuple[str, str, int, int]) -> dict[str, Any]:
    name, algorithm, seed, most = case
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = search(problems()[name], algorithm, seed, most)
    best = [min(values[:budget]) for budget in BUDGETS if budget <= most]
    return {"problem": name, "algorithm": algorithm, "seed": seed, "best": best}


def functions(options: argparse.Namespace) -> None:
    """Search the functions, and print the tables."""
    chosen = options.only or [*OURS, *(LIBRARIES[name] for name in OURS if name in LIBRARIES)]
    done = list(_read(options.results))
    there = {(row["problem"], row["algorithm"], row["seed"]) for row in done}
    names = options.functions or problems()
    cases = [(name, algorithm, seed) for seed in range(options.seeds) for name in names for algorithm in chosen]
    cases = [(*case, options.most) for case in cases if case not in there]
    with (
        options.results.open("a") as stream,
        concurrent.futures.ProcessPoolExecutor(options.processes, initializer=os.nice, initargs=(10,)) as workers,
    ):
        for row in workers.map(_one, cases):
            stream.write(json.dumps(row) + "\n")
            stream.flush()
            done.append(row)
    report(done, options.seeds)


def gallery(options: argparse.Namespace) -> None:
    """Run sweeps over problems of the gallery, and print the median of the best value of each algorithm."""
    algorithms = options.only or ["random", "anneal", "tpe", "optuna-tpe", "cma-es"]
    print("\n| problem | " + " | ".join(algorithms) + " |\n|---|" + "---|" * len(algorithms), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in GALLERY:
            cells = []
            for algorithm in algorithms:
                best = [_sweep(Path(folder), name, algorithm, seed) for seed in range(options.seeds)]
                cells.append(f"{statistics.median(best):.4g}")
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def _sweep(folder: Path, name: str, algorithm: str, seed: int) -> float:
    """Run one sweep, and return its best value."""
    settings, space, overrides = GALLERY[name]
    file = folder / f"mysweep_{name}_{algorithm}_{seed}.py"
    file.write_text(
        SWEEP.format(
            settings=str(EXAMPLES / settings), space=space, algorithm=algorithm, seed=seed, overrides=overrides
        )
    )
    command = [sys.executable, "-m", "experiments_manager", "sweep", str(file), "--json", "--quiet"]
    told = subprocess.run([*command, "--working-dir", str(folder)], capture_output=True, text=True, check=True)
    (value,) = json.loads(told.stdout.splitlines()[-1])["best"]["values"].values()
    return value


def _read(file: Path) -> Iterator[dict[str, Any]]:
    if file.exists():
        yield from map(json.loads, file.read_text().splitlines())


def report(rows: list[dict[str, Any]], seeds: int) -> None:
    """Print ranks over all functions, medians of each, and how each algorithm compares with its library."""
    values: dict[tuple[str, str], np.ndarray] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        if row["seed"] < seeds:
            key = row["problem"], row["algorithm"]
            values[key] = np.array([*values.get(key, []), row["best"]])
    names = list(dict.fromkeys(problem for problem, _ in values))
    budgets = BUDGETS[: min(table.shape[1] for table in values.values())]
    algorithms = [name for name in dict.fromkeys(name for _, name in values) if all((p, name) in values for p in names)]
    print(f"\nMean rank by the median over {seeds} seeds, of {len(algorithms)} algorithms on {len(names)} functions\n")
    print("| algorithm | " + " | ".join(f"{budget} trials" for budget in budgets) + " |\n|---|" + "---|" * len(budgets))
    ranks = {
        name: [_mean_rank(values, names, algorithms, name, place) for place in range(len(budgets))]
        for name in algorithms
    }
    for name in sorted(algorithms, key=lambda name: sum(ranks[name])):
        print(f"| {name} | " + " | ".join(f"{rank:.1f}" for rank in ranks[name]) + " |")
    for place, budget in enumerate(budgets):
        print(f"\nMedian of the best value after {budget} trials\n")
        print("| function | " + " | ".join(algorithms) + " |\n|---|" + "---|" * len(algorithms))
        for problem in names:
            cells = (f"{np.median(values[problem, name][:, place]):.3g}" for name in algorithms)
            print(f"| {problem} | " + " | ".join(cells) + " |")
    _compare(values, names, budgets)


def _mean_rank(values: dict, names: list[str], algorithms: list[str], name: str, place: int) -> float:
    ranks = []
    for problem in names:
        medians = {other: np.median(values[problem, other][:, place]) for other in algorithms}
        ranks.append(1 + sum(median < medians[name] - 1e-12 for median in medians.values()))
    return statistics.mean(map(float, ranks))


def _compare(values: dict, names: list[str], budgets: tuple[int, ...]) -> None:
    """Print on how many functions each algorithm is better or worse than its library by itself."""
    from scipy.stats import mannwhitneyu

    print(
        "\nBeside the library by itself: functions with a better, equal or worse median "
        "(of these p < 0.05 by Mann and Whitney)\n"
    )
    print(
        "| algorithm | library | "
        + " | ".join(f"{budget} trials" for budget in budgets)
        + " |\n|---|---|"
        + "---|" * len(budgets)
    )
    for ours, library in LIBRARIES.items():
        pairs = [(values[p, ours], values[p, library]) for p in names if (p, ours) in values and (p, library) in values]
        cells = []
        for place in range(len(budgets)):
            count = {"better": [0, 0], "equal": [0, 0], "worse": [0, 0]}
            for mine, theirs in pairs:
                gap = np.median(mine[:, place]) - np.median(theirs[:, place])
                sort = "equal" if abs(gap) < 1e-12 else "better" if gap < 0 else "worse"
                count[sort][0] += 1
                count[sort][1] += mannwhitneyu(mine[:, place], theirs[:, place]).pvalue < 0.05
            cells.append(", ".join(f"{n} {sort} ({sure})" for sort, (n, sure) in count.items() if n))
        if pairs:
            print(f"| {ours} | {library} | " + " | ".join(cells) + " |")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("functions", "report", "gallery"), default="functions")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--only", nargs="+", metavar="ALGORITHM", help="instead of all but gp, which is slow")
    parser.add_argument("--functions", nargs="+", metavar="NAME", choices=problems(), help="instead of all ten")
    parser.add_argument("--most", type=int, choices=BUDGETS, default=BUDGETS[-1], help="trials of each search")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--results", type=Path, default=Path("samplers.jsonl"))
    options = parser.parse_args()
    if options.what == "gallery":
        gallery(options)
    elif options.what == "report":
        report(list(_read(options.results)), options.seeds)
    else:
        functions(options)


if __name__ == "__main__":
    main()
