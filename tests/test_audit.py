"""Groups of faces, their gaps, and the card that is made of them."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fer_helpers import audit, encode_labels, group_table, model_card
from fer_helpers.cli import main
from fer_helpers.evaluation import calibration_error
from fer_helpers.groups import perfect_calibration
from fer_helpers.labels import TASKS


@pytest.fixture
def results():
    """400 faces; emotion is right for three in four, but for girls under 4 for none."""
    generator = np.random.default_rng(0)
    classes = {task: generator.integers(0, len(names), 400) for task, names in TASKS.items()}
    girls = (classes["gender"] == 1) & (classes["age"] == 0)
    wrong = girls | (generator.random(400) < 0.25)
    said = np.where(wrong, (classes["emotion"] + 1) % 7, classes["emotion"])
    probabilities = {task: np.eye(len(names))[classes[task]] for task, names in TASKS.items()}
    probabilities["emotion"] = np.full((400, 7), 0.05)
    probabilities["emotion"][np.arange(400), said] = 0.7
    return encode_labels(classes), probabilities, classes, ~wrong


def test_crossed_groups_are_those_that_one_counts(results):
    y, probabilities, classes, right = results
    table = group_table(y, probabilities, "emotion", ("gender", "age"), smallest=1)
    assert len(table) == 15
    assert table.index.names == ["gender", "age"]
    assert table["n"].dtype.kind == "i"
    for (gender, age), row in table.iterrows():
        group = (classes["gender"] == TASKS["gender"].index(gender)) & (
            classes["age"] == TASKS["age"].index(age)
        )
        assert row["n"] == group.sum()
        assert row["accuracy"] == pytest.approx(right[group].mean())
        assert row["ece"] == pytest.approx(abs(0.7 - right[group].mean()))
        assert row["low"] <= row["accuracy"] <= row["high"]
    assert table.loc[("female", "0-3"), "accuracy"] == 0
    assert table["gap"].idxmax() == ("female", "0-3")
    assert table["gap"].min() == 0


def test_gap_has_the_published_interval():
    # Newcombe (1998), table II, method 10: 56 of 70 against 48 of 80.
    true = np.zeros(150, int)
    said = np.concatenate([np.arange(70) >= 56, np.arange(80) >= 48]).astype(int)
    y = encode_labels({"race": true, "gender": [0] * 70 + [1] * 80})
    table = group_table(y, {"race": np.eye(3)[said]}, "race", "gender")
    gap = table.loc["female", ["gap", "gap_low", "gap_high"]].tolist()
    assert gap == pytest.approx([0.2, 0.0524, 0.3339], abs=1e-4)
    assert table.loc["male", ["gap", "gap_low", "gap_high"]].tolist() == [0, 0, 0]


def test_small_groups_and_missing_labels_are_left_out(results):
    y, probabilities, _, _ = results
    sizes = group_table(y, probabilities, "emotion", ("gender", "age"), smallest=30)["n"]
    assert (sizes >= 30).all()
    assert len(sizes) < 15
    y = y.copy()
    y[:, 7:10] = 0  # gender
    table = audit(y, probabilities)
    assert set(table["task"]) == {"emotion", "race", "age"}
    assert set(table["by"]) == {"race", "age", "race x age"}
    y[:, 10:] = 0
    assert audit(y, probabilities).empty
    # A table without groups has the columns and types of one that has some.
    empty = group_table(y, probabilities, "emotion", "gender")
    assert (len(empty), empty.index.name) == (0, "gender")
    assert empty.columns[0] == "n"
    assert {kind.kind for kind in empty.dtypes[1:]} == {"f"}


def test_groups_want_a_prediction_for_each_face(results):
    y, probabilities, _, _ = results
    short = {task: values[1:] for task, values in probabilities.items()}
    for scored in (audit, lambda *faces: group_table(*faces, "emotion", "age")):
        with pytest.raises(ValueError, match=f"{len(y)}"):
            scored(y, short)


def test_audit_names_task_groups_and_crossings(results):
    y, probabilities, _, _ = results
    table = audit(y, probabilities, smallest=1)
    assert len(table) == 4 * (3 + 3 + 5 + 9 + 15 + 15)
    figures = ["n", "accuracy", "low", "high", "ece", "chance_low", "chance_high"]
    figures += ["gap", "gap_low", "gap_high"]
    assert table.columns.tolist() == ["task", "by", "group", *figures]
    row = table[(table["task"] == "emotion") & (table["group"] == "female, 0-3")].iloc[0]
    assert (row["by"], row["accuracy"]) == ("gender x age", 0)


def test_calibration_error_of_chance_is_that_of_honest_confidences():
    generator = np.random.default_rng(1)
    for faces in (40, 4000):
        confidence = generator.uniform(0.3, 1, faces)
        low, high = perfect_calibration(confidence)
        drawn = generator.random((300, faces)) < confidence
        errors = np.array([calibration_error(confidence, right) for right in drawn])
        assert 0.9 < ((low <= errors) & (errors <= high)).mean() <= 0.99
    assert high < 0.03 < perfect_calibration(confidence[:40])[0]


def test_groups_of_thirty_faces_are_large_enough():
    y = encode_labels({"gender": [0] * 30 + [1] * 29, "emotion": [0] * 59})
    probabilities = {task: np.eye(len(names))[[0] * 59] for task, names in TASKS.items()}
    for groups in (audit(y, probabilities), group_table(y, probabilities, "emotion", "gender")):
        assert set(groups["n"]) == {30}


def test_card_has_every_figure_and_says_what_is_missing(results):
    y, probabilities, classes, right = results
    y = y.copy()
    y[:, 10:13] = 0  # race
    # Gender is wrong for a third, so that its own classes have gaps, too.
    said = np.where(np.arange(400) % 3 == 0, 0, classes["gender"])
    probabilities = probabilities | {"gender": np.eye(3)[said]}
    card = model_card(y, probabilities, "mine", "SAMPLE", "test", "four faces", 10)
    assert card.startswith("---\nlibrary_name: keras")
    assert "four faces" in card
    assert "| emotion | 400 | " + f"{right.mean():.3f}" in card
    assert "for female, 0-3 (gap" in card
    # Between the classes of the head itself it would be a recall.
    (of_gender,) = (line for line in card.splitlines() if line.startswith("- gender: "))
    assert "male" not in of_gender
    assert all(f"| {name} | " in card for name in TASKS["emotion"])
    assert "| emotion | female | " in card
    assert "| gender | female | " not in card
    assert "say nothing about people" in card  # drawn faces
    assert "annotators perceived" in model_card(y, probabilities, "mine", "FER", "test")
    assert "no labels for race" in card
    assert "Each class of race" not in card


def test_card_leaves_every_judgement_to_its_author(results):
    y, probabilities, _, _ = results
    for dataset in ("SAMPLE", "UTKFACE"):
        card = model_card(y, probabilities, "mine", dataset, "test")
        beginning, *sections = card.split("\n## ")
        open_ones = [text.partition("\n\n") for text in sections if "| " not in text]
        for title in ("Factors", "Ethical considerations", "Caveats and recommendations"):
            assert title in [head for head, _, _ in open_ones]
        assert {"Version and contact", "Intended use"} <= {head for head, _, _ in open_ones}
        for _, _, body in open_ones:
            assert body.startswith("To be written by you: ")
            assert len(body.strip().splitlines()) == 1
        # What is filled in is measured or given; the rest would be somebody's verdict.
        for word in ("Not for", "must not", "forbid", "fair", "suitable", "baseline"):
            filled = [text for text in sections if "To be written by you" not in text]
            assert not any(word in text for text in [beginning, *filled]), word


@pytest.fixture
def rafdb(tmp_path):
    """RAF-DB's official layout with 60 made-up faces of its test part."""
    basic = tmp_path / "RAFDB" / "basic"
    for folder in ("EmoLabel", "Image/aligned", "Annotation/manual"):
        (basic / folder).mkdir(parents=True)
    generator = np.random.default_rng(0)
    lines = []
    for number in range(60):
        name = f"test_{number + 1:04}"
        lines.append(f"{name}.jpg {number % 7 + 1}")
        picture = generator.integers(0, 256, (100, 100, 3), dtype=np.uint8)
        Image.fromarray(picture).save(basic / f"Image/aligned/{name}_aligned.jpg")
        landmarks = "1\t2\n" * 5
        attributes = f"{number % 2}\n{number % 3}\n{number % 5}\n"
        (basic / f"Annotation/manual/{name}_manu_attri.txt").write_text(landmarks + attributes)
    (basic / "EmoLabel" / "list_patition_label.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_command_audits_emotion_by_group_on_rafdb(rafdb, tmp_path, capsys):
    words = ["audit", "--weights", "FER", "--dataset", "RAFDB", "--data-dir", str(rafdb)]
    out, card = tmp_path / "made" / "groups.csv", tmp_path / "made" / "card.md"
    files = ["--out", str(out), "--card", str(card), "--smallest", "5", "--json"]
    assert main([*words, *files]) == 0
    table = pd.DataFrame(json.loads(capsys.readouterr().out))
    women = table[(table["task"] == "emotion") & (table["group"] == "female")]
    assert women["n"].tolist() == [30]
    assert len(pd.read_csv(out)) == len(table)
    assert "RAFDB, split test, 60 faces" in card.read_text()


def test_command_says_where_there_are_no_groups(tmp_path, capsys):
    folder = tmp_path / "FER" / "test" / "happy"
    folder.mkdir(parents=True)
    picture = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    Image.fromarray(picture).save(folder / "PublicTest_1.jpg")
    words = ["--dataset", "FER", "--data-dir", str(tmp_path), "--split", "PublicTest"]
    assert main(["audit", "--weights", "FER", *words]) == 2
    assert "no groups to compare" in capsys.readouterr().err


def test_command_says_where_the_groups_are_too_small(rafdb, capsys):
    words = ["audit", "--weights", "FER", "--dataset", "RAFDB", "--data-dir", str(rafdb)]
    assert main([*words, "--smallest", "61"]) == 2
    assert "lower --smallest" in capsys.readouterr().err
