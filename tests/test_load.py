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
from fer_helpers.datasets.load import split_off_validation
from fer_helpers.images import image_digests
from fer_helpers.labels import BLOCKS, encode_labels
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
        ({"name": "FER2013"}, "unknown dataset 'FER2013': choose one of SAMPLE, FER"),
        ({"name": "SAMPLE", "split": "dev"}, "SAMPLE has no split 'dev'"),
        ({"name": "SAMPLE", "split": "PublicTest"}, "SAMPLE has no split"),
        ({"name": "UTKFACE", "split": "test"}, "UTKFACE has no split 'test'"),
        ({"name": "SAMPLE", "image_size": 7}, "image_size must be"),
        ({"name": "SAMPLE", "image_size": 48.5}, "image_size must be"),
        ({"name": "SAMPLE", "image_size": True}, "image_size must be"),
        ({"name": "FER", "image_size": 1025}, "a whole number from 8 to 1024, not 1025"),
        ({"name": "SAMPLE", "n": 0}, "n must be a whole number from 1, not 0"),
        ({"name": "SAMPLE", "seed": -1}, "seed must be"),
        ({"name": "FER", "n": 5}, "n=5 is for SAMPLE only"),
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


# ------------------------------------------------------------ what to learn from and to choose by


@pytest.fixture
def repeated():
    """1,000 faces of 800 images, labelled with emotion; 100 faces have no label."""
    generator = np.random.default_rng(1)
    different = generator.integers(0, 256, (800, 8, 8, 1), dtype=np.uint8)
    image = np.concatenate([np.arange(800), generator.integers(0, 800, 200)])
    generator.shuffle(image)
    emotion = (image % 40).clip(-1, 6)  # 6 is common, the others are 1 in 40
    emotion[image % 40 > 35] = -1
    return different[image], encode_labels({"emotion": emotion}), image


def test_no_copy_of_a_validation_face_is_left_to_learn_from(repeated):
    X, y, image = repeated
    chosen = split_off_validation(X, y)
    assert (chosen.dtype, chosen.shape) == (bool, (1000,))
    assert not set(image[chosen]) & set(image[~chosen])
    assert 80 <= chosen.sum() <= 120


def test_each_class_gives_a_tenth_of_its_images(repeated):
    X, y, image = repeated
    chosen = split_off_validation(X, y)
    labelled = y.any(axis=1)
    groups = [y[:, code] == 1 for code in range(7)] + [~labelled]
    for members in groups:
        here, there = len(set(image[members & chosen])), len(set(image[members]))
        assert there // 10 <= here <= -(-there // 10)
        assert there >= 20


def test_the_validation_faces_are_the_same_every_time_and_chosen_at_random(repeated):
    X, y, _ = repeated
    chosen = split_off_validation(X, y)
    np.testing.assert_array_equal(chosen, split_off_validation(X.astype(np.float32), y.copy()))
    X = np.arange(400, dtype=np.uint16)[:, None, None, None]
    places = np.flatnonzero(split_off_validation(X, encode_labels({"emotion": [3] * 400})))
    assert len(places) == 40
    assert len(set(np.diff(places))) > 5  # neither the first faces nor every tenth
    assert places.min() < 100
    assert places.max() >= 300
    # Places and labels decide, not what the images show.
    other = split_off_validation(X[::-1], encode_labels({"emotion": [3] * 400}))
    assert np.flatnonzero(other).tolist() == places.tolist()


def test_the_first_labelled_task_decides_about_classes():
    X = np.arange(100, dtype=np.uint8)[:, None, None, None]
    gender = np.arange(100) % 2
    y = encode_labels({"gender": gender, "age": np.arange(100) // 20})
    assert gender[split_off_validation(X, y)].sum() == 5
    y = encode_labels({"age": np.arange(100) // 20, "race": [-1] * 100})
    chosen = split_off_validation(X, y)
    assert y[chosen][:, BLOCKS["age"]].sum(axis=0).tolist() == [2] * 5


def test_tiny_sets_are_split_or_refused():
    X, y = np.zeros((3, 8, 8, 1), np.uint8), np.zeros((3, 18), np.float32)
    with pytest.raises(ValueError, match="only 1 different images among 3 training faces"):
        split_off_validation(X, y)
    with pytest.raises(ValueError, match="only 0 different images among 0"):
        split_off_validation(X[:0], y[:0])
    X[2] = 7
    chosen = split_off_validation(X, y)
    assert chosen.tolist() in ([True, True, False], [False, False, True])
    assert split_off_validation(np.arange(10)[:, None, None, None], np.zeros((10, 18))).sum() == 1
    assert split_off_validation(np.arange(11)[:, None, None, None], np.zeros((11, 18))).sum() == 2


@pytest.mark.parametrize("name", ["SAMPLE", "FER", "RAFDB", "UTKFACE"])
def test_training_never_sees_the_test_split(name, monkeypatch):
    own = load._own_splits(name)
    word = {"train": own["train"], "validation": own.get("validation", own["train"])}
    splits = np.repeat([word["train"], word["validation"], own.get("test", "none")], 40)
    X = np.arange(120, dtype=np.uint8)[:, None, None, None]
    whole = Faces(X, encode_labels({"age": np.arange(120) % 5}), splits, splits)

    def read(_, split="all", data_dir=None):
        assert data_dir == "here"
        return whole if split == "all" else load._select(whole, splits == own[split])

    monkeypatch.setattr(load, "read_dataset", read)
    (X, y), (X_validation, y_validation) = load_training_data(name, "here")
    if "validation" in own:
        assert X.ravel().tolist() == list(range(40))
        assert X_validation.ravel().tolist() == list(range(40, 80))
    else:  # a tenth of training
        assert (len(X), len(X_validation)) == (72, 8)
        assert sorted([*X.ravel(), *X_validation.ravel()]) == list(range(80))
    for images, rows in ((X, y), (X_validation, y_validation)):
        ages = rows[:, BLOCKS["age"]].argmax(axis=1)
        np.testing.assert_array_equal(ages, images.ravel() % 5)


def test_training_data_of_a_copy_without_validation_split(tmp_path):
    tree = {name: content for name, content in fer_tree().items() if "PublicTest" not in name}
    tree["train/sad/Training_90.jpg"] = tree["train/happy/Training_3.jpg"]
    write(tmp_path / "FER", tree)
    (X, y), (X_validation, y_validation) = load_training_data("FER", tmp_path)
    assert (len(X) + len(X_validation), len(y), len(y_validation)) == (8, len(X), len(X_validation))
    assert not set(image_digests(X)) & set(image_digests(X_validation))
    assert len(read_dataset("FER", "train", data_dir=tmp_path)) == 8


def test_training_data_without_a_training_split(tmp_path):
    tree = {name: content for name, content in fer_tree().items() if "PrivateTest" in name}
    write(tmp_path / "FER", tree)
    with pytest.raises(ValueError, match=r"no Training \(split 'train'\); it has PrivateTest"):
        load_training_data("FER", tmp_path)
