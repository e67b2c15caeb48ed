"""A run: learning, choosing the best epoch, and going on where it stopped."""

import json
import shutil
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import tiny
from fer_helpers import checkpoints, plots, runs
from fer_helpers.batches import batches_of, mixed_batches
from fer_helpers.labels import encode_labels
from fer_helpers.model import load_model
from fer_helpers.runs import (
    best_place,
    fit,
    rate_falls,
    read_history,
    seed_layers,
    start_margin,
    stops_early,
)
from fer_helpers.training import compile_model

ACCURACY = "val_emotion_output_accuracy"


@pytest.fixture(scope="module")
def faces():
    return tiny.faces()


def compiled(network, optimizer=None, **options):
    options = {"tasks": ("emotion",)} | options
    return compile_model(network, optimizer=optimizer or keras.optimizers.Adam(0.01), **options)


def fresh_copy(network):
    """Return a function that puts a compiled network back to where it is now."""
    network.optimizer.build(network.trainable_variables)
    variables = [*network.variables, *network.optimizer.variables]
    begun = [np.array(variable) for variable in variables]

    def fresh():
        for variable, value in zip(variables, begun, strict=True):
            variable.assign(value)
        return network

    return fresh


@pytest.fixture(scope="module")
def fresh():
    """One compiled network for all tests, untrained each time it is asked for."""
    keras.utils.set_random_seed(0)
    return fresh_copy(compiled(tiny.build()))


def batches(faces):
    return batches_of(*faces, 16, True), batches_of(*faces, 64)


@pytest.fixture(scope="module")
def four_epochs(fresh, faces, tmp_path_factory):
    """The folder of a run of four epochs, not interrupted."""
    folder = tmp_path_factory.mktemp("run") / "whole"
    fit(fresh(), *batches(faces), 4, folder)
    return folder


@pytest.fixture(scope="module")
def one_epoch(fresh, faces, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "one"
    fit(fresh(), *batches(faces), 1, folder)
    return folder


@pytest.fixture
def begun(one_epoch, tmp_path):
    """A copy of a run that was interrupted after its first epoch."""
    return shutil.copytree(one_epoch, tmp_path / "begun")


def said(name, values):
    """A callback that puts values of one's own into the history."""
    return keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update({name: values[epoch]})
    )


@pytest.mark.parametrize(
    ("monitor", "values", "best"),
    [
        ("val_emotion_output_accuracy", [0.2, 0.7, 0.5], 2),
        ("val_loss", [0.2, 0.1, 0.5], 2),
        ("val_emotion_output_accuracy", [0.2, 0.7, 0.7], 2),  # the first of equal ones
        ("val_loss", [2, 2], 1),
        ("val_loss", [np.nan, 3.0, np.nan, 2.0, np.nan], 4),
        ("val_loss", [np.nan, np.nan], 0),
        ("val_emotion_output_accuracy", [0, 0], 1),
        ("val_loss", [], 0),
    ],
)
def test_the_best_epoch_is_the_first_with_the_best_value(monitor, values, best):
    assert best_place(values, monitor) == best


def test_the_first_value_is_replaced_only_by_one_better_by_the_margin():
    assert best_place([0.5, 0.6, 0.55], ACCURACY, 0.1) == 1
    assert best_place([0.5, 0.61, 0.6, 0.62], ACCURACY, 0.1) == 4  # no margin among the others
    assert best_place([0.5, 0.45, 0.41, 0.39], "val_loss", 0.1) == 4
    assert best_place([np.nan, 0.1], ACCURACY, np.nan) == 2
    assert start_margin(0.7, 30) == pytest.approx(0.0837, abs=1e-4)
    assert (start_margin(1.0, 30), start_margin(0.5, 0)) == (0, 0.5)


def test_chance_does_not_replace_the_start(fresh, faces, tmp_path):
    """The start is right about half of 40 labelled faces, among others without a label."""
    X, number = faces[0], np.arange(len(faces[0]))
    predicted = fresh().predict_on_batch(X)[0].argmax(axis=1)
    labels = np.where(number < 40, (predicted + number % 2) % 7, -1)
    validation = batches_of(X, encode_labels({"emotion": labels}), 64)
    error = np.sqrt(0.5 * 0.5 / 40)
    kept = {}
    for name, better in (("chance", 0.9), ("clear", 1.1)):
        value = said(ACCURACY, [0.5 + better * error])
        fit(fresh(), batches(faces)[0], validation, 1, tmp_path / name, callbacks=[value], start="")
        weights = load_model(tmp_path / name / "model.keras").get_weights()
        kept[name] = all(map(np.array_equal, weights, fresh().get_weights()))
    assert kept == {"chance": True, "clear": False}


def test_the_rate_falls_every_quarter_of_the_patience_and_training_stops_after_it():
    assert [waited for waited in range(10) if rate_falls(waited, 8)] == [2, 4, 6, 8]
    assert [waited for waited in range(4) if rate_falls(waited, 3)] == [1, 2, 3]
    assert [waited for waited in range(10) if stops_early(waited, 8)] == [8, 9]
    assert not any(rate_falls(waited, None) or stops_early(waited, None) for waited in range(50))


def test_training_learns_and_keeps_the_best_epoch(fresh, faces, tmp_path, capsys):
    history = fit(fresh(), *batches(faces), 6, tmp_path)
    assert history["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    best = history[ACCURACY].max()
    assert best > 0.9
    X, y = faces
    predicted = load_model(tmp_path / "model.keras").predict_on_batch(X)[0].argmax(axis=1)
    assert (predicted == y[:, :7].argmax(axis=1)).mean() == pytest.approx(best, abs=0.02)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    row = history.iloc[1]
    assert lines[1] == f"epoch   2/6  loss {row['loss']:.3f}  emotion {row[ACCURACY]:.3f}"


def test_an_equal_epoch_does_not_replace_the_best_one(fresh, faces, begun):
    best = (begun / "model.keras").read_bytes()
    value = read_history(begun)[ACCURACY][0]
    fit(fresh(), *batches(faces), 2, begun, callbacks=[said(ACCURACY, {1: value})])
    assert (begun / "model.keras").read_bytes() == best


def test_a_better_epoch_replaces_the_best_one_after_an_interruption(fresh, faces, begun):
    best = (begun / "model.keras").read_bytes()
    fit(fresh(), *batches(faces), 2, begun, callbacks=[said(ACCURACY, {1: 1.5})])
    assert (begun / "model.keras").read_bytes() != best


def test_the_start_is_epoch_0_and_stays_the_best_until_another_is_better(
    fresh, faces, tmp_path, capsys
):
    model = fresh()
    begun = model.get_weights()
    scores = model.evaluate(batches(faces)[1], verbose=0, return_dict=True)
    start = scores["emotion_output_accuracy"]
    same = said(ACCURACY, [start, start])  # a tie goes to the start
    history = fit(model, *batches(faces), 2, tmp_path, callbacks=[same], start="somewhere")
    assert history["epoch"].tolist() == [0, 1, 2]
    for name, value in scores.items():
        assert history[f"val_{name}"][0] == pytest.approx(value)
    training = [name for name in history if name != "epoch" and not name.startswith("val_")]
    assert history.loc[0, training].isna().all()
    assert not history.loc[1:].isna().any().any()
    kept = load_model(tmp_path / "model.keras").get_weights()
    for ours, theirs in zip(kept, begun, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"epoch   0/2  emotion {start:.3f}"
    assert lines[-1] == (
        f"no epoch was clearly better than the start by {ACCURACY}: {tmp_path / 'model.keras'} "
        "holds the weights that training started from"
    )


def test_a_better_epoch_replaces_the_start_also_after_an_interruption(
    fresh, faces, tmp_path, capsys
):
    values = said(ACCURACY, {0: -1.0, 1: 1.5})
    fit(fresh(), *batches(faces), 1, tmp_path, callbacks=[values], start="somewhere")
    started = (tmp_path / "model.keras").read_bytes()
    begun = fresh().get_weights()
    kept = load_model(tmp_path / "model.keras").get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(kept, begun, strict=True))
    capsys.readouterr()
    history = fit(fresh(), *batches(faces), 2, tmp_path, callbacks=[values], start="somewhere")
    assert history["epoch"].tolist() == [0, 1, 2]  # the start is not scored twice
    assert (tmp_path / "model.keras").read_bytes() != started
    assert len(capsys.readouterr().out.splitlines()) == 1  # that of epoch 2
    whole = tmp_path / "whole"
    fit(fresh(), *batches(faces), 2, whole, callbacks=[values], start="somewhere")
    pd.testing.assert_frame_equal(read_history(whole), history, rtol=1e-4)


def test_a_start_counts_for_the_patience_and_the_rate(fresh, faces, tmp_path, capsys):
    worse = said(ACCURACY, [-1.0] * 9)
    options = {"patience": 4, "callbacks": [worse], "start": "somewhere"}
    history = fit(fresh(), *batches(faces), 9, tmp_path, **options)
    assert history["epoch"].tolist() == [0, 1, 2, 3, 4]
    rates = history["learning_rate"][1:]
    np.testing.assert_allclose(rates, [0.01, 0.003, 0.0009, 0.00027], rtol=1e-5)
    line = "stopped early after 4 of 9 epochs: val_emotion_output_accuracy has not improved for 4"
    assert line in capsys.readouterr().out
    fit(fresh(), *batches(faces), 9, tmp_path, **options)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("stopped early after 4 of 9 epochs")
    assert lines[1].startswith("no epoch was clearly better than the start")


def test_a_run_killed_before_its_first_epoch_begins_again(fresh, faces, tmp_path):
    stop = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fit(fresh(), *batches(faces), 1, tmp_path, callbacks=[stop], start="somewhere")
    assert read_history(tmp_path)["epoch"].tolist() == [0]
    assert not list(tmp_path.glob("resume-*"))
    history = fit(fresh(), *batches(faces), 1, tmp_path, start="somewhere")
    assert history["epoch"].tolist() == [0, 1]
    other = fit(fresh(), *batches(faces), 1, tmp_path / "other")
    assert other["epoch"].tolist() == [1]


def test_a_run_does_not_go_on_from_another_start(fresh, faces, begun):
    with pytest.raises(ValueError, match="start was None, is now somewhere else"):
        fit(fresh(), *batches(faces), 2, begun, start="somewhere else")


def test_a_start_whose_weights_are_lost_says_so(fresh, faces, tmp_path):
    model = fresh()
    model.get_layer("emotion_logits").bias.assign(np.full(7, np.nan))
    with pytest.raises(ValueError, match="weights contain NaN or infinity in epoch 0"):
        fit(model, *batches(faces), 1, tmp_path, start="somewhere")


def test_a_history_with_a_start_is_drawn_from_0(fresh, faces, tmp_path):
    history = fit(fresh(), *batches(faces), 1, tmp_path, start="somewhere")
    figure = plots.learning_curves(history)
    training, validation = figure.axes[0].lines
    np.testing.assert_array_equal(validation.get_xdata(), [0, 1])
    assert np.isfinite(validation.get_ydata()).all()
    assert np.isfinite(training.get_ydata()).tolist() == [False, True]
    plt.close(figure)


def test_a_run_that_stopped_early_does_not_stop_the_next_one(fresh, faces, tmp_path):
    same = said(ACCURACY, [0.5] * 9)
    model = fresh()
    assert len(fit(model, *batches(faces), 9, tmp_path / "1", patience=1, callbacks=[same])) == 2
    assert len(fit(model, *batches(faces), 1, tmp_path / "2", patience=1)) == 1


def test_a_run_whose_weights_are_lost_says_so(fresh, faces, tmp_path):
    model = fresh()
    head = model.get_layer("emotion_logits")
    spoiling = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: head.bias.assign(np.full(7, np.nan))
    )
    with pytest.raises(ValueError, match="weights contain NaN or infinity in epoch 1"):
        fit(model, *batches(faces), 2, tmp_path, callbacks=[spoiling])
    assert not (tmp_path / "history.csv").exists()


def test_a_history_of_another_program_is_named(tmp_path):
    assert len(read_history(tmp_path)) == 0
    path = tmp_path / "history.csv"
    for text, message in (
        ("", "is not a table"),
        ("epoch;loss\n1;2\n", "no column 'epoch'"),
        ("epoch,loss\n1,much\n", "text in the column 'loss'"),
        ("epoch,loss\none,0.1\n", "text in the column 'epoch'"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"history\.csv .*{message}"):
            read_history(tmp_path)


def test_an_epoch_without_a_number_is_not_the_best(fresh, faces, tmp_path):
    """Not the first, and not in the way of those that follow."""
    nothing = said("val_loss", {0: np.nan})
    fit(fresh(), *batches(faces), 1, tmp_path, "val_loss", callbacks=[nothing])
    assert not (tmp_path / "model.keras").exists()
    history = fit(fresh(), *batches(faces), 3, tmp_path, "val_loss")
    kept = fresh()
    kept.set_weights(load_model(tmp_path / "model.keras").get_weights())
    scores = kept.evaluate(batches(faces)[1], verbose=0, return_dict=True)
    assert scores["loss"] == pytest.approx(history["val_loss"].min(), rel=1e-3)


def test_what_fit_refuses(fresh, faces, begun, tmp_path):
    with pytest.raises(ValueError, match="no 'val_emotion_acuracy' in the history: choose from"):
        fit(fresh(), *batches(faces), 1, tmp_path / "name", "val_emotion_acuracy", patience=None)
    with pytest.raises(ValueError, match="patience must be at least 1 epoch, or None, not 0"):
        fit(fresh(), *batches(faces), 1, tmp_path / "patience", patience=0)
    (begun / "resume-1.keras").write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"resume-1\.keras cannot be loaded"):
        fit(fresh(), *batches(faces), 2, begun)
    (begun / "resume-1.keras").unlink()
    with pytest.raises(FileNotFoundError, match=r"no resume-1\.keras to go on from"):
        fit(fresh(), *batches(faces), 2, begun)


def test_a_second_run_in_the_same_folder_is_refused(fresh, faces, begun):
    """It would put the history back, and take the files away that are being written."""
    pytest.importorskip("fcntl")
    (begun / ".writing-1-model.keras").touch()
    before = {path.name: path.read_bytes() for path in begun.iterdir()}
    with (
        checkpoints.locked(begun / ".lock", begun),
        pytest.raises(OSError, match=rf"{begun} is in use"),
    ):
        fit(fresh(), *batches(faces), 2, begun)
    assert {path.name: path.read_bytes() for path in begun.iterdir()} == before
    assert len(fit(fresh(), *batches(faces), 2, begun)) == 2


def test_patience_and_a_schedule_do_not_go_together(faces, tmp_path):
    schedule = keras.optimizers.schedules.CosineDecay(0.01, 100)
    model = compiled(tiny.build(), keras.optimizers.SGD(schedule))
    with pytest.raises(ValueError, match="give fit patience=None"):
        fit(model, *batches(faces), 1, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_an_interrupted_run_ends_as_if_it_had_not_been(faces, four_epochs, tmp_path):
    """With networks built anew, as in another process: their layers have other names."""
    whole = read_history(four_epochs)
    for epochs in (2, 4):
        keras.utils.set_random_seed(0)
        history = fit(compiled(tiny.build()), *batches(faces), epochs, tmp_path)
    pd.testing.assert_frame_equal(history, whole, rtol=1e-4)
    assert len(list(tmp_path.glob("resume-*"))) == 1


def test_epochs_that_were_not_yet_written_are_trained_again(fresh, faces, four_epochs, tmp_path):
    def die(epoch, logs=None):
        if epoch == 3:
            raise KeyboardInterrupt

    callback = keras.callbacks.LambdaCallback(on_epoch_begin=die)
    with pytest.raises(KeyboardInterrupt):
        fit(fresh(), *batches(faces), 4, tmp_path, callbacks=[callback], save_every=2)
    assert len(read_history(tmp_path)) == 2
    history = fit(fresh(), *batches(faces), 4, tmp_path, save_every=3)  # and after the last one
    pd.testing.assert_frame_equal(history, read_history(four_epochs), rtol=1e-4)
    with pytest.raises(ValueError, match="save_every must be at least 1 epoch, not 0"):
        fit(fresh(), *batches(faces), 4, tmp_path, save_every=0)


def test_the_best_epoch_is_kept_until_it_is_written(fresh, faces, tmp_path):
    """It is the second one; the files are written after the third."""
    best = []
    for save_every in (1, 3):
        folder = tmp_path / str(save_every)
        callbacks = [said(ACCURACY, [0.5, 0.9, 0.1])]
        fit(fresh(), *batches(faces), 3, folder, callbacks=callbacks, save_every=save_every)
        best.append(load_model(folder / "model.keras").get_weights())
    last = load_model(tmp_path / "3" / "resume-3.keras").get_weights()
    moved = 0
    for at_once, kept, later in zip(*best, last, strict=True):
        np.testing.assert_allclose(kept, at_once, rtol=1e-3, atol=1e-5)
        moved = max(moved, np.abs(kept - later).max())
    assert moved > 1e-3


def test_a_finished_run_says_that_it_has_all_its_epochs(fresh, faces, begun, capsys):
    before = read_history(begun)
    capsys.readouterr()
    model = fresh()
    pd.testing.assert_frame_equal(fit(model, *batches(faces), 1, begun), before)
    assert capsys.readouterr().out == f"{begun} has 1 epochs already: nothing was trained\n"
    assert int(model.optimizer.iterations) == 8  # its weights are those of the run


def test_a_rate_that_has_fallen_stays_so_after_an_interruption(fresh, faces, tmp_path):
    same = said(ACCURACY, [0.5] * 4)
    fit(fresh(), *batches(faces), 2, tmp_path, patience=4, callbacks=[same])
    history = fit(fresh(), *batches(faces), 4, tmp_path, patience=4, callbacks=[same])
    np.testing.assert_allclose(history["learning_rate"], [0.01, 0.01, 0.003, 0.0009], rtol=1e-5)


def test_a_fallen_rate_is_no_other_setting_and_does_not_outlive_the_run(fresh, faces, tmp_path):
    """The same network goes on, as in a notebook, without being compiled again."""
    same = said(ACCURACY, [0.5] * 4)
    model = fresh()
    fit(model, *batches(faces), 3, tmp_path / "1", patience=4, callbacks=[same])
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)
    assert len(fit(model, *batches(faces), 4, tmp_path / "1", patience=4, callbacks=[same])) == 4
    second = fit(model, *batches(faces), 1, tmp_path / "2", patience=4)
    assert second["learning_rate"].tolist() == pytest.approx([0.01])


def test_early_stopping_is_remembered_and_a_longer_patience_goes_on(fresh, faces, tmp_path, capsys):
    same = said(ACCURACY, [0.5] * 20)

    def go(patience):
        capsys.readouterr()
        history = fit(fresh(), *batches(faces), 20, tmp_path, "val_emotion_output_accuracy",
                      patience, [same])  # fmt: skip
        return len(history), capsys.readouterr().out.splitlines()

    why = "stopped early after {} of 20 epochs: val_emotion_output_accuracy has not improved for "
    done, lines = go(2)
    assert done == 3
    assert lines[-1] == why.format(3) + "2 epochs. A longer patience would train on"
    assert go(2) == (3, lines[-1:])
    done, lines = go(3)
    assert done == 4
    assert lines[-1].startswith(why.format(4) + "3 epochs")


def test_a_callback_that_stops_a_run_is_not_taken_for_patience(fresh, faces, tmp_path, capsys):
    model = fresh()
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(model, "stop_training", True)
    )
    assert len(fit(model, *batches(faces), 3, tmp_path, callbacks=[stop])) == 1
    assert len(capsys.readouterr().out.splitlines()) == 1


def other_labels(faces):
    return faces[0], encode_labels({"emotion": np.arange(len(faces[0])) % 3})


def other_pixel(faces):
    X = faces[0].copy()
    X[-1, -1, -1] ^= 1
    return X, faces[1]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("training.labels.emotion_output", lambda f: (batches_of(*other_labels(f), 16, True), 0)),
        ("training.images", lambda f: (batches_of(*other_pixel(f), 16, True), 0)),
        ("training.images", lambda f: (batches_of(f[0][:96], f[1][:96], 16, True), 0)),
        ("validation.images", lambda f: (0, batches_of(*other_pixel(f), 64))),
        ("validation.labels.emotion_output", lambda f: (0, batches_of(*other_labels(f), 64))),
        ("training.batch_size was 16, is now 32", lambda f: (batches_of(*f, 32, True), 0)),
        ("training.seed was 0, is now 1", lambda f: (batches_of(*f, 16, True, seed=1), 0)),
        ("training.is_training", lambda f: (batches_of(*f, 16), 0)),
        ("training.sources", lambda f: (mixed_batches([f], [16]), 0)),
        ("training.changed", lambda f: (mixed_batches([f], [16], change=print), 0)),
    ],
)
def test_a_run_does_not_go_on_with_other_faces(name, change, fresh, faces, begun):
    given = [new or old for new, old in zip(change(faces), batches(faces), strict=True)]
    with pytest.raises(ValueError, match=rf"begun with other settings: .*{name}"):
        fit(fresh(), *given, 2, begun)


def other_backbone(rate=0.2, width=4):
    def backbone(x):
        x = keras.layers.Conv2D(width, 5, 4, activation="relu", name="cam")(x)
        x = keras.layers.BatchNormalization(momentum=0.9)(x)
        return keras.layers.Dropout(rate)(keras.layers.Flatten()(x))

    return tiny.build(backbone=backbone)


def without_turns():
    network = tiny.build()
    network.get_layer("augmentation").settings["rotation"] = 0.0
    return network


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (r"layers.* Dropout\.rate was 0\.2, is now 0\.3", lambda: compiled(other_backbone(0.3))),
        (r"layers.* Conv2D\.filters was 4, is now 8", lambda: compiled(other_backbone(width=8))),
        (r"RandomFace\.rotation was 10\.0, is now 0\.0", lambda: compiled(without_turns())),
        (r"layers\..* more\. Train into another folder", lambda: compiled(tiny.build(False))),
        (
            r"loss\.emotion_output\.config\.label_smoothing was 0\.0, is now 0\.1",
            lambda: compiled(tiny.build(), label_smoothing=0.1),
        ),
        (
            r"loss\.gender_output\.config\.class_weights was None, is now \[1\.0, 2\.0, 1\.0\]",
            lambda: compiled(tiny.build(), class_weights={"gender": (1, 2, 1)}),
        ),
        (
            r"loss_weights\.age_output was 4\.0, is now 0\.0",
            lambda: compiled(tiny.build(), loss_weights={"emotion": 2, "race": 1.5, "gender": 0.1}),
        ),
        (
            r"optimizer\.learning_rate was 0\.00999\d*, is now 0\.001",
            lambda: compiled(tiny.build(), keras.optimizers.Adam(0.001)),
        ),
        (
            r"optimizer\.class was Adam, is now SGD",
            lambda: compiled(tiny.build(), keras.optimizers.SGD(0.01)),
        ),
        (
            r"optimizer\.weight_decay was None, is now 0\.1",
            lambda: compiled(tiny.build(), keras.optimizers.Adam(0.01, weight_decay=0.1)),
        ),
        (
            r"float16 was False, is now True",
            lambda: compiled(
                tiny.build(), keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01))
            ),
        ),
    ],
)
def test_a_run_does_not_go_on_with_another_network(name, change, faces, begun):
    with pytest.raises(ValueError, match=f"begun with other settings: .*{name}"):
        fit(change(), *batches(faces), 2, begun)


def test_a_run_does_not_go_on_with_another_monitor(fresh, faces, begun):
    with pytest.raises(ValueError, match="monitor was val_emotion_output_accuracy, is now val_los"):
        fit(fresh(), *batches(faces), 2, begun, "val_loss")


def test_the_same_run_goes_on_whatever_its_arrays_look_like_in_memory(
    fresh, faces, begun, tmp_path
):
    X, y = faces
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    columns = np.asfortranarray(y)
    assert not columns.flags["C_CONTIGUOUS"]
    assert len(fit(fresh(), *batches((mapped, columns)), 2, begun)) == 2


def test_nothing_is_refused_before_an_epoch_is_done(fresh, faces, begun, tmp_path):
    (begun / "history.csv").unlink()
    small = batches_of(*faces, 8, True), batches_of(*faces, 64)
    assert len(fit(fresh(), *small, 1, begun)) == 1
    assert json.loads((begun / "settings.json").read_text())["training"]["batch_size"] == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"network": "compact", "images": 128}', "written by another version"),
        ("[]", "written by another version"),
        ("{", "is not JSON"),
    ],
)
def test_settings_that_cannot_be_compared_are_an_error(text, message, fresh, faces, begun):
    (begun / "settings.json").write_text(text)
    with pytest.raises(ValueError, match=rf"settings\.json .*{message}"):
        fit(fresh(), *batches(faces), 2, begun)


def test_a_history_without_what_the_run_chooses_by_is_an_error(fresh, faces, begun):
    read_history(begun).drop(columns=ACCURACY).to_csv(begun / "history.csv", index=False)
    with pytest.raises(ValueError, match=rf"history\.csv has no column '{ACCURACY}'"):
        fit(fresh(), *batches(faces), 2, begun)


def flip(path):
    """Change one bit of the weights."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"garbage"), flip])
def test_a_best_epoch_that_is_lost_is_an_error(spoil, epochs, fresh, faces, begun):
    spoil(begun / "model.keras")
    with pytest.raises(ValueError, match=r"model\.keras, .* is missing or damaged: put it back"):
        fit(fresh(), *batches(faces), epochs, begun)


def test_missing_settings_are_an_error(fresh, faces, begun):
    (begun / "settings.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no settings\.json to compare with"):
        fit(fresh(), *batches(faces), 2, begun)


def test_devices_share_batches_evenly(fresh, faces, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "process_info", lambda: (0, 1, 3))
    with pytest.raises(ValueError, match="batch_size 16 cannot be shared by 3 devices"):
        fit(fresh(), *batches(faces), 1, tmp_path)


def test_only_rank_0_writes_and_talks(fresh, faces, four_epochs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runs, "process_info", lambda: (1, 2, 2))
    (tmp_path / ".writing-1-model.keras").touch()
    history = fit(fresh(), *batches(faces), 1, tmp_path)
    pd.testing.assert_frame_equal(history, read_history(four_epochs)[:1], rtol=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == [".writing-1-model.keras"]
    assert capsys.readouterr().out == ""
    monkeypatch.undo()
    fit(fresh(), *batches(faces), 1, tmp_path)
    assert not list(tmp_path.glob(".writing-*"))


def test_averaged_weights_are_validated_and_kept(faces, tmp_path):
    optimizer = keras.optimizers.SGD(0.01, use_ema=True, ema_momentum=0.9)
    model = compiled(tiny.build(), optimizer)
    latest = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: latest.extend(model.get_weights())
    )
    history = fit(model, *batches(faces), 1, tmp_path, callbacks=[watch])
    kept = load_model(tmp_path / "model.keras").get_weights()
    assert not np.allclose(kept[0], latest[0], atol=1e-5)
    model.set_weights(kept)
    scores = model.evaluate(batches(faces)[1], verbose=0, return_dict=True)
    assert scores["loss"] == pytest.approx(history["val_loss"][0], rel=1e-3)


def random_layers():
    """Keras' own random layers, one of them inside another network, whatever their names."""
    image = keras.Input((8, 8, 1))
    inner = keras.Sequential([keras.layers.Dropout(0.5)])
    x = keras.layers.RandomTranslation(0.4, 0.4)(image)
    first, second = keras.layers.Dropout(0.5)(x), inner(x)
    return keras.Model(image, [x, first, second])


def test_all_random_layers_are_seeded_each_with_its_own_seed():
    image = np.random.default_rng(0).uniform(1, 2, (4, 8, 8, 1)).astype("float32")

    def draw(model, *seed):
        seed_layers(model, *seed)
        return [keras.ops.convert_to_numpy(out) for out in model(image, training=True)]

    model = random_layers()
    moved, first, second = draw(model, 0, 1)
    assert np.abs(moved - image).mean() > 0.1
    assert ((first == 0) != (second == 0)).mean() > 0.2
    draw(model, 0, 2)
    for again in (draw(model, 0, 1), draw(random_layers(), 0, 1)):
        for one, other in zip(again, (moved, first, second), strict=True):
            np.testing.assert_array_equal(one, other)
    for other in (draw(model, 0, 2), draw(model, 1, 1), draw(model, 1, 0)):
        assert not np.array_equal(other[0], moved)
        assert not np.array_equal(other[1], first)


def test_an_epoch_draws_by_seed_and_epoch(fresh, faces, tmp_path):
    model = fresh()
    seen = []
    watch = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: seen.append(
        [np.array(state) for state in model.variables if "seed" in state.path]))  # fmt: skip
    train, validation = batches_of(*faces, 64, True, seed=3), batches_of(*faces, 64)
    fit(model, train, validation, 2, tmp_path, callbacks=[watch])
    for epoch in range(2):
        seed_layers(model, 3, epoch)
        now = [np.array(state) for state in model.variables if "seed" in state.path]
        np.testing.assert_array_equal(seen[2 * epoch], now)
