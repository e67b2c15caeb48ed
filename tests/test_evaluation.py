"""Metrics against figures worked out by hand."""

import numpy as np
import pytest

from fer_helpers.evaluation import (
    accuracy_table,
    class_table,
    confusion,
    expected_calibration_error,
    find_copies,
    fit_temperature,
    group_table,
    paired_bootstrap,
    paired_interval,
    reliability,
    wilson_interval,
)
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
    assert table.index.tolist() == ["gender"]
    row = table.loc["gender"]
    assert (row["n"], row["accuracy"], row["majority"]) == (4, 0.75, 0.75)
    assert row["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert row["low"] < 0.75 < row["high"]
    assert row["ece"] == pytest.approx(0.25)  # sure of all four, right in three


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
    assert np.isnan(table.loc["unsure", "recall"])
    assert confusion(*results, "gender").to_numpy().tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]


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
    assert reliability(probabilities, true)["n"].tolist() == [10, 10]
    assert expected_calibration_error(np.array([[1.0, 0.0]]), np.array([0])) == 0


def test_copies_are_found_within_and_between():
    images = np.random.default_rng(0).integers(0, 256, (5, 48, 48, 1), dtype=np.uint8)
    images[3] = images[1]
    assert find_copies(images).tolist() == [False, False, False, True, False]
    assert find_copies(images, among=images[[1, 4]]).tolist() == [False, True, False, True, True]


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


def test_paired_interval_covers_the_truth_as_often_as_it_says_also_with_few_pairs():
    generator = np.random.default_rng(0)
    few = generator.normal(0.3, 1, (1000, 5)) + 7
    intervals = [paired_interval(ours, np.full(5, 7)) for ours in few]
    assert 935 <= sum(row["low"] <= 0.3 <= row["high"] for row in intervals) <= 965
    one = paired_interval([0.5], [0.4])
    assert (one["n"], one["difference"]) == (1, pytest.approx(0.1))
    assert np.isnan([one["low"], one["high"]]).all()
    with pytest.raises(ValueError, match="pairs wanted"):
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
    with pytest.raises(ValueError, match="pairs wanted"):
        paired_bootstrap(seeds, seeds[:2])


def test_paired_bootstrap_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(0)
    inside = 0
    for trial in range(200):
        ours = generator.normal(0.3, 1, 60)
        interval = paired_bootstrap(ours, np.zeros(60), draws=500, seed=trial)
        inside += interval["low"] <= 0.3 <= interval["high"]
    assert 180 <= inside <= 198  # of 200
