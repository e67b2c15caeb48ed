"""The figures of the course, in one style, one function per figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter
from PIL import Image

from fer_helpers.evaluation import reliability as reliability_table
from fer_helpers.labels import BLOCKS, OUTPUTS, TASKS

# Okabe and Ito's palette: the colours differ for people with any common colour blindness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
TASK_COLOURS = dict(zip(TASKS, COLOURS, strict=False))

WITH_BARS = 4  # faces of a photo; with more, the bars could not be read
SHOWN = 1000  # pixels: the longest side of a photo in a figure

# File names of the prediction samples, as in the paper's public code.
SAMPLE_FILES = {
    "surprise": "surprise.png",
    "fear": "fear.png",
    "disgust": "disgust.png",
    "happiness": "happy.png",
    "sadness": "sad.png",
    "anger": "angry.png",
    "neutral": "neutral.png",
}


STYLE = {
    **sns.plotting_context("notebook"),
    **sns.axes_style("white"),
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
}
# Each figure below has the style, also where nobody has called `use_style`, as in the shell.
styled = plt.rc_context(STYLE)


def use_style() -> None:
    """Set the style of figures that a notebook draws itself; call it once, at the top."""
    plt.rcParams.update(STYLE | {"figure.dpi": 100, "figure.figsize": (5, 3)})


@styled
def save(figure: Figure, target: str | Path | IO[bytes], dpi: int = 100) -> None:
    """Write a figure as PNG to a file or a stream, and close it."""
    figure.savefig(target, format="png", dpi=dpi)
    plt.close(figure)


def _show_face(
    axes: plt.Axes, image: np.ndarray, title: str = "", heat: np.ndarray | None = None
) -> None:
    axes.imshow(np.squeeze(image), cmap="gray", vmin=0, vmax=255)
    if heat is not None:
        axes.imshow(heat, cmap="inferno", alpha=0.55, vmin=0, vmax=1)
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


@styled
def faces(
    images: np.ndarray, titles: Sequence[str] = (), columns: int = 8, title: str = ""
) -> Figure:
    """Draw faces (N, H, W, 1), values 0 to 255, in rows of `columns`, each with its title."""
    columns = max(min(columns, len(images)), 1)
    rows = max(-(-len(images) // columns), 1)
    height = 1.35 if len(titles) else 1.1
    figure, grid = plt.subplots(
        rows, columns, figsize=(1.1 * columns, height * rows + 0.3), squeeze=False
    )
    for place, axes in enumerate(grid.flat):
        axes.set_axis_off()
        if place < len(images):
            _show_face(axes, images[place], titles[place] if len(titles) else "")
    figure.suptitle(title)
    return figure


@styled
def learning_curves(history: pd.DataFrame, title: str = "Learning curves") -> Figure:
    """Draw loss and accuracy over the epochs: a panel for the loss, and one per task.

    Parameters
    ----------
    history
        From `fit` or `read_history`, one row per epoch.
    title
        Stands above.
    """
    tasks = [task for task in TASKS if f"{OUTPUTS[task]}_accuracy" in history]
    columns = {"weighted loss": "loss"} | {task: f"{OUTPUTS[task]}_accuracy" for task in tasks}
    figure, grid = plt.subplots(
        1, len(columns), figsize=(2.1 * len(columns) + 0.4, 2.7), squeeze=False
    )
    for axes, (name, column) in zip(grid.flat, columns.items(), strict=True):
        colour = TASK_COLOURS.get(name, "0.2")
        # With markers, a run of a single epoch can be seen, too.
        axes.plot(history["epoch"], history[column], "o-", ms=4, color=colour, label="training")
        validation = axes.plot(history["epoch"], history[f"val_{column}"], "s--", color=colour)
        plt.setp(validation, label="validation", ms=4, mfc="white")
        axes.set(title=name, xlabel="epoch", ylabel="accuracy" if name in TASKS else "loss")
        axes.set_xlim(history["epoch"].min() - 0.5, history["epoch"].max() + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
        if name in TASKS:
            axes.set_ylim(0, 1.03)
            axes.yaxis.set_major_formatter(PercentFormatter(1))
    lines = grid[0, 0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=2, fontsize=8, handlelength=3)
    figure.suptitle(title)
    return figure


@styled
def confusion_matrix(counts: pd.DataFrame, task: str = "emotion") -> Figure:
    """Draw the share of each labelled class (row) that is predicted as each class (column).

    Parameters
    ----------
    counts
        From `fer_helpers.confusion`.
    task
        Its task, for the title.
    """
    shares = counts.div(counts.sum(axis=1).replace(0, np.nan), axis=0)
    side = 2.2 + 0.6 * len(counts)
    figure, axes = plt.subplots(figsize=(side + 0.8, side), layout="constrained")
    sns.heatmap(
        shares,
        annot=True,
        fmt=".0%",
        cmap="Blues",
        vmin=0,
        vmax=1,
        square=True,
        cbar_kws={"format": PercentFormatter(1), "label": "share of the labelled class"},
        ax=axes,
    )
    axes.set(title=f"Confusion of {task}", xlabel="predicted", ylabel="labelled")
    axes.tick_params(axis="y", rotation=0)
    # Turned, long names do not overlap.
    plt.setp(axes.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
    return figure


@styled
def reliability(probabilities: np.ndarray, true: np.ndarray, title: str = "Reliability") -> Figure:
    """Draw accuracy against confidence; on the diagonal the confidence is justified.

    Parameters
    ----------
    probabilities
        float (N, classes), each row summing to 1.
    true
        int (N,) class indices.
    title
        Stands above.
    """
    table = reliability_table(probabilities, true)
    figure, axes = plt.subplots(figsize=(4, 3.6), layout="constrained")
    axes.plot([0, 1], [0, 1], color="0.6", linestyle=":", label="perfect")
    # A bin of few faces says little, so its point is small.
    size = 10 + 150 * table["n"] / table["n"].max()
    axes.scatter(
        table["confidence"],
        table["accuracy"],
        size,
        clip_on=False,
        label="a bin (larger: more faces)",
    )
    axes.set(title=title, xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="lower right", fontsize=8)
    return figure


@styled
def prediction(image: np.ndarray, probabilities: np.ndarray, label: str | None = None) -> Figure:
    """Draw a face beside the probability of each emotion; the labelled one stands out.

    Parameters
    ----------
    image
        (H, W, 1), values 0 to 255.
    probabilities
        float (7,).
    label
        Name of the labelled emotion, None if there is none.
    """
    classes = list(TASKS["emotion"])
    figure, (left, right) = plt.subplots(1, 2, figsize=(5.2, 2.4), width_ratios=(1, 1.5))
    _show_face(left, image, f"labelled {label}" if label else "")
    colours = [COLOURS[1] if name == label else COLOURS[0] for name in classes]
    _bars(right, classes, probabilities, colours)
    best = int(np.argmax(probabilities))
    right.set_title(f"predicted {classes[best]} ({probabilities[best]:.0%})", fontsize=10)
    return figure


def _bars(axes: plt.Axes, names: Sequence[str], probabilities: Sequence[float], colour) -> None:
    axes.barh(names, probabilities, color=colour)
    axes.invert_yaxis()
    axes.set(xlabel="probability", xlim=(0, 1))
    axes.xaxis.set_major_formatter(PercentFormatter(1))


@styled
def photo(picture: np.ndarray | Image.Image, table: pd.DataFrame) -> Figure:
    """Draw a photo with a box around each face, and the probabilities of each face's emotions.

    The boxes are numbered, outside of the face. More than `WITH_BARS` faces get a line each in
    a list, without their bars.

    Parameters
    ----------
    picture
        The photo, from `open_photo`, or uint8 (H, W) or (H, W, 3).
    table
        From `predict_photo`, one row per face.
    """
    rows, bars = max(len(table), 1), len(table) <= WITH_BARS
    figure = plt.figure(figsize=(8.5, max(3.2, (1.7 if bars else 0.22) * rows)))
    grid = figure.add_gridspec(rows if bars else 1, 2, width_ratios=(1.3 if bars else 1.8, 1))
    left = figure.add_subplot(grid[:, 0])
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    smaller = picture.reduce(-(-max(picture.size) // SHOWN))  # Matplotlib takes 76 bytes per pixel
    left.imshow(smaller.convert("RGB"), extent=(0, picture.width, picture.height, 0))
    left.set_axis_off()
    left.set_title(f"{len(table)} face{'' if len(table) == 1 else 's'} found")
    names = []
    for place, row in enumerate(table.fillna({"warning": ""}).itertuples()):
        colour = COLOURS[place % len(COLOURS)]
        size = row.right - row.left, row.bottom - row.top
        left.add_patch(Rectangle((row.left, row.top), *size, fill=False, edgecolor=colour, lw=1.5))
        # Beside the face: to the right of its box, or to the left where the photo ends.
        ends = row.right + 0.04 * picture.width > picture.width
        left.annotate(
            f"{place + 1}",
            (row.left if ends else row.right, row.top),
            xytext=(-2 if ends else 2, 0),
            textcoords="offset points",
            ha="right" if ends else "left",
            va="top",
            color="white",
            fontsize=8,
            bbox={"boxstyle": "square,pad=0.15", "fc": colour, "ec": "none"},
        )
        values = [getattr(row, f"emotion_{name}") for name in TASKS["emotion"]]
        small = ", small" if getattr(row, "warning", "") else ""
        names.append(f"{place + 1}: {row.emotion} ({max(values):.0%}{small})")
        if bars:
            axes = figure.add_subplot(grid[place, 1])
            _bars(axes, TASKS["emotion"], values, colour)
            axes.tick_params(axis="y", labelsize=8)
            axes.set_title(names[-1], fontsize=10)
            if place < rows - 1:
                axes.set(xlabel="", xticklabels=[])
    if not bars:
        right = figure.add_subplot(grid[0, 1])
        right.set_axis_off()
        for place, name in enumerate(names):
            colour, height = COLOURS[place % len(COLOURS)], 1 - (place + 0.5) / rows
            right.text(0, height, name, color=colour, fontsize=10, va="center")
    return figure


@styled
def emotions_over_time(table: pd.DataFrame, title: str = "") -> Figure:
    """Draw the probabilities of the emotions of the largest face over the time of a video.

    Parameters
    ----------
    table
        From `predict_video`, with a face in it. A moment without one leaves a gap.
    title
        Stands above.
    """
    largest = table.dropna(subset="seconds").groupby("seconds").first()
    figure, axes = plt.subplots(figsize=(8.5, 3.2), layout="constrained")
    for name, colour in zip(TASKS["emotion"], COLOURS, strict=True):
        axes.plot(largest.index, largest[f"emotion_{name}"], ".-", color=colour, label=name)
    axes.set(title=title, xlabel="seconds", ylabel="probability, largest face", ylim=(0, 1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


@styled
def looked_at(image: np.ndarray, heat: np.ndarray, name: str) -> Figure:
    """Draw a face (H, W, 1), and the evidence (H, W) from `grad_cam` for the class `name`."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(4, 2.3))
    _show_face(left, image, "what the network sees")
    _show_face(right, image, f"evidence for {name}", heat)
    return figure


@styled
def attention(
    images: np.ndarray,
    heats: Sequence[np.ndarray],
    titles: Sequence[str],
    title: str = "What the network looked at",
) -> Figure:
    """Draw faces (N, H, W, 1), and below each its evidence (H, W) from `grad_cam`.

    All share one scale of colours, on which 1 is the strongest evidence in that face.
    """
    figure, grid = plt.subplots(
        2, len(images), figsize=(1.4 * len(images) + 0.8, 3.4), squeeze=False
    )
    for (top, bottom), image, heat, name in zip(grid.T, images, heats, titles, strict=True):
        _show_face(top, image, name)
        _show_face(bottom, image, heat=heat)
    scale = ScalarMappable(Normalize(0, 1), "inferno")
    figure.colorbar(scale, ax=grid, label="evidence", shrink=0.8, ticks=(0, 0.5, 1))
    figure.suptitle(title)
    return figure


@styled
def groups(table: pd.DataFrame, title: str, column: str = "accuracy") -> Figure:
    """Draw one column of a table of groups, with what chance can do to it.

    The accuracy and the gap have their intervals; the calibration error stands over the band
    in which it would be by chance if the confidence were perfectly calibrated.

    Parameters
    ----------
    table
        From `fer_helpers.group_table`.
    title
        Stands above.
    column
        ``"accuracy"``, ``"ece"`` or ``"gap"``.

    Raises
    ------
    ValueError
        The table has no group.
    """
    if table.empty:
        raise ValueError(f"{title}: no group has enough faces to be shown, lower `smallest`")
    names = [", ".join(name) if isinstance(name, tuple) else name for name in table.index]
    place = np.arange(len(table))
    figure, axes = plt.subplots(figsize=(6, 0.3 * len(table) + 1.2))
    ends = {"accuracy": ("low", "high"), "gap": ("gap_low", "gap_high")}.get(column)
    if ends:
        reach = [table[column] - table[ends[0]], table[ends[1]] - table[column]]
        axes.errorbar(table[column], place, xerr=np.maximum(reach, 0), fmt="o", capsize=3)
    else:
        band = table["chance_high"] - table["chance_low"]
        look = {"left": table["chance_low"], "height": 0.5, "color": "0.85"}
        axes.barh(place, band, **look, label="if calibrated perfectly")
        axes.plot(table[column], place, "o")
        axes.set_xlim(left=0)
        axes.legend(fontsize=8)
    if column == "accuracy":
        mean = np.average(table["accuracy"], weights=table["n"])
        axes.axvline(mean, color="grey", linestyle="--", linewidth=1)
    labels = [f"{name} ({n})" for name, n in zip(names, table["n"], strict=True)]
    axes.set_yticks(place, labels)
    axes.set_ylim(len(table) - 0.5, -0.5)
    words = {
        "accuracy": "accuracy, 95 % interval",
        "ece": "expected calibration error",
        "gap": "accuracy below the best group's, 95 % interval",
    }
    axes.set(title=title, xlabel=words.get(column, column), ylabel="group (faces)")
    axes.grid(axis="y", color="0.9")
    return figure


def typical_faces(y: np.ndarray, probabilities: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Choose one face of each emotion: the one whose probability for its label is the median.

    It is neither the best nor the worst, so that its picture does not flatter the network.

    Parameters
    ----------
    y
        (N, 18) label rows.
    probabilities
        Task -> float (N, classes).

    Returns
    -------
    dict
        Emotion -> row, without the emotions that no face is labelled with.
    """
    labels, typical = y[:, BLOCKS["emotion"]], {}
    true = np.where(labels.any(axis=1), labels.argmax(axis=1), -1)
    for index, name in enumerate(TASKS["emotion"]):
        rows = np.flatnonzero(true == index)
        if len(rows):
            ranked = rows[np.argsort(probabilities["emotion"][rows, index], kind="stable")]
            typical[name] = int(ranked[len(ranked) // 2])
    return typical


def save_prediction_samples(
    images: np.ndarray, y: np.ndarray, probabilities: Mapping[str, np.ndarray], out_dir: str | Path
) -> list[Path]:
    """Draw the `typical_faces`, each with its prediction, to ``angry.png`` and so on.

    Parameters
    ----------
    images
        (N, H, W, 1), values 0 to 255.
    y
        (N, 18) label rows.
    probabilities
        Task -> float (N, classes).
    out_dir
        Made if missing.

    Returns
    -------
    list of Path
        The files written, without one for an emotion that no face is labelled with.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    written = []
    for name, row in typical_faces(y, probabilities).items():
        figure = prediction(images[row], probabilities["emotion"][row], name)
        written.append(out_dir / SAMPLE_FILES[name])
        save(figure, written[-1], dpi=120)
    return written
