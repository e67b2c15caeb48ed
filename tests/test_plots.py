"""The figures: named, and readable for those who see other colours."""

import itertools
import re
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fer_helpers import plots
from fer_helpers.evaluation import confusion
from fer_helpers.groups import group_table
from fer_helpers.labels import BLOCKS, TASKS
from fer_helpers.studies import figures

color = pytest.importorskip("skimage.color", reason="needs fer-helpers[lab]")

ROOT = Path(__file__).parent.parent

# Machado, Oliveira & Fernandes (2009): how linear RGB looks to those who lack one kind of cone.
SIGHT = {
    "all cones": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def lab(colours, sight="all cones"):
    """CIELAB (N, 3) of colours as they are seen."""
    rgb = mpl.colors.to_rgba_array(colours)[:, :3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = (linear @ np.transpose(SIGHT[sight])).clip(0, 1)
    seen = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return color.rgb2lab(seen[None])[0]


def nearest(colours, sight):
    """CIEDE2000 of the two colours that are most alike."""
    pairs = itertools.combinations(lab(colours, sight), 2)
    return min(float(color.deltaE_ciede2000(*pair)) for pair in pairs)


@pytest.mark.parametrize("sight", SIGHT)
def test_palette_can_be_told_apart(sight):
    # 1 is just seen by looking hard, 10 at a glance.
    assert nearest(plots.COLOURS, sight) > 10
    white = lab(["white"])[0]
    assert all(color.deltaE_ciede2000(seen, white) > 20 for seen in lab(plots.COLOURS, sight))


def test_red_and_green_of_the_usual_palette_cannot():
    usual = list(mpl.colormaps["tab10"].colors[:7])
    assert nearest(usual, "protanopia") < 3


def is_even(name):
    """Whether equal steps in a figure are seen as steps of one direction, and alike in size."""
    seen = lab(mpl.colormaps[name](np.linspace(0, 1, 65)))
    light = np.diff(seen[:, 0])
    steps = color.deltaE_ciede2000(seen[1:], seen[:-1])
    halves = (light[:32], -light[32:]) if name in ("vlag", "vlag_r") else (light,)
    one_way = all((half > 0.3).all() or (half < -0.3).all() for half in halves)
    return one_way and steps.max() < 2 * steps.mean()


def test_colour_maps_are_even():
    texts = [(ROOT / "fer_helpers" / "plots.py").read_text()]
    for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"):
        texts += [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    used = set(re.findall(r"cmap=['\"](\w+)", "\n".join(texts)))
    assert {"Blues", "inferno"} <= used
    assert [name for name in used if not is_even(name)] == []
    assert not is_even("jet")
    assert not is_even("hot")


@pytest.fixture
def drawn(sample_test, tmp_path):
    """A figure of each kind."""
    X, y = sample_test
    generator = np.random.default_rng(0)
    chances = {
        task: generator.dirichlet(np.ones(len(names)), len(y)) for task, names in TASKS.items()
    }
    emotion, true = chances["emotion"], y[:, BLOCKS["emotion"]].argmax(axis=1)
    columns = [f"{task}_output_accuracy" for task in TASKS]
    history = pd.DataFrame(generator.random((3, 10)))
    history.columns = ["loss", "val_loss", *columns, *(f"val_{name}" for name in columns)]
    history["epoch"] = [1, 2, 3]
    heat = generator.random((48, 48))
    face = {f"emotion_{name}": 1 / 7 for name in TASKS["emotion"]}
    face |= {"left": 5, "top": 5, "right": 40, "bottom": 40, "emotion": "fear"}
    runs = pd.DataFrame({"arm": list("0011"), "fraction": [1, 0.1, 1, 1]})
    runs[list(TASKS)] = generator.random((4, 4))
    compared = {"difference": 0.1, "low": 0.0, "low_90": 0.01, "high_90": 0.19, "high": 0.2}
    cosines = {"when": "at the start", "seed": [0, 1], "pair": "emotion, age", "cosine": [0, 0.1]}
    layers = pd.DataFrame({"multiply_adds": [1e6, 9e6], "bytes": 1e5, "seconds": [1e-3, 1e-4]})
    layers["kind"] = "Conv2D"
    limits = {"multiply_adds": 5e9, "bytes": 1e9}
    trace = pd.DataFrame(
        {
            "name": ["read", "step", "a/b:Mul", "c/d:Add"],
            "thread": ["python", "python", "compute", "compute"],
            "operation": ["", "", "Mul", "Add"],
            "start": [0.0, 5.0, 6.0, 8.0],
            "duration": [4.0, 5.0, 1.0, 2.0],
        }
    )
    yield {
        "faces": plots.faces(X[:3], ["one", "two", "three"], title="Three"),
        "learning_curves": plots.learning_curves(history),
        "confusion_matrix": plots.confusion_matrix(confusion(y, chances, "emotion")),
        "reliability": plots.reliability(emotion, true),
        "prediction": plots.prediction(X[0], emotion[0], "fear"),
        "photo": plots.photo(X[0, :, :, 0], pd.DataFrame([face, face])),
        "emotions_over_time": plots.emotions_over_time(
            pd.DataFrame([face | {"seconds": 0}, face | {"seconds": 1}]), "clip.mp4"
        ),
        "looked_at": plots.looked_at(X[0], heat, "fear"),
        "attention": plots.attention(X[:2], [heat, heat], ["fear", "anger"]),
        "arms": figures.arms(runs, pd.DataFrame(compared, index=["1"]), 0.005),
        "doses": figures.doses(runs, pd.DataFrame(compared, index=["1"]), 0.005),
        "fractions": figures.fractions(runs),
        "conflict": figures.conflict(pd.DataFrame(cosines)),
        "roofline": figures.roofline(layers, limits, 4e9),
        "timeline": figures.timeline({"first": trace, "second": trace.iloc[1:]}, ["read", "step"]),
        "groups": plots.groups(group_table(y, chances, "emotion", "age"), "By age"),
    }
    plt.close("all")


def unnamed(figure):
    """What a figure lacks: a title, or an axis that says neither what it is nor its words."""
    figure.canvas.draw()
    axes = [one for one in figure.axes if one.axison and one.get_label() != "<colorbar>"]
    if not figure.get_suptitle() and not all(one.get_title() for one in figure.axes if one in axes):
        yield "a title"
    if not axes and not figure.get_suptitle() and not figure.axes[0].get_title():
        yield "a title"
    for one in axes:
        for name, axis in (("x", one.xaxis), ("y", one.yaxis)):
            ticks = "".join(tick.get_text() for tick in axis.get_ticklabels())
            hidden = not any(tick.get_visible() for tick in axis.get_ticklabels())
            words = re.search(r"[a-z]|\d-\d", ticks)  # fear, or 20-39
            if not (axis.get_label().get_text() or words or hidden or not ticks):
                yield f"a name of the {name} axis"


def test_every_figure_is_named(drawn):
    for name, figure in drawn.items():
        assert list(unnamed(figure)) == [], name
    figure, axes = plt.subplots()
    axes.plot([1, 2])
    assert list(unnamed(figure)) == ["a title", "a name of the x axis", "a name of the y axis"]


def test_timeline_begins_with_its_first_span_and_has_a_row_for_each(drawn):
    first, second = drawn["timeline"].axes
    rows = [bars.get_paths()[0].get_extents() for bars in first.collections if bars.get_paths()]
    assert [row.x0 for row in rows] == [0, 5, 6]
    rows = [bars.get_paths()[0].get_extents() for bars in second.collections if bars.get_paths()]
    assert [row.x0 for row in rows] == [0, 1]  # nothing was read there: time begins with the step
    assert first.get_ylim() == second.get_ylim() == (2.5, -0.5)


def test_timeline_shows_a_later_recording_to_its_end():
    event = {"thread": "python", "name": "step", "operation": "", "start": 0.0}
    short, long = (pd.DataFrame([event | {"duration": length}]) for length in (5.0, 50.0))
    figure = figures.timeline({"short": short, "long": long}, ["step"])
    plt.close(figure)
    for axes in figure.axes:
        assert axes.get_xlim()[0] == 0
        assert axes.get_xlim()[1] >= 50


def test_roofline_has_two_slopes_and_contains_all_layers(drawn):
    (axes,) = drawn["roofline"].axes
    slow, fast, dots = axes.get_lines()
    low, high = slow.get_ydata()[0], fast.get_ydata()[0]
    assert high == pytest.approx(4 * low)
    assert slow.get_ydata()[-1] == fast.get_ydata()[-1] == 5
    np.testing.assert_allclose(dots.get_ydata(), [1, 90])  # the second one beats the roof
    assert axes.get_ylim()[1] > 90


def test_every_figure_has_the_style_where_no_notebook_sets_it(drawn):
    for name, figure in drawn.items():
        assert figure.get_layout_engine() is not None, name
        assert not any(axes.spines["top"].get_visible() for axes in figure.axes if axes.lines), name
    for name in ("prediction", "photo"):
        figure = drawn[name]
        figure.canvas.draw()
        picture, *others = [axes.get_tightbbox() for axes in figure.axes]
        assert not any(picture.overlaps(words) for words in others), f"words over {name}"


def test_typical_is_the_median_and_confusion_counts_by_row():
    y, chances = np.zeros((3, 18)), np.zeros((3, 7))
    y[:, 0] = 1
    chances[:, 0] = (0.9, 0.1, 0.5)
    assert plots.typical_faces(y, {"emotion": chances}) == {"surprise": 2}
    shares = np.zeros((4, 18))
    shares[:3, 3], shares[:3, 1] = 0.8, 0.2  # happiness with some votes for fear; one unlabelled
    typical = plots.typical_faces(shares, {"emotion": np.full((4, 7), 1 / 7)})
    assert typical == {"happiness": 1}
    counts = pd.DataFrame([[3, 1], [0, 2]], index=list("ab"), columns=list("ab"))
    figure = plots.confusion_matrix(counts, "task")
    shown = np.ravel(figure.axes[0].collections[0].get_array())
    assert shown.tolist() == [0.75, 0.25, 0, 1]


def test_a_grey_photo_is_drawn_grey():
    table = pd.DataFrame(columns=["left", "top", "right", "bottom", "warning"])
    shown = plots.photo(np.full((60, 90), 90, np.uint8), table).axes[0].images[0].get_array()
    assert np.array_equal(np.unique(shown[..., :3]), [90])


def test_evidence_has_one_scale_of_colours():
    heats = [np.zeros((48, 48)), np.full((48, 48), 0.5)]
    figure = plots.attention(np.zeros((2, 48, 48, 1)), heats, ["fear", "anger"], "Wrong")
    *faces, scale = figure.axes
    assert [axes.get_title() for axes in faces] == ["fear", "anger", "", ""]
    assert {axes.images[1].get_clim() for axes in faces[2:]} == {(0, 1)}
    assert scale.get_ylabel() == "evidence"
    assert scale.get_ylim() == (0, 1)
    assert figure.get_suptitle() == "Wrong"
    plt.close(figure)


def test_a_large_photo_is_drawn_small_with_its_boxes_in_place():
    face = {f"emotion_{name}": 1 / 7 for name in TASKS["emotion"]} | {"emotion": "fear"}
    face |= {"left": 1000, "top": 500, "right": 2000, "bottom": 1500}
    figure = plots.photo(Image.new("RGB", (4000, 2001)), pd.DataFrame([face]))
    (picture,), (box,) = figure.axes[0].images, figure.axes[0].patches
    assert max(picture.get_size()) <= plots.SHOWN
    assert picture.get_extent() == [0, 4000, 2001, 0]
    assert box.get_bbox().bounds == (1000, 500, 1000, 1000)
    plt.close(figure)


@pytest.mark.parametrize("number", [1, 3, 6, 12])
def test_tags_of_many_faces_are_beside_them_and_every_line_is_inside(number):
    face = {f"emotion_{name}": 1 / 7 for name in TASKS["emotion"]} | {"emotion": "happiness"}
    rows = []
    for place in range(number):  # some at the right edge
        left, top = 110 * (place % 4) + 30, 90 * (place // 4) + 5
        rows.append(face | {"left": left, "top": top, "right": left + 49, "bottom": top + 60})
    rows[0]["warning"] = "small: 20 × 20 pixels"  # the others have NaN, as in a table of a file
    figure = plots.photo(Image.new("RGB", (409, 300)), pd.DataFrame(rows))
    figure.canvas.draw()
    photo, *others = figure.axes
    boxes = [box.get_window_extent() for box in photo.patches]
    assert [tag.get_text() for tag in photo.texts] == [str(row + 1) for row in range(number)]
    for tag in photo.texts:
        tag = tag.get_bbox_patch().get_window_extent()
        assert not any(tag.overlaps(box.padded(-2)) for box in boxes)
        assert photo.bbox.padded(2).x0 <= tag.x0 <= tag.x1 <= photo.bbox.padded(2).x1
    if number <= plots.WITH_BARS:
        lines = [axes.title for axes in others]
    else:
        lines = others[0].texts
        places = [line.get_window_extent() for line in lines]
        assert not any(a.overlaps(b) for a, b in itertools.combinations(places, 2))
    assert [line.get_text() for line in lines] == [
        f"{row + 1}: happiness (14%{', small' * (row == 0)})" for row in range(number)
    ]
    for line in lines:
        assert line.get_window_extent().x1 <= figure.bbox.x1
    plt.close(figure)


@pytest.mark.parametrize("task", TASKS)
def test_all_of_a_confusion_is_inside_the_figure(task):
    names = TASKS[task]
    counts = pd.DataFrame(np.eye(len(names)), index=names, columns=names)
    with mpl.rc_context(mpl.rcParamsDefault):  # the command sets no style
        figure = plots.confusion_matrix(counts, task)
        figure.canvas.draw()
        axes = figure.axes[0]
        words = [axes.title, axes.xaxis.label, axes.yaxis.label]
        words += [*axes.get_xticklabels(), *axes.get_yticklabels()]
        assert [word.get_text() for word in words[3:]] == [*names, *names]
        for word in words:
            box = word.get_window_extent()
            assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1, word
            assert figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1, word
    plt.close(figure)


def test_learning_curves_show_a_single_epoch_and_a_panel_per_task():
    columns = ["loss", "emotion_output_accuracy", "age_output_accuracy"]
    history = pd.DataFrame({name: [0.5] for name in [*columns, *(f"val_{c}" for c in columns)]})
    figure = plots.learning_curves(history.assign(epoch=1))
    assert [axes.get_title() for axes in figure.axes] == ["weighted loss", "emotion", "age"]
    for axes in figure.axes:
        training, validation = axes.lines
        assert {training.get_marker(), validation.get_marker()} == {"o", "s"}
        assert training.get_linestyle() != validation.get_linestyle()
        assert all(tick == int(tick) for tick in axes.get_xticks())
    plt.close(figure)


def test_learning_curves_of_a_run_without_accuracies():
    history = pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.0], "val_loss": [2.0, 1.5]})
    figure = plots.learning_curves(history, "Losses")
    assert [axes.get_title() for axes in figure.axes] == ["weighted loss"]
    assert figure.get_suptitle() == "Losses"
    plt.close(figure)
