"""What the experiments of the notebooks share: the same network, begun again, and their figures."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import cbook
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw

from fer_helpers import BLOCKS, OUTPUTS, TASKS, MaskedCrossentropy, load_data, plots
from fer_helpers.backend import compiled, gradient
from fer_helpers.batches import batches_of
from fer_helpers.detection import BOX
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


def some_faces(
    name: str, split: str, most: int, data_dir: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return at most `most` faces of a split, drawn at random, and their label rows."""
    X, y = load_data(name, split, data_dir=data_dir)
    rows = np.random.default_rng(0).choice(len(X), min(most, len(X)), replace=False)
    return X[rows], y[rows]


def labelled_faces(X: np.ndarray, y: np.ndarray, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of `X` that have a label for `task`, and the numbers of their classes."""
    rows = y[:, BLOCKS[task]].any(axis=1)
    return X[rows], y[rows][:, BLOCKS[task]].argmax(axis=1)


def right_answers(
    answer: Callable[[np.ndarray], np.ndarray],
    shifts: Mapping[int, np.ndarray],
    truth: np.ndarray,
) -> pd.DataFrame:
    """Return whether a network is right about each face at each shift.

    Parameters
    ----------
    answer
        Takes pictures and returns the probabilities of their classes.
    shifts
        Pixels -> the same faces, moved to the left and then to the right.
    truth
        (N,) their true classes.

    Returns
    -------
    pandas.DataFrame
        A column per shift and a row per picture: N to the left, N to the right.
    """
    both = np.tile(truth, 2)
    found = {pixels: answer(images).argmax(axis=1) for pixels, images in shifts.items()}
    return pd.DataFrame({pixels: classes == both for pixels, classes in found.items()})


def draw_shifts(panels: Mapping[str, pd.DataFrame], task: str, baseline: float) -> None:
    """Draw accuracy against the shift, and print what the largest shift changes.

    Parameters
    ----------
    panels
        Title -> a column per shift and a row per network and seed.
    task
        Whose accuracy it is.
    baseline
        Accuracy of always naming the most frequent class.
    """
    look = {"errorbar": ("pi", 100), "marker": "o", "x": "pixels", "y": "accuracy"}
    look["palette"] = {"dense": "C0", "convolutional": "C1", "compact": "C2"}
    size = 2 + 3 * len(panels), 3
    _, grid = plt.subplots(1, len(panels), figsize=size, squeeze=False, sharey=True)
    for axes, (title, scores) in zip(grid.flat, panels.items(), strict=True):
        rows = scores.rename_axis(["network", "seed"]).rename_axis("pixels", axis=1)
        rows = rows.stack().rename("accuracy").reset_index()
        sns.lineplot(rows, hue="network", ax=axes, **look)
        axes.axhline(baseline, color="0.5", ls=":", label="most frequent class")
        axes.set(title=title, xlabel="shift in pixels", xticks=list(scores))
        axes.set(ylabel=f"{task} accuracy", ylim=(0, 1))
        axes.legend(fontsize=8)
        first, last = scores.columns[[0, -1]]
        for name, runs in scores.groupby(level=0, sort=False):
            if len(runs) > 1:
                change = paired_interval(runs[last], runs[first])
                print_change(name, runs[first].mean(), runs[last].mean(), last, change)
    plt.show()


def print_change(
    name: str, still: float, moved: float, pixels: int, change: Mapping[str, float]
) -> None:
    """Print what a shift changes, with its interval."""
    text = "{difference:+.3f} (95 % interval: {low:+.3f} to {high:+.3f})".format(**change)
    print(f"{name}: {still:.2f}, moved by {pixels} pixels {moved:.2f}; difference {text}")


def moving_window(
    photo: np.ndarray, left: int, top: int, side: int, steps: Sequence[int]
) -> list[np.ndarray]:
    """Cut grey 48 x 48 pictures out of a photo, by a window that moves sideways.

    Parameters
    ----------
    photo
        (height, width, 3) or (height, width).
    left, top, side
        The square window before it moves, in pixels of the photo.
    steps
        How far it moves, in pixels of the result.
    """
    grey = Image.fromarray(photo).convert("L")
    lefts = [left + step * side / 48 for step in steps]
    boxes = [(x, top, x + side, top + side) for x in lefts]
    return [np.array(grey.resize((48, 48), box=box)) for box in boxes]


def half_lit(pictures: np.ndarray, side: int | np.ndarray, shade: float = 0.5) -> np.ndarray:
    """Take most of the light from one side of each picture.

    Parameters
    ----------
    pictures
        uint8 (..., height, width).
    side
        1 for the left, -1 for the right. One number, or one per picture.
    shade
        Share of the width that loses its light.

    Returns
    -------
    numpy.ndarray
        uint8, as `pictures`.
    """
    across = np.linspace(-0.5, 0.5, pictures.shape[-1]) * np.reshape(side, (-1, 1, 1))
    light = 0.06 + 0.94 / (1 + np.exp(12 * (shade - 0.5 - across)))
    return (pictures * light).astype(np.uint8)


def group_photo(drawing: np.ndarray) -> tuple[Image.Image, dict, dict]:
    """Put a group photo together from portraits that may be shown freely, and a drawn face.

    Parameters
    ----------
    drawing
        uint8 (48, 48).

    Returns
    -------
    photo
        640 x 400 pixels.
    places
        Name -> x and y of the middle, in pixels of the photo.
    portraits
        Name -> the portrait as it is.
    """
    from skimage import data  # only notebook 07 needs it

    hopper = Image.open(cbook.get_sample_data("grace_hopper.jpg")).convert("RGB")
    portraits = {
        "photographer": Image.fromarray(data.camera()).convert("RGB").crop((140, 60, 320, 260)),
        "Collins": Image.fromarray(data.astronaut()).crop((120, 0, 330, 230)),
        "Hopper": hopper.crop((90, 40, 440, 450)),
    }
    shaded = half_lit(np.moveaxis(np.asarray(portraits["Hopper"]), 2, 0), 1, shade=0.57)
    people = {  # picture, its middle, its height, by how many degrees it is turned
        "photographer": (portraits["photographer"], (330, 60), 40, 0),
        "Collins": (portraits["Collins"], (420, 215), 190, 0),
        "tilted Hopper": (portraits["Hopper"], (110, 240), 180, -35),
        "half-lit Hopper": (Image.fromarray(np.moveaxis(shaded, 0, 2)), (265, 270), 200, 0),
        "drawing": (Image.fromarray(drawing).convert("RGB"), (560, 130), 150, 0),
    }
    wall = np.linspace(225, 150, 640)[:, None] * [0.85, 0.93, 1]
    photo = Image.fromarray(np.tile(wall, (400, 1, 1)).astype(np.uint8))
    for picture, (x, y), height, angle in people.values():
        oval = Image.new("L", picture.size)
        ImageDraw.Draw(oval).ellipse((0, 0, *picture.size), fill=255)
        head, oval = (part.rotate(angle, expand=True) for part in (picture, oval))
        size = [round(side * height / picture.height) for side in head.size]
        head, oval = (part.resize(size, Image.Resampling.LANCZOS) for part in (head, oval))
        photo.paste(head, (x - size[0] // 2, y - size[1] // 2), oval)
    return photo, {name: middle for name, (_, middle, *_) in people.items()}, portraits


def name_faces(faces: pd.DataFrame, places: Mapping[str, tuple[int, int]]) -> pd.DataFrame:
    """Return faces from left to right, with the name of the nearest place as their index.

    Parameters
    ----------
    faces
        A row per face, with the columns of `fer_helpers.detection.BOX`.
    places
        Name -> x and y, in pixels of the photo.
    """
    faces = faces.sort_values("left")
    middles = (faces[BOX[:2]].to_numpy() + faces[BOX[2:]].to_numpy()) / 2
    away = np.linalg.norm(middles[:, None] - np.array([*places.values()]), axis=2)
    return faces.set_axis(np.array([*places])[away.argmin(axis=1)])


def draw_boxes(photo: Image.Image, title: str, faces: pd.DataFrame | None = None) -> None:
    """Draw a photo with a box around each face, as `fer_helpers.detection.BOX` has them."""
    _, axes = plt.subplots()
    axes.imshow(photo)
    for left, top, right, bottom in [] if faces is None else faces[BOX].to_numpy():
        look = {"fill": False, "edgecolor": plots.COLOURS[1], "linewidth": 2}
        axes.add_patch(plt.Rectangle((left, top), right - left, bottom - top, **look))
    axes.set(title=title)
    axes.set_axis_off()
    plt.show()


def draw_crops(
    title: str,
    rows: Mapping[str, Mapping[str, np.ndarray]],
    top_emotion: Callable,
    expected: Mapping[str, str] | None = None,
    points: np.ndarray | None = None,
) -> None:
    """Draw cut-out faces with their predictions: a row of panels per step.

    Parameters
    ----------
    title
        Of the figure.
    rows
        Name of the step -> name of the face -> (48, 48) picture. A missing face was not found.
    top_emotion
        Takes pictures and returns an emotion and a probability for each.
    expected
        Name of the face -> emotion; other predictions are red.
    points
        (P, 2) of the picture, as shares of its side, to be marked by crosses.
    """
    names = list(expected or dict.fromkeys(name for row in rows.values() for name in row))
    size = 1.5 * len(names) + 0.4, 2 * len(rows) + 0.3
    figure, grid = plt.subplots(len(rows), len(names), figsize=size, squeeze=False)
    for line, (step, row) in zip(grid, rows.items(), strict=True):
        line[0].set_ylabel(step)
        for axes, name in zip(line, names, strict=True):
            axes.set(xticks=[], yticks=[], facecolor="0.9", box_aspect=1)
            axes.spines[:].set_visible(False)
            text, right = "not found", False
            if name in row:
                (word,), (p,) = top_emotion([row[name]])
                text, right = f"{word} {p:.0%}", not expected or word == expected[name]
                axes.imshow(row[name], "gray", vmin=0, vmax=255, interpolation="nearest")
            if points is not None:
                axes.plot(*(points * 48 - 0.5).T, "+", color=plots.COLOURS[1], markersize=12)
            colour = "black" if right else "#C00000"
            axes.set_title(f"{name}\n{text}", fontsize=9, color=colour)
    figure.suptitle(title)
    plt.show()


def draw_changed_face(curves: pd.DataFrame, labels: Sequence[str]) -> None:
    """Draw a panel per change: the probability of the prediction, its emotion as a colour.

    Parameters
    ----------
    curves
        A row per picture: ``change``, ``value``, ``emotion``, ``probability``.
    labels
        Of the horizontal axes.
    """
    figure, grid = plt.subplots(1, len(labels), figsize=(9, 2.6), sharey=True)
    emotions = [name for name in TASKS["emotion"] if name in set(curves["emotion"])]
    look = {"hue": "emotion", "style": "emotion", "s": 50, "legend": False}
    look |= {"hue_order": emotions, "style_order": emotions, "zorder": 2}
    groups = curves.groupby("change", sort=False)
    for axes, label, (_, some) in zip(grid, labels, groups, strict=True):
        axes.plot(some["value"], some["probability"], color="0.7", zorder=1)
        last = axes is grid[-1]
        sns.scatterplot(some, x="value", y="probability", ax=axes, **look | {"legend": last})
        axes.set(xlabel=label, ylim=(0, 1))
    handles, names = grid[-1].get_legend_handles_labels()
    grid[-1].legend(handles, names, loc="upper left", bbox_to_anchor=(1, 1.05))
    figure.suptitle("One face, changed: probability of the prediction")
    plt.show()


def draw_changes(picture: np.ndarray, results: Mapping[str, np.ndarray]) -> None:
    """Draw a picture and what convolutions make of it: title -> result, grey at 0."""
    _, grid = plt.subplots(1, 1 + len(results), figsize=(7, 2.6))
    for axes, (title, image) in zip(
        grid, {"a drawn face": picture, **results}.items(), strict=True
    ):
        lowest, highest = (0, 1) if image is picture else (-4, 4)
        axes.imshow(image, cmap="gray", vmin=lowest, vmax=highest)
        axes.set(title=title)
        axes.set_axis_off()
    plt.show()


def draw_network(model: keras.Model) -> None:
    """Draw a network from its layers: boxes for what they put out, arcs for shortcuts."""
    _, axes = plt.subplots(figsize=(8.6, 3))
    left, start, way = 0, 0, []
    for layer in model.layers:
        kind, shape = type(layer).__name__, layer.output.shape[1:]
        if kind == "Conv2D" and layer.kernel_size != (1, 1):
            text, width = "{}×{}".format(*layer.kernel_size), shape[-1] / 64 + 0.4
            left = _box(axes, left, width, shape, text, "#cfe3f1")
            start = start or left
        elif kind in ("AveragePooling2D", "Conv2D"):
            way.append("pooled" if "Pool" in kind else "1×1")
        elif kind == "Add":
            _arc(axes, start - 0.15, left - 0.45, way)
            start, way = left, []
        elif ("Pool" in kind or kind == "Dense") and "logits" not in layer.name:
            text = {"M": "max", "G": "mean", "D": "dense"}[kind[0]]
            left = _box(axes, left, 0.5, shape, text, "#b8dfc9")
    for up, (task, names) in zip((18, 6, -6, -18), TASKS.items(), strict=True):
        axes.plot([left - 0.6, left + 1.3], [0, up], color="0.6")
        look = {"boxstyle": "round", "fc": plots.TASK_COLOURS[task], "ec": "none"}
        place = {"va": "center", "fontsize": 8, "bbox": look}
        axes.text(left + 1.5, up, f"{task}: {len(names)}", color="w", **place)
    axes.set(title=model.name, xlim=(-0.6, left + 5), ylim=(-32, 30))
    axes.set_axis_off()
    plt.show()


def _box(axes, left, width, shape, text, colour):
    """Draw what a layer puts out, and return where the next box begins."""
    side = shape[0] if len(shape) == 3 else 26
    style = {"facecolor": colour, "edgecolor": "0.3"}
    axes.add_patch(plt.Rectangle((left, -side / 2), width, side, **style))
    look = {"ha": "center", "va": "top", "fontsize": 7}
    axes.text(left + width / 2, -side / 2 - 1, f"{text}\n{shape[-1]}", **look)
    return left + width + 0.6


def _arc(axes, start, end, way):
    """Draw a shortcut, with what it does on the way."""
    top = 18
    axes.plot([start, start, end], [0, top, top], color="#D55E00", lw=1)
    arrow = {"arrowstyle": "->", "color": "#D55E00"}
    axes.annotate("", (end, 0), (end, top), arrowprops=arrow)
    axes.text((start + end) / 2, top + 1, "\n".join(way), ha="center", fontsize=7)


def draw_costs(models: Sequence[keras.Model], multiply_adds: Callable) -> None:
    """Draw two panels per network: the multiply-adds of each layer, and its weights.

    Parameters
    ----------
    models
        Networks.
    multiply_adds
        Takes a layer and returns its multiply-adds; a layer without any is left out.
    """
    size = 7, 2.3 * len(models)
    _, grid = plt.subplots(len(models), 2, figsize=size, sharex="col", squeeze=False)
    for (work_axes, size_axes), model in zip(grid, models, strict=True):
        layers = [layer for layer in model.layers if multiply_adds(layer)]
        number = range(1, len(layers) + 1)
        millions = [multiply_adds(layer) / 1e6 for layer in layers]
        thousands = [layer.count_params() / 1e3 for layer in layers]
        work_axes.bar(number, millions, color=plots.COLOURS[1])
        size_axes.bar(number, thousands, color=plots.COLOURS[0])
        work_axes.set(title=f"{model.name}: work", ylabel="million multiply-adds")
        size_axes.set(title=f"{model.name}: size", ylabel="thousand weights")
    for axes in grid[-1]:
        axes.set_xlabel("layer, from input to heads")
    plt.show()


def draw_stored_runs(runs: pd.DataFrame, work: Mapping[str, float], faces: int) -> None:
    """Draw a line per run, against epochs and against arithmetic, and print the difference.

    Parameters
    ----------
    runs
        A row per network, seed and epoch, with the accuracy in the column ``emotion``.
    work
        Network -> million multiply-adds per face.
    faces
        Per epoch.
    """
    runs = runs.assign(arithmetic=runs["epoch"] * faces * runs["network"].map(work) / 1e6)
    names = {"epoch": "epochs", "arithmetic": "trillion multiply-adds, forwards"}
    look = {"hue": "network", "palette": dict(zip(work, plots.COLOURS, strict=False))}
    look |= {"units": "seed", "estimator": None, "marker": "o"}
    _, grid = plt.subplots(1, 2, figsize=(8, 3), sharey=True)
    for axes, (x, label) in zip(grid, names.items(), strict=True):
        sns.lineplot(runs, x=x, y="emotion", ax=axes, legend=axes is grid[0], **look)
        axes.set(title=f"against {x}", xlabel=label, ylabel="emotion accuracy", ylim=(0, 1))
    grid[1].set_xscale("log")
    plt.show()
    first, second = work
    epoch, both = shared_runs(runs)
    gap = paired_interval(both[first], both[second])
    text = "{difference:+.3f} (95 % interval: {low:+.3f} to {high:+.3f})".format(**gap)
    print(f"seeds {[*both.index]}, after {epoch} epochs, {first} minus {second}: {text}")


def shared_runs(runs: pd.DataFrame) -> tuple[int, pd.DataFrame]:
    """Return the greatest epoch that all shared seeds have reached, and what they scored there.

    Parameters
    ----------
    runs
        A row per network, seed and epoch, with the accuracy in the column ``emotion``.

    Returns
    -------
    tuple
        The epoch, and a table with a row per seed and a column per network.
    """
    pairs = runs.pivot(index=["epoch", "seed"], columns="network", values="emotion").dropna()
    seeds = pairs.groupby(level="epoch").size()
    epoch = int(seeds.index[seeds == seeds.max()].max())
    return epoch, pairs.loc[epoch]


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
            axes.bar_label(bars, words, label_type="center", fontsize=7, color="white")
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
        What to compare, such as accuracies.
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
            print("  {:20} {difference:+.3f} ({low:+.3f} to {high:+.3f})".format(column, **i))


def draw_claims(claims: Sequence[tuple[float, float]], names: tuple[str, str]) -> None:
    """Draw a line per seed from one accuracy to the other, in one colour if it rises.

    Parameters
    ----------
    claims
        A pair of accuracies per seed.
    names
        What the first and the second accuracy belong to.
    """
    _, axes = plt.subplots(figsize=(5, 3))
    for seed, (first, second) in enumerate(claims):
        colour = plots.COLOURS[0] if second > first else plots.COLOURS[1]
        look = {"marker": "osD^"[seed % 4], "color": colour, "label": f"seed {seed}"}
        axes.plot([0, 1], [first, second], **look)
    axes.set(title="One comparison per seed", ylabel="emotion accuracy", xlim=(-0.2, 1.7))
    axes.set_xticks([0, 1], names)
    axes.legend(fontsize=8, loc="center right")
    plt.show()


def standard_errors(table: pd.DataFrame, base: str) -> pd.DataFrame:
    """Return the standard errors of the differences from an arm, with and without pairs.

    Parameters
    ----------
    table
        A row per seed and a column per arm; NaN where an arm has not been run.
    base
        The arm that the others are compared with, over the seeds that they have in common.

    Returns
    -------
    pandas.DataFrame
        A row per other arm: ``pairs`` (seeds in common), ``r`` (correlation of the two arms over
        these seeds), ``paired`` and ``unpaired`` (standard errors). NaN for fewer than two pairs.
    """
    found = {}
    for arm in table.columns.drop(base):
        both = table[[arm, base]].dropna()
        n, r = len(both), both[arm].corr(both[base]) if len(both) > 1 else np.nan
        paired = (both[arm] - both[base]).std() / max(n, 1) ** 0.5
        unpaired = (both.var().sum(skipna=False) / max(n, 1)) ** 0.5
        found[arm] = {"pairs": n, "r": r, "paired": paired, "unpaired": unpaired}
    return pd.DataFrame.from_dict(found, orient="index")


def task_gradients(model: keras.Model) -> Callable[[np.ndarray, np.ndarray], dict]:
    """Return a function that computes the gradient of each task's loss on the trunk.

    It is compiled once, and takes the weights that the network has whenever it is called.

    Parameters
    ----------
    model
        A network with the four heads. Its weights stay as they are.

    Returns
    -------
    Callable
        Takes the faces and the label rows of a batch, and returns for each task one long vector:
        the gradient of its masked loss, unweighted, on all weights that the heads share.
    """
    variables = model.trainable_variables, model.non_trainable_variables
    trunk = [i for i, v in enumerate(variables[0]) if "_logits" not in v.path]

    @compiled
    def slopes(weights, fixed, images, targets):
        def loss(weights, place):
            outputs, _ = model.stateless_call(weights, fixed, images, training=True)
            return MaskedCrossentropy()(targets[place], outputs[place])

        found = [gradient(partial(loss, place=i), weights) for i in range(len(targets))]
        return [[one[i] for i in trunk] for one in found]

    def gradients(X: np.ndarray, y: np.ndarray) -> dict:
        images, targets = batches_of(X, y, len(X))[0]
        targets = [targets[OUTPUTS[task]] for task in TASKS]
        values = ([v.value for v in some] for some in variables)
        found = slopes(*values, images.astype("float32"), targets)
        flat = [np.concatenate([np.ravel(slope) for slope in one]) for one in found]
        return dict(zip(TASKS, flat, strict=True))

    return gradients


def batch_cosines(
    gradients: Callable, X: np.ndarray, y: np.ndarray, batches: int = 10, size: int = 128
) -> pd.DataFrame:
    """Return the cosine of the gradients of every two tasks, in each of several batches.

    Parameters
    ----------
    gradients
        Of `task_gradients`.
    X, y
        At least `batches` times `size` faces and their label rows. The batches are drawn from
        them at random, always the same ones.

    Returns
    -------
    pandas.DataFrame
        A row per batch and pair of tasks, with the columns ``pair`` and ``cosine``; 0 where one
        of the tasks has no label in the batch.
    """
    rows = []
    order = np.random.default_rng(0).permutation(len(X))[: batches * size]
    for some in order.reshape(batches, size):
        found = gradients(X[some], y[some])
        for first, second in combinations(TASKS, 2):
            a, b = found[first], found[second]
            lengths = np.linalg.norm(a) * np.linalg.norm(b)
            cosine = a @ b / lengths if lengths else 0.0
            rows.append({"pair": f"{first}, {second}", "cosine": cosine})
    return pd.DataFrame(rows)


def draw_before_after(gains: Sequence[float], comparison: pd.DataFrame, margin: float) -> None:
    """Draw single differences, one per seed, beside the intervals of a study.

    Parameters
    ----------
    gains
        The single differences.
    comparison
        A row per arm, with the columns ``difference``, ``low`` and ``high``.
    margin
        Half the width of the grey band around no difference.
    """
    _, (before, after) = plt.subplots(1, 2, figsize=(8, 3))
    for axes in (before, after):
        axes.axhline(0, color="grey", linestyle="--", linewidth=1)
    before.plot(gains, "o", color=plots.COLOURS[1])
    before.set(title="Before: one number per seed", xlabel="seed", ylabel="difference")
    before.set_xticks(range(len(gains)))
    after.axhspan(-margin, margin, color="0.9")
    reach = comparison[["low", "high"]].sub(comparison["difference"], axis=0).abs().T
    after.errorbar(comparison.index, comparison["difference"], reach.to_numpy(), fmt="o")
    after.set(title="After: intervals, minus arm 0", xlabel="arm", ylabel="difference")
    plt.show()


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
