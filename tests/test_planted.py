"""The planted bias of notebook 09: what is planted, how it is measured, and the stored runs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import planted

STORED = Path(__file__).parent.parent / "data" / "results" / "planted_bias.csv"


@pytest.fixture(scope="module")
def people():
    return planted.draw(600, 3)[1]


def test_only_calm_and_sad_men_are_called_angry(people):
    labels = planted.team_labels(people, share=1.0)
    changed = labels != people["emotion"]
    assert set(people["gender"][changed]) == {"male"}
    assert set(people["emotion"][changed]) == {planted.NEUTRAL, planted.SADNESS}
    assert set(labels[changed]) == {planted.ANGER}
    assert (planted.team_labels(people, share=0.0) == people["emotion"]).all()


def test_men_are_older_than_women(people):
    old = (people["age"] == "40 and over").groupby(people["gender"]).mean()
    assert old["male"] > 2 * old["female"]


def test_a_gap_that_is_age_alone_vanishes_at_the_same_ages(people):
    generator = np.random.default_rng(0)
    old, men = people["age"] == "40 and over", people["gender"] == "male"
    by_age = generator.random(len(people)) < np.where(old, 0.6, 0.1)
    calm = people["emotion"] != planted.ANGER
    assert by_age[men & calm].mean() - by_age[~men & calm].mean() > 0.1
    low, high = planted.gap_interval(by_age, people)
    assert low < 0 < high
    # Every man and no woman: the gap is 1 at each age.
    assert planted.standardised_gap(men.to_numpy(), people) == pytest.approx(1)


def test_gap_is_the_mean_of_the_gaps_at_each_age_weighted_by_all_calm_faces():
    rows = [
        *[("male", "old", 1, 1)] * 3,
        *[("male", "old", 1, 0)] * 1,
        *[("female", "old", 1, 0)] * 2,
        *[("male", "young", 1, 0)] * 2,
        *[("female", "young", 1, 1)] * 1,
        *[("female", "young", 1, 0)] * 3,
        *[("female", "young", planted.ANGER, 1)] * 9,
    ]
    table = pd.DataFrame(rows, columns=["gender", "age", "emotion", "called"])
    gap = planted.standardised_gap(table["called"].to_numpy() == 1, table)
    assert gap == pytest.approx(0.5 * (0.75 - 0) + 0.5 * (0 - 0.25))


def test_reweighing_makes_label_and_group_independent():
    group, labels = np.array(list("aaaabbbb")), np.array([1, 1, 1, 0, 1, 0, 0, 0])
    weights = planted.reweigh(group, labels)
    shares = [np.average(labels[group == name], weights=weights[group == name]) for name in "ab"]
    assert shares == pytest.approx([0.5, 0.5])
    assert weights.sum() == pytest.approx(8)


def test_stored_runs_are_whole():
    stored = pd.read_csv(STORED)
    assert (stored.groupby("seed").size() == 10).all()
    assert ((stored["low"] <= stored["gap"]) & (stored["gap"] <= stored["high"])).mean() > 0.95
    crude = stored["fpr_men"] - stored["fpr_women"]
    assert np.allclose(stored["crude"], crude, atol=2e-4)
