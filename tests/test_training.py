"""Compiling by name, learning, and going on where a run stopped."""

import keras
import numpy as np
import pandas as pd
import pytest

from fer_helpers import training
from fer_helpers.batches import batches_of
from fer_helpers.datasets import Faces
from fer_helpers.labels import encode_labels
from fer_helpers.model import build_model, load_model
from fer_helpers.training import (
    compile_model,
    fit,
    labelled_tasks,
    monitored_metric,
    read_history,
    train,
)

SMALL = (4, 4, 8, 8)


@pytest.fixture(scope="module")
def faces():
    """Faces whose emotion is plain to see: bright below or bright above."""
    generator = np.random.default_rng(0)
    emotion = np.arange(128) % 2
    X = generator.integers(0, 60, (128, 48, 48, 1), dtype=np.uint8)
    X[emotion == 0, :24] += 150
    X[emotion == 1, 24:] += 150
    return X, encode_labels({"emotion": emotion})


def run(faces, epochs, out_dir, patience=10):
    keras.utils.set_random_seed(0)
    model = compile_model(
        build_model(widths=SMALL), tasks=("emotion",), optimizer=keras.optimizers.Adam(0.01)
    )
    batches = batches_of(*faces, 16, True), batches_of(*faces, 64)
    return fit(model, *batches, epochs, out_dir, patience=patience)


def test_weighted_loss_is_the_sum_by_name(faces):
    X, y = faces
    y = y.copy()
    y[:, 7], y[:, 10], y[:, 13] = 1, 1, 1
    model = compile_model(build_model(widths=SMALL))
    batches = batches_of(X, y, 64)
    scores = model.evaluate(batches, return_dict=True, verbose=0)
    total = sum(
        weight * scores[f"{task}_output_loss"]
        for task, weight in {"emotion": 2, "gender": 0.1, "race": 1.5, "age": 4}.items()
    )
    assert scores["loss"] == pytest.approx(total, rel=1e-4)


def test_unlabelled_tasks_cost_nothing(faces):
    model = compile_model(build_model(widths=SMALL))
    scores = model.evaluate(batches_of(*faces, 64), return_dict=True, verbose=0)
    assert scores["age_output_loss"] == 0
    assert scores["loss"] == pytest.approx(2 * scores["emotion_output_loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("name", "asked"),
    [("RAFDB", ["train"]), ("FER", ["train", "validation"]), ("SAMPLE", ["train", "validation"])],
)
def test_what_is_learnt_from_and_what_is_chosen_by(name, asked, monkeypatch):
    numbers = np.arange(100, dtype=np.uint8)
    words = numbers.astype(str)
    own = {"FER": "PublicTest", "SAMPLE": "validation"}
    parts = np.array([own.get(name, "train")] * 100)
    faces = Faces(numbers[:, None, None, None], np.zeros((100, 18), np.float32), words, parts)
    seen = []

    def read(_, split="all", **__):
        seen.append(split)
        return faces

    monkeypatch.setattr(training, "read_dataset", read)
    (learnt, _), (chosen, _) = training.load_training_data(name)
    assert [part for part in seen if part != "all"] == asked  # never a test part
    if name == "RAFDB":
        assert (len(learnt), len(chosen)) == (90, 10)
        assert not set(learnt.ravel()) & set(chosen.ravel())
        _, (again, _) = training.load_training_data(name)
        np.testing.assert_array_equal(again, chosen)


def test_training_learns_and_keeps_the_best_epoch(faces, tmp_path):
    history = run(faces, 8, tmp_path)
    assert history["epoch"].tolist() == list(range(1, 9))
    assert list((tmp_path / "logs").rglob("events*"))  # for TensorBoard
    best = history["val_emotion_output_accuracy"].max()
    assert best > 0.9
    X, y = faces
    predicted = load_model(tmp_path / "model.keras").predict_on_batch(X)[0].argmax(axis=1)
    assert (predicted == y[:, :7].argmax(axis=1)).mean() == pytest.approx(best, abs=0.02)


def test_a_run_that_stopped_early_does_not_stop_the_next_one(faces, tmp_path):
    X, y = faces
    model = compile_model(build_model(widths=SMALL), tasks=("emotion",))
    batches = batches_of(np.zeros_like(X), y, 16, True), batches_of(np.zeros_like(X), y, 64)
    assert len(fit(model, *batches, 9, tmp_path / "first", patience=1)) < 9
    assert len(fit(model, *batches, 1, tmp_path / "second", patience=1)) == 1


def test_a_run_whose_weights_are_lost_says_so(faces, tmp_path):
    model = compile_model(build_model(widths=SMALL), tasks=("emotion",))
    head = model.get_layer("emotion_logits")
    spoiling = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: head.bias.assign(np.full(7, np.nan))
    )
    batches = batches_of(*faces, 16, True), batches_of(*faces, 64)
    with pytest.raises(ValueError, match="no numbers any more in epoch 1"):
        fit(model, *batches, 2, tmp_path, callbacks=(spoiling,))
    assert not (tmp_path / "history.csv").exists()


def test_corrected_labels_are_not_taken_for_the_old_ones(faces, tmp_path):
    run(faces, 1, tmp_path)
    with pytest.raises(ValueError, match=r"begun with \{'labels'"):
        run((faces[0], encode_labels({"emotion": np.arange(128) % 3})), 2, tmp_path)


def test_a_history_of_another_program_is_named(tmp_path):
    path = tmp_path / "history.csv"
    for text, message in (("", "is no table"), ("epoch;loss\n1;2\n", "no column 'epoch'")):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"history\.csv .*{message}"):
            read_history(tmp_path)


def test_an_epoch_without_a_number_is_not_the_best(faces, tmp_path):
    """Not the first, and not in the way of those that follow."""
    model = compile_model(build_model(widths=SMALL), tasks=("emotion",))
    model.optimizer = keras.optimizers.Adam(0.01)

    def spoil(epoch, logs):
        if epoch == 0:
            logs["val_loss"] = np.nan

    spoiling = keras.callbacks.LambdaCallback(on_epoch_end=spoil)
    batches = batches_of(*faces, 16, True), batches_of(*faces, 64)
    fit(model, *batches, 1, tmp_path, "val_loss", callbacks=(spoiling,))
    assert not (tmp_path / "model.keras").exists()
    history = fit(model, *batches, 3, tmp_path, "val_loss", callbacks=(spoiling,))
    best = history["val_loss"].min()
    kept = compile_model(load_model(tmp_path / "model.keras"), tasks=("emotion",))
    assert kept.evaluate(batches[1], verbose=0, return_dict=True)["loss"] == pytest.approx(
        best, rel=1e-3
    )


def test_what_fit_refuses(faces, tmp_path):
    model = compile_model(build_model(widths=SMALL), tasks=("emotion",))
    batches = batches_of(*faces, 16, True), batches_of(*faces, 64)
    with pytest.raises(ValueError, match="no 'val_emotion_acuracy' in the history: choose from"):
        fit(model, *batches, 1, tmp_path / "name", "val_emotion_acuracy", patience=None)
    run(faces, 1, tmp_path / "gone")
    (tmp_path / "gone" / "resume-1.weights.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"no resume-1\.weights\.h5 to go on from"):
        run(faces, 2, tmp_path / "gone")


def test_an_interrupted_run_ends_as_if_it_had_not_been(faces, tmp_path):
    whole = run(faces, 4, tmp_path / "whole")
    run(faces, 2, tmp_path / "parts")
    parts = run(faces, 4, tmp_path / "parts")
    pd.testing.assert_frame_equal(parts, whole, rtol=1e-4)
    again = run(faces, 4, tmp_path / "parts")
    pd.testing.assert_frame_equal(again, parts)
    assert len(list((tmp_path / "parts").glob("resume-*"))) == 1


def test_a_worse_epoch_does_not_replace_the_best_one_after_an_interruption(faces, tmp_path):
    run(faces, 4, tmp_path)
    best = (tmp_path / "model.keras").read_bytes()
    assert read_history(tmp_path)["val_emotion_output_accuracy"].max() > 0.6
    model = compile_model(build_model(widths=SMALL), tasks=("emotion",))
    model.optimizer = keras.optimizers.Adam(0.01)
    head = model.get_layer("emotion_logits")

    def spoil(*_, **__):
        head.set_weights([np.zeros_like(weight) for weight in head.get_weights()])

    spoiling = keras.callbacks.LambdaCallback(on_train_batch_end=spoil)
    batches = batches_of(*faces, 16, True), batches_of(*faces, 64)
    history = fit(model, *batches, 5, tmp_path, patience=10, callbacks=(spoiling,))
    assert history["val_emotion_output_accuracy"].iloc[-1] <= 0.5
    assert (tmp_path / "model.keras").read_bytes() == best


def test_a_rate_that_has_fallen_stays_so_after_an_interruption(faces, tmp_path):
    X, y = faces
    constant = np.zeros_like(X), y
    whole = run(constant, 4, tmp_path / "whole", patience=4)
    run(constant, 3, tmp_path / "parts", patience=4)
    parts = run(constant, 4, tmp_path / "parts", patience=4)
    pd.testing.assert_frame_equal(parts, whole, rtol=1e-4)
    rates = whole["learning_rate"]
    assert rates.iloc[2] < 0.01  # before the interruption
    falls = (rates / rates.shift()).dropna()
    assert falls[falls < 1].to_numpy() == pytest.approx(0.3, rel=1e-3)


def test_early_stopping_is_remembered(faces, tmp_path):
    X, y = faces
    constant = np.zeros_like(X), y
    stopped = run(constant, 20, tmp_path, patience=2)
    assert len(stopped) < 20
    assert len(run(constant, 20, tmp_path, patience=2)) == len(stopped)


def test_a_run_with_other_settings_is_not_mixed_in(tmp_path, small_sample):
    train("SAMPLE", 1, tmp_path, data_dir=small_sample, batch_size=256)
    with pytest.raises(ValueError, match=r"begun with \{'seed': 0\}, now asked for with"):
        train("SAMPLE", 2, tmp_path, data_dir=small_sample, batch_size=256, seed=1)


def test_each_setting_is_remembered(faces, tmp_path):
    def go(age=4.0, batch_size=16, images=128, optimizer=keras.optimizers.Adam, name="compact"):
        model = build_model(widths=SMALL) if name == "compact" else build_model(name)
        weights = training.PAPER_LOSS_WEIGHTS | {"age": age}
        compile_model(model, weights, ("emotion",), optimizer(0.01))
        X, y = faces[0][:images], faces[1][:images]
        fit(model, batches_of(X, y, batch_size, True), batches_of(X, y, 64), 1, tmp_path)

    go()
    others = {
        "loss_weights.age_output": {"age": 1.0},
        "batch_size": {"batch_size": 32},
        "images": {"images": 96},
        "optimizer.class": {"optimizer": keras.optimizers.SGD},
        "network": {"name": "paper"},
    }
    for name, other in others.items():
        with pytest.raises(ValueError, match=f"begun with .*'{name}'"):
            go(**other)


def test_train_goes_on_in_float16_and_keeps_float32(faces, monkeypatch, tmp_path):
    monkeypatch.setattr(training, "load_training_data", lambda *_, **__: (faces, faces))
    monkeypatch.setattr(training, "choose_precision", lambda: "mixed_float16")
    train("SAMPLE", 1, tmp_path, batch_size=64)
    assert len(train("SAMPLE", 2, tmp_path, batch_size=64)) == 2
    monkeypatch.setattr(training, "choose_precision", lambda: "float32")
    with pytest.raises(ValueError, match=r"begun with \{'float16': True\}"):
        train("SAMPLE", 3, tmp_path, batch_size=64)
    kept = load_model(tmp_path / "model.keras")
    assert {layer.compute_dtype for layer in kept.layers} == {"float32"}


def test_resuming_with_another_network_says_so(faces, tmp_path):
    run(faces, 1, tmp_path)
    other = compile_model(build_model(widths=(8, 8, 8, 8)), tasks=("emotion",))
    with pytest.raises(ValueError, match="does not fit this model"):  # of the same name
        fit(other, batches_of(*faces, 16, True), batches_of(*faces, 64), 2, tmp_path)


def test_weights_of_losses_that_the_data_have_no_labels_for(faces, monkeypatch, tmp_path):
    X, y = faces
    monkeypatch.setattr(training, "load_training_data", lambda *_, **__: ((X, y), (X, y)))
    labelled = labelled_tasks(y)
    weights = {task: float(task not in labelled) for task in training.PAPER_LOSS_WEIGHTS}
    assert any(weights.values())
    with pytest.raises(ValueError, match="only, whose losses weigh 0"):
        train("SAMPLE", 1, tmp_path, loss_weights=weights)


def test_labelled_tasks_and_what_they_are_chosen_by(faces):
    assert labelled_tasks(faces[1]) == ("emotion",)
    assert monitored_metric(("emotion",)) == "val_emotion_output_accuracy"
    assert monitored_metric(("gender", "age")) == "val_loss"


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"emotion": -1}, "loss weight of emotion is -1"),
        ({"emotion": float("nan")}, "loss weight of emotion is nan"),
        ({"emotoin": 1}, "unknown task 'emotoin'"),
        ({"emotion": 0, "age": 0}, "all loss weights are 0"),
    ],
)
def test_bad_loss_weights_are_named(weights, message):
    with pytest.raises(ValueError, match=message):
        compile_model(build_model(widths=SMALL), weights)


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
