"""The study of the attribute heads: arms that differ in one thing, runs that are stored whole."""

import functools

import numpy as np
import pandas as pd
import pytest

import tiny
from fer_helpers.backend import keras
from fer_helpers.labels import encode_labels
from fer_helpers.studies import attributes
from fer_helpers.studies.attributes import (
    ARMS,
    compare,
    drawn,
    read_right,
    study,
    train_arm,
    without_copies,
)


def faces(seed, **labels):
    y = encode_labels(labels)
    return np.random.default_rng(seed).integers(0, 256, (len(y), 48, 48, 1), dtype=np.uint8), y


OTHERS = {"gender": [0, 1] * 20, "race": [0, 1] * 20, "age": [0, 1] * 20}


@pytest.fixture
def sources():
    return [faces(0, emotion=[0, 1] * 40), faces(1, **OTHERS)]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(attributes.SIZES, "compact", ((24, 8), 2))
    monkeypatch.setattr(attributes, "build_model", lambda backbone: tiny.build())
    # Step by step: to trace a graph takes longer than all the steps of a run here.
    eagerly = functools.partialmethod(keras.Model.compile, run_eagerly=True)
    monkeypatch.setattr(keras.Model, "compile", eagerly)


@pytest.fixture
def data(monkeypatch, sources):
    valid = {"FER": faces(2, emotion=[0, 1, 0, 1]), "UTKFACE": faces(3, **OTHERS)}
    train = dict(zip(valid, sources, strict=True))
    # One face of PublicTest stands in the Training split as well.
    train["FER"][0][5] = valid["FER"][0][1]
    monkeypatch.setattr(
        attributes, "load_training_data", lambda name, _: (train[name], valid[name])
    )


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_trains_what_it_has_weights_for(arm, sources):
    model, again = train_arm(arm, 0, sources), train_arm(arm, 0, sources)
    keras.utils.set_random_seed(0)
    start = tiny.build()
    for task in ("emotion", "gender", "race", "age"):
        name = f"{task}_logits"
        before, after, same = (m.get_layer(name).get_weights()[0] for m in (start, model, again))
        assert np.array_equal(after, same), "the seed decides"
        weights = ARMS[arm]
        assert np.array_equal(before, after) == bool(weights and not weights.get(task))


def test_all_arms_see_the_same_emotion_faces_in_as_many_steps(monkeypatch, sources):
    seen = {}
    for arm in ("alone", "0", "unmasked"):
        batches = []
        monkeypatch.setattr(
            attributes, "mixed_batches", lambda *given, b=batches: b.append(real(*given)) or b[0]
        )
        train_arm(arm, 0, sources)
        emotions = [images[targets["emotion_output"].any(axis=1)] for images, targets in batches[0]]
        seen[arm] = np.array(emotions)
    assert all(np.array_equal(faces, seen["alone"]) for faces in seen.values())
    assert seen["alone"].shape[:2] == (3, 24)


real = attributes.mixed_batches


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_fractions_take_as_many_steps(monkeypatch, sources, fraction):
    monkeypatch.setitem(attributes.SIZES, "compact", ((6, 2), 2))
    model = train_arm("0", 0, sources, fraction)
    assert int(model.optimizer.iterations) == 2 * (72 // 6)


def test_each_seed_draws_its_own_faces(sources):
    first, again, other = (drawn(sources[0], 0.9, seed)[0] for seed in (0, 0, 1))
    assert len(first) == 72
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_repeated_and_scored_pictures_are_left_out(sources):
    (X, y), others = sources
    X[7] = X[3]
    (kept, labels), _ = without_copies(sources, X[10:12])
    assert len(kept) == len(labels) == 80 - 1 - 2
    assert np.array_equal(np.delete(y, [7, 10, 11], axis=0), labels)
    assert len(others[0]) == 40


def test_runs_are_stored_whole_and_not_repeated(data, tmp_path, monkeypatch):
    csv = tmp_path / "runs.csv"
    study(csv, ["alone", "1"], range(2))
    table = study(csv, ["alone", "1"], range(2))
    assert table[["arm", "seed"]].astype(str).agg(" ".join, axis=1).tolist() == [
        "alone 0",
        "1 0",
        "alone 1",
        "1 1",
    ]
    runs, right, repeated = read_right(csv)
    assert repeated.tolist() == [False, True, False, False]
    assert right.shape == (4, 4)
    assert right.mean(axis=1).tolist() == runs["emotion"].tolist()
    clean = right[:, ~repeated].mean(axis=1)
    assert clean == pytest.approx(runs["emotion_clean"].to_numpy(), abs=1e-5)
    assert len(runs) == 4
    monkeypatch.setattr(attributes, "train_arm", lambda *given: pytest.fail("trained again"))
    study(csv, ["alone", "1"], range(2))


@pytest.mark.parametrize("wrong", [{"arms": ["both"]}, {"backbone": "wide"}])
def test_unknown_arms_and_networks_are_refused(wrong, tmp_path):
    with pytest.raises(ValueError, match="choose"):
        study(tmp_path / "runs.csv", **wrong)


def test_two_studies_do_not_share_a_table(data, tmp_path, monkeypatch):
    pytest.importorskip("fcntl")
    csv = tmp_path / "runs.csv"

    def train_meanwhile(*_):
        with pytest.raises(OSError, match=r"runs\.csv is in use"):
            study(csv, ["1"], [0])
        raise KeyboardInterrupt

    monkeypatch.setattr(attributes, "train_arm", train_meanwhile)
    with pytest.raises(KeyboardInterrupt):
        study(csv, ["1"], [0])


def simulated(effects, seeds=20, faces=300):
    """Return runs whose arms get so much more right than the first, by seed and by face."""
    generator = np.random.default_rng(0)
    rows, right = [], []
    for seed in range(seeds):
        shared = generator.random(faces)
        for arm, effect in effects.items():
            rows.append({"arm": arm, "seed": seed})
            own = effect + generator.normal(0, 0.02) + generator.normal(0, 0.1, faces)
            right.append(shared < 0.5 + own)
    return pd.DataFrame(rows), np.array(right)


def test_intervals_go_over_seeds_and_faces():
    runs, right = simulated({"0": 0, "1": 0.1})
    row = compare(runs, right, draws=2000).loc["1"]
    both = [right[runs["arm"] == arm].astype(float) for arm in ("1", "0")]
    difference = both[0] - both[1]
    assert row["n"] == 20
    assert row["mean"] == pytest.approx(both[0].mean())
    assert row["difference"] == pytest.approx(difference.mean())
    # The variance of a two-way bootstrap: of the rows' means, of the columns', and the rest.
    by_seed, by_face = difference.mean(axis=1).var(), difference.mean(axis=0).var()
    rest = difference.var() - by_seed - by_face
    error = np.sqrt(by_seed / 20 + by_face / 300 + rest / 6000)
    assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * error, rel=0.06)
    assert row["high_90"] - row["low_90"] == pytest.approx(2 * 1.645 * error, rel=0.06)


def test_p_values_are_corrected_for_the_number_of_arms():
    runs, right = simulated({"0": 0, "0.1": 0, "1": 0.2, "paper": -0.3, "alone": 0})
    right[runs["arm"] == "alone"] = right[runs["arm"] == "0"]  # the same answers
    table = compare(runs, right, draws=1000)
    assert table.index.tolist() == ["alone", "0.1", "1", "paper"]
    assert table.loc[["1", "paper"], "p"].tolist() == [0.001, 0.001]
    assert table.loc[["1", "paper"], "p_holm"].tolist() == pytest.approx([0.004, 0.004])
    assert table.loc["alone", ["difference", "low", "high", "p"]].tolist() == [0, 0, 0, 1]
    assert table.loc["0.1", "p_holm"] == min(2 * table.loc["0.1", "p"], 1)


def test_arms_are_compared_over_the_seeds_that_both_have():
    runs, right = simulated({"0": 0, "1": 0.1}, seeds=3)
    kept = ~((runs["arm"] == "1") & (runs["seed"] == 2))
    table = compare(runs[kept], right[kept], draws=100)
    assert table.loc["1", "n"] == 2
    for arm in ("0", "1"):
        assert compare(runs[runs["arm"] == arm], right[runs["arm"] == arm], draws=100).empty
