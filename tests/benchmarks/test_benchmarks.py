"""The pieces of the benchmarks work, and the stored results are whole. Nothing is timed here."""

import io
import json
import sys
from pathlib import Path

import bench
import numpy as np
import pytest
import report
import stages
import yardstick
from PIL import Image

from fer_helpers import load_data
from fer_helpers.batches import batches_of

WANTED = (
    *("train_ratio", "peak_memory_ratio", "time_to_55_ratio", "reload_s", "input_over_train"),
    *("batch_faces_per_s", "versus_fer_rate", "one_face_ms", "million_peak_mb"),
    *("detection_ratio", "detection_found", "two_process_loss_diff"),
)


def picture(side=48):
    stream = io.BytesIO()
    Image.fromarray(np.full((side, side), 102, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def test_yardstick_holds_float64_colour_images_and_makes_batches():
    files = [
        (f"train/{name}/Training_{i}.png", picture()) for i, name in enumerate(("sad", "fear"))
    ]
    X, y = yardstick.fill(files, 2)
    assert (X.shape, X.dtype) == ((2, 50, 50, 3), np.float64)
    np.testing.assert_allclose(X, 0.4)
    assert y.argmax(axis=1).tolist() == [5, 2]
    images, labels = next(yardstick.generate(np.repeat(X, 40, 0), np.repeat(y, 40, 0)))
    assert (images.shape, labels.shape) == ((32, 50, 50, 3), (32, 7))


def test_yardstick_network_is_the_papers_with_one_head():
    model = yardstick.build()
    assert model.output_shape == (None, 7)
    assert model.count_params() == pytest.approx(2.4e6, rel=0.01)


def test_growth_reads_the_faces_that_were_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(stages.sample, "draw_block", stages.sample.draw_block)
    monkeypatch.setattr(stages.sample, "SERIAL_BLOCKS", 0)
    stages.draw(str(tmp_path), [600], distinct=1)
    row = stages.grow(str(tmp_path), 600)
    assert row["n"] == 600
    assert row["us_per_image"] > 0
    X, _ = load_data("SAMPLE", n=600, data_dir=tmp_path)
    np.testing.assert_array_equal(X[:256], X[256:512])


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted by Linux' own file")
def test_an_epoch_does_not_hold_the_memory_map(tmp_path):
    def mapped():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssFile")) / 1024

    file = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.uint8, (120_000, 48, 48, 1))
    file[:] = 7
    del file
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    batches = batches_of(X, np.zeros((len(X), 18), np.float32), 64, True)
    before = mapped()
    assert all((batches[i][0] == 7).all() for i in range(len(batches)))
    assert mapped() - before < 130  # of 264 MB


def test_a_race_that_was_not_finished_gives_no_ratio():
    def ended(accuracy, seconds):
        return {"epochs": [{"accuracy": accuracy, "seconds": seconds}]}

    def ratio(ours, theirs):
        return report.summary({"goal": {"ours": ours, "yardstick": theirs}})

    assert ratio(ended(0.54, 10), ended(0.56, 40)) == {}
    assert ratio(ended(0.55, 10), ended(0.56, 40)) == {
        "time_to_55_ratio": 0.25,
        "time_to_55_is_bound": False,
    }
    assert ratio(ended(0.55, 10), ended(0.40, 41))["time_to_55_is_bound"]


def test_inference_is_scored_by_its_quickest_path():
    def row(rate, accuracy):
        return {"faces_per_s": rate, "one_face_ms": 1e3 / rate, "accuracy": accuracy}

    paths = {"keras": row(500.0, 0.7), "onnx int8": row(1000.0, 0.69)}
    theirs = {"litert": row(2000.0, 0.6), "keras": row(800.0, 0.5)}
    keys = report.summary({"infer": paths, "infer fer": theirs})
    assert keys["best_path"] == "onnx int8"
    assert (keys["accuracy"], keys["one_face_ms"]) == (0.69, 1.0)
    assert (keys["versus_fer_rate"], keys["fer_accuracy"]) == (0.5, 0.6)


def test_finding_faces_is_compared_photo_by_photo():
    found = stages.detection(count=2)
    assert found["ours"]["found"] == found["package"]["found"] == 1
    assert found["ours"]["photos_per_s"] > found["package"]["photos_per_s"] > 0
    keys = report.summary(
        {
            "detection": {
                "ours": {"photos_per_s": 6.0, "found": 0.9},
                "package": {"photos_per_s": 2.0, "found": 0.8},
            }
        }
    )
    assert keys == {"detection_ratio": 3, "detection_found": 0.9, "package_found": 0.8}


def test_stored_results_have_every_figure_and_the_report_is_theirs():
    results = json.loads(bench.RESULTS.read_text())
    page = bench.REPORT.read_text(encoding="utf-8")
    assert page == report.report(results, page)
    assert bench.GROWTH.is_file()
    assert not {key for key in WANTED if not results.get(key, -1) >= 0}


def test_the_measured_page_is_written_anew_and_the_log_is_kept():
    results = json.loads(bench.RESULTS.read_text())
    old = f"an old page\n{report.LOG}\nWritten by hand: 100 % {{}}.\n"
    page = report.report(results, old)
    assert page.startswith("# What was measured")
    assert "an old page" not in page
    assert page.endswith(f"![Time and memory against the number of faces](growth.png)\n{old[12:]}")
    assert report.report(results, "").endswith("(growth.png)\n")
    assert "| bfloat16 |" in bench.REPORT.read_text(encoding="utf-8").partition(report.LOG)[2]
