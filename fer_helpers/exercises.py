"""The exercises of the notebooks: whether an answer is right, and if not, what is wrong with it.

The exercises themselves, and their solutions, are in the notebooks: a cell tagged ``exercise``
holds its solution in its metadata, see ``make solutions``.
"""

from collections.abc import Callable

import numpy as np

from fer_helpers.labels import BLOCKS, LABEL_WIDTH, TASKS, encode_labels

OPEN = "not answered yet. Put your answer in place of the three dots"


class Wrong(Exception):
    """An answer that is not right; the message says what is wrong with it."""


def check(number: str, answer) -> None:
    """Print whether `answer` is right and, if it is not, a hint that does not give it away.

    Parameters
    ----------
    number
        Of the exercise, such as ``"02.1"``.
    answer
        A number, an array or a function, as the exercise asks.

    Raises
    ------
    ValueError
        There is no such exercise.
    """
    hint = find_fault(number, answer)
    print(f"{number}: {hint or 'right!'}")


def find_fault(number: str, answer) -> str | None:
    """What is wrong with an answer; None if nothing is. See `check`."""
    if number not in CHECKS:
        raise ValueError(f"no exercise {number!r}: there are {', '.join(CHECKS)}")
    if answer is ...:
        return OPEN
    try:
        CHECKS[number](answer)
    except Wrong as wrong:
        return str(wrong)
    return None


def _expect(holds, hint: str) -> None:
    if not holds:
        raise Wrong(hint)


def _number(answer) -> float:
    try:
        return float(answer)
    except (TypeError, ValueError):
        raise Wrong(f"a number is wanted, not {type(answer).__name__}") from None


def _ask(function: Callable, *inputs):
    """What the learner's function gives."""
    _expect(callable(function), "a function is wanted: pass its name, without calling it")
    try:
        result = function(*inputs)
    except Exception as error:
        # Whatever a learner's code raises is something to tell the learner.
        raise Wrong(f"your function raised {type(error).__name__}: {error}") from error
    _expect(result is not None and result is not ..., OPEN)
    return result


def _array(result, shape: tuple[int, ...]) -> np.ndarray:
    try:
        result = np.asarray(result)
    except ValueError:
        raise Wrong("an array is wanted, whose rows are of the same length") from None
    _expect(result.dtype.kind in "buif", f"numbers are wanted, not {result.dtype}")
    _expect(result.shape == shape, f"the shape is {result.shape}, it should be {shape}")
    return result


def _bytes_of_larger_images(answer) -> None:
    value = _number(answer)
    _expect(value != 2, "twice as wide, yes, and what about the height?")
    _expect(value == 4, "count the pixels: 48 x 48 before, 96 x 96 after")


def _bright_faces(answer) -> None:
    from fer_helpers.datasets import load_data

    X, _ = load_data("SAMPLE", "test")
    means = X.mean(axis=(1, 2, 3))
    value = _number(answer)
    _expect(value != (means <= 128).sum(), "those are the dark ones")
    _expect(value != (X > 128).sum(), "those are pixels: take the mean of each face first")
    _expect(
        value == (means > 128).sum(),
        "not the number of faces whose mean is above 128; mean over axes 1, 2 and 3",
    )


def _brighter(function) -> None:
    images = np.array([[[[0], [100]], [[220], [255]]]], np.uint8)
    result = _array(_ask(function, images.copy()), images.shape)
    _expect(result.dtype == np.uint8, f"the result is {result.dtype}, images are uint8")
    _expect(result[0, 1, 0, 0] > 100, "220 + 40 has wrapped around: uint8 ends at 255")
    _expect(result.ravel().tolist() == [40, 140, 255, 255], "40 is to be added, and 255 the end")


def _accuracy_with_copies(answer) -> None:
    value = _number(answer)
    _expect(not np.isclose(value, 0.36), "that is with 100 copies")
    _expect(value <= 1, "a share is wanted, from 0 to 1")
    _expect(not np.isclose(value, 0.76), "300 copies leave 200 other faces, not 400")
    _expect(np.isclose(value, 0.68), "the copies, all right, and a fifth of the rest, of 500")


def _label_row(answer) -> None:
    row = _array(answer, (LABEL_WIDTH,))
    _expect(row.sum() == 1, f"one number is 1, the rest are 0; yours sum to {row.sum():g}")
    _expect(np.isin(row, (0, 1)).all(), "one number is 1, the rest are 0; nothing in between")
    place = int(row.argmax())
    _expect(place < BLOCKS["emotion"].stop, "the 1 stands in another block than emotion's")
    _expect(
        place == TASKS["emotion"].index("happiness"),
        f"that is {TASKS['emotion'][place]}: look at the order in TASKS",
    )


def _count_labelled(function) -> None:
    y = encode_labels({"emotion": [0, 3, -1, 6], "age": [-1, -1, 2, -1]})
    found = {task: _number(_ask(function, y, task)) for task in ("emotion", "age", "race")}
    _expect(found["emotion"] != 4, "a row of zeros in the block is no label")
    _expect(found["emotion"] == 3, "wrong for emotion: three of four have one")
    _expect(found["age"] == 1, "wrong for age: is it the block of the task?")
    _expect(found["race"] == 0, "wrong for race, which no face is labelled for")


def _steps(answer) -> None:
    value = _number(answer)
    _expect(value % 1 == 0, "a batch is a batch, even if it is not full: a whole number")
    _expect(value != 1000 // 64, "and the faces that are left over?")
    _expect(value == -(-1000 // 64), "faces divided by faces in a batch, rounded up")


def _masked_mean(function) -> None:
    losses, mask = np.array([2.0, 9.0, 4.0, 9.0]), np.array([1.0, 0.0, 1.0, 0.0])
    value = _number(_ask(function, losses, mask))
    _expect(not np.isclose(value, 1.5), "you divide by all rows, not by the labelled ones")
    _expect(np.isclose(value, 3), "the sum of the labelled losses by their number is wanted")
    value = _number(_ask(function, np.array([5.0, 7.0]), np.zeros(2)))
    _expect(not np.isnan(value), "a batch without a label gives 0 / 0: it should give 0")
    _expect(value == 0, "without a label the loss should be 0")


def _smooth(function) -> None:
    labels = np.array([[1.0, 0, 0, 0], [0, 0, 0, 0]])
    first, second = _array(_ask(function, labels.copy(), 0.2), labels.shape)
    _expect(np.isclose(first.sum(), 1), f"a labelled row should sum to 1, not {first.sum():g}")
    _expect(np.allclose(first[1:], 0.05), "0.2 for four classes: each gets 0.05")
    _expect(not second.any(), "the row without a label is no longer zeros: it became a target")
    (row,) = _array(_ask(function, np.array([[0.0, 1, 0]]), 0.3), (1, 3))
    _expect(np.allclose(row, (0.1, 0.8, 0.1)), "0.3 for three classes: 0.1, 0.8 and 0.1 are wanted")


def _parameters(answer) -> None:
    value = _number(answer)
    _expect(value != 5 * 5 * 64, "each filter has a bias, too")
    _expect(value == 5 * 5 * 64 + 64, "height x width x channels in, for each filter, and a bias")


def _receptive_field(function) -> None:
    _expect(_number(_ask(function, [3])) == 3, "one convolution of 3 sees 3 pixels")
    _expect(
        _number(_ask(function, [3, 3])) != 6,
        "[3, 3]: the second looks at 3 neighbours whose views overlap",
    )
    for kernels, seen in (([3, 3], 5), ([5, 5], 9), ([5, 3, 1], 7)):
        _expect(_number(_ask(function, kernels)) == seen, f"{kernels} is wrong: draw it on paper")


def _weighted_sum(answer) -> None:
    losses = {"emotion": 1.8, "gender": 0.6, "race": 1.0, "age": 1.2}
    weights = {"emotion": 2, "gender": 0.1, "race": 1.5, "age": 4}
    value = _number(answer)
    total = sum(losses[task] * weights[task] for task in losses)
    _expect(not np.isclose(value, sum(losses.values())), "that is the sum without the weights")
    _expect(
        not np.isclose(value, total / sum(weights.values())),
        "a sum, not a mean, is what Keras takes",
    )
    _expect(np.isclose(value, total), "each loss times its weight, all added up")


def _masked_crossentropy(function) -> None:
    from fer_helpers.losses import MaskedCrossentropy

    generator = np.random.default_rng(0)
    chances = generator.dirichlet(np.ones(5), 8).astype(np.float32)
    true = np.eye(5, dtype=np.float32)[generator.integers(0, 5, 8)]
    full = _number(_ask(function, true, chances))
    _expect(
        np.isclose(full, MaskedCrossentropy()(true, chances), atol=1e-4),
        "wrong even where all rows are labelled: minus the log of the right class's chance",
    )
    true[3:] = 0
    _expect(
        np.isclose(
            _number(_ask(function, true, chances)), MaskedCrossentropy()(true, chances), atol=1e-4
        ),
        "wrong where rows are empty: by how many rows do you divide?",
    )
    with np.errstate(all="ignore"):
        empty = _number(_ask(function, np.zeros_like(true), chances))
    _expect(empty == 0, f"{empty} for a batch without a label: it should be 0")


def _balanced_accuracy(answer) -> None:
    value = _number(answer)
    _expect(not np.isclose(value, 0.76), "that is the accuracy; the mean of the recalls is wanted")
    _expect(np.isclose(value, 0.5875), "the recall of each row first, then their mean")


def _soften(function) -> None:
    p = np.array([0.7, 0.2, 0.1])
    same = _array(_ask(function, p, 1.0), (3,))
    _expect(np.allclose(same, p, atol=1e-4), "a temperature of 1 should change nothing")
    soft = _array(_ask(function, p, 2.0), (3,))
    _expect(np.isclose(soft.sum(), 1, atol=1e-4), f"they sum to {soft.sum():.2f}: normalise")
    _expect(soft[0] < p[0], "a temperature above 1 should make it less sure")
    for temperature in (2.0, 4.0):
        soft = _array(_ask(function, p, temperature), (3,))
        wanted = p ** (1 / temperature) / (p ** (1 / temperature)).sum()
        _expect(np.allclose(soft, wanted, atol=1e-4), "it is the logits, log p, that are divided")


def _halved_box(answer) -> None:
    x, y, width, height = _array(answer, (4,))
    _expect((width, height) != (240, 320), "the face gets smaller with its photo")
    _expect((x, y) != (300, 120), "the corner moves, too: x is a distance from the left edge")
    _expect((x, y, width, height) == (150, 60, 120, 160), "all four are lengths, in pixels")


def _largest(function) -> None:
    boxes = [(0, 0, 30, 40), (50, 5, 60, 70), (10, 10, 150, 20), (0, 0, 10, 95)]
    value = _number(_ask(function, boxes))
    _expect(value != 2, "that is the widest; how large is it?")
    _expect(value != 3, "that is the highest; how large is it?")
    _expect(value == 1, "the place in the list of the box with the largest width x height")


def _decide(function) -> None:
    sure, unsure = np.array([0.1, 0.8, 0.1]), np.array([0.4, 0.35, 0.25])
    _expect(_number(_ask(function, sure, 0.5)) == 1, "0.8 is above 0.5: the class should be given")
    _expect(_number(_ask(function, unsure, 0.5)) == -1, "nothing is above 0.5: -1 is wanted")
    _expect(_number(_ask(function, unsure, 0.3)) == 0, "0.4 is above 0.3: the class is wanted")
    _expect(_number(_ask(function, np.array([0.5, 0.5]), 0.5)) == -1, "0.5 is not above 0.5")
    _expect(_number(_ask(function, np.array([0.2, 0.8]), 0.1)) == 1, "the most probable is wanted")


def _difference(answer) -> None:
    value = _number(answer)
    _expect(not np.isclose(value, -0.02, atol=1e-6), "the other way round: ours minus theirs")
    _expect(np.isclose(value, 0.02, atol=1e-6), "subtract pair by pair, then take the mean")


def _cosine(function) -> None:
    a, b = np.array([3.0, 0.0]), np.array([1.0, 1.0])
    _expect(np.isclose(_number(_ask(function, a, a)), 1), "a gradient and itself: 1")
    _expect(np.isclose(_number(_ask(function, a, -2 * a)), -1), "opposite ones: -1, of any length")
    _expect(np.isclose(_number(_ask(function, a, b)), np.sqrt(0.5)), "45 degrees are not right")
    with np.errstate(all="ignore"):
        nothing = [_number(_ask(function, *pair)) for pair in ((a, 0 * a), (0 * a, a))]
    _expect(nothing == [0, 0], "a gradient of zeros, as the first or as the second: call it 0")


def _bootstrap(function) -> None:
    differences = np.random.default_rng(1).normal(0.02, 0.01, 8)
    low, high = _array(_ask(function, differences, np.random.default_rng(0)), (2,))
    spread = np.percentile(differences, [2.5, 97.5])
    again = np.random.default_rng(2).choice(differences, (20_000, 8)).mean(axis=1)
    wanted = np.percentile(again, [2.5, 97.5])
    # What a slip of the percentage gives is nearly as wide as 2,000 draws are uncertain.
    reach = {q: np.percentile(again, [q, 100 - q]) for q in (1, 2.5, 5)}
    nearest = min(reach, key=lambda q: np.abs(reach[q] - (low, high)).max())
    near = 0.15 * np.ptp(wanted)
    _expect(low < high, "the low end comes first")
    _expect(
        not np.allclose((low, high), spread, atol=near),
        "those are percentiles of the differences; of their means they lie closer",
    )
    _expect(
        np.allclose((low, high), wanted, atol=near),
        "draw len(differences) with repeats, mean, 2,000 times; percentiles 2.5 and 97.5",
    )
    _expect(nearest == 2.5, f"near, but these look like percentiles {nearest} and {100 - nearest}")


def _widest_gap(function) -> None:
    right = np.array([1, 1, 1, 0, 1, 0, 0, 0, 0], bool)
    group = np.array(list("aaaabbbbc"))
    _expect(np.isclose(_number(_ask(function, right, group, 1)), 0.75), "wrong with all groups")
    value = _number(_ask(function, right, group, 2))
    _expect(not np.isclose(value, 0.75), "group c has one face only, and should not count")
    _expect(np.isclose(value, 0.5), "best minus worst accuracy of the groups that are left")
    right = np.array([1, 0, 0, 0, 1, 1, 1, 0], bool)
    value = _number(_ask(function, right, np.array(list("aaaabbcc")), 1))
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
    _expect(not np.isclose(value, 3), "both at the same time: the longer of the two counts")
    _expect(not np.isclose(value, 1), "that is the arithmetic; how long do the bytes take?")
    _expect(not np.isclose(value, 0.002), "that is in seconds, milliseconds are wanted")
    _expect(np.isclose(value, 2), "the longer of multiply-adds by their rate, bytes by theirs")


def _merged_mean(function) -> None:
    means, counts = np.array([2.0, 6.0]), np.array([3.0, 1.0])
    value = _number(_ask(function, means, counts))
    _expect(
        not np.isclose(value, 4), "that is the mean of the means: who has one label counts as much"
    )
    _expect(np.isclose(value, 3), "the losses of all added up, by the labels of all")
    value = _number(_ask(function, np.array([2.0, 0.0]), np.array([3.0, 0.0])))
    _expect(np.isclose(value, 2), "a device without a label should change nothing")
    with np.errstate(all="ignore"):
        nothing = _number(_ask(function, np.zeros(2), np.zeros(2)))
    _expect(nothing == 0, f"{nothing} where nobody has a label: it should be 0")


CHECKS = {
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
