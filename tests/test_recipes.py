"""The recipes: two sources in one network, exact after an interruption, written as shipped."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest

from fer_helpers import recipes
from fer_helpers.labels import TASKS, encode_labels
from fer_helpers.model import load_model
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

    begin = _Progress.on_epoch_begin

    def die_in_the_third_epoch(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt
        begin(self, epoch, logs)

    monkeypatch.setattr(_Progress, "on_epoch_begin", die_in_the_third_epoch)
    with pytest.raises(KeyboardInterrupt):
        recipes.train_open_data(tmp_path / "parts", epochs=3)
    monkeypatch.setattr(_Progress, "on_epoch_begin", begin)
    parts = recipes.train_open_data(tmp_path / "parts", epochs=3)
    pd.testing.assert_frame_equal(parts, whole, rtol=1e-4)

    # What is kept is what was validated: the averaged weights, not those of the last step.
    (X, y), best = two_sources["FER"][1], whole["val_emotion_output_accuracy"].max()
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
    with pytest.raises(ValueError, match=r"learning_rate\.config\.decay_steps"):  # another schedule
        recipes.train_open_data(tmp_path / "whole", epochs=4)
