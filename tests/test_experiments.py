"""Runs that begin again: only the seed decides, nothing is left of the run before."""

import numpy as np
import pandas as pd
import pytest

import tiny
from experiments import (
    batch_cosines,
    half_lit,
    name_faces,
    restart,
    shared_runs,
    standard_errors,
    task_gradients,
)
from fer_helpers.backend import keras
from fer_helpers.batches import batches_of
from fer_helpers.detection import BOX
from fer_helpers.labels import TASKS, encode_labels
from fer_helpers.training import compile_model


def losses(model, seed):
    restart(model, seed)
    return model.fit(batches_of(*tiny.faces(), 32, True, 0), epochs=2, verbose=0).history["loss"]


def test_only_the_seed_decides():
    model = compile_model(tiny.build())
    first, other, again = (losses(model, seed) for seed in (1, 2, 1))
    assert again == first
    assert not np.allclose(first, other)
    assert losses(compile_model(tiny.build()), 1) == first, "a new network, the same run"
    assert float(model.optimizer.learning_rate) == np.float32(2e-3)


def table(**epochs):
    """Runs as `compact_0=3` says: network, seed, number of epochs; accuracy is epoch / 10."""
    rows = [
        (*name.split("_"), epoch, epoch / 10)
        for name, last in epochs.items()
        for epoch in range(1, last + 1)
    ]
    return pd.DataFrame(rows, columns=["network", "seed", "epoch", "emotion"])


@pytest.mark.parametrize(
    ("epochs", "epoch", "seeds"),
    [
        ({"compact_0": 8, "paper_0": 8}, 8, ["0"]),
        ({"compact_0": 8, "compact_1": 8, "paper_0": 8, "paper_1": 4}, 4, ["0", "1"]),
        ({"compact_0": 8, "compact_1": 8, "paper_0": 8, "paper_2": 3}, 8, ["0"]),
    ],
)
def test_stored_runs_are_compared_where_both_networks_have_them(epochs, epoch, seeds):
    found, both = shared_runs(table(**epochs))
    assert (found, [*both.index]) == (epoch, seeds)
    assert (both == epoch / 10).all(axis=None)


def test_one_side_of_a_picture_loses_its_light():
    white = np.full((2, 3, 101), 200, np.uint8)
    left, right = half_lit(white, [1, -1])
    assert (left == right[:, ::-1]).all()
    assert left[0, 0] < 25 < 190 < left[0, -1]
    assert (half_lit(white[0], 1, shade=0.7) <= left).all()


def test_faces_are_named_after_the_nearest_place_from_left_to_right():
    faces = pd.DataFrame([(60, 0, 80, 20), (0, 0, 20, 20)], columns=BOX)
    named = name_faces(faces, {"b": (65, 12), "a": (12, 9), "nobody": (40, 90)})
    assert [*named.index] == ["a", "b"]
    assert [*named["left"]] == [0, 60]


def plain(x):
    """Without dropout, so that two passes give the same."""
    x = keras.layers.Conv2D(4, 5, 4, activation="relu")(x)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    return keras.layers.GlobalAveragePooling2D()(x)


def two_tasks(emotion, gender):
    """Faces with labels for emotion and gender, and none for race and age."""
    X, _ = tiny.faces(len(emotion))
    return X, encode_labels({"emotion": emotion, "gender": gender})


def test_gradient_of_a_task_is_what_a_step_takes_from_the_trunk():
    model = tiny.build(augment=False, backbone=plain)
    X, y = two_tasks(np.arange(16) % 7, np.arange(16) % 2)
    start = model.get_weights()
    gradients = task_gradients(model)
    gradients(X, y[::-1])  # nothing of an earlier batch is kept
    found = gradients(X, y)
    assert all(map(np.array_equal, model.get_weights(), start)), "the weights stay"
    assert list(found) == list(TASKS)
    assert not found["race"].any()
    assert not found["age"].any()
    for task in ("emotion", "gender"):
        model.set_weights(start)
        compile_model(model, {task: 1.0}, tasks=(), optimizer=keras.optimizers.SGD(1.0))
        model.train_on_batch(*batches_of(X, y, len(X))[0])
        moved = [
            (old - new).ravel()
            for old, new, v in zip(start, model.get_weights(), model.weights, strict=True)
            if "_logits" not in v.path and v.trainable
        ]
        np.testing.assert_allclose(found[task], np.concatenate(moved), atol=1e-5)
        changed = gradients(X, y)[task]
        assert not np.allclose(changed, found[task]), "the weights of now, not of the start"


def test_cosines_of_each_batch():
    """The gradients follow from the labels: emotion and gender alike, race against them."""

    def gradients(X, y):
        a = np.array([y[:, 0].mean(), 1.0])
        sizes.append(len(X))
        assert (y[:, :1] == X).all(), "a face and its labels stay together"
        return {"emotion": a, "gender": 3 * a, "race": -a, "age": 0 * a}

    sizes = []
    y = (np.random.default_rng(1).random((40, 18)) < 0.5).astype("float32")
    table = batch_cosines(gradients, y[:, :1], y, batches=3, size=12)
    assert sizes == [12, 12, 12]
    assert len(table) == 18
    means = table.groupby("pair")["cosine"].mean()
    np.testing.assert_allclose(means["emotion, gender"], 1)
    np.testing.assert_allclose(means[["emotion, race", "gender, race"]], -1)
    assert (means.filter(like="age") == 0).all()


def test_standard_errors_with_and_without_pairs():
    arms = {"0": [0.1, 0.2, 0.3], "alike": [0.2, 0.3, 0.4], "against": [0.3, 0.2, 0.1]}
    table = standard_errors(pd.DataFrame(arms | {"once": [0.5, np.nan, np.nan]}), "0")
    unpaired = (2 * 0.01 / 3) ** 0.5
    wanted = [[3, 1, 0, unpaired], [3, -1, 0.2 / 3**0.5, unpaired], [1, *[np.nan] * 3]]
    np.testing.assert_allclose(table, wanted, atol=1e-12)
    assert [*table.index] == ["alike", "against", "once"]
    assert [*table] == ["pairs", "r", "paired", "unpaired"]
