"""Exported files compute what Keras computes, or are not written."""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from fer_helpers import export as module
from fer_helpers.cli import main
from fer_helpers.datasets import load
from fer_helpers.export import SUFFIXES, export, load_exported, run_exported
from fer_helpers.labels import OUTPUTS, TASKS
from fer_helpers.model import load_model
from fer_helpers.photos import predict_crops
from fer_helpers.prediction import predict

USING = Path(__file__).parent.parent / "USING.md"


@pytest.fixture(scope="module")
def network():
    model = load_model("SAMPLE")
    model.get_layer("emotion_output").temperature.assign(1.7)
    return model


@pytest.fixture(scope="module")
def files(network, sample_folder, tmp_path_factory):
    """The network in each form: its path, and what `export` says about it."""
    files = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "SAMPLE_SIZE", 512)
        for form, suffix in SUFFIXES.items():
            path = tmp_path_factory.mktemp(form) / f"network{suffix}"
            files[form] = path, export(network, path, form, data_dir=sample_folder, origin="drawn")
    return files


@pytest.mark.parametrize("form", SUFFIXES)
def test_a_file_gives_keras_probabilities_in_batches_of_any_size(form, network, files, sample_test):
    path, report = files[form]
    assert report["difference"] <= 1e-3
    assert report["bytes"] == path.stat().st_size < 1.1 * report["float32_bytes"]
    run = load_exported(path)
    X = sample_test[0][:300]
    for images in (X[:1], X):
        wanted, found = predict(network, images), run(images.astype(np.float32))
        assert set(found) == set(OUTPUTS.values())
        for task in TASKS:
            np.testing.assert_allclose(found[OUTPUTS[task]], wanted[task], atol=1e-4)
    np.testing.assert_array_equal(run_exported(run, X)["age"].shape, (300, 5))


def described(path):
    """Return what a file says about itself, read with the tools of its form alone."""
    if path.suffix == ".tflite":
        return json.loads(zipfile.ZipFile(path).read("description.json"))
    import onnx

    return {prop.key: json.loads(prop.value) for prop in onnx.load(path).metadata_props}


@pytest.mark.parametrize("form", SUFFIXES)
def test_a_file_says_what_goes_in_what_comes_out_and_whose_it_is(form, files):
    said = described(files[form][0])
    assert said["outputs"] == {OUTPUTS[task]: [*classes] for task, classes in TASKS.items()}
    assert said["weights"] == "drawn"
    given = said["input"]
    assert (given["name"], given["shape"]) == ("image", ["N", 48, 48, 1])
    assert (given["layout"], given["dtype"]) == ("NHWC", "float32")
    assert given["range"] == [0, 255]
    assert given["colour"].startswith("grey")
    assert "bilinear" in given["resize"]


# Modules that come with Python or with these three: numpy, onnxruntime, Pillow.
ALONE = """
import sys
class OnlyThese:
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] not in {*sys.stdlib_module_names, "numpy", "onnxruntime", "PIL"}:
            raise ImportError(name + " is not there")
sys.meta_path.insert(0, OnlyThese)
"""


def test_the_lines_of_the_readme_need_onnxruntime_numpy_and_pillow_alone(files, network, tmp_path):
    (code,) = re.findall(r"```python\n(import json\n.*?)```", USING.read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 12
    photo = Image.fromarray(data.astronaut()[0:200, 140:300])
    turned = photo.getexif()
    turned[0x0112] = 6  # a camera held upright
    photo.save(tmp_path / "face.jpg", exif=turned)
    photo.save(tmp_path / "other.png")
    (tmp_path / "fer.onnx").write_bytes(files["onnx"][0].read_bytes())
    for name in ("face.jpg", "other.png"):
        lines = code.replace("face.jpg", name) + "print(emotion.tolist())"
        command = [sys.executable, "-I", "-c", ALONE + lines]
        out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        named, found = out.stdout.splitlines()
        wanted = predict_crops(network, [tmp_path / name]).filter(like="emotion_").loc[0]
        np.testing.assert_allclose(json.loads(found)[0], wanted, atol=1e-4)
        assert [f"emotion_{word}" for word in re.findall("'(.*?)'", named)] == [*wanted.index]


@pytest.mark.parametrize("form", SUFFIXES)
def test_values_in_another_range_or_shape_are_refused(form, files):
    run = load_exported(files[form][0])
    face = np.full((2, 48, 48, 1), 200.0)
    for wrong in (face / 255, face - 250, face + 100, face * np.nan):
        for call in (run, lambda images: run_exported(run, images)):
            with pytest.raises(ValueError, match="pixel values"):
                call(wrong)
    with pytest.raises(ValueError, match=r"images must be \(N, 48, 48, 1\), not \(48, 48\)"):
        run(face[0, :, :, 0])
    run(np.zeros((1, 48, 48, 1), np.uint8))  # black is black in any range


@pytest.mark.parametrize("form", SUFFIXES)
def test_int8_is_small_and_nearly_as_accurate(form, network, tmp_path, small_sample, sample_test):
    path = tmp_path / f"network{SUFFIXES[form]}"
    report = export(network, path, form, int8=True, data_dir=small_sample)
    assert report["bytes"] < 0.35 * report["float32_bytes"]
    assert set(report["accuracy"]) == set(TASKS)
    for row in report["accuracy"].values():
        assert row["exported"] == pytest.approx(row["keras"], abs=0.06)
    assert 0 < report["difference"] < 0.5
    assert described(path)["outputs"]["gender_output"] == [*TASKS["gender"]]
    for rows in run_exported(load_exported(path), sample_test[0][:64]).values():
        np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-5 if form == "onnx" else 0.02)
        assert form != "onnx" or (rows > 0).all()


def test_a_file_that_disagrees_is_not_left_behind(network, tmp_path, small_sample, monkeypatch):
    def wrong(model, path, ranges):
        model.get_layer("age_output").temperature.assign(3.0)  # a temperature that got lost
        module._write_onnx(model, path, ranges)

    monkeypatch.setitem(module.WRITERS, "onnx", wrong)
    path = tmp_path / "network.onnx"
    path.write_text("before")
    with pytest.raises(ValueError, match="it was not written"):
        export(network, path, "onnx", data_dir=small_sample)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["before"]


def test_command_writes_and_reports(capsys, small_sample, tmp_path):
    out = tmp_path / "sub" / "sample.onnx"
    words = ["export", "--weights", "SAMPLE", "--format", "onnx", "--data-dir", small_sample]
    assert main([*map(str, words), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["file"] == str(out)
    assert "terms: MIT" in described(out)["weights"]


@pytest.mark.parametrize(
    ("form", "name", "message"),
    [("onnx", "a.tflite", "must end in .onnx"), ("pdf", "a.pdf", "unknown format 'pdf'")],
)
def test_bad_requests_are_named(form, name, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export(None, tmp_path / name, form)


def test_missing_packages_are_named(monkeypatch, tmp_path):
    monkeypatch.setitem(module.NEEDS, "onnx", ("no_such_package",))
    with pytest.raises(ValueError, match=r"no_such_package: pip install 'fer-helpers\[export\]'"):
        export(None, tmp_path / "a.onnx")


def test_what_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"model\.keras must end in \.onnx or \.tflite"):
        load_exported(tmp_path / "model.keras")
    with pytest.raises(FileNotFoundError, match=r"no network at .*a\.onnx"):
        load_exported(tmp_path / "a.onnx")
