"""The arms of the study, its table, and the gradients of the tasks."""

import functools
import itertools

import keras
import numpy as np
import pandas as pd
import pytest

from fer_helpers.labels import encode_labels
from fer_helpers.model import build_model
from fer_helpers.studies import multitask

SMALL = {"widths": (4, 4, 8, 8)}
EMOTION = {"emotion": [0, 1] * 32}
OTHERS = {"gender": [0, 1] * 16, "race": [0, 1] * 16, "age": [0, 1] * 16}


def faces(names, seed):
    """Bright above for class 0, bright below for class 1."""
    labels = encode_labels(names)
    X = np.random.default_rng(seed).integers(0, 60, (len(labels), 48, 48, 1), dtype=np.uint8)
    X[0::2, :24] += 120
    X[1::2, 24:] += 120
    return X, labels


@pytest.fixture(scope="module", autouse=True)
def _no_graphs():
    """Run step by step: to trace a graph takes longer than all the steps of a run here."""
    with pytest.MonkeyPatch.context() as patch:
        compile_eagerly = functools.partialmethod(keras.Model.compile, run_eagerly=True)
        patch.setattr(keras.Model, "compile", compile_eagerly)
        yield


@pytest.fixture(scope="module")
def sources():
    return [faces(EMOTION, 0), faces(OTHERS, 1)]


@pytest.fixture
def small_study(sources, monkeypatch):
    valid = {"FER": faces({"emotion": [0, 1] * 8}, 2), "UTKFACE": faces(OTHERS, 3)}
    train = dict(zip(valid, sources, strict=True))
    monkeypatch.setattr(multitask, "load_training_data", lambda name, _: (train[name], valid[name]))
    monkeypatch.setattr(multitask, "_OPTIONS", {"compact": SMALL})
    monkeypatch.setattr(multitask, "SHARES", (16, 8))


def weights_of(model, part):
    return [w.numpy().copy() for w in model.trainable_weights if part in w.path]


@pytest.fixture(scope="module")
def trained(sources):
    """Arm -> its network after an epoch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multitask, "SHARES", (16, 8))
        return {
            arm: multitask.train_arm(arm, 0, sources, epochs=1, options=SMALL)
            for arm in multitask.ARMS
        }


@pytest.mark.parametrize("arm", multitask.ARMS)
def test_an_arm_trains_the_heads_that_have_a_loss(arm, trained):
    keras.utils.set_random_seed(0)
    before = weights_of(build_model(**SMALL), "_logits")
    model = trained[arm]
    changed = [
        not np.array_equal(old, new)
        for old, new in zip(before, weights_of(model, "_logits"), strict=True)
    ]
    assert changed == [True, True] + [arm != multitask.ALONE] * 6
    assert model.output_shape == [(None, 7), (None, 3), (None, 3), (None, 5)]


def test_arms_with_the_same_heads_learn_differently(trained):
    ends = {
        arm: np.concatenate([weights.ravel() for weights in model.get_weights()])
        for arm, model in trained.items()
    }
    for one, other in itertools.combinations(ends, 2):
        assert not np.allclose(ends[one], ends[other]), (one, other)


def test_study_goes_on_where_it_stopped(small_study, tmp_path):
    csv = tmp_path / "runs.csv"
    arms = ("emotion alone", "equal weights")
    multitask.study(csv, arms[:1], range(2), epochs=1, faces=32)
    first = pd.read_csv(csv)
    table = multitask.study(csv, arms, range(2), epochs=1, faces=32)
    assert table[["arm", "seed"]].to_numpy().tolist() == [
        *(["emotion alone", 0], ["emotion alone", 1]),
        *(["equal weights", 0], ["equal weights", 1]),
    ]
    pd.testing.assert_frame_equal(table.round(5)[:2], first)
    assert set(table["faces"]) == {32}
    again = multitask.study(tmp_path / "again.csv", arms[1:], [1], epochs=1, faces=32)
    columns = [name for name in again if name.endswith("accuracy")]
    assert again.loc[0, columns].tolist() == table.loc[3, columns].tolist()
    longer = multitask.study(csv, arms[1:], [1], epochs=2, faces=32)
    assert longer[["arm", "seed", "epochs"]].to_numpy().tolist() == [["equal weights", 1, 2]]
    assert len(pd.read_csv(csv)) == 5  # another run, not one that is there
    with pytest.raises(ValueError, match="unknown arm 'none': choose from emotion alone"):
        multitask.study(csv, ["none"])


def test_two_studies_do_not_share_a_table(small_study, tmp_path, monkeypatch):
    pytest.importorskip("fcntl")
    csv = tmp_path / "runs.csv"

    def train_meanwhile(*_):
        with pytest.raises(OSError, match=r"runs\.csv is in use"):
            multitask.study(csv, ["equal weights"], [0])
        raise KeyboardInterrupt

    monkeypatch.setattr(multitask, "train_arm", train_meanwhile)
    with pytest.raises(KeyboardInterrupt):
        multitask.study(csv, ["equal weights"], [0])


def test_compare_pairs_by_seed():
    runs = pd.DataFrame(
        [
            (arm, seed, seed / 10 + bonus)
            for arm, bonus in (("emotion alone", 0), ("equal weights", 0.05))
            for seed in range(3)
        ],
        columns=["arm", "seed", "public_emotion_accuracy"],
    ).drop(index=2)
    table = multitask.compare(runs)
    assert table.loc["equal weights", "n"] == 2  # seed 2 has no partner
    # The seeds differ by more than the arms; the pairs do not.
    assert table.loc["equal weights", ["low", "difference", "high"]].tolist() == pytest.approx(
        [0.05] * 3
    )
    assert table.loc["emotion alone", "difference"] == 0
    elsewhere = runs.replace({"seed": {0: 7, 1: 8, 2: 9}})
    other = pd.concat([runs[:2], elsewhere[elsewhere["arm"] == "equal weights"]])
    assert multitask.compare(other).index.tolist() == ["emotion alone"]  # no seed in common
    with pytest.raises(ValueError, match="the table has no run of 'emotion alone' to compare with"):
        multitask.compare(runs[runs["arm"] == "equal weights"])


def test_gradients_of_the_same_task_agree_and_the_model_is_left_as_it_was():
    model = build_model(augment=False, **SMALL)
    before = [v.numpy().copy() for v in model.variables]
    # The labels and the head of race are those of gender.
    X, y = faces({"gender": [0, 1] * 16, "race": [0, 1] * 16}, 0)
    head = {task: model.get_layer(f"{task}_logits") for task in ("gender", "race")}
    head["race"].set_weights(head["gender"].get_weights())
    before = [v.numpy().copy() for v in model.variables]
    drop = next(layer for layer in model.layers if isinstance(layer, keras.layers.Dropout))
    drop.rate = 0.0
    cosines = multitask.gradient_conflict(model, X, y, batch_size=16)
    assert list(cosines) == ["gender", "race"]
    np.testing.assert_allclose(cosines, 1, atol=1e-5)
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, new)
    # With the opposite head it pulls the other way.
    head["race"].set_weights([-w for w in head["gender"].get_weights()])
    cosines = multitask.gradient_conflict(model, X, y, batch_size=16)
    assert cosines.loc["gender", "race"] < 0
