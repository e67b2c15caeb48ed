"""The command line, as a shell user meets it."""

import argparse
import functools
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage import data

from fer_helpers import cli, commands, load_model, predict, scores, training
from fer_helpers.cli import main
from fer_helpers.datasets import Faces
from fer_helpers.labels import TASKS
from fer_helpers.model import BACKBONES
from fer_helpers.studies import __main__ as studies
from fer_helpers.studies import attributes, recipes
from fer_helpers.training import compile_model


@pytest.fixture(autouse=True)
def _interrupts():
    """A shell that starts the tests in the background has them ignore Ctrl-C: not these."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def out_of(capsys, *arguments, main=main):
    assert main([str(word) for word in arguments]) == 0
    return capsys.readouterr().out


def write_bytes(path, content=b""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def tiny(monkeypatch):
    """A narrow network, trained step by step: tracing a graph takes longer than these runs."""
    narrow = functools.partial(BACKBONES["compact"], widths=(4, 4, 8))
    monkeypatch.setitem(BACKBONES, "compact", narrow)

    def compile_eagerly(model, *args, **options):
        compile_model(model, *args, **options).run_eagerly = True

    monkeypatch.setattr(training, "compile_model", compile_eagerly)


@pytest.fixture
def private_test(tmp_path):
    """A folder with nothing but FER2013's test/<emotion>/PrivateTest_*.jpg."""
    generator = np.random.default_rng(0)
    for folder in ("angry", "happy"):
        place = tmp_path / "FER" / "test" / folder
        place.mkdir(parents=True)
        for number in range(3):
            pixels = generator.integers(0, 256, (48, 48), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"PrivateTest_{folder}{number}.jpg")
    return tmp_path


def test_data_lists_the_four_data_sets(capsys, tmp_path):
    rows = json.loads(out_of(capsys, "data", "--data-dir", tmp_path, "--json"))
    assert {row["name"]: row["found"] for row in rows} == {
        "SAMPLE": True,
        "FER": False,
        "RAFDB": False,
        "UTKFACE": False,
    }
    assert "fer2013" in next(row["where"] for row in rows if row["name"] == "FER").lower()


def test_data_says_what_is_there_and_how_to_get_the_rest(capsys, tmp_path):
    lines = out_of(capsys, "data", "--data-dir", tmp_path).splitlines()
    assert lines[0] == "SAMPLE   found: drawn by code"
    assert lines[2].startswith(f"FER      missing: not in {tmp_path / 'FER'}: kaggle")
    assert "terms" in lines[3] or "rules" in lines[3]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(("command", "text"), [("data", ""), ("train", cli.AGAIN)])
def test_a_stopped_command_says_how_to_go_on(capsys, monkeypatch, number, status, command, text):
    def stopped(args):
        signal.raise_signal(number)

    stopped.__name__ = command
    monkeypatch.setattr(commands, command, stopped)
    before = signal.getsignal(signal.SIGTERM)
    assert main([command]) == status
    assert capsys.readouterr().err == f"stopped{text}\n"
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_interrupt_that_became_another_error_is_one(capsys, monkeypatch):
    def data(args):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            raise AssertionError("a graph is left open")

    monkeypatch.setattr(commands, "data", data)
    assert main(["data"]) == 143
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_ignores_comes_again(capsys, monkeypatch):
    class Freed:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def data(args):
        Freed()
        for _ in range(200):  # steps
            time.sleep(0.1)

    monkeypatch.setattr(commands, "data", data)
    began = time.monotonic()
    assert main(["data"]) == 130
    assert time.monotonic() - began < 10
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_commands_that_go_on_exist():
    names = (vars(commands) | vars(studies)).keys()
    assert names >= set(cli.GOES_ON)


def test_a_run_that_nobody_reads_does_not_end_as_a_success():
    code = """
import sys
from fer_helpers import cli, commands

def train(args):
    for _ in range(10_000):
        print("epoch")

commands.train = train
sys.exit(cli.main(["train"]))
"""
    line = f"{shlex.join([sys.executable, '-c', code])} | true; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == f"error: the output is not read any more{cli.AGAIN}\n"


def test_a_closed_output_is_named(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["data"]) == 2
    assert capsys.readouterr().err == (
        "error: stdout is closed: send it to a file or to /dev/null\n"
    )


def test_notes_do_not_go_to_the_results_where_stderr_is_closed(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["data", "--dataset", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().out == ""


def test_a_reader_that_has_enough_is_no_error(tmp_path):
    line = f"{sys.executable} -m fer_helpers data --data-dir {tmp_path} | true"
    result = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
    assert result.stderr == ""


def test_tensorflow_starts_without_a_word(tmp_path):
    Image.new("L", (48, 48), 128).save(tmp_path / "face.png")
    line = [sys.executable, "-m", "fer_helpers", "predict", tmp_path / "face.png", "--no-detect"]
    result = subprocess.run(line, capture_output=True, text=True, check=True)
    assert result.stderr == ""
    assert len(result.stdout.splitlines()) == 2  # names of the columns, and the face


def test_data_counts_classes(capsys, small_sample):
    rows = json.loads(
        out_of(capsys, "data", "--dataset", "SAMPLE", "--data-dir", small_sample, "--json")
    )
    emotion = [row["faces"] for row in rows if row["task"] == "emotion"]
    assert sum(emotion) == 512
    assert {row["split"] for row in rows} == {"train", "validation", "test"}


def test_data_counts_copies(capsys, private_test):
    folder = private_test / "FER" / "test" / "angry"
    shutil.copy(folder / "PrivateTest_angry0.jpg", folder / "PrivateTest_again.jpg")
    assert main(["data", "--dataset", "FER", "--data-dir", str(private_test)]) == 0
    assert "7 faces, 1 of them exact copies of others, 0 files" in capsys.readouterr().err


def test_train_writes_model_and_history_and_goes_on(capsys, small_sample, tmp_path, tiny):
    words = ["train", "--dataset", "SAMPLE", "--data-dir", small_sample, "--out", tmp_path / "run"]
    out_of(capsys, *words, "--epochs", 1, "--batch-size", 128)
    out_of(capsys, *words, "--epochs", 2, "--batch-size", 128)
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert history["epoch"].tolist() == [1, 2]
    assert (tmp_path / "run" / "model.keras").is_file()
    assert {"loss", "val_emotion_output_accuracy", "learning_rate"} <= set(history)


def test_train_gives_json_alone_and_says_when_nothing_is_left_to_do(
    capsys, small_sample, tmp_path, tiny
):
    command = ["train", "--epochs", "1", "--batch-size", "128", "--data-dir", str(small_sample)]
    command += ["--out", str(tmp_path)]
    assert main([*command, "--json"]) == 0
    printed = capsys.readouterr()
    assert [row["epoch"] for row in json.loads(printed.out)] == [1]
    assert "epoch   1/1" in printed.err
    assert "nothing was trained" not in printed.err
    assert main(command) == 0
    assert "has 1 epochs already: nothing was trained" in capsys.readouterr().out


def test_train_passes_on_what_it_was_asked_for(capsys, tmp_path, monkeypatch):
    calls = []

    def train(*words, **options):
        calls.append((words, options))
        return pd.DataFrame({"epoch": [1]})

    monkeypatch.setattr(training, "train", train)
    monkeypatch.chdir(tmp_path)
    write_bytes(Path("results/FER/model.keras"))
    words = ["--seed", 3, "--backbone", "deep", "--batch-size", 8, "--start", "FER"]
    words += ["--ignore", "contempt", "--labels", "ferplus"]
    words += ["--class-weights", "emotion=balanced", "race=Asian:2,African-American:1e1"]
    out_of(capsys, "train", "--dataset", "FER", *words, "--loss-weights", "age=0", "race=1e-1")
    (((*given,), options),) = calls
    assert given == ["FER", None, Path("results/FER")]
    weights = {"emotion": 2.0, "gender": 0.1, "race": 0.1, "age": 0.0}
    assert options == {
        **{"data_dir": None, "seed": 3, "backbone": "deep", "batch_size": 8, "start": "FER"},
        **{"labels": "ferplus", "ignore": ["contempt"]},
        "loss_weights": weights,
        "class_weights": {"emotion": "balanced", "race": {"Asian": 2, "African-American": 10}},
    }


def test_a_copy_of_fer_in_folders_gives_up_a_tenth_to_choose_by(capsys, tmp_path, tiny):
    for split, count in (("train", 40), ("test", 4)):
        for emotion in ("fear", "neutral"):
            folder = tmp_path / "FER" / split / emotion
            folder.mkdir(parents=True)
            for i in range(count // 2):
                grey = np.full((48, 48), 3 * i + 100 * (emotion == "fear"), np.uint8)
                Image.fromarray(grey).save(folder / f"{i}.webp", lossless=True)
    command = ["train", "--dataset", "FER", "--epochs", "1", "--batch-size", "8"]
    assert main([*command, "--data-dir", str(tmp_path), "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "model.keras").is_file()


def test_two_networks_of_one_name_are_exported_side_by_side(monkeypatch, tmp_path, capsys):
    written = []

    def export(network, out, **_):
        written.append(out)
        return {"bytes": 0, "float32_bytes": 0, "images": 0, "difference": 0.0, "accuracy": {}}

    monkeypatch.setattr("fer_helpers.export.export", export)
    monkeypatch.setattr("fer_helpers.model.load_model", lambda _: None)
    main(["export", "--weights", "runs/a/model.keras", "--format", "onnx"])
    main(["export", "--weights", "SAMPLE", "--format", "litert", "--int8"])
    assert written == [Path("runs/a/model.onnx"), Path("results/SAMPLE-int8.tflite")]


def test_evaluate_reads_a_lone_part_and_writes_a_row_an_image(capsys, private_test, tmp_path):
    table = tmp_path / "predictions.csv"
    words = ["--weights", "SAMPLE", "--dataset", "FER", "--data-dir", private_test]
    text = out_of(
        capsys, "evaluate", *words, "--split", "PrivateTest", "--json", "--predictions", table
    )
    report = json.loads(text)
    assert report["images"] == 6
    assert list(report["tasks"]) == ["emotion"]
    rows = pd.read_csv(table)
    wanted = ["path"]
    for task, names in TASKS.items():
        wanted += [task, f"true_{task}", *(f"{task}_{name}" for name in names)]
    assert rows.columns.tolist() == [*wanted, "error"]
    folders = rows["path"].str.extract(r"(angry|happy)")[0]
    assert rows["true_emotion"].tolist() == [
        {"angry": "anger", "happy": "happiness"}[folder] for folder in folders
    ]
    assert rows["true_age"].isna().all()  # not labelled
    share = (rows["emotion"] == rows["true_emotion"]).mean()
    assert report["tasks"]["emotion"]["accuracy"] == pytest.approx(share)
    # No training part to compare with: not "no copies".
    assert report["copies_of_training_images"] is report["without_copies"] is None


def test_evaluate_counts_and_draws_what_is_taken_for_what(capsys, small_sample, tmp_path):
    table, folder = tmp_path / "rows.csv", tmp_path / "made" / "figures"
    words = ["--weights", "SAMPLE", "--dataset", "SAMPLE", "--data-dir", small_sample]
    files = ["--split", "test", "--predictions", table, "--figures", folder]
    report = json.loads(out_of(capsys, "evaluate", *words, *files, "--json"))
    rows = pd.read_csv(table)
    for task, names in TASKS.items():
        counts = pd.crosstab(rows[f"true_{task}"], rows[task])
        found = pd.DataFrame.from_dict(report["tasks"][task]["confusion"], orient="index")
        assert found.columns.tolist() == found.index.tolist() == [*names]
        wanted = counts.reindex(index=names, columns=names, fill_value=0)
        np.testing.assert_array_equal(found, wanted)
    assert {path.name for path in folder.iterdir()} == {f"confusion-{task}.png" for task in TASKS}
    assert all(min(Image.open(path).size) > 300 for path in folder.iterdir())


@pytest.mark.parametrize(
    ("weights", "dataset", "split", "notes", "seen"),
    [
        ("FER", "FER", "PrivateTest", [], False),
        ("FER", "FER", "PrivateTest", ["... these may not be the official splits"], True),
        ("RAFDB", "FER", "unheard of", [], True),
        ("UTKFACE", "UTKFACE", "validation", [], False),
        ("UTKFACE", "UTKFACE", "test", [], True),
        ("FER", "some/folder", "test", [], True),
        ("FER", "RAFDB", "test", [], False),
        ("FER", "SAMPLE", "test", [], False),
        ("results/FER/model.keras", "FER", "test", [], False),
        ("SAMPLE", "FER", "test", [], False),
    ],
)
def test_shipped_weights_on_faces_they_may_have_seen_are_no_test(
    weights, dataset, split, notes, seen, capsys
):
    args = argparse.Namespace(weights=weights, dataset=dataset)
    none = np.zeros((1, 48, 48, 1), np.uint8), np.zeros((1, 18)), np.array(["a"])
    scores._note_seen_faces(args, Faces(*none, np.array([split]), notes=notes))
    assert ("which may hold these faces: this score is no test" in capsys.readouterr().err) == seen


def test_a_random_split_of_fer_is_called_that(capsys, private_test):
    words = ["--weights", "FER", "--dataset", "FER", "--data-dir", str(private_test)]
    for number, file in enumerate((private_test / "FER").rglob("*.jpg")):
        file.rename(file.with_name(f"{number}.jpg"))
    assert main(["evaluate", *words, "--split", "test"]) == 0
    error = capsys.readouterr().err
    assert "trained on FER2013's Training split and UTKFace's train split, which may" in error


def test_evaluate_scores_without_copies_of_training_images(capsys, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 48, 48), dtype=np.uint8)
    tree = {
        "test/sad/PrivateTest_0": 4,
        **{"train/happy/Training_0": 0, "train/sad/Training_1": 1},
        **{"test/happy/PublicTest_0": 0, "test/sad/PublicTest_1": 2, "test/sad/PublicTest_2": 3},
    }
    for name, number in tree.items():
        file = tmp_path / "FER" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[number]).save(file)
    words = ["evaluate", "--weights", "SAMPLE", "--dataset", "FER", "--data-dir", tmp_path]
    predictions = tmp_path / "made" / "rows.csv"
    files = ["--views", 2, "--predictions", predictions]
    report = json.loads(out_of(capsys, *words, "--split", "PublicTest", *files, "--json"))
    assert report["copies_of_training_images"] == 1
    assert report["tasks"]["emotion"]["n"] == 3
    assert report["without_copies"]["emotion"]["n"] == 2
    wanted = predict(load_model("SAMPLE"), pixels[[0, 2, 3], :, :, None], views=2)["emotion"]
    rows = pd.read_csv(predictions).sort_values("path")
    found = rows[[f"emotion_{name}" for name in TASKS["emotion"]]]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    report = json.loads(out_of(capsys, *words, "--split", "Training", "--json"))
    assert report["copies_of_training_images"] is None


def test_predict_writes_the_documented_columns(capsys, tmp_path):
    Image.new("RGB", (90, 70), "grey").save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_text("no picture")
    (tmp_path / "notes.txt").write_text("not read")
    table = tmp_path / "out.csv"
    words = ("predict", tmp_path, "--no-detect", "--attributes", "--weights", "SAMPLE")
    assert main([str(word) for word in (*words, "--out", table)]) == 0
    notes = capsys.readouterr().err
    assert (
        "1 file ignored, hidden, unreadable or without the ending of an image: notes.txt\n" in notes
    )
    assert f"2 rows in {table}, 1 with an error\n" in notes
    rows = pd.read_csv(table)
    assert rows.columns.tolist()[:3] == ["path", "emotion", "emotion_surprise"]
    assert {"gender_male", "race_Caucasian", "age_0-3", "error"} <= set(rows)
    assert rows["error"].isna().tolist() == [True, False]
    assert rows.loc[0, [f"emotion_{e}" for e in TASKS["emotion"]]].sum() == pytest.approx(1)


def test_predict_prints_how_probable_the_emotion_is(capsys, tmp_path):
    photo = tmp_path / "photo.png"
    Image.fromarray(data.astronaut()).save(photo)
    rows = json.loads(out_of(capsys, "predict", photo, "--figures", tmp_path, "--json"))
    header, line = out_of(capsys, "predict", photo, "--figures", tmp_path).splitlines()
    assert header.split() == ["path", "emotion", "probability", "error"]
    probability = rows[0][f"emotion_{rows[0]['emotion']}"]
    assert rows[0]["confidence"] > probability  # the detector's: not to be mistaken for it
    assert line.split()[1:] == [rows[0]["emotion"], f"{probability:.3f}"]
    (tmp_path / "empty.jpg").write_text("no picture")
    header, line = out_of(capsys, "predict", tmp_path / "empty.jpg").splitlines()
    assert header.split() == ["path", "error"]


def test_attributes_stay_off_unless_asked_for(capsys, tmp_path):
    Image.new("L", (48, 48), 128).save(tmp_path / "a.png")
    rows = json.loads(
        out_of(capsys, "predict", tmp_path, "--no-detect", "--weights", "SAMPLE", "--json")
    )
    assert not [name for name in rows[0] if name.startswith(("gender", "race", "age"))]


def test_visualize_draws_seven_samples(capsys, small_sample, tmp_path):
    words = ["visualize", "--data-dir", small_sample, "--weights", "SAMPLE"]
    out_of(capsys, *words, "--out", tmp_path)
    names = {"angry", "fear", "happy", "sad", "surprise", "neutral", "disgust"}
    assert {path.stem for path in tmp_path.glob("*.png")} == names
    assert all(Image.open(path).size[0] > 300 for path in tmp_path.glob("*.png"))


def test_a_card_says_what_the_network_was_trained_on_and_the_terms(small_sample, tmp_path):
    words = ["--weights", "SAMPLE", "--dataset", "SAMPLE", "--data-dir", str(small_sample)]
    assert main(["audit", *words, "--card", str(tmp_path / "card.md")]) == 0
    line = "- **Trained on:** drawn faces; terms: MIT licence\n"
    assert line in (tmp_path / "card.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--dataset", "FER", "--data-dir", "."], "FER"),
        (["evaluate", "--weights", "none.keras", "--dataset", "SAMPLE"], "no weights at none"),
        (["predict", "nowhere.jpg", "--weights", "SAMPLE"], "no file or folder nowhere.jpg"),
        (["data", "--dataset", "~nosuchuser/faces"], "unknown dataset '~nosuchuser/faces'"),
        (["data", "--labels", "ferplus"], "--labels and --ignore need a --dataset"),
        (["train", "--rank", "0"], "--rank is for several machines: add --distributed"),
        (["predict", "face.png", "--fps", "3"], "--fps is for videos, and none is named"),
        (["predict", ".", "--figures", "x"], "--figures draws photos and videos that are named"),
        (["predict", "face.png", "--no-detect", "--figures", "x"], "and no crops"),
        (["train", "--loss-weights", "age"], "TASK=NUMBER"),
        (["train", "--class-weights", "emotion"], "TASK=balanced or TASK=CLASS:NUMBER"),
        (["train", "--class-weights", "emotion=fear:much"], "not 'emotion=fear:much'"),
        (
            ["train", "--class-weights", "emotion=2", "--data-dir", "data"],
            "has no class '' to weigh",
        ),
        (["train", "--loss-weights", "mood=1", "--data-dir", "data"], "unknown task 'mood'"),
        (["train", "--recipe", "open-data"], "now python -m fer_helpers.studies recipe NAME"),
        (["train", "--seed", "1", "--recipe=from-labels"], "fer_helpers.studies recipe NAME"),
        (["multitask", "--seeds", "2"], "now python -m fer_helpers.studies attributes"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    capsys, monkeypatch, tmp_path, small_sample, words, message
):
    monkeypatch.chdir(tmp_path)
    Image.new("L", (48, 48)).save("face.png")
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error


def test_the_documented_commands_are_understood():
    root = Path(__file__).parent.parent
    text = (root / "README.md").read_text() + (root / "USING.md").read_text()
    text += cli.EXAMPLES + studies.EXAMPLES
    lines = re.findall(r"python -m fer_helpers(\.studies)? ([^`#\n]+)", text)
    assert len(lines) > 10
    for is_study, line in lines:
        parser = studies._parser() if is_study else cli._parser()
        assert parser.parse_args(shlex.split(line)).function


def test_help_comes_without_keras():
    code = (
        "import sys; from fer_helpers.cli import _parser; from fer_helpers.studies import __main__;"
        "_parser().format_help(); __main__._parser().format_help();"
        "sys.exit('keras' in sys.modules or 'tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_attributes_compares_the_runs_it_was_asked_for(capsys, monkeypatch):
    asked = {}
    names = ["arm", "seed", "backbone", "fraction", "epochs"]
    rows = [(arm, s, "compact", 1.0, n) for n in (3, 16) for arm in ("0", "1") for s in (0, 1)]
    runs, right = pd.DataFrame(rows, columns=names), np.eye(8, 50, dtype=bool)
    monkeypatch.setattr(attributes, "study", lambda *words, **more: asked.update(words=words))
    monkeypatch.setattr(attributes, "read_right", lambda csv: (runs, right, None))
    run = functools.partial(out_of, capsys, "attributes", "--json", main=studies.main)
    (row,) = json.loads(run("--seeds", 0, 1, "--epochs", 3))
    assert (row["arm"], row["n"]) == ("1", 2)
    assert asked["words"][1:] == (tuple(attributes.ARMS), [0, 1])
    runs, right = runs[2:4], right[2:4]  # nothing to compare with
    assert [row["seed"] for row in json.loads(run("--arms", "1", "--epochs", 3))] == [0, 1]


def test_a_recipe_is_run_with_what_it_was_asked_for(capsys, tmp_path, monkeypatch):
    calls = []

    def train(out, run="", **options):
        print("epoch 1/1")
        calls.append((str(out), options))
        write_bytes(Path(out, run, "model.keras"))
        return pd.DataFrame({"epoch": [1]})

    open_data = functools.partial(train, run="seed-2")  # beside its teachers
    monkeypatch.setattr(recipes, "RECIPES", {"open-data": open_data, "from-labels": train})
    monkeypatch.chdir(tmp_path)
    run = functools.partial(out_of, capsys, "recipe", main=studies.main)
    text = run("from-labels", "--backbone", "paper", "--epochs", 4, "--json")
    assert json.loads(text) == [{"epoch": 1}]
    assert "epochs: 1; best model in elsewhere/seed-2/model.keras" in run(
        *("open-data", "--seed", 2, "--data-dir", "data", "--out", "elsewhere")
    )
    assert calls == [
        (
            "results/from-labels",
            {"seed": 0, "data_dir": None, "epochs": 4, "backbone": "paper"},
        ),
        ("elsewhere", {"seed": 2, "data_dir": Path("data")}),
    ]


def test_an_unknown_dataset_lists_the_known_ones(capsys):
    assert main(["train", "--dataset", "CK"]) == 2
    assert "unknown dataset 'CK'" in (said := capsys.readouterr().err)
    assert "UTKFACE" in said


@pytest.mark.parametrize(
    "words",
    [
        "train --out",
        "predict face.png --no-detect --out",
        "predict face.png --figures",
        "evaluate --dataset SAMPLE --weights SAMPLE --predictions",
        "evaluate --dataset SAMPLE --weights SAMPLE --figures",
        "audit --dataset SAMPLE --weights SAMPLE --out",
        "audit --dataset SAMPLE --weights SAMPLE --card",
        "visualize --out",
        "export --weights SAMPLE --format onnx --out",
    ],
)
def test_what_cannot_be_written_is_refused_before_the_work(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.new("L", (48, 48)).save("face.png")
    for late in ("model.load_model", "training.train"):
        monkeypatch.setattr(f"fer_helpers.{late}", None)
    assert main([*words.split(), "face.png/below"]) == 2
    assert "cannot be written (" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["attributes", "fine_tuning"])
def test_studies_refuse_what_they_cannot_write_and_other_tables(words, tmp_path, capsys):
    other = tmp_path / "other.csv"
    for path, message in ((other / "x.csv", "other.csv"), (other, "has no column")):
        other.write_text("a,b\n1,2\n")
        assert studies.main([words, "--out", str(path)]) == 2
        assert message in capsys.readouterr().err
    assert other.read_text() == "a,b\n1,2\n"


def test_an_unknown_backbone_is_refused_before_the_teachers_are_trained(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(recipes, "train_from_labels", None)
    words = ["recipe", "open-data", "--backbone", "zzz", "--out", str(tmp_path)]
    assert studies.main(words) == 2
    assert "unknown backbone 'zzz'" in capsys.readouterr().err


def test_a_run_without_a_best_epoch_is_no_success(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "train", lambda *_, **__: pd.DataFrame({"epoch": [1]}))
    assert main(["train", "--out", str(tmp_path)]) == 2
    assert f"{tmp_path} has no model.keras" in capsys.readouterr().err


def test_closed_streams_end_with_a_line_or_in_silence(tmp_path):
    line = f"{sys.executable} -m fer_helpers data --data-dir {tmp_path} "
    for closed, status, said in ((">&-", 2, "error: stdout is closed"), ("2>&-", 0, "SAMPLE")):
        result = subprocess.run(
            line + closed, shell=True, capture_output=True, text=True, check=False
        )
        assert (result.returncode, "Traceback" in result.stderr) == (status, False)
        assert said in result.stdout + result.stderr


def test_names_are_no_commands_for_a_spreadsheet_or_a_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = ["=1+1.png", "@a.png", "+a.png", "-a.png", "a\r=1+1.png", "\x1b]0;owned\x07\x9b.png"]
    for name in names:
        Path(name).write_text("no picture")
    words = ["predict", "--no-detect", "--weights", "SAMPLE"]
    assert main([*words, "--out", "out.csv", "--", *names]) == 0
    paths = pd.read_csv("out.csv")["path"].tolist()
    assert paths[:4] == [f"./{name}" for name in names[:4]]
    assert paths[4:] == [r"a\x0d=1+1.png", r"\x1b]0;owned\x07\x9b.png"]
    assert main([*words, "--", *names]) == 0
    assert main(["predict", "\x1b]0;owned\x07.jpg"]) == 2
    said = "".join(capsys.readouterr())
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", said)
    assert said.count(r"\x1b]0;owned\x07") == 2
