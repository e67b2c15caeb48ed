"""The figures of the studies: arms, gradients, growth and the roofline."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from fer_helpers.plots import COLOURS, styled


@styled
def arms(runs: pd.DataFrame, comparison: pd.DataFrame, column: str, label: str) -> Figure:
    """Draw every run of a study as a dot, and each arm's difference from the first arm.

    Parameters
    ----------
    runs
        A table of `fer_helpers.studies.multitask.study`.
    comparison
        The table of `compare` for these runs and this column; the differences have its
        95 % intervals.
    column
        The column of `runs` that is drawn.
    label
        Its name on the axis.

    Returns
    -------
    matplotlib.figure.Figure
    """
    names = list(comparison.index)
    size = (8, 0.45 * len(names) + 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=size, sharey=True)
    for place, name in enumerate(names):
        values = runs.loc[runs["arm"] == name, column]
        left.plot(values, np.full(len(values), place), "o", color=COLOURS[0], alpha=0.6)
        left.plot(values.mean(), place, "|", color=COLOURS[1], markersize=18, markeredgewidth=2)
    left.set(title="each run, and the mean", xlabel=label, yticks=range(len(names)))
    left.set_yticklabels(names)
    left.invert_yaxis()
    others = comparison.iloc[1:]
    reach = [others["difference"] - others["low"], others["high"] - others["difference"]]
    right.errorbar(
        others["difference"], range(1, len(names)), xerr=reach, fmt="o", color=COLOURS[0]
    )
    right.axvline(0, color="grey", linestyle="--", linewidth=1)
    right.set(title=f"difference from {names[0]}", xlabel=f"{label}, 95 % interval")
    return figure


@styled
def conflict(cosines: pd.DataFrame) -> Figure:
    """Draw the cosines between the gradients of the tasks as a heat map.

    Parameters
    ----------
    cosines
        (tasks, tasks), -1 to 1, of `fer_helpers.studies.multitask.gradient_conflict`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots(figsize=(5, 3.6))
    sns.heatmap(
        cosines, vmin=-1, vmax=1, cmap="vlag_r", annot=True, fmt=".2f", square=True, ax=axes
    )
    axes.set(title="Do two tasks pull the same way?", xlabel="task", ylabel="task")
    axes.tick_params("y", rotation=0)
    return figure


@styled
def growth(table: pd.DataFrame) -> Figure:
    """Draw the time per face and the peak memory against the number of faces.

    Parameters
    ----------
    table
        Columns ``n`` (faces), ``us_per_image`` (microseconds) and ``peak_mb`` (MB).

    Returns
    -------
    matplotlib.figure.Figure
    """
    table = table.sort_values("n")
    figure, axes = plt.subplots(1, 2, figsize=(8, 3))
    columns = {"us_per_image": "microseconds per face", "peak_mb": "peak memory, MB"}
    for place, (column, label) in enumerate(columns.items()):
        axes[place].plot(table["n"], table[column], "o-", color=COLOURS[place])
        axes[place].set(xlabel="faces", ylabel=label, xscale="log")
        axes[place].set_ylim(0, 1.25 * table[column].max())
    figure.suptitle("An epoch of batches")
    return figure


@styled
def roofline(table: pd.DataFrame, limits: Mapping[str, float]) -> Figure:
    """Draw the rate of each layer against its multiply-adds per byte, below the machine's limit.

    Parameters
    ----------
    table
        A row per layer, each with arithmetic; columns ``multiply_adds``, ``bytes`` and
        ``seconds``, all per face.
    limits
        ``multiply_adds`` and ``bytes`` per second, see
        `fer_helpers.studies.speed.machine_limits`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots(figsize=(6.5, 3.8))
    intensity = table["multiply_adds"] / table["bytes"]
    bend = limits["multiply_adds"] / limits["bytes"]
    line = np.geomspace(min(intensity.min(), bend) / 4, 2 * intensity.max(), 200)
    roof = np.minimum(limits["multiply_adds"], line * limits["bytes"])
    axes.plot(line, roof / 1e9, color="0.3", label="what the machine reaches")
    rates = table["multiply_adds"] / table["seconds"] / 1e9
    axes.plot(intensity, rates, "o", color=COLOURS[1], label="a convolution")
    axes.set(xscale="log", yscale="log", title="Under the roof")
    axes.set_ylim(rates.min() / 3, 2 * roof.max() / 1e9)
    axes.set(xlabel="multiply-adds per byte", ylabel="billion\nmultiply-adds per second")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    axes.legend(loc="lower right")
    return figure
