"""The checks of the exercises: is an answer right, and if not, what is wrong with it?

The exercises and their solutions are in the notebooks: a cell tagged ``exercise`` holds its
solution in its metadata. `solution` prints it, and ``make solutions`` writes solved notebooks.
"""

import dis
import functools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from fer_helpers.labels import BLOCKS, OUTPUTS, TASKS, encode_labels

OPEN = "not answered yet. Put your answer in place of the three dots"
NOTHING = "your function returns nothing: end it with a line `return` and your result"
SAME_SEED = "two calls with the same generator differ: draw with `rng` only"


class Wrong(Exception):
    """Raised for a wrong answer; the message says what is wrong with it."""


def check(number: str, answer) -> None:
    """Print whether an answer is right and, if it is not, a hint that does not give it away.

    Parameters
    ----------
    number
        The number of the exercise, such as ``"02.1"``.
    answer
        What the exercise asks for: a number, an array, a function, a network, or a number and a
        function; ``...`` if there is none yet.

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
    hint = f"the answer should be a number, not {type(answer).__name__}"
    _expect(not isinstance(answer, str | bytes), hint)
    try:
        return float(answer)
    except (TypeError, ValueError):
        raise Wrong(hint) from None


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


def _array(result, shape: tuple[int, ...] | None = None) -> np.ndarray:
    kind = type(result).__name__
    _expect(not isinstance(result, set | dict), f"give a list or an array, not a {kind}")
    try:
        result = np.asarray(result)
    except ValueError:
        raise Wrong("the answer should be an array with rows of the same length") from None
    _expect(result.dtype.kind in "buif", f"the answer should hold numbers, not {result.dtype}")
    _expect(
        shape is None or result.shape == shape,
        f"the shape is {result.shape}, but should be {shape}",
    )
    return result


def _never_named(function) -> None:
    p = np.array([[0.1, 0.5, 0.4, 0.0], [0.1, 0.5, 0.4, 0.0], [0.7, 0.1, 0.2, 0.0]])
    for case, wanted in ((p, [2, 3]), (p[:, :3], [2]), (p[:2, :2], [0]), (np.eye(3), [])):
        result = _array(_call(function, case.copy())).ravel().tolist()
        if result == wanted:
            continue
        result.sort()
        _expect(result != wanted, "these are the right classes: give the smallest first")
        named = np.unique(case.argmax(axis=1)).tolist()
        _expect(result != named, "those are the classes that are named")
        _expect(
            result != np.flatnonzero(~case.any(axis=0)).tolist(),
            "a class with a probability above 0 may be the answer for no face all the same",
        )
        raise Wrong(
            f"wrong for {case.shape[1]} classes: take the answer of each row first, then see "
            "which classes are missing among the answers"
        )


def _too_sure(function) -> None:
    p = np.array([[0.6, 0.4, 0.0], [0.1, 0.9, 0.0], [0.2, 0.1, 0.7], [0.8, 0.1, 0.1]])
    for true, wanted in (([0, 1, 0, 2], 0.25), ([0, 1, 2, 0], -0.25), ([1, 2, 0, 1], 0.75)):
        true = np.array(true)
        value = _number(_call(function, p.copy(), true.copy()))
        if np.isclose(value, wanted):
            continue
        accuracy = (p.argmax(axis=1) == true).mean()
        hints = {
            abs(wanted): "keep the sign: one that is less sure than right gets less than 0",
            0.75: "that is the confidence alone",
            p.mean() - accuracy: "take the largest number of each row, not all of them",
            p[np.arange(4), true].mean() - accuracy: (
                "confidence is the probability of the answer given, which may be the wrong one"
            ),
            -abs(wanted): "the other way round: confidence minus accuracy",
        }
        hint = next((hint for wrong, hint in hints.items() if np.isclose(value, wrong)), None)
        raise Wrong(hint or "take the mean of the rows' largest numbers, minus the accuracy")


def _small_network(answer) -> None:
    from fer_helpers import accuracy_table, load_data, predict

    _expect(
        hasattr(answer, "count_params"),
        f"the answer should be a network, not {type(answer).__name__}: fit() returns its history, "
        "so keep the network under a name of its own",
    )
    _expect(
        list(getattr(answer, "output_names", ())) == list(OUTPUTS.values()),
        "it lacks some of the four heads: build_model gives it all of them",
    )
    weights = answer.count_params()
    _expect(weights < 200_000, f"it has {weights:,} weights: give it fewer or narrower stages")
    X, y = load_data("SAMPLE", "validation")
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


def _brighter(function) -> None:
    images = np.array([[[[0], [100]], [[220], [255]]]], np.uint8)
    result = _array(_call(function, images.copy()), images.shape)
    _expect(result.dtype == np.uint8, f"the result is {result.dtype}, but images are uint8")
    _expect(result[0, 1, 0, 0] > 100, "220 + 40 has wrapped around: uint8 ends at 255")
    _expect(result.ravel().tolist() == [40, 140, 255, 255], "add 40 to each pixel, and stop at 255")


def _contradicted(function) -> None:
    images = np.zeros((6, 2, 2, 1), np.uint8)
    images[[0, 3, 4]], images[[1, 5]] = 7, 9
    images[2, 0], images[5, 0, 0], images[5, 0, 1] = 14, 10, 8  # as bright as others, not equal
    images[2, 1] = 0
    words = np.array(["fear", "anger", "anger", "fear", "anger", "fear"])
    result = _array(_call(function, images.copy(), words.copy()), (6,)).astype(bool)
    _expect(
        not result[[1, 2, 5]].any(),
        "a picture is marked that has no equal: compare all pixels, not a mean",
    )
    _expect(result[4], "the picture with the other label is not marked")
    _expect(result[[0, 3]].all(), "mark all pictures of the group, also the first one")
    result = _array(_call(function, images[[0, 3, 1]], np.array(["fear"] * 3)), (3,))
    _expect(not result.any(), "equal pictures with the same label are copies, no contradiction")


def _spoil(function) -> None:
    labels = np.eye(7)[np.random.default_rng(3).integers(0, 7, 400)]
    given, seen = labels.copy(), []
    for seed, share in ((0, 0.3), (1, 0.3), (0, 0.9), (0, 0.3)):
        result = _array(_call(function, given, share, np.random.default_rng(seed)), labels.shape)
        _expect((given == labels).all(), "your function changes the labels it is given: copy them")
        one = (result.sum(axis=1) == 1) & np.isin(result, (0, 1)).all(axis=1)
        _expect(one.all(), "each row should still hold a single 1, and zeros")
        changed = np.flatnonzero(result.argmax(axis=1) != labels.argmax(axis=1))
        wanted = round(share * 400)
        _expect(
            len(changed) >= wanted,
            f"{len(changed)} labels are another class, but should be {wanted}: may a new class be "
            "the old one, or a face be drawn twice?",
        )
        _expect(len(changed) == wanted, f"{len(changed)} labels changed, but should be {wanted}")
        steps = (result.argmax(axis=1) - labels.argmax(axis=1))[changed] % 7
        _expect(len(set(steps)) == 6, "the new class should be any of the others, at random")
        seen.append(changed.tolist())
    _expect(seen[0][-1] >= 120, "the faces that change are the first ones: draw them")
    _expect(seen[0] != seen[1], "two seeds change the same faces: use `rng`")
    _expect(seen[0] == seen[3], SAME_SEED)


def _majority_baseline(function) -> None:
    def blocks(classes):
        return encode_labels({"gender": classes})[:, BLOCKS["gender"]]

    train, test = blocks([0, 1, 1, 1, 2]), blocks([0, 0, 0, 1, 2, 0, 1, 2])
    value = _number(_call(function, train, test))
    _expect(
        not np.isclose(value, 0.5),
        "that is the most frequent class of the test faces, which a model does not see",
    )
    _expect(
        not np.isclose(value, 0.6), "that is the share among the training faces: score the test"
    )
    _expect(value <= 1, "an accuracy is a share, from 0 to 1")
    _expect(np.isclose(value, 0.25), "find the class on the training faces; score it on the others")
    train, test = blocks([-1, -1, -1, 2, 2, 1]), blocks([-1, -1, 2, 2, 2, 0])
    value = _number(_call(function, train, test))
    _expect(
        not np.isclose(value, 0.25) and not np.isclose(value, 0.5),
        "a row of zeros is no label: leave such rows out, in training and in the test",
    )
    _expect(np.isclose(value, 0.75), "wrong where rows have no label")


def _count_labelled(function) -> None:
    y = encode_labels({"emotion": [0, 3, -1, 6], "age": [-1, -1, 2, -1]})
    found = {task: _number(_call(function, y, task)) for task in ("emotion", "age", "race")}
    _expect(found["emotion"] != 4, "a row of zeros in the block is not a label")
    _expect(found["emotion"] == 3, "wrong for emotion: three of the four rows have a label")
    _expect(found["age"] == 1, "wrong for age: do you look at the block of this task?")
    _expect(found["race"] == 0, "wrong for race: no row has a label for it")


def _softer_weights(function) -> None:
    counts = np.array([900, 100, 400])
    weights = _array(_call(function, counts.copy()), (3,)).astype(float)
    _expect(
        not np.allclose(weights / weights[0], [1, 9, 2.25]),
        "those are the balanced weights: the root of the count should be in the denominator",
    )
    _expect(
        not np.allclose(weights / weights[0], [1, 1 / 3, 2 / 3]), "the rare class should count more"
    )
    _expect(
        np.allclose(weights / weights[0], [1, 3, 1.5]),
        "a class with a ninth of the faces should count three times as much per face",
    )
    _expect(
        not np.isclose(weights.mean(), 1),
        "the mean over the classes is 1; over the faces it should be",
    )
    _expect(
        np.isclose(counts @ weights / counts.sum(), 1), "the mean weight of all faces should be 1"
    )
    with np.errstate(all="ignore"):
        weights = _array(_call(function, np.array([16, 0, 4])), (3,)).astype(float)
    _expect(np.isfinite(weights).all(), "a class without faces gives 1 / 0: its weight should be 0")
    _expect(weights[1] == 0, "a class without faces should have the weight 0")
    _expect(np.isclose((16 * weights[0] + 4 * weights[2]) / 20, 1), "wrong with an empty class")


def _steps(answer) -> None:
    value = _number(answer)
    _expect(value % 1 == 0, "give a whole number: a batch that is not full counts, too")
    _expect(value != 1000 // 64, "what about the faces that are left over?")
    _expect(value == -(-1000 // 64), "divide the faces by the faces per batch, and round up")


def _masked_mean(function) -> None:
    cases = (
        ([2.0, 9.0, 4.0, 9.0], [1.0, 0.0, 1.0, 0.0]),
        ([1.0, 3.0, 8.0, 7.0, 5.0], [1.0, 1.0, 1.0, 0.0, 1.0]),
        ([0.5, 6.0, 0.25], [0.0, 1.0, 0.0]),
        ([7.0, 1.0, 1.0, 2.0], [0.0, 1.0, 1.0, 1.0]),
        ([3.0, 5.0, 10.0], [1.0, 1.0, 1.0]),
    )
    for losses, mask in (map(np.array, case) for case in cases):
        case = f"for losses {losses.tolist()} with the mask {mask.tolist()}"
        value = _number(_call(function, losses.copy(), mask.copy()))
        total, labelled = (losses * mask).sum(), mask.sum()
        if np.isclose(value, total / labelled):
            continue
        for wrong, hint in (
            (total / len(mask), "you divide by all rows: divide by the labelled ones only"),
            (total / max(len(mask) - labelled, 1), "you divide by the rows without a label"),
            (losses.sum() / labelled, "losses of rows without a label should not count"),
            (total, "that is the sum of the labelled losses, not their mean"),
            (np.median(losses[mask > 0]), "that looks like a median: take the mean"),
        ):
            _expect(not np.isclose(value, wrong), f"{hint} ({case})")
        raise Wrong(f"divide the sum of the labelled losses by their number ({case})")
    for count in (2, 5):
        with np.errstate(all="ignore"):
            value = _number(_call(function, np.arange(1.0, 1 + count), np.zeros(count)))
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


def _train_turned(function) -> None:
    from fer_helpers import BLOCKS, RandomFace, build_model, load_data
    from fer_helpers.backend import keras

    images, y = load_data("SAMPLE", "validation")
    labels = y[:96, BLOCKS["emotion"]].copy()
    labels[::2] = 0
    network = build_model(widths=(8, 16), augment=False)
    head = keras.Model(network.input, network.get_layer("emotion_output").output)
    before = np.array(head.trainable_weights[0])
    model = _call(function, head, images[:96], labels, 25)
    _expect(isinstance(model, keras.Model), f"return the network, not a {type(model).__name__}")
    layers = [layer for layer in model.layers if isinstance(layer, RandomFace)]
    _expect(layers, "there is no RandomFace in the network that you return")
    first = next(layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer))
    _expect(first is layers[0], "RandomFace must see the faces before the network does")
    turned = layers[0].settings["rotation"]
    _expect(turned == 25, f"asked for 25 degrees, it turns faces by up to {turned:g}")
    result = model.predict_on_batch(images[:2])
    _expect(np.shape(result) == (2, 7), "the network in front of which you put it has got lost")
    after = np.array(head.trainable_weights[0])
    _expect(
        not np.allclose(before, after),
        "the network has not been trained: its weights are the old ones",
    )
    if model.compiled:
        one = np.eye(7, dtype="float32")[:1]
        alone, beside = (
            float(model.compute_loss(y=y, y_pred=np.full(y.shape, 1 / 7, "float32")))
            for y in (one, np.concatenate([one, 0 * one]))
        )
        _expect(
            np.isclose(alone, beside, rtol=0.01),
            "half of these faces have no label: which loss leaves them out?",
        )


def _parameters(answer) -> None:
    value = _number(answer)
    _expect(value != 5 * 5 * 64, "each filter has a bias, too")
    _expect(value != 5 * 5 + 1, "that is one filter: how many are there?")
    _expect(value != 5 * 5 * 64 + 1, "one bias is not enough: each filter has its own")
    _expect(
        value != 48 * 48 * 64 * 26, "the same weights serve in all places: the side plays no part"
    )
    _expect(
        value == 5 * 5 * 64 + 64,
        "each filter has height x width x channels weights, and a bias",
    )


def _receptive_field(function) -> None:
    def seen(kernels, strides) -> float:
        return _number(_call(function, list(kernels), list(strides)))

    _expect(seen([3], [1]) == 3, "one convolution of 3 sees 3 pixels")
    _expect(
        seen([3, 3], [1, 1]) != 6,
        "[3, 3]: the second looks at 3 neighbours whose views overlap",
    )
    for kernels, width in (([3, 3], 5), ([5, 5], 9), ([5, 3, 1], 7)):
        _expect(
            seen(kernels, [1] * len(kernels)) == width,
            f"wrong for kernels {kernels} with strides of 1: draw it on paper",
        )
    _expect(seen([2], [1]) == 2, "a kernel of 2 sees 2 pixels: kernels may be even, too")
    _expect(seen([4, 2], [1, 1]) == 5, "wrong for the even kernels [4, 2]: draw it on paper")
    _expect(
        seen([5], [2]) == 5,
        "[5] with a stride of 2 sees 5: its stride matters to later layers only",
    )
    _expect(
        seen([3, 3], [2, 1]) != 5,
        "after a stride of 2, neighbours lie two pixels apart: count those",
    )
    for kernels, strides, width in (
        ([3, 3], [2, 1], 7),
        ([3, 3], [1, 2], 5),
        ([3, 3, 3], [2, 2, 2], 15),
        ([5, 2, 4, 3], [2, 3, 1, 2], 37),
    ):
        _expect(
            seen(kernels, strides) == width,
            f"wrong for kernels {kernels} with strides {strides}: how far apart in the picture are "
            "neighbours after all strides so far?",
        )


def _tiny_network(answer) -> None:
    _expect(
        isinstance(answer, tuple) and len(answer) == 2,
        "give two things, (predicted, tiny): the number of weights, and the function",
    )
    predicted, function = answer
    _expect(predicted is not ..., OPEN)
    weights = [9 * 1 * 8, 9 * 8 * 16, 9 * 16 * 32, 32 * 7]
    biases = [8, 16, 32, 7]
    value = _number(predicted)
    _expect(value != sum(weights), "predicted: each filter and each class has a bias, too")
    _expect(
        value != sum(9 * filters for filters in (8, 16, 32)) + sum(biases) + weights[-1],
        "predicted: a filter looks at all maps of the layer before it",
    )
    _expect(
        value != sum(weights[:3] + biases[:3]), "predicted: the dense layer has weights as well"
    )
    _expect(
        value == sum(weights + biases),
        "predicted: add up height x width x maps before x filters, and a bias for each filter; "
        "global pooling has none, and the dense layer reads 32 numbers",
    )
    for classes in (7, 3):
        _judge_tiny(_call(function, classes), classes)


def _judge_tiny(model, classes: int) -> None:
    from fer_helpers.backend import keras

    _expect(isinstance(model, keras.Model), "tiny should return a keras.Model")
    _expect(
        hasattr(model, "input_shape"),
        "the network does not know what goes in: begin with keras.Input((48, 48, 1))",
    )
    _expect(
        tuple(model.input_shape) == (None, 48, 48, 1),
        f"the network takes {model.input_shape}, not pictures (None, 48, 48, 1)",
    )
    _expect(
        tuple(model.output_shape) == (None, classes),
        f"tiny({classes}) gives {model.output_shape}, not a number for each of {classes} classes",
    )
    found = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    _expect(
        [layer.filters for layer in found] == [8, 16, 32],
        f"there should be convolutions of 8, 16 and 32 filters, not {[f.filters for f in found]}",
    )
    side = found[-1].output.shape[1]
    _expect(side == 6, f"the last convolution puts out a side of {side}, not 6: stride, padding?")
    images = np.random.default_rng(0).integers(0, 256, (4, 48, 48, 1)).astype("float32")
    rows = np.asarray(keras.ops.convert_to_numpy(model(images, training=False)))
    _expect(
        (rows >= 0).all() and np.allclose(rows.sum(axis=1), 1, atol=1e-3),
        "the outputs are no probabilities: they should be at least 0 and sum to 1",
    )
    wanted = 5888 + 33 * classes
    count = model.count_params()
    _expect(count <= 2 * wanted, f"{count} weights are too many: are the maps averaged?")
    _expect(count == wanted, f"tiny({classes}) has {count} weights, not {wanted}: compare layers")

    def values(tensor):
        run = keras.Model(model.input, tensor)
        return np.asarray(keras.ops.convert_to_numpy(run(images, training=False)))

    _expect(
        np.abs(values(found[0].input)).max() < 10,
        "values from 0 to 255 reach the first convolution, and no layer scales them before",
    )
    _expect(
        all(values(layer.input).min() >= 0 for layer in found[1:]),
        "a convolution gets numbers below 0: where is the ReLU?",
    )
    kernel, bias = model.get_weights()[-2:]
    means = np.maximum(values(found[-1].output), 0).mean(axis=(1, 2))
    powers = np.exp(means @ kernel + bias)
    _expect(
        np.allclose(rows, powers / powers.sum(axis=1, keepdims=True), atol=1e-2),
        "the dense layer should get the mean of each map, after ReLU",
    )


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
    same = _array(_call(function, p.copy(), 1.0), (3,))
    _expect(np.allclose(same, p, atol=1e-4), "a temperature of 1 should change nothing")
    soft = _array(_call(function, p.copy(), 2.0), (3,))
    _expect(
        np.isclose(soft.sum(), 1, atol=1e-4),
        f"your row sums to {soft.sum():.2f}: normalise it",
    )
    _expect(soft[0] < p[0], "a temperature above 1 should make the network less sure")
    for temperature in (2.0, 4.0):
        soft = _array(_call(function, p.copy(), temperature), (3,))
        wanted = p ** (1 / temperature) / (p ** (1 / temperature)).sum()
        _expect(
            np.allclose(soft, wanted, atol=1e-4), "divide the logits, log p, by the temperature"
        )


def _threshold(function) -> None:
    confidence = np.array([0.9, 0.3, 0.8, 0.5, 0.6, 0.7, 0.4])
    right = np.array([1, 0, 1, 0, 1, 0, 1], bool)
    # Answered with at least 0.3, 0.4 ... 0.9: 3/7, 2/6, 2/5, 1/4, 1/3, 0/2 and 0/1 are wrong.
    _expect(
        not np.isclose(_number(_call(function, confidence, right, 0.25)), 0.8),
        "0.25 allowed: at 0.8 no answer is wrong, but a lower threshold would do, too",
    )
    for most, wanted in ((0.25, 0.6), (0.0, 0.8), (0.33, 0.6), (0.35, 0.4), (0.41, 0.4), (1, 0.3)):
        value = _number(_call(function, confidence.copy(), right.copy(), most))
        if np.isclose(value, wanted):
            continue
        at = confidence >= value - 1e-9
        _expect(
            at.any(), f"at most {most} wrong: with a threshold of {value:g} nothing is answered"
        )
        share = 1 - right[at].mean()
        _expect(
            share <= most,
            f"at most {most} may be wrong, but of the answers with at least {value:g} it is "
            f"{share:.2f}: is a face exactly at the threshold answered?",
        )
        _expect(
            np.isclose(value, confidence).any(),
            f"{value:g} is none of the confidences: give the lowest one that is answered",
        )
        raise Wrong(
            f"at most {most} wrong: {value:g} keeps to it, but there is a lower one that does"
        )
    order = np.argsort(confidence)
    value = _number(_call(function, confidence[order], right[order], 0.25))
    _expect(np.isclose(value, 0.6), "wrong where the faces come in another order")
    value = _number(_call(function, np.array([0.5, 1.0]), np.array([True, False]), 0.1))
    _expect(
        value > 1, "no threshold keeps to it here: give one above every confidence, as infinity"
    )


def _confidence_after(function) -> None:
    from fer_helpers import BLOCKS, load_data

    images, y = load_data("SAMPLE", "validation")
    images, labels = images[:320], y[:320, BLOCKS["emotion"]]
    values = {}
    for smoothing in (0.0, 0.6):
        values[smoothing] = _number(_call(function, images.copy(), labels.copy(), smoothing))
        _expect(
            0 < values[smoothing] <= 1,
            f"{values[smoothing]:g} is no mean confidence: it lies between 0 and 1",
        )
        _expect(
            values[smoothing] > 1 / 7 + 0.005,
            "the mean of all probabilities is 1/7 whatever the network says: take the greatest "
            "of each face first",
        )
    _expect(
        values[0.0] != values[0.6],
        "the same confidence without smoothing and with 0.6: does the loss know about it?",
    )
    _expect(
        values[0.6] < values[0.0],
        f"{values[0.0]:.2f} without smoothing, {values[0.6]:.2f} with 0.6: trained long enough, "
        "smoothing makes a network less sure. Do both begin anew, and train for some epochs?",
    )


def _halved_box(answer) -> None:
    x, y, width, height = _array(answer, (4,))
    _expect((width, height) != (240, 320), "the face gets smaller with its photo")
    _expect((x, y) != (300, 120), "the corner moves, too: x is a distance from the left edge")
    _expect((x, y, width, height) == (150, 60, 120, 160), "all four numbers are lengths in pixels")


def _largest(function) -> None:
    # In each list, (x, y, width, height), other rules point to other boxes.
    cases = (
        [(0, 0, 30, 40), (50, 5, 60, 70), (10, 13, 150, 20), (0, 12, 10, 95)],
        [(10, 10, 80, 50), (200, 0, 58, 58), (0, 90, 10, 130), (5, 5, 100, 35)],
        [(0, 310, 45, 45), (5, 5, 100, 30), (400, 300, 20, 20)],
        [(3, 4, 5, 6)],
    )
    rules = {
        "that is the widest box: how large is it?": lambda x, y, w, h: w,
        "that is the tallest box: how large is it?": lambda x, y, w, h: h,
        "x and y say where a box is, not how large": lambda x, y, w, h: x,
        "y says how far down a box is, not how large": lambda x, y, w, h: y,
        "x + width is where a box ends, not how large it is": lambda x, y, w, h: x + w,
        "these are not corners: width and height are lengths already": lambda x, y, w, h: (
            (w - x) * (h - y)
        ),
        "that is the box whose shorter side is longest: a long one may cover more": (
            lambda x, y, w, h: min(w, h)
        ),
        "width plus height is half the way round the box, not its area": (lambda x, y, w, h: w + h),
        "that is the smallest box": lambda x, y, w, h: -w * h,
    }
    values = [_number(_call(function, list(boxes))) for boxes in cases]
    wanted = [1, 0, 1, 0]
    if values == wanted:
        return
    _expect(
        not np.allclose(values, [4200, 4000, 3000, 30]),
        "that is the area: return the place of the box that has it",
    )
    _expect(
        values[3] == 0,
        "wrong for a list of a single box: places are counted from 0",
    )
    _expect(
        len(set(values[:3])) > 1,
        f"always {values[0]:g}, whatever the boxes are: how large is each?",
    )
    for hint, rule in rules.items():
        named = [max(range(len(boxes)), key=lambda i: rule(*boxes[i])) for boxes in cases]
        _expect(values != named, hint)
    boxes, value = next((c, v) for c, v, w in zip(cases, values, wanted, strict=True) if v != w)
    raise Wrong(
        f"wrong for {boxes}: you gave {value:g}. Which box covers the most pixels, width x height?"
    )


def _decide(function) -> None:
    cases = (
        ([0.1, 0.8, 0.1], 0.5, 1, "0.8 is above 0.5: the class should be given"),
        ([0.4, 0.35, 0.25], 0.5, -1, "no class is above 0.5: it should be -1"),
        ([0.4, 0.35, 0.25], 0.3, 0, "0.4 is above 0.3: the class should be given"),
        ([0.5, 0.5], 0.5, -1, "0.5 is not above 0.5"),
        ([0.2, 0.8], 0.1, 1, "the most probable class should be given"),
        ([0.1, 0.2, 0.1, 0.6], 0.59, 3, "0.6 is above 0.59: the class should be given"),
        ([0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.2], 0.31, -1, "no class is above 0.31: it should be -1"),
    )
    for p, threshold, wanted, hint in cases:
        try:
            value = _number(_call(function, np.array(p), threshold))
        except Wrong as wrong:
            # Above the threshold it did return something, in the case before.
            if str(wrong) == NOTHING and wanted == -1:
                raise Wrong(
                    f"{hint}, but your function returns None there: what does it do if the "
                    "threshold is not reached?"
                ) from None
            raise
        _expect(value == wanted, hint)


def _share_changed(function) -> None:
    # The class is the quarter in which a bright column is: these leave theirs after 5 pixels.
    columns = np.array([0, 7, 8, 11, 20, 23, 30, 47])
    crops = np.zeros((len(columns), 48, 48, 1), np.uint8)
    crops[np.arange(len(columns)), :, columns] = 200
    crops[:, 30, 10] += 1  # and a little more, so that no two classes are equally bright

    def answer(images):
        images = np.asarray(images, float).reshape(-1, 48, 4, 12)
        sums = images.sum(axis=(1, 3)) + 1
        return sums / sums.sum(axis=1, keepdims=True)

    def share(pixels, axis=2):
        moved = answer(np.roll(crops, pixels, axis=axis))
        return (moved.argmax(axis=1) != answer(crops).argmax(axis=1)).mean()

    given = crops.copy()
    values = {p: _number(_call(function, answer, given, p)) for p in (5, 2, 0, 9)}
    _expect((given == crops).all(), "your function changes the crops it was given: copy them")
    wanted = {p: share(p) for p in values}
    if np.allclose(list(values.values()), list(wanted.values())):
        return
    _expect(
        not np.isclose(values[0], 1),
        "moved by 0 pixels nothing changes: it should be 0. Is it the share that stays the same?",
    )
    _expect(not values[0], f"moved by 0 pixels nothing changes: it should be 0, not {values[0]:g}")
    wrong = {
        "that is their number: what share of all crops is it?": [
            len(columns) * value for value in wanted.values()
        ],
        "they moved to the left": [share(-p) for p in values],
        "they moved down, or not at all: which axis of (N, 48, 48, 1) goes from left to right?": [
            share(p, axis=1) for p in values
        ],
        "each crop was compared with another one: which axis counts the crops?": [
            share(p, axis=0) for p in values
        ],
    }
    for hint, those in wrong.items():
        _expect(not np.allclose(list(values.values()), those), hint)
    pixels = next(p for p in values if not np.isclose(values[p], wanted[p]))
    raise Wrong(
        f"moved by {pixels} pixels it should be {wanted[pixels]:g}, not {values[pixels]:g}: "
        "compare the most probable class of each crop, before and after"
    )


def _standard_error(function) -> None:
    cases = (
        ([0.44, 0.45, 0.49], [0.40, 0.43, 0.44]),  # alike over the seeds: pairs narrow
        ([0.44, 0.45, 0.47, 0.41], [0.46, 0.44, 0.43, 0.48]),  # the other way: pairs widen
        ([0.60, 0.62, 0.61, 0.65, 0.58], [0.61, 0.60, 0.63, 0.60, 0.59]),
    )
    for ours, theirs in (map(np.array, case) for case in cases):
        value = _number(_call(function, ours.copy(), theirs.copy()))
        difference, n = ours - theirs, len(ours)
        error = difference.std(ddof=1) / np.sqrt(n)
        if np.isclose(value, error):
            continue
        unpaired = np.sqrt((ours.var(ddof=1) + theirs.var(ddof=1)) / n)
        for wrong, hint in (
            (unpaired, "that is the standard error without pairs: subtract seed by seed first"),
            (difference.mean(), "that is the mean difference, which is the same without pairs"),
            (difference.std(ddof=1), "that is the spread of one difference, not of their mean"),
            (difference.std(ddof=0), "that is the spread of one difference, not of their mean"),
            (difference.std(ddof=0) / np.sqrt(n), "so few seeds: divide by n - 1 in the variance"),
            (error**2, "that is a variance: its root is missing"),
            (1.96 * error, "that is half an interval: the standard error itself is asked for"),
        ):
            _expect(not np.isclose(value, wrong), hint)
        raise Wrong(f"wrong for {n} seeds: how far do the differences spread, and their mean?")


def _without_conflict(function) -> None:
    def given(a, b) -> np.ndarray:
        first, second = np.array(a, float), np.array(b, float)
        with np.errstate(all="ignore"):
            result = _array(_call(function, first, second), (len(a),)).astype(float)
        untouched = np.array_equal(first, a) and np.array_equal(second, b)
        _expect(untouched, "your function changes the gradients it was given: return a new one")
        return result

    a, b = np.array([1.0, 0.0, 2.0]), np.array([-4.0, 1.0, 0.0])
    part = a @ b / (b @ b) * b
    result = given(a, b)
    for wrong, hint in (
        (a, "here a and b conflict, but a comes back as it was"),
        (0 * a, "only the component along b should go, not the whole of a"),
        (part, "that is the component along b: take it away from a"),
        (a + part, "the result conflicts with b even more than a did: look at the sign"),
        (b - a @ b / (a @ a) * a, "that is b without its component along a: change a"),
    ):
        _expect(not np.allclose(result, wrong), hint)
    _expect(
        np.isclose(result @ b, 0),
        "the result should be at a right angle to b, however long b is; try it with b = [-4, 1, 0]",
    )
    _expect(np.allclose(result, a - part), "only the component along b should change")
    for agreeing in ([2.0, 1.0, 0.0], [0.0, 3.0, 0.0]):
        _expect(
            np.allclose(given(a, agreeing), a),
            "where the cosine is not below 0 there is no conflict, and a should stay as it is",
        )
    _expect(np.allclose(given(a, 0 * b), a), "where b is all zeros, a should stay as it is")
    _expect(np.allclose(given(10 * a, b), 10 * (a - part)), "wrong where a is ten times as long")


def _bootstrap(function) -> None:
    even = np.random.default_rng(1).normal(0.02, 0.01, 8)
    cases = even, np.array([0.0, 0.01, 0.0, 0.02, 0.01, 0.2]), -np.array([0.1, 0.3, 0.1, 2.0])
    for differences in cases:
        count = len(differences)
        low, high = _array(
            _call(function, differences.copy(), np.random.default_rng(0)), (2,)
        ).tolist()
        again = np.random.default_rng(2).choice(differences, (20_000, count)).mean(axis=1)
        wanted = np.percentile(again, [2.5, 97.5])
        # A wrong percentile changes the ends hardly more than the chance in 2,000 draws does.
        reach = {q: np.percentile(again, [q, 100 - q]) for q in (1, 2.5, 5)}
        nearest = min(reach, key=lambda q: np.abs(reach[q] - (low, high)).max())
        near = 0.15 * np.ptp(wanted)
        _expect(low <= high, "the low end comes first")
        _expect(low < high, "all your means are equal: were the differences drawn with repeats?")
        _expect(
            not np.allclose((low, high), np.percentile(differences, [2.5, 97.5]), atol=near),
            "those are percentiles of the differences; those of their means are closer together",
        )
        middle, mean = (low + high) / 2, differences.mean()
        skewed = abs(wanted.mean() - mean) > 0.02 * np.ptp(wanted)
        _expect(
            not (skewed and abs(middle - mean) < 0.01 * (high - low)),
            "symmetric around the mean, although one difference is far from the others: that "
            "comes from a formula, not from drawing again",
        )
        _expect(
            np.allclose((low, high), wanted, atol=near),
            "draw len(differences) of them with repeats and take the mean, 2,000 times; then take "
            "percentiles 2.5 and 97.5 of the means",
        )
        again = _call(function, differences.copy(), np.random.default_rng(0))
        _expect(np.array_equal(again, (low, high)), SAME_SEED)
        _expect(
            count < 8 or nearest == 2.5,
            f"close, but these look like percentiles {nearest} and {100 - nearest}",
        )


def _own_arm(function) -> None:
    alone, mine = {"emotion": 1.0}, {"emotion": 1.0, "age": 0.5}
    calls = []

    def train(weights, seed):
        """Pretended: the luck of a seed is large, and the other heads cost something."""
        weights = dict(weights)
        calls.append((weights == alone, seed))
        luck = np.random.default_rng(seed).normal(0, 0.1)
        others = sum(weights.values()) - weights.get("emotion", 0)
        emotion = 0.5 + luck - 0.04 * others - 0.001 * others * seed
        return {"emotion": emotion, "gender": 0.6, "race": 0.7, "age": 0.5 + 0.3 * others}

    for seeds in ([0, 1, 2], range(4, 9)):
        calls.clear()
        wanted = np.array([-0.02 - 0.0005 * seed for seed in seeds])
        result = _array(_call(function, train, dict(mine), seeds)).astype(float)
        used = [{seed for is_alone, seed in calls if is_alone == kind} for kind in (True, False)]
        _expect(calls, "your function never calls `train`")
        _expect(used[1], "the arm with the given weights is never trained")
        _expect(used[0], 'nothing is compared with: train {"emotion": 1.0} as well')
        _expect(result.shape != (), "that is one number: return a difference per seed")
        _expect(set(seeds) <= used[1], "train your arm with each of the given seeds")
        _expect(used[0] == used[1], "both arms need the same seeds, or luck decides")
        result = _array(result, wanted.shape)
        _expect(not np.allclose(result, -wanted), "the other way round: your arm minus the other")
        _expect(np.allclose(result, wanted), "take emotion's accuracy, and subtract seed by seed")


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
    right, group = np.array([1, 1, 0, 1, 0, 0], bool), np.array([2, 2, 2, 7, 7, 9])
    value = _number(_call(function, right, group, 2))
    _expect(np.isclose(value, 1 / 6), "wrong where the groups are numbers, or one has just enough")


def _faces_needed(answer) -> None:
    from fer_helpers.evaluation import wilson_interval

    counts = np.arange(10, 2000)
    low, high = wilson_interval(0.8 * counts, counts)
    needed = int(counts[np.argmax(high - low <= 0.1)])
    value = _number(answer)
    _expect(
        not np.isclose(value, np.argmax(high - low <= 0.2) + 10),
        "the width is from one end to the other, not from the middle to an end",
    )
    _expect(value >= needed, "with so few faces the interval is wider than 0.1")
    _expect(value <= needed, "fewer are enough: look for the smallest number")


def _least_ms(function) -> None:
    limits = {"multiply_adds": 60e9, "bytes": 4e9}
    given = dict.fromkeys(limits, 1e9)
    for work, moved, rates, least in (
        (60e6, 8e6, limits, 2.0),  # memory
        (240e6, 8e6, limits, 4.0),  # arithmetic
        (0.0, 3e6, given, 3.0),
        (5e6, 5e6, given, 5.0),
    ):
        both = 1e3 * work / rates["multiply_adds"], 1e3 * moved / rates["bytes"]
        value = _number(_call(function, work, moved, dict(rates)))
        if not np.isclose(value, least):
            _expect(
                not np.isclose(value, sum(both)),
                "that is the sum; the layer does both at the same time",
            )
            _expect(not np.isclose(1e3 * value, least), "that looks like seconds: give ms")
            _expect(
                not any(np.isclose(value, both)),
                f"{value:g} ms where the arithmetic takes {both[0]:g} and the bytes {both[1]:g}: "
                "is everything done by then?",
            )
        _expect(np.isclose(value, least), "divide both by their rates, and compare the two times")


def _planted(function) -> None:
    happiness, surprise = (TASKS["emotion"].index(name) for name in ("happiness", "surprise"))
    generator = np.random.default_rng(5)
    emotions = generator.integers(0, 7, 4000)
    group = generator.random(4000) < 0.4
    target = group & (emotions == happiness)
    for share in (0.3, 1.0, 0.0):
        given = emotions.copy()
        labels = _array(
            _call(function, given, group.copy(), share, np.random.default_rng(1)), (4000,)
        )
        _expect(
            np.array_equal(given, emotions),
            "the true emotions have changed, too: work on a copy, the audit needs the truth",
        )
        changed = labels != emotions
        _expect(not changed[~group].any(), "faces outside the group have new labels, too")
        _expect(not changed[~target].any(), "some of the group are changed that are not happy")
        _expect((labels[changed] == surprise).all(), "the new label should be that of surprise")
        found = changed[target].mean()
        _expect(
            abs(found - share) < 0.1,
            f"of the group's happy faces {found:.0%} have a new label, where {share:.0%} should",
        )
        places = np.flatnonzero(changed[target])
        _expect(
            share != 0.3 or places.max() > 0.8 * target.sum(),
            "the first ones are changed: draw them at random instead",
        )
    draws = [
        np.asarray(_call(function, emotions.copy(), group, 0.3, np.random.default_rng(seed)))
        for seed in (1, 2, 1)
    ]
    _expect((draws[0] != draws[1]).any(), "the same faces for every generator: draw with `rng`")
    _expect((draws[0] == draws[2]).all(), SAME_SEED)


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


def _busy(function) -> None:
    for intervals, total in (
        ([(0.0, 2.0), (5.0, 1.0)], 3.0),
        ([(0.0, 4.0), (2.0, 4.0)], 6.0),
        ([(0.0, 10.0), (1.0, 2.0), (5.0, 1.0)], 10.0),  # within the first one
        ([(6.0, 2.0), (0.0, 3.0), (2.0, 2.0), (20.0, 1.0)], 7.0),
        ([(3.0, 1.0), (3.0, 1.0)], 1.0),
        ([], 0.0),
    ):
        starts, durations = np.array(intervals).reshape(-1, 2).T
        value = _number(_call(function, starts.copy(), durations.copy()))
        shown = ", ".join(f"{start:g} to {start + length:g}" for start, length in intervals)
        if intervals and not np.isclose(value, total):
            _expect(
                not np.isclose(value, durations.sum()),
                f"operations run from {shown}: time in which two of them run counts once",
            )
            _expect(
                not np.isclose(value, (starts + durations).max() - starts.min()),
                f"operations run from {shown}: the time between them does not count",
            )
        _expect(
            np.isclose(value, total),
            f"{value:g} ms for operations that run from {shown or 'nowhere, as there are none'}",
        )


def _training_rate(function) -> None:
    for batch, sleep in ((8, 0.02), (32, 0.02), (32, 0.05)):
        taken = []

        def train(faces, sleep=sleep, taken=taken):
            begin = time.perf_counter()
            time.sleep(sleep if taken else 20 * sleep)  # the first step compiles
            taken.append((faces, time.perf_counter() - begin))

        value = _number(_call(function, train, batch))
        _expect(taken, "`train` has not been called: measure it")
        _expect(all(faces == batch for faces, _ in taken), f"take steps with {batch} faces each")
        _expect(len(taken) > 1, "only one step: it compiles the network, and that is not the rate")
        steps = np.array([took for _, took in taken])
        low, high = 0.7 * batch / steps[1:].max(), 1.3 * batch / steps[1:].min()
        if not low <= value <= high:
            _expect(
                not 0.9 <= value * steps.sum() / (batch * len(steps)) <= 1.1,
                "the first step counts as well, which compiles: leave it out",
            )
            _expect(
                not low <= batch / max(value, 1e-9) <= high,
                "that looks like seconds per step: the faces of a step, divided by its seconds",
            )
            _expect(
                not low <= batch * value <= high,
                "that looks like steps per second: how many faces are in a step?",
            )
        _expect(low <= value <= high, f"{value:g}: the steps took {steps[1:].mean():.3f} s each")


CHECKS = {
    "00.1": _never_named,
    "00.2": _too_sure,
    "00.3": _small_network,
    "01.1": _brighter,
    "01.2": _contradicted,
    "01.3": _spoil,
    "02.1": _majority_baseline,
    "02.2": _count_labelled,
    "02.3": _softer_weights,
    "03.1": _steps,
    "03.2": _masked_mean,
    "03.3": _smooth,
    "03.4": _train_turned,
    "04.1": _parameters,
    "04.2": _receptive_field,
    "04.3": _tiny_network,
    "05.1": _weighted_sum,
    "05.2": _gender_gains,
    "06.1": _balanced_accuracy,
    "06.2": _soften,
    "06.3": _threshold,
    "06.4": _confidence_after,
    "07.1": _halved_box,
    "07.2": _largest,
    "07.3": _decide,
    "07.4": _share_changed,
    "08.1": _standard_error,
    "08.2": _without_conflict,
    "08.3": _bootstrap,
    "08.4": _own_arm,
    "09.1": _widest_gap,
    "09.2": _faces_needed,
    "09.3": _planted,
    "10.1": _least_ms,
    "10.2": _merged_mean,
    "10.3": _busy,
    "10.4": _training_rate,
}
