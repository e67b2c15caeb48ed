"""Compiling by name, choosing what the best epoch is chosen by, and `train` as a whole."""

import hashlib
from pathlib import Path

import keras
import numpy as np
import pytest

import tiny
from fer_helpers import model, training
from fer_helpers.batches import batches_of, generate_images
from fer_helpers.labels import TASKS, encode_labels, separate_category
from fer_helpers.model import load_model
from fer_helpers.training import (
    PAPER_LOSS_WEIGHTS,
    compile_model,
    labelled_tasks,
    monitored_metric,
    origin,
    train,
    weights_of,
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

    def fit(*arguments, start):
        names = ("model", "train", "validation", "epochs", "out_dir", "monitor")
        return dict(zip(names, arguments, strict=True)) | {"start": start}

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
        ({"age": [-1]}, {"age": [0]}, {"age": 1}, "the training faces have no labels"),
        (
            {"emotion": [0], "age": [0]},
            {"age": [0]},
            {"race": 1, "emotion": 0},
            "training faces have labels for emotion, age only, whose loss weights are 0: nothing",
        ),
        (
            {"emotion": [0], "age": [0]},
            {"emotion": [0]},
            {"age": 4, "emotion": 0},
            "validation faces have no labels for age, trained here",
        ),
        (
            {"emotion": [0], "age": [0]},
            {"race": [0]},
            PAPER_LOSS_WEIGHTS,
            "validation faces have no labels for emotion, age, trained here",
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
    def load(name, data_dir, labels, ignore):
        raise FileNotFoundError(f"no {name} in {data_dir}, {labels}, {ignore}")

    monkeypatch.setattr(training, "load_training_data", load)
    with pytest.raises(FileNotFoundError, match=f"no FER in {tmp_path}, ferplus, sad"):
        train("FER", data_dir=tmp_path, labels="ferplus", ignore="sad")


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


@pytest.fixture
def four_faces(monkeypatch):
    X = np.zeros((4, 48, 48, 1), np.uint8)
    y = encode_labels({"emotion": [0, 1, 2, 3]})
    monkeypatch.setattr(training, "load_training_data", lambda *_, **__: ((X, y), (X, y)))


@pytest.mark.parametrize(
    ("dataset_name", "options", "source"),
    [
        ("RAFDB", {}, "FER"),
        ("my/faces", {}, "FER"),
        ("my/faces", {"start": "UTKFACE"}, "UTKFACE"),
        ("UTKFACE", {"start": "FER"}, "FER"),
        ("SAMPLE", {"start": "FER"}, "FER"),
        ("RAFDB", {"start": "none"}, None),
        ("RAFDB", {"backbone": "compact"}, None),
        ("my/faces", {"backbone": "compact"}, None),
        ("SAMPLE", {}, None),
        ("FER", {}, None),
        ("UTKFACE", {}, None),
    ],
)
def test_other_faces_start_from_the_weights_that_know_faces(
    dataset_name, options, source, four_faces, asked, capsys
):
    """All of these weights, temperatures and averages too: epoch 0 is the untouched network."""
    run = train(dataset_name, 1, **options)
    network = run["model"]
    rate = float(keras.ops.convert_to_numpy(network.optimizer.learning_rate))
    printed = capsys.readouterr().out
    assert ("starting from the shipped weights" in printed) == (source == "FER" and not options)
    assert network.layers[1].name == "augmentation" or dataset_name == "SAMPLE"
    if source is None:
        assert (network.name, run["start"]) == ("compact", None)
        assert rate == pytest.approx(training.LEARNING_RATE)
        return
    shipped = load_model(source)
    assert network.name == shipped.name
    for ours, theirs in zip(network.get_weights(), shipped.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert rate == pytest.approx(1e-4)
    assert train(dataset_name, **options)["epochs"] == 12
    assert run["start"] == f"the shipped weights for {source}, trained on {origin(source)}"


def test_a_start_with_another_backbone_is_refused(four_faces):
    with pytest.raises(ValueError, match=r"FER holds a .* network, but 'paper' is asked for"):
        train("UTKFACE", 1, backbone="paper", start="FER")


def test_a_start_that_training_cannot_improve_is_what_is_kept(
    faces, given, tmp_path, monkeypatch, capsys
):
    """Ruined by the rate, the network is worse after each epoch than before the first."""
    train("SAMPLE", 4, tmp_path / "begin", batch_size=16)
    begin = load_model(tmp_path / "begin" / "model.keras")
    monkeypatch.setattr(training, "FINE_TUNING_RATE", 30.0)
    out = tmp_path / "run"
    history = train("mine", 2, out, batch_size=16, start=tmp_path / "begin" / "model.keras")
    assert history["epoch"].tolist() == [0, 1, 2]
    kept = load_model(out / "model.keras")
    for ours, theirs in zip(kept.get_weights(), begin.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert "no epoch was clearly better than the start" in capsys.readouterr().out


def test_where_weights_come_from_is_handed_on(given, tmp_path):
    first, second = (tmp_path / name / "model.keras" for name in ("first", "second"))
    train("SAMPLE", 1, first.parent, batch_size=16)
    scratch = "64 faces (settings.json has their digest), starting from random weights"
    assert origin(first) == scratch
    train("mine", 1, second.parent, batch_size=16, start=first)
    named = f"weights {hashlib.sha256(first.read_bytes()).hexdigest()[:12]} in {first}"
    wanted = f"64 faces (settings.json has their digest), starting from {named}, trained on "
    assert origin(second) == wanted + scratch
    assert "non-commercial research and teaching" in origin("FER")
    first.write_bytes(first.read_bytes() + b" ")  # other weights are another start
    with pytest.raises(ValueError, match=r"start was weights .*, is now weights"):
        train("mine", 2, second.parent, batch_size=16, start=first)
    (first.parent / "settings.json").write_text("[]")
    for unknown in (first, tmp_path / "none.keras"):
        assert origin(unknown) == "not stated"


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("SAMPLE", "SAMPLE"),
        ("my/faces/", "faces"),
        ("/data/my.faces", "my.faces"),
        ("faces.zip", "faces"),
        ("people.csv", "people"),
    ],
)
def test_a_run_is_written_below_results(name, folder):
    assert training.run_folder(name) == Path("results") / folder


def test_a_run_on_the_working_folder_has_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert training.run_folder(".") == Path("results") / tmp_path.name


def test_balanced_classes_weigh_alike():
    y = encode_labels({"emotion": [0, 0, 0, 1, 3, 3, -1, -1], "age": [4] * 8})
    weights = weights_of("emotion", "balanced", y)
    # N / (K n): six labelled faces, three classes.
    assert weights == pytest.approx([6 / 9, 6 / 3, 0, 6 / 6, 0, 0, 0])
    assert weights_of("age", "balanced", y) == [0, 0, 0, 0, 1]
    y = np.zeros((2, 18))
    y[:, 7:10] = [[0.75, 0.25, 0], [0, 1, 0]]  # votes
    assert weights_of("gender", "balanced", y) == pytest.approx([2 / 1.5, 2 / 2.5, 0])


def test_given_class_weights_are_taken_in_order_or_by_name():
    assert weights_of("gender", (1, 2, 0.5)) == [1, 2, 0.5]
    assert weights_of("gender", np.array([3, 2, 1])) == [3, 2, 1]
    assert weights_of("race", {"Asian": 4, "Caucasian": 0}) == [0, 1, 4]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"mood": "balanced"}, "unknown task 'mood'"),
        ({"emotion": {"joyy": 2}}, "emotion has no class 'joyy' to weigh: choose from surprise, "),
        ({"emotion": [1, 2]}, "emotion has 7 classes, but 2 class weights"),
        ({"gender": ["a", 1, 1]}, "class weights of gender must be numbers, not"),
        ({"gender": [None, 1, 1]}, "class weights of gender must be numbers, not"),
        ({"gender": [-1, 1, 1]}, "class weights must be finite and at least 0"),
        ({"emotion": "balance"}, "must be 'balanced' or numbers, not 'balance'"),
        ({"emotion": "balanced"}, "balanced class weights of emotion need faces that are labelled"),
    ],
)
def test_bad_class_weights_are_named(weights, message):
    with pytest.raises(ValueError, match=message):
        compile_model(tiny.build(), class_weights=weights)


def test_balanced_weights_need_labels_of_their_task(faces):
    with pytest.raises(ValueError, match="balanced class weights of age need faces"):
        compile_model(tiny.build(), class_weights={"age": "balanced"}, y=faces[1])


def test_class_weights_are_those_of_their_tasks_loss(faces, given, asked):
    X = faces[0]
    given((X[:60], encode_labels({"emotion": [0] * 45 + [1] * 15, "age": [1] * 60})), faces)
    weights = {"emotion": "balanced", "gender": {"unsure": 0}}
    config = train("SAMPLE", class_weights=weights)["model"].get_compile_config()["loss"]
    given = {name: loss["config"]["class_weights"] for name, loss in config.items()}
    assert given == {
        "emotion_output": pytest.approx([60 / 90, 2, 0, 0, 0, 0, 0]),
        "gender_output": [1, 1, 0],
        "race_output": None,
        "age_output": None,
    }


def test_a_rare_class_is_learnt_with_balanced_weights():
    """Two classes that look alike, one of which has nine times the faces."""
    X = np.random.default_rng(0).integers(0, 256, (100, 48, 48, 1), dtype=np.uint8)
    y = encode_labels({"emotion": [0] * 90 + [1] * 10})
    shares = {}
    for given in (None, {"emotion": "balanced"}):
        keras.utils.set_random_seed(0)
        network = compile_model(
            tiny.build(False),
            {"emotion": 1},
            ("emotion",),
            keras.optimizers.Adam(0.1),
            class_weights=given,
            y=y,
        )
        for layer in network.layers:  # it can learn how frequent a class is, and nothing else
            layer.trainable = layer.name == "emotion_logits"
        logits = network.get_layer("emotion_logits")
        logits.kernel.assign(np.zeros(logits.kernel.shape))
        logits.kernel.trainable = False
        network.fit(batches_of(X, y, 100), epochs=60, verbose=0)
        shares[str(given)] = network.predict_on_batch(X[:1])[0][0, 1]
    plain, balanced = shares.values()
    assert plain == pytest.approx(0.1, abs=0.02)
    assert balanced == pytest.approx(0.5, abs=0.02)


def test_a_face_without_weight_is_not_learnt(faces):
    """`sample_weight` end to end: through batches, loss and metric."""
    X, y = faces
    weight = np.where(np.arange(64) < 16, 2.5, 0)
    blocks = dict(zip(("ages", "emotions", "genders", "races"), separate_category(y), strict=True))
    network = compile_model(tiny.build(), {"emotion": 1}, ("emotion",))
    whole = generate_images(X, **blocks, batch_size=64, sample_weight=weight)
    ours = network.evaluate(whole, verbose=0, return_dict=True)
    alone = network.evaluate(batches_of(X[:16], y[:16], 64), verbose=0, return_dict=True)
    assert ours == pytest.approx(alone, rel=1e-4)
    assert network.fit(whole, epochs=1, verbose=0).history["loss"][0] > 0
