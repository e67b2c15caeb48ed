"""Compiling by name, choosing what the best epoch is chosen by, and `train` as a whole."""

import keras
import numpy as np
import pytest

import tiny
from fer_helpers import model, training
from fer_helpers.batches import batches_of
from fer_helpers.labels import TASKS, encode_labels
from fer_helpers.model import load_model
from fer_helpers.training import (
    PAPER_LOSS_WEIGHTS,
    compile_model,
    labelled_tasks,
    monitored_metric,
    train,
)


@pytest.fixture(scope="module")
def faces():
    return tiny.faces(64)


@pytest.fixture
def given(faces, monkeypatch):
    """Let `train` find a tiny network, and the faces that a test gives it."""
    monkeypatch.setitem(model.BACKBONES, "compact", tiny.backbone)

    def give(learnt=faces, chosen=faces):
        monkeypatch.setattr(training, "load_training_data", lambda *_, **__: (learnt, chosen))

    give()
    return give


@pytest.fixture
def asked(given, monkeypatch):
    """What `train` asks `fit` for, instead of training."""

    def fit(*arguments):
        names = ("model", "train", "validation", "epochs", "out_dir", "monitor")
        return dict(zip(names, arguments, strict=True))

    monkeypatch.setattr(training, "fit", fit)


def labelled(**classes):
    count = max(map(len, classes.values()))
    return np.zeros((count, 48, 48, 1), np.uint8), encode_labels(classes)


@pytest.fixture(scope="module")
def scores(faces):
    """Losses and accuracies of 64 faces with labels of all tasks, and of emotion alone."""
    keras.utils.set_random_seed(0)
    network = compile_model(tiny.build())
    X, emotion_only = faces
    y = emotion_only.copy()
    y[:, 7], y[:, 10], y[:, 13] = 1, 1, 1
    return [
        network.evaluate(batches_of(X, labels, 64), return_dict=True, verbose=0)
        for labels in (y, emotion_only)
    ]


def test_weighted_loss_is_the_sum_by_name(scores):
    total = sum(
        weight * scores[0][f"{task}_output_loss"]
        for task, weight in {"emotion": 2, "gender": 0.1, "race": 1.5, "age": 4}.items()
    )
    assert scores[0]["loss"] == pytest.approx(total, rel=1e-4)
    assert {f"{task}_output_accuracy" for task in TASKS} <= scores[0].keys()


def test_unlabelled_tasks_cost_nothing(scores):
    assert scores[1]["age_output_loss"] == 0
    assert scores[1]["loss"] == pytest.approx(2 * scores[1]["emotion_output_loss"], rel=1e-5)


def test_compiling_takes_what_it_is_given():
    network = compile_model(tiny.build(), {"age": 3}, ("age",), label_smoothing=0.2)
    config = network.get_compile_config()
    assert config["loss_weights"] == {
        "emotion_output": 0.0,
        "gender_output": 0.0,
        "race_output": 0.0,
        "age_output": 3.0,
    }
    smoothing = {loss["config"]["label_smoothing"] for loss in config["loss"].values()}
    assert smoothing == {0.2}
    assert [name for name, metrics in config["metrics"].items() if metrics] == ["age_output"]
    assert float(network.optimizer.learning_rate) == pytest.approx(training.LEARNING_RATE)
    optimizer = keras.optimizers.SGD()
    assert compile_model(network, optimizer=optimizer).optimizer is optimizer


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"emotion": -1}, "the loss weight of emotion is -1: it must be a finite number"),
        ({"emotion": float("nan")}, "the loss weight of emotion is nan"),
        ({"emotion": float("inf")}, "the loss weight of emotion is inf"),
        ({"emotoin": 1}, "unknown task 'emotoin'"),
        ({"emotion": 0, "age": 0}, "all loss weights are 0: nothing would be trained"),
        ({}, "all loss weights are 0: nothing would be trained"),
    ],
)
def test_bad_loss_weights_are_named(weights, message):
    with pytest.raises(ValueError, match=message):
        compile_model(tiny.build(), weights)


def test_a_task_to_report_must_exist():
    with pytest.raises(ValueError, match="unknown task 'mood'"):
        compile_model(tiny.build(), tasks=("emotion", "mood"))


def test_labelled_tasks_and_what_is_chosen_by(faces):
    assert labelled_tasks(faces[1]) == ("emotion",)
    assert labelled_tasks(labelled(gender=[-1, 0], age=[1, 1])[1]) == ("gender", "age")
    assert monitored_metric(("emotion",)) == "val_emotion_output_accuracy"
    assert monitored_metric(("age", "emotion")) == "val_emotion_output_accuracy"
    assert monitored_metric(("gender", "age")) == "val_loss"


def test_nothing_is_chosen_by_a_task_without_weight():
    both = ("emotion", "age")
    assert monitored_metric(both, {"age": 4, "emotion": 0}) == "val_loss"
    assert monitored_metric(both, {"age": 4}) == "val_loss"
    assert monitored_metric(both, {"emotion": 0.01}) == "val_emotion_output_accuracy"
    for tasks, weights in ((both, {"age": 0, "race": 1}), ((), PAPER_LOSS_WEIGHTS)):
        with pytest.raises(ValueError, match="no epoch could be chosen as the best"):
            monitored_metric(tasks, weights)


def test_train_chooses_by_emotion_only_where_it_is_trained_and_validated(given, asked):
    age = labelled(age=[0, 1])
    both = labelled(emotion=[0, 1], age=[0, 1])
    accuracy = "val_emotion_output_accuracy"
    for learnt, chosen, weights, monitor in (
        (both, both, PAPER_LOSS_WEIGHTS, accuracy),
        (both, both, {"age": 4, "emotion": 0}, "val_loss"),
        (both, both, {"age": 4}, "val_loss"),
        (both, both, {"age": 4, "emotion": 0.1}, accuracy),
        (both, age, PAPER_LOSS_WEIGHTS, "val_loss"),  # emotion has no labels to validate by
        (age, both, PAPER_LOSS_WEIGHTS, "val_loss"),  # nor here to learn from
    ):
        given(learnt, chosen)
        assert train("SAMPLE", 1, loss_weights=weights)["monitor"] == monitor


@pytest.mark.parametrize(
    ("learnt", "chosen", "weights", "message"),
    [
        ({"age": [-1]}, {"age": [0]}, {"age": 1}, "training split of SAMPLE has no labels"),
        (
            {"emotion": [0], "age": [0]},
            {"age": [0]},
            {"race": 1, "emotion": 0},
            "SAMPLE has labels for emotion, age only, whose loss weights are 0: nothing would be",
        ),
        (
            {"emotion": [0], "age": [0]},
            {"emotion": [0]},
            {"age": 4, "emotion": 0},
            "validation split of SAMPLE has no labels for age, trained here",
        ),
        (
            {"emotion": [0], "age": [0]},
            {"race": [0]},
            PAPER_LOSS_WEIGHTS,
            "validation split of SAMPLE has no labels for emotion, age, trained here",
        ),
    ],
)
def test_train_refuses_what_it_cannot_learn_or_choose_by(
    learnt, chosen, weights, message, given, asked
):
    given(labelled(**learnt), labelled(**chosen))
    with pytest.raises(ValueError, match=message):
        train("SAMPLE", 1, loss_weights=weights)


def test_train_hands_on_what_it_is_given(faces, given, asked, tmp_path, monkeypatch):
    X, y = faces
    given((X, y), (X[:50], y[:50]))
    weights = {"emotion": 3.0}
    run = train("SAMPLE", 7, tmp_path, seed=5, batch_size=16, loss_weights=weights)
    assert (run["epochs"], run["out_dir"]) == (7, tmp_path)
    learnt, chosen = run["train"], run["validation"]
    assert (learnt.batch_size, learnt.is_training, learnt.seed) == (16, True, 5)
    assert (chosen.batch_size, chosen.is_training) == (256, False)
    assert sum(len(images) for images, _ in chosen) == 50  # all of them, also the last batch
    np.testing.assert_array_equal(learnt.images, X)
    assert run["model"].get_compile_config()["loss_weights"]["emotion_output"] == 3
    assert run["model"].optimizer.built
    metrics = run["model"].get_compile_config()["metrics"]
    assert [name for name, some in metrics.items() if some] == ["emotion_output"]
    monkeypatch.chdir(tmp_path)
    again = train(seed=5)
    assert (str(again["out_dir"]), again["epochs"]) == ("results/SAMPLE", 30)
    assert (again["model"].name, again["train"].batch_size) == ("compact", 32)
    monkeypatch.setitem(model.BACKBONES, "other", tiny.backbone)
    assert train(backbone="other")["model"].name == "other"
    first, second = run["model"].get_weights(), again["model"].get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    other = train(seed=6)["model"].get_weights()
    assert not np.array_equal(other[0], second[0])


@pytest.mark.parametrize("name", ["SAMPLE", "FER", "RAFDB", "UTKFACE"])
def test_all_faces_but_drawn_ones_are_augmented(name, given, asked):
    network = train(name, 1, backbone="compact")["model"]
    assert ("augmentation" in [layer.name for layer in network.layers]) == (name != "SAMPLE")


def test_train_looks_where_it_is_told(monkeypatch, tmp_path):
    def load(name, data_dir):
        raise FileNotFoundError(f"no {name} in {data_dir}")

    monkeypatch.setattr(training, "load_training_data", load)
    with pytest.raises(FileNotFoundError, match=f"no FER in {tmp_path}"):
        train("FER", data_dir=tmp_path)


def test_a_run_with_another_seed_is_not_mixed_in(given, tmp_path):
    train("SAMPLE", 1, tmp_path, batch_size=64)
    with pytest.raises(ValueError, match=r"training\.seed was 0, is now 1"):
        train("SAMPLE", 2, tmp_path, batch_size=64, seed=1)


def test_train_goes_on_in_float16_and_keeps_float32(given, monkeypatch, tmp_path):
    monkeypatch.setattr(training, "choose_precision", lambda: "mixed_float16")
    train("SAMPLE", 1, tmp_path, batch_size=64)
    assert len(train("SAMPLE", 2, tmp_path, batch_size=64)) == 2
    monkeypatch.setattr(training, "choose_precision", lambda: "float32")
    with pytest.raises(ValueError, match="float16 was True, is now False"):
        train("SAMPLE", 3, tmp_path, batch_size=64)
    kept = load_model(tmp_path / "model.keras")
    assert {layer.compute_dtype for layer in kept.layers} == {"float32"}


@pytest.mark.parametrize(
    ("dataset_name", "backbone", "starts_trained"),
    [("RAFDB", None, True), ("RAFDB", "compact", False), ("UTKFACE", None, False)],
)
def test_rafdb_starts_from_the_weights_that_know_real_faces(
    dataset_name, backbone, starts_trained, monkeypatch
):
    X = np.zeros((4, 48, 48, 1), np.uint8)
    y = encode_labels({"emotion": [0, 1, 2, 3]})
    monkeypatch.setattr(training, "load_training_data", lambda *_, **__: ((X, y), (X, y)))
    monkeypatch.setattr(training, "fit", lambda model, *_: model)
    begun = training.train(dataset_name, 1, backbone=backbone)
    shipped = load_model("FER")
    same = begun.name == shipped.name and all(
        np.array_equal(a, b)
        for a, b in zip(begun.trainable_weights, shipped.trainable_weights, strict=True)
    )
    assert same == starts_trained
    # A temperature fits the weights that it was set for.
    assert all(begun.get_layer(name).temperature == 1 for name in begun.output_names)
    assert starts_trained or begun.name == "compact"
    assert begun.layers[1].name == "augmentation"
    rate = float(keras.ops.convert_to_numpy(begun.optimizer.learning_rate))
    wanted = training.FINE_TUNING_RATE if starts_trained else training.LEARNING_RATE
    assert rate == pytest.approx(wanted)
    with pytest.raises(ValueError, match=r"FER holds a .* network, but 'paper' is asked for"):
        training.train(dataset_name, 1, backbone="paper", start="FER")
