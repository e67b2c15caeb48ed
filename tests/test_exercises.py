"""Every exercise has a right solution, and a wrong answer gets a hint that fits it."""

import time
from pathlib import Path

import nbformat
import numpy as np
import pytest

import exercises
from exercises import CHECKS, NOTHING, OPEN, check, find_fault, solution
from fer_helpers.labels import TASKS
from fer_helpers.training import compile_model

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("[0-9]*.ipynb"))


@pytest.fixture(autouse=True)
def _data(monkeypatch, sample_folder):
    monkeypatch.setenv("FER_DATA_DIR", str(sample_folder))


def exercise_cells(path):
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if "exercise" in cell.metadata.get("tags", ())]


def setup_cell(path):
    cells = nbformat.read(path, as_version=4).cells
    return next(cell for cell in cells if "exercises import check" in cell.source)


def test_every_exercise_has_a_check_and_every_check_an_exercise():
    asked = [
        number
        for path in NOTEBOOKS
        for cell in exercise_cells(path)
        for number in CHECKS
        if f'check("{number}", ' in cell.source and path.name.startswith(number[:2])
    ]
    assert asked == list(CHECKS)


def widest(right, group, smallest):
    rates = [right[group == name].mean() for name in set(group) if sum(group == name) >= smallest]
    return max(rates) - min(rates)


def planted(emotions, group, share, rng=None, old=3, new=0, inplace=False, seed=None):
    """Plant as exercise 09.3 asks, or with one fault; without a generator the first ones."""
    labels = emotions if inplace else emotions.copy()
    places = np.flatnonzero(group & (labels == old))
    rng = np.random.default_rng(seed) if seed else rng
    if rng is not None:
        places = rng.permutation(places)
    labels[places[: round(share * len(places))]] = new
    return labels


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_solutions_are_right_and_the_stored_cells_are_open(path, monkeypatch):
    judged = []
    monkeypatch.setattr(exercises, "find_fault", lambda *given: judged.append(find_fault(*given)))
    cells = exercise_cells(path)
    assert 2 <= len(cells) <= 4
    for cell in cells:
        # What a learner has at hand there: the imports, and what SAMPLE gives.
        names = {}
        exec(setup_cell(path).source, names)
        exec(cell.metadata["solution"], names)
        assert judged.pop() is None, cell.metadata["solution"]
        exec(cell.source, names)
        assert judged.pop() == OPEN, cell.source
    assert not judged


def with_its_own(answer):
    """Return an answer that draws with a generator of its own, not with the one it is given."""
    own = np.random.default_rng(7)
    return lambda *given: answer(*given[:-1], own)


def bootstrap(differences, rng, percentile):
    means = rng.choice(differences, (2000, len(differences))).mean(axis=1)
    return np.percentile(means, [percentile, 100 - percentile])


def normal_interval(differences, factor, ddof):
    reach = factor * differences.std(ddof=ddof) / np.sqrt(len(differences))
    return differences.mean() - reach, differences.mean() + reach


def own_arm(train, weights, seeds, shift=0, task="emotion"):
    """Exercise 08.4; `shift`: the other arm has other seeds (wrong)."""
    gaps = [train(weights, s)[task] - train({"emotion": 1.0}, s + shift)[task] for s in seeds]
    return np.array(gaps)


def by_rule(boxes, rule):
    return max(range(len(boxes)), key=lambda place: rule(*boxes[place]))


def silent_below(p, threshold):
    if p.max() > threshold:
        return p.argmax()


def moved(answer, crops, pixels, axis=2, soft=False):
    before, after = answer(crops), answer(np.roll(crops, pixels, axis=axis))
    if soft:
        return np.abs(before - after).mean()
    return (before.argmax(axis=1) != after.argmax(axis=1)).mean()


def moved_in_place(answer, crops, pixels):
    before = answer(crops)
    crops[:] = np.roll(crops, pixels, axis=2)
    return (before.argmax(axis=1) != answer(crops).argmax(axis=1)).mean()


def equal_to_another(rows):
    return np.array([sum((row == other).all() for other in rows) > 1 for row in rows])


def later_contradictions(images, words):
    first, marked = {}, []
    for image, word in zip(images, words, strict=True):
        marked.append(first.setdefault(image.tobytes(), word) != word)
    return marked


def with_classes(labels, rows, classes):
    labels[rows] = np.eye(labels.shape[1])[classes % labels.shape[1]]
    return labels


def any_class(labels, share, rng):
    rows = rng.choice(len(labels), round(share * len(labels)), replace=False)
    return with_classes(labels.copy(), rows, rng.integers(0, 7, len(rows)))


def in_place(labels, share, rng):
    rows = rng.choice(len(labels), round(share * len(labels)), replace=False)
    return with_classes(labels, rows, labels[rows].argmax(1) + rng.integers(1, 7, len(rows)))


def next_class(labels, share, rng):
    rows = rng.choice(len(labels), round(share * len(labels)), replace=False)
    return with_classes(labels.copy(), rows, labels[rows].argmax(1) + 1)


def first_faces(labels, share, rng):
    rows = np.arange(round(share * len(labels)))
    steps = rng.integers(1, 7, len(rows))
    return with_classes(labels.copy(), rows, labels[rows].argmax(1) + steps)


def argmax_baseline(train, test):
    most = np.bincount(train.argmax(1)).argmax()
    return (test.argmax(1) == most).mean()


def scaled(weights, counts):
    return weights * counts.sum() / (weights * counts).sum()


def turned(network, images, labels, rotation, epochs=1, first=True, loss=None):
    from fer_helpers import MaskedCrossentropy, RandomFace
    from fer_helpers.backend import keras

    layers = [RandomFace(rotation=rotation), network]
    if not first:
        layers = [keras.layers.Rescaling(1.0), *layers]
    model = keras.Sequential([keras.Input((48, 48, 1)), *layers])
    model.compile("adam", loss or MaskedCrossentropy())
    model.fit(images, labels, epochs=epochs, verbose=0)
    return model


def times(work, moved, limits):
    return work / limits["multiply_adds"], moved / limits["bytes"]


def busy(starts, durations, nested=True, ordered=True):
    """Exercise 10.3; without `nested` or `ordered` wrong for operations that are so."""
    order = np.argsort(starts) if ordered else range(len(starts))
    total, end = 0.0, -np.inf
    for start, duration in zip(starts[order], durations[order], strict=True):
        total += max(0.0, start + duration - max(start, end))
        end = max(end, start + duration) if nested else start + duration
    return total


def rate(train, batch, of=None, first=False):
    if not first:
        train(of or batch)
    begin = time.perf_counter()
    for _ in range(4):
        train(of or batch)
    return 4 * batch / (time.perf_counter() - begin)


def threshold(confidence, right, most, answers=np.greater_equal, default=np.inf):
    for value in np.sort(confidence):
        kept = answers(confidence, value)
        if kept.any() and 1 - right[kept].mean() <= most:
            return value
    return default


def first_to_last(right, group, smallest):
    names = [name for name in np.unique(group) if (group == name).sum() >= smallest]
    return abs(right[group == names[0]].mean() - right[group == names[-1]].mean())


def field(kernels, strides, own=False):
    """Exercise 04.2; `own`: a layer's own stride counts in its own view (wrong)."""
    seen = step = 1
    for kernel, stride in zip(kernels, strides, strict=False):
        step *= stride if own else 1
        seen += (kernel - 1) * step
        step *= 1 if own else stride
    return seen


def tiny(
    classes,
    filters=(8, 16, 32),
    stride=2,
    padding="same",
    pool="GlobalAveragePooling2D",
    end="softmax",
    scaled="by a layer",
    relu="relu",
):
    """Exercise 04.3, right unless asked otherwise."""
    from fer_helpers.backend import keras

    layers = keras.layers
    given = keras.Input((48, 48, 1))
    ways = {
        "by a layer": layers.Rescaling(1 / 127.5, offset=-1),
        "by hand": lambda x: x / 127.5 - 1,
    }
    x = ways.get(scaled, lambda x: x)(given)
    for count in filters:
        x = layers.Conv2D(count, 3, stride, padding=padding, activation=relu)(x)
        x = ways["by a layer"](x) if scaled == "late" and count == filters[0] else x
    x = getattr(layers, pool)()(x)
    return keras.Model(given, layers.Dense(classes, activation=end)(x))


def unbuilt():
    """Return a network that does not know its input, since it has not seen any."""
    from fer_helpers.backend import keras

    return keras.Sequential([keras.layers.Dense(7, activation="softmax")])


def weighted(network, *weights, by_name=True):
    """Compile with weights in the order of the tasks, in plain Keras if not by name."""
    if by_name:
        return compile_model(network, dict(zip(TASKS, weights, strict=True)))
    network.compile("adam", ["categorical_crossentropy"] * 4, loss_weights=list(weights))
    return network


@pytest.mark.parametrize(
    ("number", "answer", "hint"),
    [
        ("00.1", lambda p: np.unique(p.argmax(1)), "are named"),
        ("00.1", lambda p: np.flatnonzero((p < 0.01).all(0)), "for no face all the same"),
        ("00.1", lambda p: [], "take the answer of each row first"),
        ("00.1", lambda p: p.mean(0).argsort()[:2], "take the answer of each row first"),
        ("00.1", lambda p: [2, 3], "for 3 classes"),
        ("00.1", lambda p: "none", "should hold numbers"),
        ("00.1", lambda p: {2, 3}, "not a set"),
        ("00.1", lambda p: [[2], [2, 3]], "rows of the same length"),
        ("00.1", lambda p: np.setdiff1d(range(p.shape[1]), p.argmax(1))[::-1], "smallest first"),
        ("00.3", unbuilt(), "four heads"),
        ("00.2", lambda p, true: (p.argmax(1) == true).mean() - p.max(1).mean(), "other way"),
        ("00.2", lambda p, true: abs(p.max(1).mean() - (p.argmax(1) == true).mean()), "the sign"),
        ("00.2", lambda p, true: p.max(1).mean(), "the confidence alone"),
        ("00.2", lambda p, true: p.mean() - (p.argmax(1) == true).mean(), "largest number"),
        (
            "00.2",
            lambda p, true: p[np.arange(4), true].mean() - (p.argmax(1) == true).mean(),
            "may be the wrong one",
        ),
        ("00.2", lambda p, true: p.max(1) - (p.argmax(1) == true), "should be a number"),
        ("00.3", 150_000, "should be a network, not int"),
        ("01.1", lambda images: images + np.uint8(40), "wrapped around"),
        ("01.1", lambda images: images + 40.0, "images are uint8"),
        ("01.2", lambda images, words: equal_to_another(images), "same label are copies"),
        ("01.2", lambda images, words: equal_to_another(images.mean((1, 2, 3))), "has no equal"),
        ("01.2", lambda images, words: later_contradictions(images, words), "the first one"),
        ("01.2", lambda images, words: 3, "the shape is ()"),
        ("01.3", lambda labels, share, rng: rng.permutation(labels), "labels changed, but should"),
        (
            "01.3",
            with_its_own(lambda labels, share, rng: in_place(labels.copy(), share, rng)),
            "with `rng` only",
        ),
        ("01.3", lambda labels, share, rng: any_class(labels, share, rng), "be the old one"),
        ("01.3", lambda labels, share, rng: in_place(labels, share, rng), "copy them"),
        ("01.3", lambda labels, share, rng: next_class(labels, share, rng), "any of the others"),
        ("01.3", lambda labels, share, rng: first_faces(labels, share, rng), "the first ones"),
        ("01.3", lambda labels, share, rng: labels * (1 - share) + share / 7, "a single 1"),
        ("01.3", lambda labels, share, rng: labels.argmax(axis=1), "the shape is"),
        (
            "01.3",
            lambda labels, share, rng: in_place(labels.copy(), share, np.random.default_rng(5)),
            "two seeds",
        ),
        ("02.1", lambda train, test: test.mean(axis=0).max(), "does not see"),
        ("02.1", lambda train, test: train.mean(axis=0).max(), "score the test"),
        ("02.1", lambda train, test: test[:, train.sum(0).argmax()].sum(), "from 0 to 1"),
        ("02.1", lambda train, test: test[:, train.sum(0).argmax()].mean(), "leave such rows out"),
        ("02.1", lambda train, test: argmax_baseline(train, test), "leave such rows out"),
        ("02.2", lambda y, task: len(y), "not a label"),
        ("02.2", lambda y, task: y[:, :7].any(axis=1), "should be a number"),
        ("02.2", lambda y, task: y[:, :7].any(axis=1).sum(), "the block of this task"),
        ("02.2", lambda y, task: 3.9, "wrong for emotion"),
        ("02.3", lambda counts: counts.sum() / (3 * counts), "balanced weights"),
        ("02.3", lambda counts: np.sqrt(counts) / np.sqrt(counts).mean(), "count more"),
        ("02.3", lambda counts: np.sqrt(counts.sum() / (3 * counts)), "of all faces should be 1"),
        (
            "02.3",
            lambda counts: 3 / np.sqrt(counts) / (1 / np.sqrt(counts)).sum(),
            "over the classes",
        ),
        ("02.3", lambda counts: scaled(1 / np.sqrt(counts), counts), "1 / 0"),
        ("02.3", lambda counts: scaled(1 / np.sqrt(np.maximum(counts, 1)), counts), "weight 0"),
        ("03.3", lambda y, amount: y * (1 - amount) + amount / y.shape[1], "became a target"),
        ("03.3", lambda y, amount: y * (1 - amount), "sum to 1, not 0.8"),
        ("07.1", (300, 120, 120, 160), "the corner moves"),
        ("07.1", 0.5, "the shape is ()"),
        ("08.3", lambda d, rng: np.percentile(d, [2.5, 97.5]), "closer together"),
        ("08.3", lambda d, rng: (d.mean() - d.std(), d.mean() + 0.001), "with repeats"),
        ("08.3", lambda d, rng: normal_interval(d, 1.96, ddof=1), "from a formula"),
        ("08.3", lambda d, rng: normal_interval(d, 1.96, ddof=0), "from a formula"),
        ("08.3", lambda d, rng: normal_interval(d, 2.36, ddof=1), "from a formula"),
        ("08.3", lambda d, rng: np.percentile([d.mean()] * 9, [2.5, 97.5]), "all your means"),
        ("08.3", lambda d, rng: bootstrap(d, rng, 2.5)[::-1], "the low end"),
        ("08.4", lambda train, weights, seeds: [0.1] * len(seeds), "never calls"),
        (
            "08.4",
            lambda train, weights, seeds: own_arm(train, {"emotion": 1}, seeds),
            "given weights",
        ),
        (
            "08.4",
            lambda train, weights, seeds: [train(weights, s)["emotion"] for s in seeds],
            "compared",
        ),
        ("08.4", lambda *given: own_arm(*given).mean(), "a difference per seed"),
        ("08.4", lambda train, w, seeds: own_arm(train, w, [*seeds][:1]), "each of the given"),
        ("08.4", lambda *given: own_arm(*given, shift=1), "the same seeds"),
        ("08.4", lambda *given: -own_arm(*given), "other way round"),
        ("08.4", lambda *given: own_arm(*given, task="age"), "emotion's accuracy"),
        ("03.1", 15, "left over"),
        ("03.1", 15.6, "whole number"),
        ("03.2", lambda losses, mask: (losses * mask).mean(), "by all rows"),
        ("03.2", lambda losses, mask: losses[mask > 0].sum() / max(mask.sum(), -1), "0 / 0"),
        ("04.1", 1600, "a bias"),
        ("04.1", 26, "one filter"),
        ("04.1", 1601, "its own"),
        ("04.1", 48 * 48 * 64 * 26, "the same weights"),
        ("04.2", lambda kernels, strides: sum(kernels), "overlap"),
        ("04.2", lambda kernels, strides: 1 + sum(2 * (k // 2) for k in kernels), "2 sees 2"),
        ("04.2", lambda kernels, strides: max(3, 2 * sum(kernels) // 3 + 1), "draw it"),
        ("04.2", lambda kernels, strides: 1 + sum(k - 1 for k in kernels), "two pixels apart"),
        ("04.2", lambda kernels, strides: field(kernels, strides, own=True), "later layers"),
        ("04.2", lambda kernels, strides: field(kernels, strides[:1] * 9), "how far apart"),
        ("04.3", 6119, "two things"),
        ("04.3", (6119 - 63, tiny), "a bias"),
        ("04.3", (6119 - 9 * 15 * 8 - 9 * 15 * 32 - 9 * 8 - 72, tiny), "add up"),
        ("04.3", (72 + 144 + 288 + 63 + 224, tiny), "all maps"),
        ("04.3", (5888, tiny), "the dense layer"),
        ("04.3", (6119, lambda classes: tiny(7)), "not a number for each of 3"),
        ("04.3", (6119, lambda classes: tiny(classes, pool="Flatten")), "averaged"),
        ("04.3", (6119, lambda classes: tiny(classes, end=None)), "no probabilities"),
        ("04.3", (6119, lambda classes: tiny(classes, stride=1)), "a side of 48"),
        ("04.3", (6119, lambda classes: tiny(classes, padding="valid")), "a side of 5"),
        ("04.3", (6119, lambda classes: tiny(classes, filters=(16, 32, 64))), "8, 16 and 32"),
        ("04.3", (6119, lambda classes: tiny(classes, scaled=None)), "no layer scales"),
        ("04.3", (6119, lambda classes: tiny(classes, scaled="late")), "no layer scales"),
        ("04.3", (6119, lambda classes: tiny(classes, relu=None)), "the ReLU"),
        ("04.3", (6119, lambda classes: tiny(classes, pool="GlobalMaxPooling2D")), "the mean of"),
        ("04.3", (6119, lambda classes: unbuilt()), "what goes in"),
        ("04.3", (6119, lambda classes: classes), "a keras.Model"),
        ("05.1", 4.6, "without the weights"),
        ("05.1", 3.6 * 2 + 0.6 * 0.1 + 1.0 * 1.5, "multiply each loss"),
        ("05.1", 9.96 / 4, "the sum, not the mean"),
        ("05.1", 2 * 1.2 + 0.1 * 1.8 + 1.5 * 0.6 + 4 * 1.0, "match them by name"),
        ("05.2", {"gender": 4}, "should be a function"),
        ("05.2", lambda network: network, "compiled"),
        ("05.2", lambda network: [4, 1, 1, 1], "compiled"),
        ("05.2", lambda network: weighted(network, 1, 1, 1, 1, by_name=False), "by position"),
        ("05.2", lambda network: compile_model(network, {"gender": 1}), "above 0"),
        ("05.2", lambda network: weighted(network, 20, 1, 15, 40), "only the ratios"),
        ("05.2", lambda network: weighted(network, 4, 0.01, 1, 1), "smaller share"),
        ("05.2", lambda network: weighted(network, 2, 0.12, 1.5, 4), "less than ten points"),
        ("06.1", 0.76, "that is the accuracy"),
        ("06.2", lambda p, t: p / t, "normalise"),
        ("06.2", lambda p, t: p**t / (p**t).sum(), "less sure"),
        ("07.2", lambda boxes: 2, "a single box"),
        ("07.2", lambda boxes: min(1, len(boxes) - 1), "always 1"),
        ("07.2", lambda boxes: by_rule(boxes, lambda x, y, w, h: x), "where a box is"),
        ("07.2", lambda boxes: by_rule(boxes, lambda x, y, w, h: y), "how far down"),
        ("07.2", lambda boxes: by_rule(boxes, lambda x, y, w, h: min(w, h)), "shorter side"),
        ("07.2", lambda boxes: by_rule(boxes, lambda x, y, w, h: w + h), "half the way round"),
        ("07.2", lambda boxes: by_rule(boxes, lambda x, y, w, h: -w * h), "the smallest"),
        ("07.2", lambda boxes: by_rule(boxes, lambda x, y, w, h: (w - x) * (h - y)), "not corners"),
        ("07.2", lambda boxes: max(w * h for _, _, w, h in boxes), "that is the area"),
        ("07.2", lambda boxes: by_rule(boxes, lambda x, y, w, h: w * h) + 1, "counted from 0"),
        ("07.3", lambda p, threshold: p.argmax(), "should be -1"),
        ("08.1", 0.02, "should be a function"),
        ("08.1", lambda a, b: np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / len(a)), "without pairs"),
        ("08.1", lambda a, b: (a - b).mean(), "the mean difference"),
        ("08.1", lambda a, b: (a - b).std(ddof=1), "of one difference"),
        ("08.1", lambda a, b: (a - b).std() / np.sqrt(len(a)), "n - 1"),
        ("08.1", lambda a, b: (a - b).var(ddof=1) / len(a), "its root"),
        ("08.1", lambda a, b: 1.96 * (a - b).std(ddof=1) / np.sqrt(len(a)), "half an interval"),
        ("08.1", lambda a, b: 0.0088, "wrong for 3 seeds"),
        ("08.2", lambda a, b: float(a @ b), "the shape is ()"),
        ("08.2", lambda a, b: a, "as it was"),
        ("08.2", lambda a, b: a if a @ b >= 0 else 0 * a, "not the whole of a"),
        ("08.2", lambda a, b: a @ b / (b @ b) * b, "take it away"),
        ("08.2", lambda a, b: a + a @ b / (b @ b) * b, "the sign"),
        ("08.2", lambda a, b: b - a @ b / (a @ a) * a, "change a"),
        ("08.2", lambda a, b: a - a @ b * b, "a right angle"),
        ("08.2", lambda a, b: a - a @ b / np.linalg.norm(b) * b, "a right angle"),
        ("08.2", lambda a, b: np.array([1.0, 4.0, 2.0]), "only the component"),
        ("08.2", lambda a, b: a - a @ b / (b @ b) * b, "no conflict"),
        ("08.2", lambda a, b: a - min(a @ b, 0) / (b @ b) * b, "all zeros"),
        ("08.2", lambda a, b: np.subtract(a, a @ b / (b @ b) * b, out=a), "a new one"),
        ("09.1", lambda right, group, smallest: 0.75, "one face only"),
        ("09.2", 5000, "fewer are enough"),
        ("09.2", 100, "wider than"),
        ("09.2", 60, "from one end to the other"),
        ("09.1", lambda r, g, least: widest(r, g, least + (g.dtype.kind == "i")), "just enough"),
        ("09.3", lambda y, of, share, rng: planted(y, of, share, rng, inplace=True), "a copy"),
        ("09.3", lambda y, of, share, rng: planted(y, of | True, share, rng), "outside the group"),
        ("09.3", lambda y, of, share, rng: planted(y, of, share, rng, old=5), "not happy"),
        ("09.3", lambda y, of, share, rng: planted(y, of, share, rng, new=5), "of surprise"),
        ("09.3", lambda y, of, share, rng: planted(y, of, share / 2, rng), "where 30% should"),
        ("09.3", lambda y, of, share, rng: planted(y, of, share), "the first ones"),
        ("09.3", lambda y, of, share, rng: planted(y, of, share, seed=3), "with `rng`"),
        ("09.3", with_its_own(planted), "with `rng` only"),
        ("10.1", 2.0, "should be a function"),
        ("10.1", lambda work, moved, at: 1e3 * sum(times(work, moved, at)), "the sum"),
        ("10.1", lambda work, moved, at: max(times(work, moved, at)), "like seconds: give ms"),
        ("10.1", lambda work, moved, at: 1e3 * times(work, moved, at)[0], "by then"),
        ("10.1", lambda work, moved, at: 1e3 * times(work, moved, at)[1], "by then"),
        ("10.1", lambda work, moved, at: 1e3 * min(times(work, moved, at)), "by then"),
        ("10.1", lambda work, moved, at: max(work, moved) / 1e6, "divide both"),
        ("10.2", lambda means, counts: np.mean(means), "mean of the means"),
        ("10.2", lambda means, counts: np.dot(means, counts) / np.sum(counts), "should be 0"),
        ("10.3", lambda starts, durations: durations.sum(), "counts once"),
        ("10.3", lambda starts, durations: (starts + durations).max() - starts.min(), "between"),
        ("10.3", lambda starts, durations: busy(starts, durations, nested=False), "0 to 10"),
        ("10.3", lambda starts, durations: busy(starts, durations, ordered=False), "6 to 8"),
        (
            "10.3",
            lambda starts, durations: (len(starts) and busy(starts, durations)) or 1,
            "nowhere",
        ),
        ("10.4", lambda train, batch: 400.0, "has not been called"),
        ("10.4", lambda train, batch: train(batch) or 400.0, "only one step"),
        ("10.4", lambda train, batch: rate(train, batch, of=64), "faces each"),
        ("10.4", lambda train, batch: rate(train, batch, first=True), "leave it out"),
        ("10.4", lambda train, batch: batch / rate(train, batch), "seconds per step"),
        ("10.4", lambda train, batch: rate(train, batch) / batch, "steps per second"),
        ("03.1", float("inf"), "whole number"),
        ("03.1", "16", "a number, not str"),
        ("03.2", lambda losses, mask: losses.sum() / mask.sum() if mask.any() else 0, "should not"),
        ("03.3", lambda y, amount: np.where(y.any(1)[:, None], y * 0.8 + 0.05, 0), "0.1, 0.8"),
        ("03.2", lambda losses, mask: losses @ mask / max((1 - mask).sum(), 1), "without a label"),
        ("03.2", lambda losses, mask: losses @ mask / 2, "their number"),
        ("03.2", lambda losses, mask: np.median(losses[mask > 0]) if mask.any() else 0, "median"),
        ("03.2", lambda losses, mask: losses @ mask, "not their mean"),
        ("03.4", lambda network, images, labels, rotation: 0.5, "return the network"),
        ("03.4", lambda network, images, labels, rotation: network, "no RandomFace"),
        ("03.4", lambda *given: turned(*given, epochs=0), "has not been trained"),
        ("03.4", lambda *given: turned(*given[:3], 10), "asked for 25 degrees"),
        ("03.4", lambda *given: turned(*given, first=False), "before the network"),
        *(
            ("03.4", lambda *given, loss=loss: turned(*given, loss=loss), "which loss")
            for loss in ("categorical_crossentropy", "CategoricalCrossentropy", "mse")
        ),
        ("06.3", lambda c, right, most: c.max(), "there is a lower one"),
        ("06.3", lambda c, right, most: threshold(c, right, most, np.greater), "exactly at"),
        ("06.3", lambda c, right, most: threshold(c, right, most, default=1e-9), "infinity"),
        ("06.3", lambda c, right, most: np.quantile(c, most), "may be wrong"),
        ("06.3", lambda c, right, most: threshold(c, right, most) - 0.01, "none of the conf"),
        ("06.3", lambda c, right, most: threshold(c, right, most, default=1.0), "infinity"),
        ("06.3", lambda c, right, most: 2.0, "nothing is answered"),
        ("06.4", lambda images, labels, smoothing: 0.8, "the loss know"),
        ("06.4", lambda images, labels, smoothing: 1 / 7, "the greatest"),
        ("06.4", lambda images, labels, smoothing: 80.0, "between 0 and 1"),
        ("06.4", lambda images, labels, smoothing: 0.3 + smoothing / 10, "Do both begin anew"),
        ("06.2", lambda p, t: p if t == 1 else p**0.5 / (p**0.5).sum(), "log p"),
        ("07.1", [[1], [2, 3]], "the same length"),
        ("07.2", lambda boxes: by_rule(boxes, lambda x, y, w, h: h), "the tallest"),
        ("07.2", lambda boxes: by_rule(boxes, lambda x, y, w, h: w), "the widest"),
        ("07.3", lambda p, t: p.argmax() if p.max() > t else None, "returns None there"),
        ("07.3", silent_below, "returns None there"),
        ("07.3", lambda p, t: p.max() if p.max() > t else -1, "class should be given"),
        ("07.4", lambda answer, crops, pixels: 0.5, "0 pixels nothing changes"),
        ("07.4", lambda *given: 1 - moved(*given), "stays the same"),
        ("07.4", lambda answer, crops, pixels: moved(answer, crops, -pixels), "to the left"),
        ("07.4", lambda *given: moved(*given, axis=1), "left to right"),
        ("07.4", lambda *given: moved(*given, axis=0), "counts the crops"),
        ("07.4", lambda answer, crops, pixels: 8 * moved(answer, crops, pixels), "their number"),
        ("07.4", lambda *given: moved(*given, soft=True), "most probable class"),
        ("07.4", lambda answer, crops, pixels: moved_in_place(answer, crops, pixels), "copy them"),
        ("07.3", lambda p, t: p.argmax() if p.max() >= t else -1, "not above"),
        ("07.3", lambda p, t: (p > t).argmax() if p.max() > t else -1, "most probable"),
        ("08.3", lambda d, rng: bootstrap(d, rng, 5), "percentiles 5 and 95"),
        ("08.3", with_its_own(lambda d, rng: bootstrap(d, rng, 2.5)), "with `rng` only"),
        ("08.4", lambda train, weights, seeds: [[1], [2, 3]], "rows of the same length"),
        ("08.3", lambda d, rng: bootstrap(d, rng, 1), "percentiles 1 and 99"),
        ("09.1", lambda right, group, smallest: first_to_last(right, group, smallest), "any of"),
        ("04.1", "many", "should be a number, not str"),
        ("04.2", 5, "should be a function"),
        ("04.2", lambda: 5, "your function raised TypeError"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_hint_says_what_is_wrong(number, answer, hint):
    assert hint in find_fault(number, answer)


@pytest.mark.parametrize(
    ("widths", "hint"),
    [((32, 64, 128, 256), "it has 1,233,846 weights"), ((8, 16), "was it fitted?")],
)
def test_network_of_00_3_is_small_and_has_learnt(widths, hint):
    from fer_helpers import build_model

    assert hint in find_fault("00.3", build_model(widths=widths, augment=False))


def test_network_of_00_3_has_all_heads():
    from fer_helpers import build_model
    from fer_helpers.backend import keras

    whole = build_model(widths=(8, 16), augment=False)
    assert "four heads" in find_fault("00.3", keras.Model(whole.inputs, whole.outputs[:1]))


def softened_in_place(p, temperature):
    p **= 1 / temperature
    p /= p.sum()
    return p


@pytest.mark.parametrize(
    ("number", "answer"),
    [
        ("04.3", (6119, lambda classes: tiny(classes, scaled="by hand"))),
        ("06.2", softened_in_place),
        ("07.2", lambda boxes: max((w * h, i) for i, (x, y, w, h) in enumerate(boxes))[1]),
        ("07.2", lambda boxes: np.prod(np.array(boxes)[:, 2:], axis=1).argmax()),
        ("07.3", lambda p, t: next((i for i, q in enumerate(p) if q > t and q == max(p)), -1)),
        ("07.3", lambda p, t: float(np.argmax(p)) if (p > t).any() else -1.0),
        (
            "07.4",
            lambda answer, crops, pixels: np.mean(
                [
                    answer(crop[None]).argmax()
                    != answer(np.roll(crop[None], pixels, axis=2)).argmax()
                    for crop in crops
                ]
            ),
        ),
    ],
)
def test_other_right_answers_are_right(number, answer):
    assert find_fault(number, answer) is None


def untouched(*inputs):
    """What it should do."""
    ...


def begun_without_result(images):
    """What it should do."""
    images = images + 40


def begun_and_left_open(images):
    images = images + 40
    ...


@pytest.mark.parametrize("number", ["00.1", "01.3", "02.3", "03.3", "06.2"])
@pytest.mark.parametrize("function", [untouched, lambda *inputs: ..., lambda *inputs: None])
def test_function_without_a_line_of_its_own_is_not_answered_yet(number, function):
    assert find_fault(number, function) == OPEN


@pytest.mark.parametrize(
    "function",
    [begun_without_result, begun_and_left_open, lambda images: print(end=""), list([]).append],
)
def test_function_that_returns_nothing_is_told_so(function):
    assert find_fault("01.1", function) == NOTHING


@pytest.mark.parametrize("number", CHECKS)
def test_solution_prints_the_one_of_the_notebook(number, capsys):
    solution(number)
    printed = capsys.readouterr().out
    cells = [cell for path in NOTEBOOKS for cell in exercise_cells(path)]
    (cell,) = (cell for cell in cells if f'check("{number}", ' in cell.source)
    assert printed.strip() == cell.metadata["solution"].strip() != cell.source


def test_solution_is_also_found_among_the_solved_notebooks(tmp_path, monkeypatch, capsys):
    run = pytest.importorskip("run", reason="needs fer-helpers[lab]")
    monkeypatch.setattr(run, "SOLUTIONS", tmp_path / "solutions")
    run.solve()
    capsys.readouterr()
    monkeypatch.setattr(exercises, "__file__", str(tmp_path / "solutions" / "exercises.py"))
    solution("02.1")
    solved = capsys.readouterr().out
    monkeypatch.undo()
    solution("02.1")
    assert capsys.readouterr().out == solved


def test_solution_says_what_is_missing(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"no exercise '99\.1'"):
        solution("99.1")
    monkeypatch.setattr(exercises, "__file__", str(tmp_path / "exercises.py"))
    with pytest.raises(FileNotFoundError, match=r"in notebook 02, which is not in"):
        solution("02.1")


def test_check_prints_one_line(capsys):
    check("03.1", ...)
    check("03.1", 16)
    assert capsys.readouterr().out == f"03.1: {OPEN}\n03.1: right!\n"
    with pytest.raises(ValueError, match=r"no exercise '99\.1'"):
        check("99.1", 1)
