"""The recipes: two sources in one network, exact after an interruption, written as shipped."""

import hashlib
import json

import keras
import numpy as np
import pandas as pd
import pytest

from fer_helpers import recipes
from fer_helpers.labels import BLOCKS, TASKS, encode_labels
from fer_helpers.model import build_model, load_model
from fer_helpers.prediction import predict
from fer_helpers.training import _Progress


@pytest.fixture
def two_sources(monkeypatch):
    """FER knows emotion, UTKFACE the rest, and both have few faces."""
    generator = np.random.default_rng(0)
    known = {"FER": ("emotion",), "UTKFACE": ("gender", "race", "age")}

    def part(name, n):
        X = generator.integers(0, 256, (n, 48, 48, 1), dtype=np.uint8)
        classes = {task: generator.integers(0, len(TASKS[task]), n) for task in known[name]}
        return X, encode_labels(classes)

    data = {name: (part(name, 40), part(name, 16)) for name in known}
    monkeypatch.setattr(recipes, "load_training_data", lambda name, _: data[name])
    monkeypatch.setattr(recipes, "SOURCES", {"FER": 12, "UTKFACE": 4})
    return data


def test_an_interrupted_recipe_ends_as_if_it_had_not_been(two_sources, tmp_path, monkeypatch):
    whole = recipes.train_open_data(tmp_path / "whole", epochs=3)
    assert whole[["generation", "epoch"]].values.tolist() == [
        [1, 1],
        [1, 2],
        [1, 3],
        [2, 1],
        [2, 2],
        [3, 1],
        [3, 2],
    ]

    begin, left = _Progress.on_epoch_begin, [3, 2, 2]

    def die(self, epoch, logs=None):
        """In the third epoch of the first generation, and in the second of the two others."""
        if left and epoch == left[0] - 1:
            left.pop(0)
            raise KeyboardInterrupt
        begin(self, epoch, logs)

    monkeypatch.setattr(_Progress, "on_epoch_begin", die)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            recipes.train_open_data(tmp_path / "parts", epochs=3)
    parts = recipes.train_open_data(tmp_path / "parts", epochs=3)
    pd.testing.assert_frame_equal(parts, whole, rtol=1e-4)

    # What is kept is what was validated: the averaged weights, not those of the last step.
    (X, y), best = two_sources["FER"][1], whole["val_emotion_output_accuracy"][5:].max()
    kept = predict(load_model(tmp_path / "whole" / "model.keras"), X)["emotion"].argmax(axis=1)
    assert (kept == y[:, :7].argmax(axis=1)).mean() == pytest.approx(best, abs=1e-6)

    assert all(
        (tmp_path / "whole" / f"open-data-{name}.png").is_file() for name in ("before", "after")
    )
    card = json.loads((tmp_path / "whole" / "open-data.json").read_text())
    weights = (tmp_path / "whole" / "open-data.weights.h5").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == card["sha256"]
    assert card["model"] == {"backbone": "deep", "augment": True}
    assert set(card["temperatures"]) == set(TASKS)
    with pytest.raises(ValueError, match=r"open-data\.json was made with .*'epochs': 3"):
        recipes.train_open_data(tmp_path / "whole", epochs=4)


def test_a_network_grows_without_changing_its_answers():
    keras.utils.set_random_seed(0)
    small, large = build_model("compact"), build_model("deep")
    small.get_layer("age_output").temperature.assign(2.0)
    for layer in small.layers:  # an untrained block is its shortcut: make it say something
        if layer.name.endswith("_second_norm"):
            layer.gamma.assign(np.linspace(0.5, 1.5, layer.gamma.shape[0]))
    recipes.grow(large, small)
    assert float(large.get_layer("age_output").temperature) == 1.0
    small.get_layer("age_output").temperature.assign(1.0)
    faces = np.random.default_rng(0).integers(0, 256, (4, 48, 48, 1), dtype=np.uint8)
    for one, other in zip(
        small.predict_on_batch(faces), large.predict_on_batch(faces), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-6)
        assert np.ptp(one, axis=0).max() > 1e-3


def test_a_softened_label_is_half_the_label_and_half_the_answer():
    y = encode_labels({"emotion": [3, -1], "age": [-1, 1]})
    answers = {task: np.full((2, len(names)), 1 / len(names)) for task, names in TASKS.items()}
    soft = recipes.soften(y, answers)
    assert soft[0, 3] == pytest.approx(0.5 + 0.5 / 7)
    assert soft[1, BLOCKS["age"]] == pytest.approx([0.1, 0.6, 0.1, 0.1, 0.1])
    assert soft.sum(axis=1) == pytest.approx([1, 1])  # what is not labelled stays so
    assert y[0, 3] == 1
