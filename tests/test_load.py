"""Data sets by name, split and size; what is there, and what to train and validate on."""

import io

import numpy as np
import pytest
from PIL import Image

from fer_helpers.datasets import (
    Faces,
    find_datasets,
    load,
    load_data,
    load_training_data,
    rafdb,
    read_dataset,
)
from fer_helpers.images import image_digests
from trees import UTK_FILES, fer_tree, same, write, zipped


def test_fer_splits_by_both_names_and_in_one_piece(tmp_path, capsys):
    write(tmp_path / "FER", fer_tree())
    for ours, own in (
        ("train", "Training"),
        ("validation", "PublicTest"),
        ("test", "PrivateTest"),
    ):
        faces = read_dataset("FER", ours, data_dir=tmp_path)
        assert set(faces.splits) == {own}
        assert len(faces) == 7
        assert isinstance(faces.images, np.memmap)
        same(faces, read_dataset("FER", own, data_dir=tmp_path))
    X, y = load_data("FER", data_dir=tmp_path)
    assert X.shape == (21, 48, 48, 1)
    assert y.shape == (21, 18)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["FER", "RAFDB", "UTKFACE"])
@pytest.mark.parametrize(
    ("tree", "said"),
    [
        (None, "does not exist"),
        ({}, "is empty"),
        ({"readme.txt": "x"}, "holds 1 files, but not those of"),
        ({"set.tar.gz": b"x"}, "Unpack set.tar.gz first"),
        ({"a.zip": zipped({"readme.txt": "x"})}, "holds 1 files"),
    ],
)
def test_missing_data_say_how_to_get_them(tmp_path, name, tree, said):
    if tree is not None:
        (tmp_path / name).mkdir()
        write(tmp_path / name, tree)
    with pytest.raises(FileNotFoundError) as error:
        read_dataset(name, data_dir=tmp_path)
    reader = load.READERS[name]
    for text in (
        str(tmp_path / name),
        said,
        reader.EXPECTED,
        reader.TERMS,
        reader.HOW_TO_GET,
    ):
        assert text in str(error.value)
    assert not list(tmp_path.glob(".cache/*"))  # nothing half done stays behind


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "FER2013"}, "unknown dataset 'FER2013': there is no such folder .* SAMPLE, FER"),
        ({"name": "SAMPLE", "split": "dev"}, "SAMPLE has no split 'dev'"),
        ({"name": "SAMPLE", "split": "PublicTest"}, "SAMPLE has no split"),
        ({"name": "UTKFACE", "split": "PublicTest"}, "UTKFACE has no split 'PublicTest'"),
        ({"name": "SAMPLE", "image_size": 7}, "image_size must be"),
        ({"name": "SAMPLE", "image_size": 48.5}, "image_size must be"),
        ({"name": "SAMPLE", "image_size": True}, "image_size must be"),
        ({"name": "FER", "image_size": 1025}, "a whole number from 8 to 1024, not 1025"),
        ({"name": "SAMPLE", "n": 0}, "n must be a whole number from 1, not 0"),
        ({"name": "SAMPLE", "seed": -1}, "seed must be"),
        ({"name": "FER", "n": 5}, "n=5 is for SAMPLE only"),
        ({"name": "FER", "labels": "fer+"}, "for FER it is 'ferplus'"),
        ({"name": "UTKFACE", "labels": "people.csv"}, "labels and ignore are for FER and"),
        ({"name": "RAFDB", "ignore": ["happy"]}, "labels and ignore are for FER and"),
        ({"name": "FER", "ignore": "contempt"}, r"a list of words, such as \['contempt'\]"),
    ],
)
def test_wrong_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        load_data(data_dir=tmp_path, **arguments)


def test_sample_has_4800_faces_unless_told_otherwise(tmp_path, monkeypatch):
    asked = []

    def draw(*arguments):
        asked.append(arguments)
        rows = np.array(["train", "validation", "test"])
        return Faces(np.zeros((3, 8, 8, 1), np.uint8), np.zeros((3, 18), np.float32), rows, rows)

    monkeypatch.setattr(load.sample, "read", draw)
    load_data(data_dir=tmp_path)
    read_dataset("SAMPLE", "train", 24, tmp_path, n=5, seed=7)
    assert asked == [(48, 4800, 0), (24, 5, 7)]


def test_faces_of_different_length():
    with pytest.raises(ValueError, match=r"differ in length: .*'images': 2, 'labels': 3"):
        Faces(
            np.zeros((2, 8, 8, 1)),
            np.zeros((3, 18)),
            np.array(["a"] * 2),
            np.array(["b"] * 2),
        )


def test_image_size_and_colour(tmp_path):
    stream = io.BytesIO()
    Image.new("RGB", (200, 200), (200, 100, 50)).save(stream, "JPEG")
    write(tmp_path / "UTKFACE", {UTK_FILES[0]: stream.getvalue()})
    for size in (8, 24, 1024):
        X, _ = load_data("UTKFACE", image_size=size, data_dir=tmp_path)
        assert X.shape == (1, size, size, 1)
        assert np.abs(X.astype(int) - 124).max() <= 2  # 0.299 R + 0.587 G + 0.114 B


def test_find_datasets(tmp_path, monkeypatch):
    write(tmp_path / "FER", {"fer.zip": b"not even a zip"})
    write(tmp_path / "UTKFACE", {"readme.txt": "x"})
    table = find_datasets(tmp_path).set_index("name")
    assert table["found"].to_dict() == {
        "SAMPLE": True, "FER": True, "RAFDB": False, "UTKFACE": False
    }  # fmt: skip
    assert table["where"]["FER"] == str(tmp_path / "FER")
    assert rafdb.HOW_TO_GET in table["where"]["RAFDB"]
    assert table["terms"].str.len().min() > 20


def test_training_never_sees_the_test_split(tmp_path):
    write(tmp_path / "FER", fer_tree())
    (X, y), (X_validation, y_validation) = load_training_data("FER", tmp_path)
    for split, images, labels in (("train", X, y), ("validation", X_validation, y_validation)):
        faces = read_dataset("FER", split, data_dir=tmp_path)
        np.testing.assert_array_equal(images, faces.images)
        np.testing.assert_array_equal(labels, faces.labels)


def test_training_data_of_a_copy_without_validation_split(tmp_path):
    tree = {name: content for name, content in fer_tree().items() if "PublicTest" not in name}
    tree["train/sad/Training_90.jpg"] = tree["train/happy/Training_3.jpg"]
    write(tmp_path / "FER", tree)
    (X, y), (X_validation, y_validation) = load_training_data("FER", tmp_path)
    assert (len(X) + len(X_validation), len(y), len(y_validation)) == (8, len(X), len(X_validation))
    assert not set(image_digests(X)) & set(image_digests(X_validation))
    assert (len(X), len(X_validation)) != (8, 0)
    assert len(read_dataset("FER", "test", data_dir=tmp_path)) == 7


def test_training_data_without_a_training_split(tmp_path):
    tree = {name: content for name, content in fer_tree().items() if "PrivateTest" in name}
    write(tmp_path / "FER", tree)
    with pytest.raises(ValueError, match=r"no Training \(split 'train'\); it has PrivateTest"):
        load_training_data("FER", tmp_path)
