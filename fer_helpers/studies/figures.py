"""The figures of the studies: arms, doses, gradients, growth, the roofline and recorded traces."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from fer_helpers.plots import COLOURS, TASK_COLOURS, styled


@styled
def arms(runs: pd.DataFrame, comparison: pd.DataFrame, margin: float = 0.0) -> Figure:
    """Draw the accuracy of every run, and each arm's difference from arm ``0``.

    Parameters
    ----------
    runs
        A table of `fer_helpers.studies.attributes.study`.
    comparison
        The table of `compare` for these runs; the thin lines are its 95 % intervals, the thick
        ones those of 90 %.
    margin
        Half the width of the grey band around no difference.

    Returns
    -------
    matplotlib.figure.Figure
    """
    names = ["0", *comparison.index]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 0.4 * len(names) + 1.3), sharey=True)
    for place, name in enumerate(names):
        values = runs.loc[runs["arm"] == name, "emotion"]
        left.plot(values, np.full(len(values), place), "o", color=COLOURS[0], alpha=0.6)
        left.plot(values.mean(), place, "|", color=COLOURS[1], markersize=18, markeredgewidth=2)
    left.set(title="each run, and the mean", xlabel="emotion accuracy", ylabel="arm")
    left.set_yticks(range(len(names)), names)
    left.invert_yaxis()
    places = range(1, len(names))
    right.axvspan(-margin, margin, color="0.9")
    right.axvline(0, color="grey", linestyle="--", linewidth=1)
    for low, high, width in (("low", "high", 1.5), ("low_90", "high_90", 5)):
        right.hlines(places, comparison[low], comparison[high], color=COLOURS[0], linewidth=width)
    right.plot(comparison["difference"], places, "|", color=COLOURS[1], markeredgewidth=2)
    right.set(title="difference from arm 0", xlabel="difference in accuracy")
    for axes in (left, right):
        axes.locator_params("x", nbins=5)
    return figure


@styled
def doses(runs: pd.DataFrame, comparison: pd.DataFrame, margin: float = 0.0) -> Figure:
    """Draw what each weight of the other tasks does to emotion, and to these tasks.

    Parameters
    ----------
    runs, comparison, margin
        See `arms`; the arms are compared with ``0``.

    Returns
    -------
    matplotlib.figure.Figure
    """
    weights = [arm for arm in ("0", "0.03", "0.1", "0.3", "1", "paper") if arm in set(runs["arm"])]
    points = comparison.reindex(weights).fillna(0)
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
    left.axhspan(-margin, margin, color="0.9")
    reach = points[["low", "high"]].sub(points["difference"], axis=0).abs().T.to_numpy()
    left.errorbar(weights, points["difference"], reach, fmt="o", color=COLOURS[0])
    left.set(title="emotion, minus arm 0", xlabel="weight", ylabel="difference in accuracy")
    means = runs.groupby("arm")[["gender", "race", "age"]].mean().reindex(weights)
    for task in means:
        right.plot(weights, means[task], "o-", color=TASK_COLOURS[task], label=task)
    right.set(title="the other heads", xlabel="weight", ylabel="accuracy", ylim=(0, 1))
    right.legend(loc="lower right", fontsize=8)
    return figure


@styled
def fractions(runs: pd.DataFrame) -> Figure:
    """Draw emotion accuracy against the share of the emotion faces.

    Parameters
    ----------
    runs
        A table of `fer_helpers.studies.attributes.study`. Arms without a run on a part of the
        faces are left out, except for ``0``.

    Returns
    -------
    matplotlib.figure.Figure
    """
    few = set(runs.loc[runs["fraction"] < 1, "arm"]) | {"0"}
    figure, axes = plt.subplots(figsize=(5, 3))
    for colour, (arm, group) in zip(
        COLOURS, runs[runs["arm"].isin(few)].groupby("arm"), strict=False
    ):
        axes.plot(group["fraction"], group["emotion"], "o", color=colour, alpha=0.5, markersize=4)
        axes.plot(group.groupby("fraction")["emotion"].mean(), "-", color=colour, label=arm)
    axes.set(title="Fewer emotion labels", xlabel="share of the emotion faces")
    axes.set(ylabel="emotion accuracy", xscale="log", xlim=(0.08, 1.25))
    axes.set_xticks([0.1, 0.3, 1], ["10 %", "30 %", "100 %"])
    axes.minorticks_off()
    axes.legend(title="arm", fontsize=8)
    return figure


@styled
def conflict(cosines: pd.DataFrame) -> Figure:
    """Draw the cosines between the gradients of two tasks, with their spread.

    Parameters
    ----------
    cosines
        A row per batch; columns ``when`` (a panel each), ``seed`` (of the network), ``pair`` (of
        tasks) and ``cosine``. Each point is the mean over the batches of one network, with a
        bootstrap interval of 95 %.

    Returns
    -------
    matplotlib.figure.Figure
    """
    panels = cosines["when"].unique()
    size = (2.3 * len(panels) + 1.4, 3.4)
    figure, grid = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    for axes, when in zip(grid.flat, panels, strict=True):
        look = {"hue": "seed", "palette": list(COLOURS[: cosines["seed"].nunique()]), "dodge": 0.4}
        look |= {"linestyle": "none", "markersize": 4, "err_kws": {"linewidth": 1.5}, "seed": 0}
        rows = cosines[cosines["when"] == when].astype({"seed": str})
        sns.pointplot(rows, x="cosine", y="pair", ax=axes, legend=axes is grid[0, -1], **look)
        axes.axvline(0, color="grey", linestyle="--", linewidth=1)
        axes.set(title=when, ylabel="")
    sns.move_legend(axes, "upper left", bbox_to_anchor=(1, 1), title="network")
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
def roofline(
    table: pd.DataFrame, limits: Mapping[str, float], in_cache: float | None = None
) -> Figure:
    """Draw the rate of each layer against its multiply-adds per byte, with the machine's limits.

    Parameters
    ----------
    table
        A row per layer, each with arithmetic; columns ``kind``, and ``multiply_adds``,
        ``bytes`` and ``seconds``, all per face.
    limits
        ``multiply_adds`` and ``bytes`` per second, see
        `fer_helpers.studies.speed.machine_limits`.
    in_cache
        Bytes per second of a copy that stays in the processor's caches, for a second slope.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots(figsize=(6.5, 3.8))
    intensity = table["multiply_adds"] / table["bytes"]
    bend = limits["multiply_adds"] / limits["bytes"]
    line = np.geomspace(min(intensity.min(), bend) / 4, 2 * intensity.max(), 200)
    roof = np.minimum(limits["multiply_adds"], line * limits["bytes"])
    axes.plot(line, roof / 1e9, color="0.3", label="large matrices, large arrays")
    if in_cache:
        higher = np.minimum(limits["multiply_adds"], line * in_cache)
        axes.plot(line, higher / 1e9, "--", color="0.3", label="arrays in the caches")
    rates = table["multiply_adds"] / table["seconds"] / 1e9
    for place, (kind, rows) in enumerate(table.groupby("kind")):
        axes.plot(intensity[rows.index], rates[rows.index], "o", color=COLOURS[place], label=kind)
    axes.set(xscale="log", yscale="log", title="The roofline")
    axes.set_ylim(rates.min() / 3, 2 * max(roof.max() / 1e9, rates.max()))
    axes.set(xlabel="multiply-adds per byte", ylabel="billion\nmultiply-adds per second")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    axes.legend(loc="lower right", fontsize=8)
    return figure


@styled
def timeline(traces: Mapping[str, pd.DataFrame], spans: Sequence[str]) -> Figure:
    """Draw recordings below each other, on one time scale: who is busy when.

    Parameters
    ----------
    traces
        Title -> the table of `fer_helpers.studies.speed.read_trace`.
    spans
        Names of events that get a row of their own. Below them come the two threads whose
        operations take longest. Time begins with the first of these spans.

    Returns
    -------
    matplotlib.figure.Figure
    """
    size = (7, 0.35 * (len(spans) + 2) * len(traces) + 1)
    figure, panels = plt.subplots(len(traces), figsize=size, sharex=True, squeeze=False)
    for axes, (title, trace) in zip(panels[:, 0], traces.items(), strict=True):
        rows = {name: trace[trace["name"] == name] for name in spans}
        begin = trace.loc[trace["name"].isin(spans), "start"].min()
        work = trace[trace["operation"] != ""]
        threads = work.groupby("thread")["duration"].sum().nlargest(2).index
        rows |= {f"compute {n}": work[work["thread"] == t] for n, t in enumerate(threads, 1)}
        for place, part in enumerate(rows.values()):
            bars = list(zip(part["start"] - begin, part["duration"], strict=True))
            axes.broken_barh(bars, (place - 0.35, 0.7), color=COLOURS[min(place, len(spans))])
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set(title=title, ylabel="thread", ylim=(len(rows) - 0.5, -0.5))
    # Only now: a limit set earlier would cut off what is longer in a later recording.
    panels[-1, 0].set(xlabel="milliseconds", xlim=(0, None))
    return figure
