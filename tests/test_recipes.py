"""The recipes: two sources in one network, the same after an interruption, written as shipped."""

import hashlib
import json

import keras
import numpy as np
import pandas as pd
import pytest

from fer_helpers.batches import mixed_batches
from fer_helpers.images import image_digests
from fer_helpers.labels import BLOCKS, OUTPUTS, TASKS, decode_labels, encode_labels
from fer_helpers.model import BACKBONES, build_model, load_model
from fer_helpers.prediction import predict
from fer_helpers.runs import _Progress
from fer_helpers.studies import recipes
from fer_helpers.training import compile_model


def tiny(x):
    """A backbone with what a run has to restore, and little else: compiling takes the time."""
    x = keras.layers.Conv2D(4, 5, strides=4, use_bias=False, name="stem")(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9, name="stem_norm")(x))
    return keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(x))


def compile_eagerly(model, *args, **kwargs):
    """Compile without a graph: to trace one takes longer than all steps of a run here."""
    compile_model(model, *args, **kwargs).run_eagerly = True


@pytest.fixture(scope="module")
def two_sources():
    """FER knows emotion, UTKFACE the rest, and both have few faces."""
    generator = np.random.default_rng(0)
    known = {"FER": ("emotion",), "UTKFACE": ("gender", "race", "age")}

    def split(name, n):
        X = generator.integers(0, 256, (n, 48, 48, 1), dtype=np.uint8)
        classes = {task: generator.integers(0, len(TASKS[task]), n) for task in known[name]}
        return X, encode_labels(classes)

    data = {name: (split(name, 40), split(name, 16)) for name in known}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "load_training_data", lambda name, _: data[name])
        patch.setattr(recipes, "SOURCES", {"FER": 3, "UTKFACE": 2})
        patch.setattr(recipes, "compile_model", compile_eagerly)
        for name in ("compact", "wide"):
            patch.setitem(BACKBONES, name, tiny)
        yield data


@pytest.fixture(scope="module")
def from_labels(two_sources, tmp_path_factory):
    """The folder and the history of one epoch from labels, as the first teacher learns."""
    folder = tmp_path_factory.mktemp("from-labels")
    return folder, recipes.train_from_labels(folder, 1, 1000, None, "wide", 0)


def test_an_interrupted_recipe_ends_as_if_it_had_not_been(
    two_sources, from_labels, tmp_path, monkeypatch
):
    whole = recipes.train_open_data(tmp_path / "whole", epochs=3, backbone="compact")
    teachers = ["teacher-1", "teacher-2", "teacher-3"]
    assert whole["run"].tolist() == [*teachers, *["taught"] * 3]
    assert whole["epoch"].tolist() == [1, 1, 1, 1, 2, 3]
    pd.testing.assert_frame_equal(from_labels[1], whole[:1].drop(columns="run"), rtol=1e-4)

    begin = _Progress.on_epoch_begin

    def die(self, epoch, logs=None):
        """In the third epoch."""
        if epoch == 2:
            raise KeyboardInterrupt
        begin(self, epoch, logs)

    monkeypatch.setattr(_Progress, "on_epoch_begin", die)
    with pytest.raises(KeyboardInterrupt):
        recipes.train_open_data(tmp_path / "pieces", epochs=3, backbone="compact")
    monkeypatch.setattr(_Progress, "on_epoch_begin", begin)
    pieces = recipes.train_open_data(tmp_path / "pieces", epochs=3, backbone="compact")
    pd.testing.assert_frame_equal(pieces, whole, rtol=1e-4)

    # What is kept is what was validated: the averaged weights, not those of the last step.
    (X, y), best = two_sources["FER"][1], whole["val_emotion_output_accuracy"][3:].max()
    folder = tmp_path / "whole" / "seed-0"
    kept = predict(load_model(folder / "model.keras"), X)["emotion"].argmax(axis=1)
    assert (kept == y[:, :7].argmax(axis=1)).mean() == pytest.approx(best, abs=1e-6)

    assert is_whole(folder, "open-data", "compact")
    assert all(is_whole(tmp_path / "whole" / name, "from-labels", "wide") for name in teachers)
    history = pd.read_csv(folder / "open-data.history.csv")
    assert history["run"].tolist() == whole["run"].tolist()
    with pytest.raises(ValueError, match=r"open-data\.json was made with .*'epochs': 3"):
        recipes.train_open_data(tmp_path / "whole", epochs=2, backbone="compact")


def test_each_teacher_has_never_seen_the_faces_that_it_teaches(two_sources, tmp_path, monkeypatch):
    seen, taught = {}, {}
    mix, teach = recipes.mixed_batches, recipes.change_and_teach

    def watch_mixing(datasets, shares, seed, change=None):
        batches = mix(datasets, shares, seed, change)
        if change and seed >= 1000:
            seen[seed - 1000] = set(image_digests(batches.images))
        return batches

    def watch_teaching(teachers=()):
        change = teach(teachers)
        for fold, teacher in enumerate(teachers):
            stored = recipes.read_weights(tmp_path / f"teacher-{fold + 1}/from-labels.weights.h5")
            for ours, theirs in zip(teacher.get_weights(), stored.get_weights(), strict=True):
                np.testing.assert_array_equal(ours, theirs)

        def watched(images, targets, seed):
            if teachers:
                for fold, part in enumerate(np.split(images, len(teachers))):
                    taught.setdefault(fold, set()).update(image_digests(part))
            return change(images, targets, seed)

        return watched

    monkeypatch.setattr(recipes, "mixed_batches", watch_mixing)
    monkeypatch.setattr(recipes, "change_and_teach", watch_teaching)
    recipes.train_open_data(tmp_path, epochs=1, backbone="compact")
    for fold in range(3):
        assert len(taught[fold]) > 3
        assert not seen[fold] & taught[fold]
        assert all(seen[fold] >= taught[other] for other in {0, 1, 2} - {fold})


def test_validation_faces_are_no_copies_of_training_faces(two_sources, monkeypatch):
    (X, y), (X_val, y_val) = two_sources["FER"]
    both = np.concatenate([X_val, X[:5]]), np.concatenate([y_val, y[:5]])
    data = two_sources | {"FER": ((X, y), both)}
    monkeypatch.setattr(recipes, "load_training_data", lambda name, _: data[name])
    train, (scored, labels) = recipes._load_sources(None, 1)
    assert len(scored) == len(labels) == 16 + 16
    assert set(image_digests(X[:5])).isdisjoint(image_digests(scored))
    assert sum(len(part) for part, _ in train) == 2 * 40 - 2 * 13  # without a fold of each source


def test_equal_pictures_become_one_with_the_mean_of_their_labels():
    X = np.arange(4, dtype=np.uint8).repeat(4).reshape(4, 2, 2, 1)[[2, 0, 2, 1, 2]]
    classes = {"emotion": [4, 1, 4, -1, 5], "gender": [-1, 0, 1, -1, -1]}
    X, y = recipes.merge_copies(
        X, encode_labels({name: np.array(c) for name, c in classes.items()})
    )
    assert X[:, 0, 0, 0].tolist() == [2, 0, 1]
    emotion = y[:, BLOCKS["emotion"]]
    np.testing.assert_allclose(emotion[0], np.eye(7)[4] * 2 / 3 + np.eye(7)[5] / 3)
    assert decode_labels(y)["gender"].tolist()[:2] == ["female", "male"]
    assert y[:, BLOCKS["gender"]].sum(axis=1).tolist() == [1, 1, 0]
    assert emotion.sum(axis=1).tolist() == [1, 1, 0]


def is_whole(folder, recipe, backbone):
    """Weights, card and pictures are there, all named after the recipe that made them."""
    card = json.loads((folder / f"{recipe}.json").read_text())
    weights = (folder / f"{recipe}.weights.h5").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == card["sha256"]
    assert card["model"] == {"backbone": backbone, "augment": True}
    assert card["recipe"]["name"] == recipe
    assert set(card["temperatures"]) == set(TASKS)
    assert all((folder / f"{recipe}-{moment}.png").is_file() for moment in ("before", "after"))
    others = set(recipes.RECIPES) - {recipe}
    return not [file for other in others for file in folder.glob(f"{other}*")]


def test_weights_of_another_recipe_or_setting_are_refused_before_anything_is_trained(
    from_labels, monkeypatch
):
    folder, _ = from_labels
    monkeypatch.setattr(recipes, "fit", None)
    assert len(recipes.train_from_labels(folder, 1, 1000, None, "wide", 0)) == 1
    made = r"from-labels\.json was made with .*'backbone': 'wide'.*: train into an empty folder"
    with pytest.raises(ValueError, match=made):
        recipes.train_from_labels(folder, 1, seed=1000, backbone="deep")
    with pytest.raises(ValueError, match=made):
        recipes.train_from_labels(folder, 1, 1000, None, "wide", 1)


@pytest.mark.parametrize("card", ["[]", "{}", '{"recipe": 1}', "no JSON"])
def test_a_damaged_card_is_named_before_anything_is_trained(card, tmp_path):
    (tmp_path / "seed-0").mkdir()
    (tmp_path / "seed-0" / "open-data.json").write_text(card)
    with pytest.raises(ValueError, match=r"open-data\.json is no card of weights .*: train into"):
        recipes.train_open_data(tmp_path)


def test_folds_are_equally_large_and_follow_from_the_pixels():
    X = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1), dtype=np.uint8)
    folds = recipes.fold_of(X)
    assert sorted(np.bincount(folds)) == [13, 13, 14]
    np.testing.assert_array_equal(recipes.fold_of(X[::-1]), folds[::-1])


def test_labels_are_mixed_with_the_answers_of_each_teacher_on_its_part_of_the_augmented_batch(
    two_sources,
):
    keras.utils.set_random_seed(0)
    teachers = [build_model() for _ in range(2)]
    train = [split for split, _ in two_sources.values()] * 2
    plain = mixed_batches(train, [6, 2] * 2, seed=5)
    mixed = mixed_batches(train, [6, 2] * 2, seed=5, change=recipes.change_and_teach(teachers))
    (faces, labels), (augmented, targets) = plain[1], mixed[1]
    augmented = np.asarray(augmented)
    assert (augmented != faces).mean() > 0.9
    answers = [
        teacher.predict_on_batch(part)
        for teacher, part in zip(teachers, np.split(augmented, 2), strict=True)
    ]
    for name, *heads in zip(OUTPUTS.values(), *answers, strict=True):
        known = labels[name].any(axis=1)
        expected = 0.2 * labels[name] + 0.8 * np.concatenate(heads)
        target = np.asarray(targets[name])
        np.testing.assert_allclose(target[known], expected[known], atol=1e-5)
        assert not target[~known].any()  # what is not labelled stays so

    again = mixed_batches(train, [6, 2] * 2, seed=5, change=mixed.change)
    again[0]
    np.testing.assert_array_equal(again[1][0], augmented)  # whatever was drawn before
    again.set_epoch(1)
    assert (np.asarray(again[1][0]) != augmented).any()

    alone = mixed_batches(train, [6, 2] * 2, seed=5, change=recipes.change_and_teach())
    np.testing.assert_array_equal(alone[1][0], augmented)
    for name, target in labels.items():
        np.testing.assert_array_equal(alone[1][1][name], target)


def test_rare_emotions_gain_half_of_what_frequency_costs_them(two_sources):
    X, y = two_sources["FER"][0]
    keras.utils.set_random_seed(0)
    model = build_model()
    before = predict(model, X)
    recipes.adjust_logits(model, y)
    after = predict(model, X)
    share = y[:, BLOCKS["emotion"]].mean(axis=0)
    wanted = before["emotion"] / np.sqrt(share)
    wanted /= wanted.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(after["emotion"], wanted, rtol=1e-4)
    np.testing.assert_array_equal(after["age"], before["age"])


def test_batch_norm_is_computed_again_from_the_faces(two_sources):
    keras.utils.set_random_seed(0)
    model = build_model()
    train = [split for split, _ in two_sources.values()]
    batches = mixed_batches(train, [12, 4], seed=0)
    before = model.get_weights()
    recipes.recompute_batch_norm(model, batches)
    stem = keras.Model(model.input, model.get_layer("stem").output)
    maps = np.concatenate([stem.predict_on_batch(batches[i][0]) for i in range(len(batches))])
    norm = model.get_layer("stem_norm")
    np.testing.assert_allclose(norm.moving_mean, maps.mean(axis=(0, 1, 2)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, maps.var(axis=(0, 1, 2)), rtol=0.05)
    assert norm.momentum == 0.9
    moved = {
        variable.path.split("/")[-1]
        for variable, old in zip(model.weights, before, strict=True)
        if not np.array_equal(variable, old)
    }
    assert moved == {"moving_mean", "moving_variance"}


@pytest.mark.parametrize(("epochs", "rise"), [(1, 1), (4, 1), (12, 3), (200, 5)])
def test_the_learning_rate_rises_for_some_epochs(epochs, rise):
    rates = recipes._optimizer(steps=10, epochs=epochs, rate=0.1)._learning_rate
    assert float(rates(0)) == pytest.approx(0.01)
    assert float(rates(10 * rise)) == pytest.approx(0.1)
    assert float(rates(10 * rise - 1)) < 0.1
    assert float(rates(10 * max(epochs, 2))) == pytest.approx(0, abs=1e-6)


def test_the_learning_rate_rises_for_an_epoch_then_falls_to_zero():
    optimizer = recipes._optimizer(steps=10, epochs=4, rate=0.1)
    rates = [float(optimizer._learning_rate(step)) for step in (0, 10, 25, 40)]
    np.testing.assert_allclose(rates, [0.01, 0.1, 0.05, 0], atol=1e-6)
    settings = optimizer.get_config()
    assert (settings["momentum"], settings["nesterov"]) == (0.9, True)
    assert (settings["use_ema"], settings["ema_momentum"]) == (True, 0.8)
    model = build_model()
    optimizer.build(model.trainable_variables)
    decayed = [v.path for v in model.trainable_variables if optimizer._use_weight_decay(v)]
    assert decayed
    assert all(path.endswith("kernel") for path in decayed)
