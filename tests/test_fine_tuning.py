"""The study of small sets: which faces it draws, its arms, its table."""

import keras
import numpy as np
import pandas as pd
import pytest

import tiny
from fer_helpers import training
from fer_helpers.labels import encode_labels
from fer_helpers.model import load_model
from fer_helpers.runs import read_history
from fer_helpers.studies import fine_tuning
from fer_helpers.studies.fine_tuning import (
    ARMS,
    CANDIDATES,
    DEFAULT,
    SCRATCH,
    UNTOUCHED,
    compare,
    draw,
    new_faces,
    run_arm,
    study,
)
from fer_helpers.training import compile_model


@pytest.fixture(scope="module")
def begun():
    """The network that stands for the shipped one."""
    keras.utils.set_random_seed(1)
    return tiny.build()


@pytest.fixture
def small(begun, monkeypatch):
    """Three sources of a few faces each, and a tiny network."""
    X, y = tiny.faces(60)
    others = encode_labels({task: np.arange(60) % 2 for task in ("gender", "race", "age")})
    sources = {"SAMPLE": (X, y + others), "FER": (X, y), "UTKFACE": (X, others)}
    monkeypatch.setattr(fine_tuning, "new_faces", lambda _: sources)
    sets = {"FER2013, 20": ("FER", 20), "drawn, 30": ("SAMPLE", 30), "UTKFace, 20": ("UTKFACE", 20)}
    monkeypatch.setattr(fine_tuning, "SETS", sets)
    monkeypatch.setattr(fine_tuning, "FINE_TUNING_EPOCHS", 1)

    def load(weights):
        return begun if weights == "FER" else load_model(weights)

    def get_model(backbone=None, augment=True):
        network = tiny.build(augment)
        network.name = backbone or "compact"
        return network

    def compile_eagerly(model, *args, **options):
        """To trace a graph takes longer than all the steps of a run here."""
        compile_model(model, *args, **options).run_eagerly = True

    for module in (fine_tuning, training):
        monkeypatch.setattr(module, "compile_model", compile_eagerly)
        monkeypatch.setattr(module, "load_model", load)
        monkeypatch.setattr(module, "get_model", get_model)
    return sources


def test_faces_are_new_to_the_shipped_network_and_there_once(monkeypatch):
    X, y = tiny.faces(10)
    known = X[:2], y[:2]
    unseen = np.concatenate([X, X[5:7]]), np.concatenate([y, y[5:7]])
    monkeypatch.setattr(fine_tuning, "load_training_data", lambda name, _: (known, unseen))
    drawn = y.copy()
    drawn[:, 7] = 1
    monkeypatch.setattr(fine_tuning, "load_data", lambda name, data_dir: (X, drawn))
    sources = new_faces()
    for name in ("FER", "UTKFACE"):
        np.testing.assert_array_equal(sources[name][0], X[2:])
        np.testing.assert_array_equal(sources[name][1], y[2:])
    assert len(sources["SAMPLE"][0]) == 10
    np.testing.assert_array_equal(sources["EMOTIONS"][1][:, :7], y[:, :7])
    assert not sources["EMOTIONS"][1][:, 7:].any()


def test_a_seed_draws_its_own_faces_and_scores_on_others(small):
    (X, y), tests = draw(small, "FER2013, 20", 0)
    assert (len(X), len(y), len(tests)) == (20, 20, 2)
    together = np.concatenate([X, tests[0][0]])
    assert len(np.unique(together.reshape(60, -1), axis=0)) == 60
    assert tests[1][1][:, 7:].any(axis=1).all()  # the tasks that FER does not label
    again, other = draw(small, "FER2013, 20", 0), draw(small, "FER2013, 20", 1)
    np.testing.assert_array_equal(again[0][0], X)
    assert not np.array_equal(other[0][0], X)
    assert len(draw(small, "drawn, 30", 0)[1]) == 1


def test_arms_start_where_they_should_and_train_what_they_should(small, begun, tmp_path):
    faces, _ = draw(small, "FER2013, 20", 0)
    assert run_arm(UNTOUCHED, faces, 0, tmp_path) is None
    history = run_arm(SCRATCH, faces, 0, tmp_path / SCRATCH)
    assert history["epoch"].tolist() == [1]
    for arm in (DEFAULT, *CANDIDATES):
        assert run_arm(arm, faces, 0, tmp_path / arm)["epoch"].tolist() == [0, 1]
    rates = [read_history(tmp_path / arm)["learning_rate"].iloc[-1] for arm in ARMS[1:]]
    wanted = [training.FINE_TUNING_RATE, training.LEARNING_RATE]
    assert rates == pytest.approx([*wanted, *(options["rate"] for options in CANDIDATES.values())])


@pytest.mark.parametrize(
    ("frozen", "still"),
    [(None, set()), ("norms", {"batch_normalization"}), ("trunk", {"batch_normalization", "cam"})],
)
def test_what_is_frozen_stays(frozen, still, small, begun, tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(fine_tuning, "fit", lambda model, *_, **__: trained.append(model))
    faces, _ = draw(small, "FER2013, 20", 0)
    fine_tuning.train_candidate(faces, faces, 1, tmp_path, 0, 1e-4, frozen=frozen)
    names = {layer.name for layer in trained[0].layers if layer.weights and not layer.trainable}
    assert {name.rstrip("_0123456789") for name in names if "output" not in name} == still
    for ours, theirs in zip(trained[0].get_weights(), begun.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_answers_are_kept_for_tasks_without_labels(small, begun, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(fine_tuning, "fit", lambda model, train, *_, **__: given.append(train))
    (X, y), _ = draw(small, "FER2013, 20", 0)
    fine_tuning.train_candidate((X, y), (X, y), 1, tmp_path, 0, 1e-4, keep=True)
    np.testing.assert_array_equal(given[0].targets["emotion_output"], y[:, :7])
    answers = begun.predict_on_batch(X)[3]
    np.testing.assert_allclose(given[0].targets["age_output"], answers, atol=1e-5)
    fine_tuning.train_candidate((X, y), (X, y), 1, tmp_path, 0, 1e-4)
    assert not given[1].targets["age_output"].any()


def test_the_study_goes_on_where_it_stopped(small, tmp_path):
    csv = tmp_path / "runs.csv"
    sets = tuple(fine_tuning.SETS)
    first = study(csv, sets, (UNTOUCHED,), (3,))
    assert first["set"].tolist() == list(sets)
    assert first[["emotion", "gender", "race", "age"]].notna().all(axis=None)
    assert first["epochs"].eq(0).all()
    changed = first.assign(emotion=0.123)
    changed.to_csv(csv, index=False)
    table = study(csv, sets[:1], (UNTOUCHED, DEFAULT), (3,))
    assert table["arm"].tolist() == [UNTOUCHED] * 3 + [DEFAULT]
    assert table["emotion"][0] == 0.123
    assert table["epochs"].iloc[-1] == 1
    pd.testing.assert_frame_equal(pd.read_csv(csv), table)
    for wrong in ((["none"], ARMS), (sets, ["none"])):
        with pytest.raises(ValueError, match="unknown 'none': choose from"):
            study(csv, *wrong)


def test_arms_are_compared_with_the_untouched_weights_seed_by_seed():
    tasks = dict.fromkeys(("gender", "race", "age"), 0.5)
    rows = [
        {"set": name, "arm": arm, "seed": seed, "emotion": value, **tasks}
        for name, arm, seed, value in (
            ("a", UNTOUCHED, 0, 0.6),
            ("a", UNTOUCHED, 1, 0.7),
            ("a", DEFAULT, 0, 0.65),
            ("a", DEFAULT, 1, 0.79),
            ("a", DEFAULT, 2, 0.1),  # without a partner
            ("b", UNTOUCHED, 0, 0.2),
            ("b", DEFAULT, 0, 0.3),
        )
    ]
    table = compare(pd.DataFrame(rows)).set_index(["set", "arm", "task"])
    ours = table.loc[("a", DEFAULT, "emotion")]
    assert ours["n"] == 2
    assert ours["accuracy"] == pytest.approx(0.72)
    assert ours["difference"] == pytest.approx(0.07)
    assert ours["low"] < 0.07 < ours["high"]
    assert table.loc[("b", DEFAULT, "emotion"), "difference"] == pytest.approx(0.1)
    assert table.loc[("a", DEFAULT, "age"), "difference"] == 0
    alone = compare(pd.DataFrame([row for row in rows if row["arm"] == DEFAULT]))
    assert alone.empty
    assert list(alone) == [*table.index.names, *table]
