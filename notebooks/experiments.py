"""What the experiments of the notebooks share: the same network, begun again, and their figures."""

from collections.abc import Mapping, Sequence

import keras
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.ticker import MaxNLocator

from fer_helpers import plots
from fer_helpers.evaluation import paired_interval
from fer_helpers.runs import seed_layers


def restart(model: keras.Model, seed: int) -> keras.Model:
    """Give a compiled network new random weights, and its optimizer an empty memory.

    A run with another seed then trains at once: building and compiling a network anew would
    take some seconds for each.

    Parameters
    ----------
    model
        A compiled network; its loss, metrics and learning rate stay as they are.
    seed
        Seed of the weights, and of all that is random in the training that follows.

    Returns
    -------
    keras.Model
        The same network.
    """
    keras.utils.set_random_seed(seed)
    seed_layers(model, seed)
    model.set_weights(keras.models.clone_model(model).get_weights())
    for variable in model.optimizer.variables:
        if variable is not model.optimizer._learning_rate:
            variable.assign(keras.ops.zeros_like(variable))
    return model


def draw_shares(rows: pd.DataFrame, titles: Sequence[str]) -> None:
    """Draw a bar per row, cut into the shares of the tasks.

    Parameters
    ----------
    rows
        A column per task. If the index has levels, the first one makes the panels.
    titles
        One per panel.
    """
    panels = [rows] if rows.index.nlevels == 1 else [rows.loc[key] for key in rows.index.levels[0]]
    height = 0.8 + 0.38 * len(panels[0]) + 0.4 * (len(panels[0]) == 1)
    size = 4 + 3 * len(panels), height
    _, grid = plt.subplots(1, len(panels), figsize=size, squeeze=False, sharey=True)
    for axes, some, title in zip(grid.flat, panels, titles, strict=True):
        shares = some.div(some.sum(axis=1), axis=0)[::-1]
        if some.index.nlevels > 1:
            shares.index = [": ".join(key) for key in shares.index]
        colours = [plots.TASK_COLOURS[task] for task in shares]
        shares.plot.barh(stacked=True, ax=axes, color=colours, width=0.75, legend=False)
        for bars, task in zip(axes.containers, shares, strict=True):
            words = [f"{task}\n{value:.0%}" if value > 0.1 else "" for value in shares[task]]
            axes.bar_label(bars, words, label_type="center", fontsize=7)
        axes.set(title=title, xlabel="share", xlim=(0, 1))
    plt.show()


def draw_arms(
    runs: pd.DataFrame, columns: Sequence[str], arms: Sequence[str], reference: str
) -> None:
    """Draw a panel per column, a point per run, and print the differences between the arms.

    Parameters
    ----------
    runs
        A row per run, those of an arm in the order of their seeds; its arm is in the column
        ``arm``.
    columns
        What to compare, from 0 to 1.
    arms
        In the order in which they are drawn.
    reference
        The arm that the others are compared with, by `paired_interval`.
    """
    size = max(2.3 * len(columns) + 0.8, 5), 3
    _, grid = plt.subplots(1, len(columns), figsize=size, squeeze=False)
    for axes, column in zip(grid.flat, columns, strict=True):
        how = {"x": "arm", "y": column, "order": arms, "ax": axes}
        colour = plots.TASK_COLOURS.get(column, plots.COLOURS[0])
        sns.stripplot(runs, **how, color=colour, alpha=0.7)
        sns.pointplot(runs, **how, color="black", errorbar=None, ls="none", markers="_", ms=14)
        label = "accuracy" if column in plots.TASK_COLOURS else column
        axes.set(title=column, ylabel=label, xlabel="")
        plt.setp(axes.get_xticklabels(), rotation=25, ha="right", rotation_mode="anchor")
    plt.show()
    for arm in [arm for arm in arms if arm != reference]:
        print(f"{arm} against {reference}, mean difference and its 95 % interval:")
        for column in columns:
            ours, theirs = (runs[runs["arm"] == name][column] for name in (arm, reference))
            i = paired_interval(ours, theirs)
            print("  {:20} {difference:+.2f} ({low:+.2f} to {high:+.2f})".format(column, **i))


def draw_curves(curves: Mapping[str, pd.DataFrame], column: str, label: str, top: float) -> None:
    """Draw a panel per run: a column of its history, training solid, validation dashed.

    Parameters
    ----------
    curves
        Title -> history, a row per epoch.
    column
        Without ``val_``.
    label
        Name of the vertical axis.
    top
        Its upper end.
    """
    size = 3 * len(curves), 2.8
    _, grid = plt.subplots(1, len(curves), figsize=size, sharey=True, squeeze=False)
    for axes, (title, history) in zip(grid.flat, curves.items(), strict=True):
        axes.plot(history["epoch"], history[column], "o-", ms=4, label="training")
        values = history[f"val_{column}"]
        axes.plot(history["epoch"], values, "s--", ms=4, mfc="white", label="validation")
        axes.set(title=title, xlabel="epoch", ylabel=label, ylim=(0, top))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    grid[0, 0].legend()
    plt.show()
