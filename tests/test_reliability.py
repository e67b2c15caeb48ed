"""What goes wrong around the code: a full disk, changing files, other people's weights."""

import re
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import tiny
from fer_helpers import model
from fer_helpers.batches import batches_of
from fer_helpers.cli import main
from fer_helpers.datasets import read_dataset, utkface
from fer_helpers.datasets.source import Source
from fer_helpers.labels import encode_labels
from fer_helpers.model import load_model
from fer_helpers.runs import fit, read_history
from fer_helpers.training import compile_model
from kill_training import words, write_faces

ROOT = Path(__file__).parent.parent
WORKER = ROOT / "tests" / "distributed_worker.py"  # the command, with a tiny network


@pytest.mark.parametrize(("size", "file"), [(2**15, "model"), (2**17, "resume-1")])
def test_no_room_for_a_checkpoint_ends_with_a_message_and_leaves_nothing_half_written(
    tmp_path, monkeypatch, size, file
):
    monkeypatch.setitem(model.BACKBONES, "compact", tiny.backbone)
    data, out = tmp_path / "data", tmp_path / "out"
    write_faces(data)
    read_dataset("FER", data_dir=data)
    # Bytes: no file may be larger.
    refused = subprocess.run(
        [sys.executable, WORKER, *words(data, out, 1)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2, refused.stderr
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert re.search(rf"{file}\.keras cannot be written .*: make room there", line)
    assert "Traceback" not in refused.stderr
    left = {path.name for path in out.iterdir()}
    assert left == {".lock", "settings.json"} | ({"model.keras"} if file != "model" else set())
    # With room again, the same command does its work.
    assert main(words(data, out, 1)) == 0
    assert read_history(out)["epoch"].tolist() == [1]
    assert load_model(out / "model.keras").name == "compact"


def test_same_seed_same_weights_to_the_bit(tmp_path):
    generator = np.random.default_rng(0)
    X = generator.integers(0, 256, (96, 48, 48, 1), dtype=np.uint8)
    y = encode_labels({"emotion": generator.integers(0, 7, 96), "age": [0, 1, 2, -1] * 24})

    def weights(folder):
        keras.utils.set_random_seed(7)
        network = compile_model(tiny.build())
        fit(network, batches_of(X, y, 16, True, seed=7), batches_of(X, y, 64), 2, folder)
        return network.get_weights()

    for one, other in zip(weights(tmp_path / "1"), weights(tmp_path / "2"), strict=True):
        np.testing.assert_array_equal(one, other)


def write_photo(path, size=(20, 20)):
    Image.new("L", size, 99).save(path)


def test_a_file_removed_or_changed_while_it_is_read_is_one_skipped_file(tmp_path):
    names = [f"2{number}_0_0_2017011617452512{number}.jpg.chip.jpg" for number in range(3)]
    for name in names:
        write_photo(tmp_path / name)
    with Source(tmp_path) as source:
        assert source.names == names
        (tmp_path / names[0]).unlink()
        (tmp_path / names[1]).write_bytes(b"")
        faces = utkface.read(source, 16)
    assert faces.paths.tolist() == [names[2]]
    assert dict(faces.skipped)[names[1]] == "an empty file"
    assert "cannot be read" in dict(faces.skipped)[names[0]]


def test_a_zip_cut_off_while_it_is_read_is_an_error_or_skipped(tmp_path):
    names = [f"2{number}_0_0_2017011617452512{number}.jpg.chip.jpg" for number in range(3)]
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for name in names:
            write_photo(tmp_path / "one.jpg", (400, 400))
            archive.write(tmp_path / "one.jpg", name)
    (tmp_path / "one.jpg").unlink()
    with Source(tmp_path) as source:
        assert len(source.names) == 3
        whole = (tmp_path / "faces.zip").stat().st_size
        with (tmp_path / "faces.zip").open("r+b") as file:
            file.truncate(whole // 2)
        faces = utkface.read(source, 16)
    assert len(faces) == 1
    assert len(faces.skipped) == 2


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("26_0_1_20170116174525125.jpg.chip.jpg", bytes(300 << 20))
    with Source(tmp_path) as source:
        assert source.names == []
        ((name, reason),) = source.skipped
    assert name == "bomb.zip/26_0_1_20170116174525125.jpg.chip.jpg"
    assert "unpack to more than 20 times their size" in reason


def test_images_with_more_pixels_than_any_photo_are_skipped(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "26_0_1_20170116174525125.chip.png")
    with Source(tmp_path) as source, pytest.raises(ValueError, match="exceeds limit of"):
        utkface.read(source, 16)


def test_one_face_one_class_and_no_labels_can_be_trained_on(tmp_path):
    X = np.full((1, 48, 48, 1), 255, np.uint8)  # constant images
    network = compile_model(tiny.build())
    for name, y in {
        "one class": encode_labels({"emotion": [3]}),
        "no labels": np.zeros((1, 18), np.float32),
    }.items():
        history = fit(network, batches_of(X, y, 1, True), batches_of(X, y, 1), 1, tmp_path / name)
        assert np.isfinite(history["loss"]).all()
        assert all(np.isfinite(weight).all() for weight in network.get_weights())


def test_nothing_is_ever_unpickled():
    unsafe = re.compile(
        r"\bpickle|allow_pickle\s*=\s*True|joblib\.load|torch\.load|safe_mode\s*=\s*False|\beval\("
    )
    files = [*ROOT.glob("fer_helpers/**/*.py"), *ROOT.glob("notebooks/*.ipynb")]
    files += ROOT.glob("notebooks/*.py")
    assert len(files) > 20
    assert not [file.name for file in files if unsafe.search(file.read_text())]
    assert unsafe.search("import pickle")
