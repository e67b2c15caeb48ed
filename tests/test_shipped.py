"""The figures of the shipped weights: every table from the answers, and nothing else changed."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fer_helpers.evaluation import accuracy_table, expected_calibration_error
from fer_helpers.labels import BLOCKS, TASKS, encode_labels
from fer_helpers.studies import shipped

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def answers():
    """500 faces with all labels, and answers of which some two thirds are right."""
    random = np.random.default_rng(0)
    y = encode_labels({task: random.integers(0, len(TASKS[task]), 500) for task in TASKS})
    raw = {task: y[:, block] * 2 + random.random((500, len(y[0, block]))) * 3 + 0.1
           for task, block in BLOCKS.items()}  # fmt: skip
    return y, {task: rows / rows.sum(axis=1, keepdims=True) for task, rows in raw.items()}


def test_heads_have_their_calibration_without_with_and_with_a_foreign_temperature(answers):
    y, raw = answers
    cooled = {task: shipped._raised(p, 1 / 0.25) for task, p in raw.items()}
    copies = np.arange(500) < 100
    learnt = pd.DataFrame({"accuracy": dict.fromkeys(TASKS, 0.875)})
    table = shipped.heads_table(y, cooled, copies, learnt, dict.fromkeys(TASKS, 0.25))
    assert table.index.tolist() == list(TASKS)
    head = table.loc["emotion"]
    whole, unseen = (
        accuracy_table(y[kept], {task: p[kept] for task, p in cooled.items()}).loc["emotion"]
        for kept in (slice(None), ~copies)
    )
    assert head["accuracy"].startswith(f"{whole['accuracy']:.3f} ({whole['low']:.3f}–")
    assert head["without copies"].startswith(f"{unseen['accuracy']:.3f} ({unseen['low']:.3f}–")
    assert head["without copies"] != head["accuracy"]
    assert head["balanced"] == whole["balanced_accuracy"]
    true = y[:, BLOCKS["emotion"]].argmax(axis=1)
    assert head["ECE before"] == pytest.approx(expected_calibration_error(raw["emotion"], true))
    assert (head["ECE after"], head["ECE without copies"]) == (whole["ece"], unseen["ece"])
    assert head["accuracy on training faces"] == 0.875
    assert 0 < head["ECE on the other half"] < min(head["ECE before"], head["ECE after"])


def test_the_temperature_of_a_half_comes_from_the_other_one():
    """Half of the faces are always right, the others never: each half is judged wrongly."""
    half = np.random.default_rng(0).permutation(400) % 2 == 0
    y = encode_labels({"gender": np.where(half, 0, 1)})
    raw = np.tile([0.6, 0.3, 0.1], (400, 1))
    fitted = shipped._with_other_temperature(y, raw, "gender")
    error = expected_calibration_error(fitted, y[:, BLOCKS["gender"]].argmax(axis=1))
    assert error > 0.6  # sure of what is wrong, and unsure of what is right
    unlabelled = np.random.default_rng(1).random(400) < 0.3
    y[unlabelled] = 0  # and what has no label changes nothing
    again = shipped._with_other_temperature(y, raw, "gender")
    np.testing.assert_allclose(again, fitted, rtol=1e-6)


def test_views_and_classes_and_groups(answers):
    y, probabilities = answers
    copies = np.arange(500) >= 450
    turned = {task: np.roll(p, 1, axis=1) for task, p in probabilities.items()}
    views = shipped.views_table(y, {1: probabilities, 10: turned}, copies)
    assert views.columns.tolist() == ["faces", "1 view", "10 views"]
    assert views.index.tolist() == [*TASKS, *(f"{task}, without copies" for task in TASKS)]
    assert views["faces"].tolist() == [500] * 4 + [450] * 4
    assert views.loc["emotion", "1 view"] > views.loc["emotion", "10 views"]
    assert views.loc["emotion", "1 view"] != views.loc["emotion, without copies", "1 view"]

    only = np.zeros_like(y)
    only[:, BLOCKS["race"]] = y[:, BLOCKS["race"]]
    assert shipped.classes_table(only, probabilities).index.tolist() == list(TASKS["race"])
    groups = shipped.groups_table(y, probabilities)
    assert groups.index.tolist() == [*TASKS["gender"], *TASKS["race"], *TASKS["age"]]
    assert groups.loc["male", "gender"] == ""  # gender by gender is recall
    males = y[:, BLOCKS["gender"]].argmax(axis=1) == 0
    of_males = {task: p[males] for task, p in probabilities.items()}
    accuracy = accuracy_table(y[males], of_males).loc["age", "accuracy"]
    assert groups.loc["male", "age"].startswith(f"{accuracy:.3f} (")
    assert groups.loc["male", "faces"] == males.sum()


def test_all_places_are_filled_and_nothing_else_changes(answers, tmp_path, monkeypatch):
    y, probabilities = answers
    emotion, rest = y.copy(), y.copy()
    emotion[:, 7:] = rest[:, :7] = 0
    X = np.random.default_rng(0).integers(0, 256, (500, 48, 48, 1), dtype=np.uint8)
    monkeypatch.setattr(
        shipped,
        "load_training_data",
        lambda name, _: ((X[:5], (emotion if name == "FER" else rest)[:5]),
                         (X, emotion if name == "FER" else rest)),
    )  # fmt: skip
    monkeypatch.setattr(
        shipped,
        "predict",
        lambda _, X, views=1: {task: p[: len(X)] for task, p in probabilities.items()},
    )
    files = list(shipped.PLACES)
    for file in (*files, shipped.GROUPS):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    shipped.write_figures(tmp_path)
    for file in files:
        before, after = ((root / file).read_text().splitlines() for root in (ROOT, tmp_path))
        assert [line for line in before if "|" not in line] == [
            line for line in after if "|" not in line
        ]
    results = (tmp_path / "README.md").read_text()
    accuracy = accuracy_table(y, probabilities)["accuracy"]
    for task in TASKS:
        assert f" {accuracy[task]:.3f} (" in results
    unseen = accuracy_table(y[5:], {task: p[5:] for task, p in probabilities.items()})["accuracy"]
    assert f"| {unseen['emotion']:.3f} (" in results
    groups = pd.read_csv(tmp_path / shipped.GROUPS)
    assert set(groups["task"]) == {"gender", "race", "age"}

    (tmp_path / "README.md").write_text("# no place")
    with pytest.raises(ValueError, match=r"README\.md has no place for the table 'results': write"):
        shipped.write_figures(tmp_path)
