"""Runs that begin again: only the seed decides, nothing is left of the run before."""

import numpy as np
import pandas as pd
import pytest

import tiny
from experiments import half_lit, name_faces, restart, shared_runs
from fer_helpers.batches import batches_of
from fer_helpers.detection import BOX
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
