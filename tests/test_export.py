"""Exported files compute what Keras computes, or are not written."""

import json

import numpy as np
import pytest

from fer_helpers import export as module
from fer_helpers.cli import main
from fer_helpers.export import SUFFIXES, export, load_exported, run_exported
from fer_helpers.labels import OUTPUTS, TASKS
from fer_helpers.model import load_model
from fer_helpers.prediction import predict


@pytest.fixture(scope="module")
def network():
    model = load_model("SAMPLE")
    model.get_layer("emotion_output").temperature.assign(1.7)
    return model


@pytest.mark.parametrize("form", SUFFIXES)
def test_a_file_gives_keras_probabilities_in_batches_of_any_size(
    form, network, tmp_path, small_sample, sample_test
):
    path = tmp_path / f"network{SUFFIXES[form]}"
    report = export(network, path, form, data_dir=small_sample)
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


@pytest.mark.parametrize("form", SUFFIXES)
def test_int8_is_small_and_nearly_as_accurate(form, network, tmp_path, small_sample, sample_test):
    path = tmp_path / f"network{SUFFIXES[form]}"
    report = export(network, path, form, int8=True, data_dir=small_sample)
    assert report["bytes"] < 0.35 * report["float32_bytes"]
    assert set(report["accuracy"]) == set(TASKS)
    for row in report["accuracy"].values():
        assert row["exported"] == pytest.approx(row["keras"], abs=0.06)
    assert 0 < report["difference"] < 0.5
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
    assert out.is_file()


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
