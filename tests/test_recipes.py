"""The recipes: two sources in one network, exact after an interruption, written as shipped."""

import functools
import hashlib
import json

import keras
import numpy as np
import pandas as pd
import pytest

from fer_helpers import recipes
from fer_helpers.batches import mixed_batches
from fer_helpers.labels import OUTPUTS, TASKS, encode_labels
from fer_helpers.model import BACKBONES, build_model, load_model
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
    monkeypatch.setattr(recipes, "TEACHER", "compact")
    # Narrow and short: nearly all the time goes into compiling the networks.
    narrow = functools.partial(BACKBONES["compact"], widths=(4, 4, 8))
    monkeypatch.setitem(BACKBONES, "compact", narrow)
    return data


def test_an_interrupted_recipe_ends_as_if_it_had_not_been(two_sources, tmp_path, monkeypatch):
    whole = recipes.train_open_data(tmp_path / "whole", epochs=3, backbone="compact")
    assert whole[["run", "epoch"]].values.tolist() == [
        ["teacher-1", 1],
        ["teacher-2", 1],
        ["round-1", 1],
        ["round-1", 2],
        ["round-1", 3],
        ["round-2", 1],
        ["round-2", 2],
    ]

    alone = recipes.train_from_labels(tmp_path / "alone", 1, seed=1000, backbone="compact")
    teacher = whole[:1].drop(columns="run")
    pd.testing.assert_frame_equal(alone, teacher, rtol=1e-4)
    assert (tmp_path / "alone" / "open-data.weights.h5").is_file()
    with pytest.raises(ValueError, match=r"open-data\.json was made with .*'backbone': 'compact'"):
        recipes.train_from_labels(tmp_path / "alone", 1, seed=1000, backbone="deep")

    begin, left = _Progress.on_epoch_begin, [3, 2]

    def die(self, epoch, logs=None):
        """In the third epoch of the first round, and in the second of the other."""
        if left and epoch == left[0] - 1:
            left.pop(0)
            raise KeyboardInterrupt
        begin(self, epoch, logs)

    monkeypatch.setattr(_Progress, "on_epoch_begin", die)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            recipes.train_open_data(tmp_path / "parts", epochs=3, backbone="compact")
    parts = recipes.train_open_data(tmp_path / "parts", epochs=3, backbone="compact")
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
    assert card["model"] == {"backbone": "compact", "augment": True}
    assert set(card["temperatures"]) == set(TASKS)
    with pytest.raises(ValueError, match=r"open-data\.json was made with .*'epochs': 3"):
        recipes.train_open_data(tmp_path / "whole", epochs=2, backbone="compact")


def test_a_network_without_teachers_is_not_taken_for_one_that_was_taught(two_sources, tmp_path):
    recipes.train_from_labels(tmp_path, 1, backbone="compact")
    with pytest.raises(ValueError, match="train into an empty folder"):
        recipes.train_open_data(tmp_path, 1, backbone="compact")


def test_taught_labels_are_in_part_what_the_teachers_answer_on_the_changed_face(two_sources):
    keras.utils.set_random_seed(0)
    teachers = [build_model() for _ in range(2)]
    train = [part for part, _ in two_sources.values()]
    plain = mixed_batches(train, [12, 4], seed=5)
    taught = mixed_batches(train, [12, 4], seed=5, change=recipes.taught_by(teachers))
    (faces, labels), (changed, targets) = plain[1], taught[1]
    changed = np.asarray(changed)
    assert (changed != faces).mean() > 0.9
    answers = [teacher.predict_on_batch(changed) for teacher in teachers]
    for name, *answer in zip(OUTPUTS.values(), *answers, strict=True):
        known = labels[name].any(axis=1)
        expected = 0.2 * labels[name] + 0.8 * np.mean(answer, axis=0)
        target = np.asarray(targets[name])
        np.testing.assert_allclose(target[known], expected[known], atol=1e-5)
        assert not target[~known].any()  # what is not labelled stays so

    again = mixed_batches(train, [12, 4], seed=5, change=taught.change)
    again[0]
    np.testing.assert_array_equal(again[1][0], changed)  # whatever was drawn before
    again.set_epoch(1)
    assert (np.asarray(again[1][0]) != changed).any()


def test_settled_averages_are_those_of_the_faces(two_sources):
    keras.utils.set_random_seed(0)
    model = build_model()
    train = [part for part, _ in two_sources.values()]
    batches = mixed_batches(train, [12, 4], seed=0)
    before = model.get_weights()
    recipes.settle(model, batches)
    stem = keras.Model(model.input, model.get_layer("stem").output)
    maps = np.concatenate([stem.predict_on_batch(batches[i][0]) for i in range(len(batches))])
    norm = model.get_layer("stem_norm")
    np.testing.assert_allclose(norm.moving_mean, maps.mean(axis=(0, 1, 2)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, maps.var(axis=(0, 1, 2)), rtol=0.05)
    assert norm.momentum == 0.9
    moved = {
        variable.path.split("/")[-1]
        for variable, old in zip(model.weights, before, strict=True)
        if not np.array_equal(variable, old)
    }
    assert moved == {"moving_mean", "moving_variance"}
