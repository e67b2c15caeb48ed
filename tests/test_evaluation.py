"""Metrics against figures worked out by hand."""

import itertools

import numpy as np
import pytest

from fer_helpers.evaluation import (
    accuracy_table,
    class_table,
    confusion,
    expected_calibration_error,
    fit_temperature,
    paired_bootstrap,
    paired_interval,
    reliability,
    wilson_interval,
)
from fer_helpers.groups import group_table
from fer_helpers.labels import TASKS, encode_labels


@pytest.fixture
def results():
    """Four faces labelled for gender (three male), of which three are right."""
    y = encode_labels({"gender": [0, 0, 0, 1, -1]})
    gender = np.eye(3)[[0, 0, 1, 1, 2]]
    probabilities = {task: np.full((5, len(names)), 0.2) for task, names in TASKS.items()}
    return y, probabilities | {"gender": gender}


def test_accuracy_table_has_the_labelled_faces_of_the_labelled_tasks(results):
    table = accuracy_table(*results)
    assert (table.index.tolist(), table.index.name) == (["gender"], "task")
    row = table.loc["gender"]
    assert (row["n"], row["accuracy"], row["majority"]) == (4, 0.75, 0.75)
    assert row["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert row["low"] < 0.75 < row["high"]
    assert row["ece"] == pytest.approx(0.25)  # sure of all four, right in three


def test_balanced_accuracy_is_over_the_classes_present():
    y = encode_labels({"emotion": [0, 0, 0, 3]})
    emotion = np.eye(7)[[0, 0, 5, 3]]  # one surprise is taken for anger, which nobody shows
    table = accuracy_table(y, {task: emotion for task in TASKS})
    assert table.loc["emotion", "balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)


def test_probabilities_that_are_nan_are_no_prediction(results):
    y, probabilities = results
    spoilt = probabilities | {"gender": np.where(np.eye(5, 3) > 0, np.nan, 0.5)}
    for score in (
        lambda: accuracy_table(y, spoilt),
        lambda: class_table(y, spoilt, "gender"),
        lambda: confusion(y, spoilt, "gender"),
        lambda: group_table(y, spoilt, "gender", "gender"),
    ):
        with pytest.raises(ValueError, match="probabilities of gender contain NaN"):
            score()
    # A face that is not labelled is not scored.
    unlabelled = probabilities | {"gender": probabilities["gender"].copy()}
    unlabelled["gender"][4] = np.nan
    assert accuracy_table(y, unlabelled).loc["gender", "n"] == 4


def test_groups_are_scored_for_themselves_and_small_ones_left_out():
    # Men: three of four right. Women: one of two. One face without age, one without gender.
    y = encode_labels({"gender": [0, 0, 0, 0, 1, 1, 1, -1], "age": [2, 2, 2, 2, 2, 2, -1, 2]})
    age = np.eye(5)[[2, 2, 2, 0, 2, 0, 2, 2]]
    table = group_table(y, {"age": age}, "age", "gender", smallest=1)
    assert table.index.tolist() == ["male", "female"]
    assert table["n"].tolist() == [4, 2]
    assert table["accuracy"].tolist() == [0.75, 0.5]
    assert table["gap"].tolist() == [0, 0.25]
    assert (table["low"] < table["accuracy"]).all()
    assert (table["accuracy"] < table["high"]).all()
    assert group_table(y, {"age": age}, "age", "gender", smallest=3).index.tolist() == ["male"]
    assert group_table(y, {"age": age}, "age", "gender").empty


def test_class_table_and_confusion(results):
    table = class_table(*results, "gender")
    assert table["n"].tolist() == [3, 1, 0]
    assert table.loc["male", "recall"] == pytest.approx(2 / 3)
    assert table.loc["female", "precision"] == pytest.approx(1 / 2)
    assert table.loc["male", "precision"] == 1
    assert table.index.name == "gender"
    assert np.isnan(table.loc["unsure", "recall"])
    counts = confusion(*results, "gender")
    assert counts.to_numpy().tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert counts.index.tolist() == counts.columns.tolist() == list(TASKS["gender"])


def test_nothing_labelled_is_an_empty_table():
    y, probabilities = np.zeros((3, 18)), {task: np.ones((3, 18)) for task in TASKS}
    table = accuracy_table(y, probabilities)
    assert (len(table), "accuracy" in table) == (0, True)


def test_wilson_interval_is_the_published_one():
    # Newcombe (1998), table I: 81 of 263.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(0, 20)[0] == pytest.approx(0)
    assert np.isnan(wilson_interval(0, 0)[0])
    n = np.arange(1, 2000)
    for successes in (0 * n, n // 2, n):
        low, high = wilson_interval(successes, n)
        assert ((low >= 0) & (low <= successes / n)).all()
        assert ((successes / n <= high) & (high <= 1)).all()


def test_calibration_error_of_known_gaps():
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10)
    true = np.array([0] * 9 + [1] + [0] * 2 + [1] * 8)
    # The 90 % bin is right in 9 of 10, the 60 % bin in 2 of 10.
    assert expected_calibration_error(probabilities, true) == pytest.approx(0.5 * 0 + 0.5 * 0.4)
    table = reliability(probabilities, true)
    assert table.columns.tolist() == ["n", "confidence", "accuracy"]
    assert table["n"].tolist() == [10, 10]
    surest = np.array([[1.0, 0.0], [0.95, 0.05]])  # both in the last bin
    assert reliability(surest, np.array([0, 0]))["n"].tolist() == [2]
    assert reliability(probabilities, true)["confidence"].tolist() == pytest.approx([0.6, 0.9])
    assert reliability(probabilities, true)["accuracy"].tolist() == pytest.approx([0.2, 0.9])
    assert expected_calibration_error(np.array([[1.0, 0.0]]), np.array([0])) == 0


def test_calibration_has_the_fifteen_bins_of_the_paper():
    """Two confidences fall into one bin, and their gaps cancel, where a bin is wide enough."""
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.5, 1, 3000)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    true = (generator.random(3000) > 0.75).astype(int)
    by_hand = 0
    for low, high in itertools.pairwise(np.linspace(0, 1, 16)):
        inside = (low <= confidence) & (confidence < high)
        if inside.any():
            gap = abs(confidence[inside].mean() - (true[inside] == 0).mean())
            by_hand += gap * inside.mean()
    assert expected_calibration_error(probabilities, true) == pytest.approx(by_hand)
    y = encode_labels({"gender": true})
    others = {task: np.full((3000, len(names)), 0.2) for task, names in TASKS.items()}
    gender = np.c_[probabilities, np.zeros(3000)]
    table = accuracy_table(y, others | {"gender": gender})
    assert table.loc["gender", "ece"] == pytest.approx(by_hand)
    assert reliability(probabilities, true).equals(reliability(probabilities, true, 15))
    assert len(reliability(probabilities, true, 10)) == 5  # from 0.5 up
    each = reliability(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1]))
    assert each["accuracy"].tolist() == [1, 1]
    for bins in (3, 10):
        assert expected_calibration_error(probabilities, true, bins) != pytest.approx(by_hand)


def test_different_lengths_are_refused(results):
    y, probabilities = results
    with pytest.raises(ValueError, match="4 label rows but 5 predictions"):
        accuracy_table(y[:4], probabilities)


def test_temperature_undoes_what_sharpened_the_probabilities():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(5000, 4))
    honest = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    true = (honest.cumsum(axis=1) < generator.random((5000, 1))).sum(axis=1)
    sharp = honest**3 / (honest**3).sum(axis=1, keepdims=True)
    assert fit_temperature(honest, true) == pytest.approx(1, abs=0.1)
    assert fit_temperature(sharp, true) == pytest.approx(3, abs=0.3)
    assert fit_temperature(sharp.astype(np.float32), true) == pytest.approx(3, abs=0.3)
    surest = honest**15 / (honest**15).sum(axis=1, keepdims=True)
    assert fit_temperature(surest.astype(np.float32), true) == pytest.approx(15, abs=1.5)
    # A class that nobody shows, and one that is surely wrong.
    three = np.array([[0.5, 0.5, 0.0], [0.3, 0.7, 0.0], [0.9, 0.1, 0.0]])
    assert 0.05 < fit_temperature(three, np.array([0, 1, 1])) < 20
    # Right whatever the temperature, or as often wrong as a guess: the ends of the range.
    vague, sure = (np.array([[p, 1 - p], [1 - p, p]] * 50) for p in (0.6, 0.9))
    assert fit_temperature(vague, np.array([0, 1] * 50)) == pytest.approx(0.05, rel=1e-3)
    assert fit_temperature(sure, np.array([0, 0, 1, 1] * 25)) == pytest.approx(20, rel=1e-3)
    shy = honest**0.4 / (honest**0.4).sum(axis=1, keepdims=True)  # underconfident
    assert fit_temperature(shy, true) == pytest.approx(0.4, abs=0.04)


def test_paired_interval_covers_the_truth_as_often_as_it_says_also_with_few_pairs():
    generator = np.random.default_rng(0)
    few = generator.normal(0.3, 1, (1000, 5)) + 7
    intervals = [paired_interval(ours, np.full(5, 7)) for ours in few]
    assert 935 <= sum(row["low"] <= 0.3 <= row["high"] for row in intervals) <= 965
    # By hand: 0.2 and half of 12.706 * 0.1414 / 1.414, with one degree of freedom.
    two = paired_interval([0.1, 0.3], [0, 0])
    assert (two["low"], two["high"]) == pytest.approx((-1.0706, 1.4706), abs=1e-4)
    one = paired_interval([0.5], [0.4])
    assert (one["n"], one["difference"]) == (1, pytest.approx(0.1))
    assert np.isnan([one["low"], one["high"]]).all()
    with pytest.raises(ValueError, match="figures must come in pairs"):
        paired_interval(few[0], few[0, :2])


def test_no_faces_have_no_calibration_error_and_an_unknown_group_is_named():
    assert np.isnan(expected_calibration_error(np.zeros((0, 7)), np.zeros(0, int)))
    with pytest.raises(ValueError, match="unknown task 'sex'"):
        group_table(np.zeros((3, 18)), {"emotion": np.zeros((3, 7))}, "emotion", "sex")


def test_paired_bootstrap_takes_out_what_the_pairs_share():
    seeds = np.array([0.0, 0.2, 0.4, 0.6, 0.8])
    same = paired_bootstrap(seeds + 0.01, seeds)
    assert (same["low"], same["high"]) == pytest.approx((0.01, 0.01))
    assert same["n"] == 5
    assert same["difference"] == pytest.approx(0.01)
    one = paired_bootstrap([0.5], [0.4])
    assert (one["n"], one["difference"]) == (1, pytest.approx(0.1))
    assert np.isnan([one["low"], one["high"]]).all()  # not a width of 0
    for ours, theirs in ((seeds, seeds[:2]), (seeds[:, None], seeds[:, None]), ([], [])):
        with pytest.raises(ValueError, match="figures must come in pairs"):
            paired_bootstrap(ours, theirs)


def test_paired_bootstrap_draws_as_often_as_it_says_from_its_seed():
    generator = np.random.default_rng(1)
    ours, theirs = generator.normal(size=7), np.zeros(7)
    drawn = ours[np.random.default_rng(3).integers(0, 7, (20, 7))].mean(axis=1)
    few = paired_bootstrap(ours, theirs, draws=20, seed=3)
    assert (few["low"], few["high"]) == pytest.approx(np.percentile(drawn, [2.5, 97.5]))
    usual = paired_bootstrap(ours, theirs)
    assert usual == paired_bootstrap(ours, theirs, draws=10_000, seed=0)
    assert usual != paired_bootstrap(ours, theirs, draws=10_000, seed=1)
    two = paired_bootstrap([0.1, 0.3], [0, 0])
    assert (two["low"], two["high"]) == pytest.approx((0.1, 0.3))
    # Whether two networks are right, as bool and as small whole numbers.
    right, other = np.array([True, False, True]), np.array([True, True, False])
    for kind in (bool, np.uint8):
        pairs = paired_interval(right.astype(kind), other.astype(kind))
        assert pairs["difference"] == 0


def test_paired_bootstrap_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(0)
    inside = 0
    for trial in range(200):
        ours = generator.normal(0.3, 1, 60)
        interval = paired_bootstrap(ours, np.zeros(60), draws=500, seed=trial)
        inside += interval["low"] <= 0.3 <= interval["high"]
    assert 180 <= inside <= 198  # of 200
