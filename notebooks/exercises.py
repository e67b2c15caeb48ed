"""The checks of the exercises: is an answer right, and if not, what is wrong with it?

The exercises and their solutions are in the notebooks: a cell tagged ``exercise`` holds its
solution in its metadata. `solution` prints it, and ``make solutions`` writes solved notebooks.
"""

import dis
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from fer_helpers.labels import BLOCKS, LABEL_WIDTH, OUTPUTS, TASKS, encode_labels

OPEN = "not answered yet. Put your answer in place of the three dots"
NOTHING = "your function returns nothing: end it with a line `return` and your result"


class Wrong(Exception):
    """Raised for a wrong answer; the message says what is wrong with it."""


def check(number: str, answer) -> None:
    """Print whether an answer is right and, if it is not, a hint that does not give it away.

    Parameters
    ----------
    number
        The number of the exercise, such as ``"02.1"``.
    answer
        A number, an array or a function, as the exercise asks; ``...`` if there is none yet.

    Raises
    ------
    ValueError
        There is no exercise with this number.
    """
    hint = find_fault(number, answer)
    print(f"{number}: {hint or 'right!'}")


def find_fault(number: str, answer) -> str | None:
    """Return what is wrong with an answer, None if nothing is; see `check`."""
    if number not in CHECKS:
        raise ValueError(f"no exercise {number!r}: choose from {', '.join(CHECKS)}")
    if answer is ...:
        return OPEN
    try:
        CHECKS[number](answer)
    except Wrong as wrong:
        return str(wrong)
    return None


def solution(number: str) -> None:
    """Print one way to solve an exercise, as it is kept in the notebook's own metadata.

    Parameters
    ----------
    number
        The number of the exercise, such as ``"02.1"``.

    Raises
    ------
    ValueError
        There is no exercise with this number.
    FileNotFoundError
        The notebook is not in the folder of this file.
    """
    if number not in CHECKS:
        raise ValueError(f"no exercise {number!r}: choose from {', '.join(CHECKS)}")
    folder = Path(__file__).resolve().parent
    for path in sorted(folder.glob(f"{number[:2]}_*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if f'check("{number}", ' in (code := "".join(cell["source"])):
                # In a solved notebook the solution is the cell itself.
                print(cell["metadata"].get("solution", code))
                return
    raise FileNotFoundError(
        f"the solution of {number} is in notebook {number[:2]}, which is not in {folder}"
    )


def _expect(holds, hint: str) -> None:
    if not holds:
        raise Wrong(hint)


def _number(answer) -> float:
    try:
        return float(answer)
    except (TypeError, ValueError):
        raise Wrong(f"the answer should be a number, not {type(answer).__name__}") from None


def _call(function: Callable, *inputs):
    """Return what the learner's function returns."""
    _expect(
        callable(function), "the answer should be a function: pass its name, without calling it"
    )
    try:
        result = function(*inputs)
    except Exception as error:
        # The learner is told about any error of their code.
        raise Wrong(f"your function raised {type(error).__name__}: {error}") from error
    _expect(result is not ... and not (result is None and _is_open(function)), OPEN)
    _expect(result is not None, NOTHING)
    return result


def _is_open(function: Callable) -> bool:
    """Return whether a function has no line of its own: a docstring and three dots at most."""
    if not hasattr(function, "__code__"):
        return False
    # Python drops a docstring and dots; what is left only returns a constant.
    idle = {"RESUME", "NOP", "LOAD_CONST", "RETURN_CONST", "RETURN_VALUE"}
    return {step.opname for step in dis.get_instructions(function)} <= idle


def _array(result, shape: tuple[int, ...]) -> np.ndarray:
    try:
        result = np.asarray(result)
    except ValueError:
        raise Wrong("the answer should be an array with rows of the same length") from None
    _expect(result.dtype.kind in "buif", f"the answer should hold numbers, not {result.dtype}")
    _expect(result.shape == shape, f"the shape is {result.shape}, but should be {shape}")
    return result


def _never_named(function) -> None:
    wide = np.array([[0.1, 0.5, 0.4, 0.0], [0.1, 0.5, 0.4, 0.0], [0.7, 0.1, 0.2, 0.0]])
    for case, wanted in ((wide, [2, 3]), (wide[:, :3], [2]), (wide[:2, :2], [0]), (np.eye(3), [])):
        result = _call(function, case.copy())
        result = np.sort(_array(result, np.shape(result)).ravel()).tolist()
        _expect(
            result != [place for place in range(case.shape[1]) if place not in wanted]
            or not wanted,
            "those are the classes that are named",
        )
        _expect(
            result != np.flatnonzero(~case.any(axis=0)).tolist() or result == wanted,
            "a class with a probability above 0 may be the answer for no face all the same",
        )
        _expect(
            result == wanted,
            f"for {case.shape[1]} classes it should be {len(wanted)} of them, and the right ones: "
            "take the answer of each row first, then see which classes are missing",
        )


def _too_sure(function) -> None:
    p = np.array([[0.6, 0.4, 0.0], [0.1, 0.9, 0.0], [0.2, 0.1, 0.7], [0.8, 0.1, 0.1]])
    for true, wanted in (([0, 1, 0, 2], 0.25), ([0, 1, 2, 0], -0.25), ([1, 2, 0, 1], 0.75)):
        true = np.array(true)
        value = _number(_call(function, p.copy(), true.copy()))
        accuracy = (p.argmax(axis=1) == true).mean()
        _expect(not np.isclose(value, -wanted), "the other way round: confidence minus accuracy")
        _expect(
            not np.isclose(value, abs(wanted)) or wanted > 0,
            "keep the sign: a network that is less sure than it is right gets a number below 0",
        )
        _expect(
            not np.isclose(value, p[np.arange(4), true].mean() - accuracy),
            "confidence is the probability of the answer given, which may be the wrong one",
        )
        _expect(not np.isclose(value, p.mean() - accuracy), "take the largest number of each row")
        _expect(not np.isclose(value, 0.75) or accuracy == 0, "that is the confidence alone")
        _expect(
            np.isclose(value, wanted), "take the mean of the rows' largest numbers, and subtract"
        )


def _small_network(answer) -> None:
    from fer_helpers import accuracy_table, load_data, predict

    _expect(
        hasattr(answer, "count_params"),
        f"the answer should be a network, not {type(answer).__name__}: fit() returns its history, "
        "so keep the network under a name of its own",
    )
    weights = answer.count_params()
    _expect(weights < 200_000, f"it has {weights:,} weights: give it fewer or narrower stages")
    X, y = load_data("SAMPLE", "validation")
    _expect(
        list(answer.output_names) == list(OUTPUTS.values()),
        "it lacks some of the four heads: build_model gives it all of them",
    )
    score = accuracy_table(y, predict(answer, X)).loc["emotion"]
    _expect(
        score["accuracy"] > score["majority"] + 0.05,
        f"right for {score['accuracy']:.0%}, about as often as a guess: was it fitted?",
    )
    _expect(
        score["accuracy"] > 0.4,
        f"right for {score['accuracy']:.0%} of the validation faces: it learns, so train it for "
        "more epochs",
    )


def _bytes_of_larger_images(answer) -> None:
    value = _number(answer)
    _expect(value != 2, "the images are twice as wide, but what about the height?")
    _expect(value == 4, "count the pixels: 48 x 48 before, 96 x 96 after")


def _bright_faces(answer) -> None:
    from fer_helpers.datasets import load_data

    X, _ = load_data("SAMPLE", "test")
    means = X.mean(axis=(1, 2, 3))
    value = _number(answer)
    _expect(value != (means <= 128).sum(), "those are the dark faces")
    _expect(value != (X > 128).sum(), "that counts pixels: take the mean of each face first")
    _expect(
        value == (means > 128).sum(),
        "not the number of faces whose mean is above 128: take the mean over axes 1, 2 and 3",
    )


def _brighter(function) -> None:
    images = np.array([[[[0], [100]], [[220], [255]]]], np.uint8)
    result = _array(_call(function, images.copy()), images.shape)
    _expect(result.dtype == np.uint8, f"the result is {result.dtype}, but images are uint8")
    _expect(result[0, 1, 0, 0] > 100, "220 + 40 has wrapped around: uint8 ends at 255")
    _expect(result.ravel().tolist() == [40, 140, 255, 255], "add 40 to each pixel, and stop at 255")


def _accuracy_with_copies(answer) -> None:
    value = _number(answer)
    _expect(not np.isclose(value, 0.36), "that is the accuracy with 100 copies")
    _expect(value <= 1, "an accuracy is a share, from 0 to 1")
    _expect(not np.isclose(value, 0.76), "300 copies leave 200 other faces, not 400")
    _expect(np.isclose(value, 0.68), "all copies and a fifth of the others are right, of 500 faces")


def _label_row(answer) -> None:
    row = _array(answer, (LABEL_WIDTH,))
    _expect(row.sum() == 1, f"one number should be 1, the others 0; yours sum to {row.sum():g}")
    _expect(
        np.isin(row, (0, 1)).all(), "one number should be 1, the others 0, and nothing in between"
    )
    place = int(row.argmax())
    _expect(place < BLOCKS["emotion"].stop, "the 1 is in another block than emotion's")
    _expect(
        place == TASKS["emotion"].index("happiness"),
        f"that is {TASKS['emotion'][place]}: look at the order in TASKS",
    )


def _count_labelled(function) -> None:
    y = encode_labels({"emotion": [0, 3, -1, 6], "age": [-1, -1, 2, -1]})
    found = {task: _number(_call(function, y, task)) for task in ("emotion", "age", "race")}
    _expect(found["emotion"] != 4, "a row of zeros in the block is not a label")
    _expect(found["emotion"] == 3, "wrong for emotion: three of the four rows have a label")
    _expect(found["age"] == 1, "wrong for age: do you look at the block of this task?")
    _expect(found["race"] == 0, "wrong for race: no row has a label for it")


def _steps(answer) -> None:
    value = _number(answer)
    _expect(value % 1 == 0, "give a whole number: a batch that is not full counts, too")
    _expect(value != 1000 // 64, "what about the faces that are left over?")
    _expect(value == -(-1000 // 64), "divide the faces by the faces per batch, and round up")


def _masked_mean(function) -> None:
    losses, mask = np.array([2.0, 9.0, 4.0, 9.0]), np.array([1.0, 0.0, 1.0, 0.0])
    value = _number(_call(function, losses, mask))
    _expect(not np.isclose(value, 1.5), "you divide by all rows: divide by the labelled ones only")
    _expect(np.isclose(value, 3), "divide the sum of the labelled losses by their number")
    value = _number(_call(function, np.array([5.0, 7.0]), np.zeros(2)))
    _expect(not np.isnan(value), "a batch without a label gives 0 / 0: it should give 0")
    _expect(value == 0, "a batch without a label should give 0")


def _smooth(function) -> None:
    labels = np.array([[1.0, 0, 0, 0], [0, 0, 0, 0]])
    first, second = _array(_call(function, labels.copy(), 0.2), labels.shape)
    _expect(np.isclose(first.sum(), 1), f"a labelled row should sum to 1, not {first.sum():g}")
    _expect(np.allclose(first[1:], 0.05), "with an amount of 0.2, each of four classes gets 0.05")
    _expect(not second.any(), "the row without a label is no longer zeros: it became a target")
    (row,) = _array(_call(function, np.array([[0.0, 1, 0]]), 0.3), (1, 3))
    _expect(np.allclose(row, (0.1, 0.8, 0.1)), "0.3 for three classes should give 0.1, 0.8, 0.1")


def _parameters(answer) -> None:
    value = _number(answer)
    _expect(value != 5 * 5 * 64, "each filter has a bias, too")
    _expect(
        value == 5 * 5 * 64 + 64,
        "each filter has height x width x channels weights, and a bias",
    )


def _receptive_field(function) -> None:
    _expect(_number(_call(function, [3])) == 3, "one convolution of 3 sees 3 pixels")
    _expect(
        _number(_call(function, [3, 3])) != 6,
        "[3, 3]: the second looks at 3 neighbours whose views overlap",
    )
    for kernels, seen in (([3, 3], 5), ([5, 5], 9), ([5, 3, 1], 7)):
        _expect(_number(_call(function, kernels)) == seen, f"wrong for {kernels}: draw it on paper")


def _weighted_sum(answer) -> None:
    losses = {"emotion": 1.8, "gender": 0.6, "race": 1.0, "age": 1.2}
    weights = {"emotion": 2, "gender": 0.1, "race": 1.5, "age": 4}
    value = _number(answer)
    total = sum(losses[task] * weights[task] for task in losses)
    _expect(not np.isclose(value, sum(losses.values())), "that is the sum without the weights")
    _expect(
        not np.isclose(value, total / sum(weights.values()))
        and not np.isclose(value, total / len(weights)),
        "Keras takes the sum, not the mean",
    )
    by_letter = dict(zip(sorted(losses), weights.values(), strict=True))
    _expect(
        not np.isclose(value, sum(losses[task] * by_letter[task] for task in losses)),
        "some of the weights went to another task: match them by name",
    )
    _expect(np.isclose(value, total), "multiply each loss by its weight, and add them up")


def _masked_crossentropy(function) -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(5), 8).astype(np.float32)
    true = np.eye(5, dtype=np.float32)[generator.integers(0, 5, 8)]
    logs = -(true * np.log(probabilities)).sum(axis=1)
    full = _number(_call(function, true.copy(), probabilities.copy()))
    _expect(not np.isclose(full, -logs.mean(), atol=1e-4), "a loss is positive: mind the sign")
    _expect(
        not np.isclose(full, logs.sum(), atol=1e-4),
        "that is the sum over the rows: the mean was asked for",
    )
    _expect(
        not np.isclose(full, logs.mean() / 5, atol=1e-4),
        "you divide by the classes, too: average over rows only",
    )
    _expect(
        np.isclose(full, logs.mean(), atol=1e-4),
        "wrong even where all rows have labels: take minus the log of the true class's probability",
    )
    for labelled in (3, 1):
        true[labelled:] = 0
        _expect(
            np.isclose(
                _number(_call(function, true.copy(), probabilities.copy())),
                logs[:labelled].mean(),
                atol=1e-4,
            ),
            "wrong where rows are empty: by how many rows do you divide?",
        )
    with np.errstate(all="ignore"):
        empty = _number(_call(function, np.zeros_like(true), probabilities.copy()))
    _expect(empty == 0, f"{empty} for a batch without a label: it should be 0")


def _gender_gains(function) -> None:
    import keras

    from fer_helpers.model import build_model
    from fer_helpers.training import PAPER_LOSS_WEIGHTS

    network = _call(function, build_model(widths=(8, 16), augment=False))
    _expect(
        isinstance(network, keras.Model) and network.compiled,
        "the function should return the network, compiled",
    )
    given = network.get_compile_config()["loss_weights"]
    _expect(given is not None, "the network has no loss weights: all of them count as 1")
    _expect(isinstance(given, Mapping), "the weights should go by name, not by position")
    answer = {task: given.get(output, 0) for task, output in OUTPUTS.items()}
    weights = np.array([_number(answer.get(task, 0)) for task in TASKS])
    _expect(
        (weights > 0).all() and np.isfinite(weights).all(),
        "each of the four tasks should have a finite weight above 0",
    )
    # Adam's steps do not depend on the scale of the loss, so there is nothing to train here.
    paper = np.array([PAPER_LOSS_WEIGHTS[task] for task in TASKS])
    share, before = (w[1] / w.sum() for w in (weights, paper))
    _expect(
        not np.allclose(weights / weights.sum(), paper / paper.sum()),
        "these have the same ratios as the paper's, and only the ratios matter",
    )
    _expect(share > before, "gender has a smaller share of these weights than of the paper's")
    theirs, yours = (_short_run(tuple(w.tolist())) for w in (paper, weights))
    changes = ", ".join(f"{task} {yours[task] - theirs[task]:+.2f}" for task in TASKS)
    print(f"your weights against the paper's: {changes}")
    _expect(
        yours["gender"] - theirs["gender"] >= 0.10,
        "gender gains less than ten points: how large is its weight beside the others?",
    )


@functools.cache
def _short_run(weights: tuple[float, ...]) -> dict[str, float]:
    """Return the accuracies after short runs on drawn faces, mean of two seeds."""
    import keras

    from experiments import restart
    from fer_helpers import accuracy_table, build_model, compile_model, load_data, predict
    from fer_helpers.batches import batches_of

    (X, y), (X_valid, y_valid) = (load_data("SAMPLE", split) for split in ("train", "validation"))
    X, y, X_valid, y_valid = X[:1000], y[:1000], X_valid[:500], y_valid[:500]
    model = build_model(widths=(16, 32, 64), augment=False)
    by_task = dict(zip(TASKS, weights, strict=True))
    compile_model(model, by_task, (), keras.optimizers.Adam(3e-3))
    scores = []
    for seed in range(2):
        restart(model, seed)
        model.fit(batches_of(X, y, 32, True, seed), epochs=3, verbose=0)
        scores.append(accuracy_table(y_valid, predict(model, X_valid))["accuracy"])
    return {task: float(np.mean([score[task] for score in scores])) for task in TASKS}


def _balanced_accuracy(answer) -> None:
    value = _number(answer)
    _expect(not np.isclose(value, 0.76), "that is the accuracy: take the mean of the recalls")
    _expect(np.isclose(value, 0.5875), "work out the recall of each class first, then their mean")


def _soften(function) -> None:
    p = np.array([0.7, 0.2, 0.1])
    same = _array(_call(function, p, 1.0), (3,))
    _expect(np.allclose(same, p, atol=1e-4), "a temperature of 1 should change nothing")
    soft = _array(_call(function, p, 2.0), (3,))
    _expect(
        np.isclose(soft.sum(), 1, atol=1e-4),
        f"your row sums to {soft.sum():.2f}: normalise it",
    )
    _expect(soft[0] < p[0], "a temperature above 1 should make the network less sure")
    for temperature in (2.0, 4.0):
        soft = _array(_call(function, p, temperature), (3,))
        wanted = p ** (1 / temperature) / (p ** (1 / temperature)).sum()
        _expect(
            np.allclose(soft, wanted, atol=1e-4), "divide the logits, log p, by the temperature"
        )


def _halved_box(answer) -> None:
    x, y, width, height = _array(answer, (4,))
    _expect((width, height) != (240, 320), "the face gets smaller with its photo")
    _expect((x, y) != (300, 120), "the corner moves, too: x is a distance from the left edge")
    _expect((x, y, width, height) == (150, 60, 120, 160), "all four numbers are lengths in pixels")


def _largest(function) -> None:
    boxes = [(0, 0, 30, 40), (50, 5, 60, 70), (10, 10, 150, 20), (0, 0, 10, 95)]
    value = _number(_call(function, boxes))
    _expect(value != 2, "that is the widest box: how large is it?")
    _expect(value != 3, "that is the tallest box: how large is it?")
    _expect(value == 1, "give the index of the box with the largest width x height")


def _decide(function) -> None:
    sure, unsure = np.array([0.1, 0.8, 0.1]), np.array([0.4, 0.35, 0.25])
    _expect(_number(_call(function, sure, 0.5)) == 1, "0.8 is above 0.5: the class should be given")
    _expect(_number(_call(function, unsure, 0.5)) == -1, "no class is above 0.5: it should be -1")
    _expect(
        _number(_call(function, unsure, 0.3)) == 0, "0.4 is above 0.3: the class should be given"
    )
    _expect(_number(_call(function, np.array([0.5, 0.5]), 0.5)) == -1, "0.5 is not above 0.5")
    _expect(
        _number(_call(function, np.array([0.2, 0.8]), 0.1)) == 1,
        "the most probable class should be given",
    )


def _difference(answer) -> None:
    value = _number(answer)
    _expect(not np.isclose(value, -0.02, atol=1e-6), "the other way round: ours minus theirs")
    _expect(np.isclose(value, 0.02, atol=1e-6), "subtract pair by pair, then take the mean")


def _cosine(function) -> None:
    a, b = np.array([3.0, 0.0]), np.array([1.0, 1.0])
    _expect(np.isclose(_number(_call(function, a, a)), 1), "a gradient and itself should give 1")
    _expect(
        np.isclose(_number(_call(function, a, -2 * a)), -1),
        "opposite gradients should give -1, whatever their lengths",
    )
    _expect(
        np.isclose(_number(_call(function, a, b)), np.sqrt(0.5)), "wrong for an angle of 45 degrees"
    )
    with np.errstate(all="ignore"):
        nothing = [_number(_call(function, *pair)) for pair in ((a, 0 * a), (0 * a, a))]
    _expect(
        nothing == [0, 0], "a gradient of zeros should give 0, as the first or as the second one"
    )


def _bootstrap(function) -> None:
    differences = np.random.default_rng(1).normal(0.02, 0.01, 8)
    low, high = _array(_call(function, differences, np.random.default_rng(0)), (2,))
    spread = np.percentile(differences, [2.5, 97.5])
    again = np.random.default_rng(2).choice(differences, (20_000, 8)).mean(axis=1)
    wanted = np.percentile(again, [2.5, 97.5])
    # A wrong percentile changes the ends hardly more than the chance in 2,000 draws does.
    reach = {q: np.percentile(again, [q, 100 - q]) for q in (1, 2.5, 5)}
    nearest = min(reach, key=lambda q: np.abs(reach[q] - (low, high)).max())
    near = 0.15 * np.ptp(wanted)
    _expect(low < high, "the low end comes first")
    _expect(
        not np.allclose((low, high), spread, atol=near),
        "those are percentiles of the differences; those of their means are closer together",
    )
    _expect(
        np.allclose((low, high), wanted, atol=near),
        "draw len(differences) of them with repeats and take the mean, 2,000 times; then take "
        "percentiles 2.5 and 97.5 of the means",
    )
    _expect(nearest == 2.5, f"close, but these look like percentiles {nearest} and {100 - nearest}")


def _widest_gap(function) -> None:
    right = np.array([1, 1, 1, 0, 1, 0, 0, 0, 0], bool)
    group = np.array(list("aaaabbbbc"))
    _expect(
        np.isclose(_number(_call(function, right, group, 1)), 0.75), "wrong where all groups count"
    )
    value = _number(_call(function, right, group, 2))
    _expect(not np.isclose(value, 0.75), "group c has one face only and should not count")
    _expect(
        np.isclose(value, 0.5), "take the best minus the worst accuracy of the groups that are left"
    )
    right = np.array([1, 0, 0, 0, 1, 1, 1, 0], bool)
    value = _number(_call(function, right, np.array(list("aaaabbcc")), 1))
    _expect(np.isclose(value, 0.75), "the best and the worst may be any of the groups")


def _faces_needed(answer) -> None:
    from fer_helpers.evaluation import wilson_interval

    counts = np.arange(10, 2000)
    low, high = wilson_interval(0.8 * counts, counts)
    needed = int(counts[np.argmax(high - low <= 0.1)])
    value = _number(answer)
    _expect(value >= needed, "with so few faces the interval is wider than 0.1")
    _expect(value <= needed, "fewer are enough: look for the smallest number")


def _least_time(answer) -> None:
    value = _number(answer)
    _expect(not np.isclose(value, 3), "both happen at the same time: the longer of the two counts")
    _expect(
        not np.isclose(value, 1), "that is the time of the arithmetic: how long do the bytes take?"
    )
    _expect(not np.isclose(value, 0.002), "that is in seconds: give milliseconds")
    _expect(
        np.isclose(value, 2),
        "divide both by their rates, and take the longer of the two times",
    )


def _merged_mean(function) -> None:
    means, counts = np.array([2.0, 6.0]), np.array([3.0, 1.0])
    value = _number(_call(function, means, counts))
    _expect(
        not np.isclose(value, 4),
        "that is the mean of the means: a device with one label counts as much as one with three",
    )
    _expect(np.isclose(value, 3), "add up the losses of all devices, and divide by all labels")
    value = _number(_call(function, np.array([2.0, 0.0]), np.array([3.0, 0.0])))
    _expect(np.isclose(value, 2), "a device without a label should change nothing")
    with np.errstate(all="ignore"):
        nothing = _number(_call(function, np.zeros(2), np.zeros(2)))
    _expect(nothing == 0, f"{nothing} where no device has a label: it should be 0")


CHECKS = {
    "00.1": _never_named,
    "00.2": _too_sure,
    "00.3": _small_network,
    "01.1": _bytes_of_larger_images,
    "01.2": _bright_faces,
    "01.3": _brighter,
    "02.1": _accuracy_with_copies,
    "02.2": _label_row,
    "02.3": _count_labelled,
    "03.1": _steps,
    "03.2": _masked_mean,
    "03.3": _smooth,
    "04.1": _parameters,
    "04.2": _receptive_field,
    "05.1": _weighted_sum,
    "05.2": _masked_crossentropy,
    "05.3": _gender_gains,
    "06.1": _balanced_accuracy,
    "06.2": _soften,
    "07.1": _halved_box,
    "07.2": _largest,
    "07.3": _decide,
    "08.1": _difference,
    "08.2": _cosine,
    "08.3": _bootstrap,
    "09.1": _widest_gap,
    "09.2": _faces_needed,
    "10.1": _least_time,
    "10.2": _merged_mean,
}
