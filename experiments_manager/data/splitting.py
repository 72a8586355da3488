"""Shares of the same arrays for the clients of a federation: by chance, by label, by shards, or by a column.

Where the clients are one's own simulation, their data are made from one data set. `client_share` is what a `dataset`
hook returns; `client_indices` is the whole plan, and `label_counts` says what each client has.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.common.tables.problems import DataFileError

WAYS = ("iid", "dirichlet", "shards", "column")


def client_share(arrays: Any, partition: int | None, partitions: int | None, by: str = "iid", **options: Any) -> Any:
    """Return the samples of one client, in the order in which they stand in the arrays.

    Args:
        arrays: An array of shape [samples, ...], or a tuple, list or dict of such, nested at will; `None` may stand for
            an array that is not there.
        partition: The client, from 0. `None` returns `arrays` as they are, so one hook serves central training too.
        partitions: How many clients there are; not needed where `partition` is `None`.
        by: `iid`, `dirichlet`, `shards` or `column`; see `client_indices`.
        **options: What `client_indices` takes besides: `labels`, `column`, `alpha`, `seed` and the others.

    Returns:
        The same nest, each array of shape [samples of the client, ...].

    Raises:
        DataFileError: The arrays differ in length, there is no such client, or the split is impossible.
    """
    if partition is None:
        return arrays
    samples = _samples(arrays)
    plan = client_indices(samples, partitions, by, **options)
    if not _is_whole(partition) or not 0 <= partition < len(plan):
        raise DataFileError(
            f"partition is {partition!r}. Expected a whole number from 0 to {len(plan) - 1}, one of {len(plan)}."
        )
    return _take(arrays, plan[partition])


def client_indices(
    samples: int,
    partitions: int | None,
    by: str = "iid",
    *,
    labels: Any = None,
    column: Any = None,
    alpha: float = 0.5,
    min_samples: int = 1,
    shards_per_client: int = 2,
    edges: Sequence[float] | None = None,
    seed: int = 0,
) -> list[np.ndarray]:
    """Divide the numbers 0 to `samples - 1` among clients: each goes to exactly one.

    - `iid`: at random, in equal shares (they differ by one sample at most).
    - `dirichlet`: each label is divided in proportions drawn from Dirichlet(alpha): after Hsu et al. 2019, "Measuring
      the effects of non-identical data distribution for federated visual classification"; proportions are drawn for
      each label over the clients (Yurochkin et al. 2019), so that no sample is left over. A client that got fewer than
      `min_samples` is given samples of those that have most.
    - `shards`: sorted by label, cut into `partitions * shards_per_client` shards, which are dealt out at random
      (McMahan et al. 2017, "Communication-efficient learning of deep networks from decentralized data").
    - `column`: each client has one interval of a column of real numbers, or one group of the values of any other
      column. Intervals hold equally many samples, unless `edges` names the bounds between them.

    Args:
        samples: How many samples there are.
        partitions: How many clients.
        by: The way.
        labels: Of `dirichlet` and `shards`: a label a sample, shape [samples] or [samples, 1].
        column: Of `column`: a value a sample, shape [samples] or [samples, 1].
        alpha: Of `dirichlet`: small, and each client has few labels; large, and all have the same mixture.
        min_samples: The fewest samples that a client may have.
        shards_per_client: Of `shards`.
        edges: Of `column`: `partitions - 1` increasing bounds; a value that equals one belongs to the interval above.
        seed: The same seed gives the same plan in every process. `column` leaves nothing to chance.

    Returns:
        For each client an increasing `int64` array.

    Raises:
        DataFileError: A value is out of its range, or the split is impossible.
    """
    if by not in WAYS:
        raise DataFileError(f"by is {by!r}. Expected one of {', '.join(WAYS)}. {did_you_mean(str(by), WAYS)}".rstrip())
    _at_least(1, partitions=partitions, min_samples=min_samples, shards_per_client=shards_per_client)
    _at_least(0, seed=seed)
    if partitions * min_samples > samples:
        raise DataFileError(
            f"{samples} samples cannot be split among {partitions} clients with at least {min_samples} each. "
            f"Expected {partitions * min_samples} samples or more. Take fewer clients or a smaller min_samples."
        )
    generator = np.random.default_rng(seed)
    if by == "iid":
        owners = generator.permutation(np.arange(samples) % partitions)
    elif by == "dirichlet":
        codes = _codes(_vector(labels, samples, "labels", by))
        owners = _dirichlet(codes, partitions, alpha, min_samples, generator)
    elif by == "shards":
        codes = _codes(_vector(labels, samples, "labels", by))
        owners = _shards(codes, partitions, shards_per_client, generator)
    else:
        owners = _column(_vector(column, samples, "column", by), partitions, edges)
    plan = [np.flatnonzero(owners == client) for client in range(partitions)]
    for client, indices in enumerate(plan):
        if len(indices) < min_samples:
            raise DataFileError(
                f"Split by {by}, client {client} gets {len(indices)} samples. Expected {min_samples} or more. "
                "Take fewer clients, a smaller min_samples, or (by column) other edges."
            )
    return plan


def label_counts(plan: Sequence[np.ndarray], labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Count the labels of each client, for a table or a figure.

    Args:
        plan: What `client_indices` returns.
        labels: A label a sample, shape [samples] or [samples, 1].

    Returns:
        The labels that occur, sorted, shape [labels], and how many samples of each a client has, `int64` of shape
        [clients, labels].

    Raises:
        DataFileError: There are fewer labels than the plan has samples.
    """
    samples = sum(len(indices) for indices in plan)
    names, codes = np.unique(_vector(labels, samples, "labels", "label_counts"), return_inverse=True)
    codes = codes.reshape(-1)
    return names, np.stack([np.bincount(codes[indices], minlength=len(names)) for indices in plan])


def _dirichlet(
    codes: np.ndarray, partitions: int, alpha: float, min_samples: int, generator: np.random.Generator
) -> np.ndarray:
    """Cut the shuffled samples of each label where the proportions drawn say."""
    if not isinstance(alpha, numbers.Real) or isinstance(alpha, bool) or not 1e-6 <= alpha <= 1e6:
        raise DataFileError(
            f"alpha is {alpha!r}. Expected a number from 1e-6 (few labels a client) to 1e6 (all alike)."
        )
    owners = np.empty(len(codes), np.int64)
    for code in range(codes.max() + 1):
        indices = generator.permutation(np.flatnonzero(codes == code))
        proportions = generator.dirichlet(np.full(partitions, float(alpha)))
        cuts = np.round(np.cumsum(proportions)[:-1] * len(indices)).astype(np.int64)
        for client, part in enumerate(np.split(indices, cuts)):
            owners[part] = client
    counts = np.bincount(owners, minlength=partitions)
    while counts.min() < min_samples:
        poorest, richest = counts.argmin(), counts.argmax()
        owners[generator.choice(np.flatnonzero(owners == richest))] = poorest
        counts[[poorest, richest]] += (1, -1)
    return owners


def _shards(codes: np.ndarray, partitions: int, shards_per_client: int, generator: np.random.Generator) -> np.ndarray:
    shards = partitions * shards_per_client
    if shards > len(codes):
        raise DataFileError(
            f"{len(codes)} samples cannot be cut into {partitions} x {shards_per_client} shards. "
            f"Expected {shards} samples or more. Take fewer clients or fewer shards_per_client."
        )
    owners = np.empty(len(codes), np.int64)
    dealt = generator.permutation(shards) % partitions
    for client, part in zip(dealt, np.array_split(np.argsort(codes, kind="stable"), shards), strict=True):
        owners[part] = client
    return owners


def _column(values: np.ndarray, partitions: int, edges: Sequence[float] | None) -> np.ndarray:
    """Number the intervals, or the groups of values, from the lowest."""
    if edges is None and values.dtype.kind != "f":
        codes = _codes(values)
        found = codes.max() + 1
        if found < partitions:
            raise DataFileError(
                f"column has {found} distinct values, which cannot be split among {partitions} clients. "
                f"Expected {partitions} or more. Take fewer clients."
            )
        return codes * partitions // found
    if values.dtype.kind not in "fiu":
        raise DataFileError(f"edges are given, but column holds {values.dtype}. Expected numbers, or no edges.")
    if edges is None:
        bounds = np.quantile(values, np.arange(1, partitions) / partitions)
    else:
        bounds = np.asarray(edges)
        if bounds.shape != (partitions - 1,) or bounds.dtype.kind not in "fiu" or not np.all(np.diff(bounds) > 0):
            raise DataFileError(
                f"edges are {edges!r}. Expected {partitions - 1} increasing numbers, one less than clients."
            )
    return np.searchsorted(bounds, values, side="right")


def _codes(values: np.ndarray) -> np.ndarray:
    """Number the values from 0 in their order."""
    return np.unique(values, return_inverse=True)[1].reshape(-1)


def _vector(values: Any, samples: int, name: str, purpose: str) -> np.ndarray:
    if values is None:
        raise DataFileError(f"{name} is missing, which {purpose} needs. Expected {name}=, one value a sample.")
    vector = np.asarray(values)
    if vector.ndim == 2 and vector.shape[1] == 1:
        vector = vector[:, 0]
    if vector.shape != (samples,):
        raise DataFileError(
            f"{name} has the shape {list(vector.shape)}. Expected [{samples}], one value a sample. "
            "Labels that are one-hot become numbers by labels.argmax(-1)."
        )
    missing = np.flatnonzero(~np.isfinite(vector)) if vector.dtype.kind in "fmM" else []
    if vector.dtype.kind == "O":
        missing = [row for row, value in enumerate(vector) if value is None or value != value]
    if len(missing):
        row = int(missing[0])
        kind = "values, not missing ones" if vector.dtype.kind in "OmM" else "finite numbers"
        raise DataFileError(f"{name}[{row}] is {vector[row]}. Expected {kind}. Leave such samples out first.")
    return vector


def _samples(arrays: Any) -> int:
    lengths = {path: _length(leaf, path) for path, leaf in _leaves(arrays, "arrays")}
    if not lengths:
        raise DataFileError("arrays holds no array. Expected an array, or a tuple, list or dict of arrays.")
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{path}: {length}" for path, length in lengths.items())
        raise DataFileError(f"The arrays differ in their number of samples ({shown}). Expected one number for all.")
    return next(iter(lengths.values()))


def _length(leaf: Any, path: str) -> int:
    shape = np.shape(leaf)
    if not shape:
        raise DataFileError(f"{path} is a {type(leaf).__name__}. Expected an array of shape [samples, ...].")
    return shape[0]


def _leaves(nest: Any, path: str) -> list[tuple[str, Any]]:
    if nest is None:
        return []
    if isinstance(nest, dict):
        children = nest.items()
    elif isinstance(nest, tuple | list):
        children = enumerate(nest)
    else:
        return [(path, nest)]
    return [leaf for key, child in children for leaf in _leaves(child, f"{path}[{key!r}]")]


def _take(nest: Any, indices: np.ndarray) -> Any:
    if nest is None:
        return None
    if isinstance(nest, dict):
        return {key: _take(child, indices) for key, child in nest.items()}
    if isinstance(nest, tuple | list):
        children = [_take(child, indices) for child in nest]
        return type(nest)(*children) if hasattr(nest, "_fields") else type(nest)(children)
    return np.asarray(nest)[indices]


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _at_least(least: int, **values: Any) -> None:
    for name, value in values.items():
        if not _is_whole(value) or value < least:
            raise DataFileError(f"{name} is {value!r}. Expected a whole number from {least}.")
