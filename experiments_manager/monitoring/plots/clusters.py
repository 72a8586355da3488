"""Clusters of clients: how alike their updates were when they were split, and which client was where in each round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments_manager.monitoring.plots import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LABELS = 40
"""Clients that are named at the axes; of more, only the clusters are."""
_CELL, _SMALLEST, _LARGEST = 0.2, 1.8, 4.4  # inches
_LEFT, _RIGHT, _TOP, _BOTTOM, _GAP, _BAR, _STRIP = 0.62, 0.95, 0.42, 0.95, 0.3, 0.11, 3.4


def clusters_figure(clusters: Sequence[Sequence[int]], splits: Sequence[Mapping[str, Any]], last_round: int) -> Figure:
    """Draw the matrix of cosines, ordered by cluster, and beside it the cluster of each client in each round.

    Args:
        clusters: Numbers of the clients in each cluster.
        splits: `round`, `cluster`, `proc_ids`, `groups` and `cosines` of each split, in their order.
        last_round: The round that the clusters are of.
    """
    order = [number for members in clusters for number in members]
    edges = np.cumsum([len(members) for members in clusters])[:-1] - 0.5
    side = min(_LARGEST, max(_SMALLEST, _CELL * len(order)))
    with canvas.figure_style():
        figure = canvas.new_figure(_LEFT + side + _GAP + _STRIP + _RIGHT, _BOTTOM + side + _TOP)
        matrix = canvas.place(figure, _LEFT, _BOTTOM, side, side)
        _draw_matrix(matrix, cosines_of(order, splits), edges)
        _name_clients(matrix, order, clusters)
        bar = canvas.place(figure, _LEFT, _BOTTOM - 0.62, side, _BAR)
        figure.colorbar(matrix.images[0], cax=bar, orientation="horizontal", ticks=[-1, 0, 1])
        bar.tick_params(labelsize=7.5, length=2)
        bar.set_xlabel("cosine of updates", fontsize=7.5, labelpad=1)
        strip = canvas.place(figure, _LEFT + side + _GAP, _BOTTOM, _STRIP, side)
        _draw_history(strip, history_of(order, clusters, splits, last_round), edges)
        _name_clusters(strip, clusters, last_round)
    return figure


def cosines_of(order: Sequence[int], splits: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Return the cosine of each pair of clients at the first split that both were in; NaN where there was none."""
    place = {number: index for index, number in enumerate(order)}
    cosines = np.full((len(order), len(order)), np.nan)
    for split in splits:
        known = [(index, place[number]) for index, number in enumerate(split["proc_ids"]) if number in place]
        if not known:
            continue
        there, here = (np.array(part) for part in zip(*known, strict=True))
        found = np.asarray(split["cosines"], float)[np.ix_(there, there)]
        block = cosines[np.ix_(here, here)]
        cosines[np.ix_(here, here)] = np.where(np.isnan(block), found, block)
    return cosines


def history_of(
    order: Sequence[int], clusters: Sequence[Sequence[int]], splits: Sequence[Mapping[str, Any]], last_round: int
) -> np.ndarray:
    """Return the cluster of each client after each round, as far as splits tell; in the last one, as it is.

    Returns:
        Integers [clients, rounds].
    """
    place = {number: index for index, number in enumerate(order)}
    history, count = np.zeros((len(order), last_round), int), 1
    for split in splits:
        for group, numbers in enumerate(split["groups"]):
            label = split["cluster"] if group == 0 else count + group - 1
            rows = [place[number] for number in numbers if number in place]
            history[rows, split["round"] - 1 :] = label
        count += len(split["groups"]) - 1
    for label, members in enumerate(clusters):
        history[[place[number] for number in members], -1] = label
    return history


def _draw_matrix(axes: Axes, cosines: np.ndarray, edges: np.ndarray) -> None:
    from matplotlib import colormaps

    colours = colormaps["RdBu_r"].with_extremes(bad="#d5d9e0")
    axes.imshow(np.ma.masked_invalid(cosines), cmap=colours, vmin=-1, vmax=1, aspect="auto")
    for edge in edges:
        axes.axhline(edge, color=canvas.INK, linewidth=1.0)
        axes.axvline(edge, color=canvas.INK, linewidth=1.0)
    axes.set_title("likeness of updates")


def _name_clients(axes: Axes, order: Sequence[int], clusters: Sequence[Sequence[int]]) -> None:
    if len(order) <= MOST_LABELS:
        axes.set_yticks(range(len(order)), [str(number) for number in order], fontsize=7)
        axes.set_xticks(range(len(order)), [str(number) for number in order], fontsize=7, rotation=90)
    else:
        ends = np.cumsum([len(members) for members in clusters])
        middles = [end - len(members) / 2 - 0.5 for end, members in zip(ends, clusters, strict=True)]
        axes.set_yticks(middles, [str(label) for label in range(len(clusters))], fontsize=7)
        axes.set_xticks([])
    axes.set_ylabel("client" if len(order) <= MOST_LABELS else "cluster", labelpad=2)
    axes.tick_params(length=0)


def _draw_history(axes: Axes, history: np.ndarray, edges: np.ndarray) -> None:
    from matplotlib.colors import ListedColormap

    count = int(history.max()) + 1
    colours = ListedColormap([canvas.colour(label) for label in range(count)])
    places = (0.5, history.shape[1] + 0.5, len(history) - 0.5, -0.5)
    axes.imshow(history, cmap=colours, vmin=-0.5, vmax=count - 0.5, aspect="auto", extent=places, alpha=0.85)
    for edge in edges:
        axes.axhline(edge, color="white", linewidth=1.5)
    axes.set_title("cluster in each round")
    axes.set_xlabel("round", labelpad=1)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def _name_clusters(axes: Axes, clusters: Sequence[Sequence[int]], last_round: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    end = 0
    for label, members in enumerate(clusters):
        end += len(members)
        if members:
            text = f"{label}: {len(members)} client{'' if len(members) == 1 else 's'}"
            middle = end - len(members) / 2 - 0.5
            place = (last_round + 0.5, middle)
            axes.annotate(
                text, place, (5, 0), textcoords="offset points", va="center", fontsize=8, color=canvas.colour(label)
            )
