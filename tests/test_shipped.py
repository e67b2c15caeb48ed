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


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]


def test_heads_have_their_calibration_without_with_and_with_a_foreign_temperature(answers):
    y, raw = answers
    cooled = {task: shipped._sharpened(p, 1 / 0.25) for task, p in raw.items()}
    copies = np.arange(500) < 100
    learnt = pd.DataFrame({"accuracy": dict.fromkeys(TASKS, 0.875)})
    table = rows(shipped.heads_table(y, cooled, copies, learnt, dict.fromkeys(TASKS, 0.25)))
    assert [row[0] for row in table[2:]] == list(TASKS)
    columns = dict(zip(table[0], table[2], strict=True))
    whole, unseen = (
        accuracy_table(y[kept], {task: p[kept] for task, p in cooled.items()}).loc["emotion"]
        for kept in (slice(None), ~copies)
    )
    assert columns["accuracy"].startswith(f"{whole['accuracy']:.3f} ({whole['low']:.3f}–")
    assert columns["without copies"] == f"{unseen['accuracy']:.3f}" != columns["accuracy"][:5]
    assert columns["balanced"] == f"{whole['balanced_accuracy']:.3f}"
    true = y[:, BLOCKS["emotion"]].argmax(axis=1)
    assert columns["ECE before"] == f"{expected_calibration_error(raw['emotion'], true):.3f}"
    assert columns["ECE after"] == f"{whole['ece']:.3f}"
    assert columns["accuracy on training faces"] == "0.875"
    best = min(columns["ECE before"], columns["ECE after"])
    assert 0 < float(columns["ECE on the other half"]) <= float(best)


def test_the_temperature_of_a_half_comes_from_the_other_one():
    """Half of the faces are always right, the others never: each half is judged wrongly."""
    half = np.random.default_rng(0).permutation(400) % 2 == 0
    raw = np.tile([0.7, 0.3], (400, 1))
    error = shipped._error_of_other_half(raw, np.where(half, 0, 1))
    assert error > 0.6  # sure of what is wrong, and unsure of what is right


def test_views_and_classes_and_groups(answers):
    y, probabilities = answers
    copies = np.arange(500) >= 450
    turned = {task: np.roll(p, 1, axis=1) for task, p in probabilities.items()}
    views = rows(shipped.views_table(y, {1: probabilities, 10: turned}, copies))
    assert views[0] == ["", "faces", "1 view", "10 views"]
    assert [row[1] for row in views[2:]] == ["500", "450"]
    assert float(views[2][2][:5]) > float(views[2][3][:5])
    assert views[3][0] == "without the 50 exact copies of training images"

    only = np.zeros_like(y)
    only[:, BLOCKS["race"]] = y[:, BLOCKS["race"]]
    assert [row[0] for row in rows(shipped.classes_table(only, probabilities))[2:]] == list(
        TASKS["race"]
    )
    groups = {row[0]: row[1:] for row in rows(shipped.groups_table(y, probabilities))[2:]}
    assert list(groups) == [*TASKS["gender"], *TASKS["race"], *TASKS["age"]]
    assert groups["male"][1] == ""  # gender by gender is recall
    males = y[:, BLOCKS["gender"]].argmax(axis=1) == 0
    of_males = {task: p[males] for task, p in probabilities.items()}
    accuracy = accuracy_table(y[males], of_males).loc["age", "accuracy"]
    assert groups["male"][3].startswith(f"{accuracy:.3f} (")
    assert groups["male"][0] == str(males.sum())


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
    assert "without its 5 copies of training images | 495 |" in results
    groups = pd.read_csv(tmp_path / shipped.GROUPS)
    assert set(groups["task"]) == {"gender", "race", "age"}

    (tmp_path / "README.md").write_text("# no place")
    with pytest.raises(ValueError, match=r"README\.md has no place for the table 'results': write"):
        shipped.write_figures(tmp_path)
