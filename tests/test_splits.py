"""A validation and a test split out of training, and the words that people use for splits."""

import numpy as np
import pytest

from fer_helpers.datasets import Faces
from fer_helpers.datasets.splits import SPLITS, add_missing_splits, find_groups, split_word
from fer_helpers.labels import BLOCKS, encode_labels

OWN = dict(zip(SPLITS, SPLITS, strict=True))


def faces_of(images, classes=None, persons=None, splits=None) -> Faces:
    images = np.asarray(images)
    n = len(images)
    return Faces(
        images.reshape(n, *images.shape[1:], *[1] * (4 - images.ndim)),
        encode_labels(classes or {"emotion": np.zeros(n, int)}),
        np.arange(n).astype(str),
        np.array(splits or ["train"] * n),
        persons=None if persons is None else np.array(persons),
    )


def split_sizes(faces: Faces) -> list[int]:
    return [int((faces.splits == split).sum()) for split in SPLITS]


@pytest.fixture
def repeated():
    """1,000 faces of 800 images, labelled with emotion; 100 faces have no label."""
    generator = np.random.default_rng(1)
    different = generator.integers(0, 256, (800, 8, 8, 1), dtype=np.uint8)
    image = np.concatenate([np.arange(800), generator.integers(0, 800, 200)])
    generator.shuffle(image)
    emotion = (image % 40).clip(-1, 6)  # 6 is common, the others are 1 in 40
    emotion[image % 40 > 35] = -1
    return add_missing_splits(faces_of(different[image], {"emotion": emotion}), OWN), image


def test_copies_stay_in_one_split(repeated):
    faces, image = repeated
    of = {split: set(image[faces.paths[faces.splits == split].astype(int)]) for split in SPLITS}
    assert not of["train"] & of["validation"]
    assert not of["train"] & of["test"]
    assert not of["validation"] & of["test"]
    assert sum(split_sizes(faces)) == 1000
    assert all(80 <= size <= 120 for size in split_sizes(faces)[1:])


@pytest.mark.parametrize("split", ["validation", "test"])
def test_each_class_gives_a_tenth_of_its_images(repeated, split):
    faces, image = repeated
    shown = image[faces.paths.astype(int)]
    chosen = faces.splits == split
    groups = [faces.labels[:, code] == 1 for code in range(7)] + [~faces.labels.any(axis=1)]
    for members in groups:
        here, there = len(set(shown[members & chosen])), len(set(shown[members]))
        assert there // 10 <= here <= -(-there // 10)
        assert there >= 20


def test_the_pixels_alone_decide():
    X = np.random.default_rng(0).integers(0, 256, (400, 8, 8, 1), dtype=np.uint8)
    first = add_missing_splits(faces_of(X), OWN)
    assert split_sizes(first) == [320, 40, 40]
    assert first.splits.tolist() == sorted(first.splits, key=SPLITS.index)
    places = np.sort(first.paths[first.splits == "test"].astype(int))
    assert len(set(np.diff(places))) > 5  # neither the first faces nor every tenth
    other = add_missing_splits(faces_of(X[::-1].astype(np.float32)), OWN)
    assert (
        np.sort(399 - other.paths[other.splits == "test"].astype(int)).tolist() == places.tolist()
    )


def test_the_first_labelled_task_decides_about_classes():
    X = np.arange(100, dtype=np.uint8)
    both = {"gender": np.arange(100) % 2, "age": np.arange(100) // 20}
    faces = add_missing_splits(faces_of(X, both), OWN)
    held_out = faces.labels[faces.splits == "validation"]
    assert held_out[:, BLOCKS["gender"]].sum(axis=0).tolist() == [5, 5, 0]
    faces = add_missing_splits(faces_of(X, {"age": np.arange(100) // 20, "race": [-1] * 100}), OWN)
    held_out = faces.labels[faces.splits == "validation"]
    assert held_out[:, BLOCKS["age"]].sum(axis=0).tolist() == [2] * 5


def test_official_training_gives_up_no_test_split_beside_a_validation_split():
    own = dict(zip(SPLITS, ("Training", "PublicTest", "PrivateTest"), strict=True))
    images = np.arange(45, dtype=np.uint8)
    faces = faces_of(images, splits=["PublicTest"] * 5 + ["Training"] * 40)
    whole = add_missing_splits(faces, own, official=True)
    assert whole.splits.tolist() == ["Training"] * 40 + ["PublicTest"] * 5
    faces = faces_of(images, splits=["PrivateTest"] * 5 + ["Training"] * 40)
    split = add_missing_splits(faces, own, official=True).splits.tolist()
    assert split == ["Training"] * 36 + ["validation"] * 4 + ["PrivateTest"] * 5


def test_a_person_stays_in_one_split():
    X = np.arange(300, dtype=np.uint16)
    persons = [f"p{i // 15}" for i in range(300)]
    faces = add_missing_splits(faces_of(X, persons=persons), OWN)
    assert split_sizes(faces) == [240, 30, 30]
    for person in set(persons):
        assert len(set(faces.splits[faces.persons == person])) == 1


def test_groups_join_copies_and_persons():
    X = np.array([0, 1, 1, 2, 3, 4, 0]).reshape(7, 1, 1, 1)
    persons = np.array(["a", "a", "", "b", "b", "", ""])
    groups = find_groups(X, persons)
    assert [groups.tolist().index(group) for group in groups] == [0, 0, 0, 3, 3, 5, 0]


def test_a_split_that_is_there_stays():
    splits = ["train"] * 40 + ["test"] * 5
    faces = add_missing_splits(faces_of(np.arange(45, dtype=np.uint8), splits=splits), OWN)
    assert split_sizes(faces) == [36, 4, 5]
    assert faces.images[faces.splits == "test"].ravel().tolist() == list(range(40, 45))
    assert "no validation split: a tenth of each class, 4 of 40 training faces" in faces.notes[0]
    assert add_missing_splits(faces, OWN) is faces


@pytest.mark.parametrize(
    ("pixels", "sizes"),
    [
        ([], [0, 0, 0]),
        ([0, 0, 0], [3, 0, 0]),
        ([0, 1], [2, 0, 0]),
        ([0, 1, 2], [1, 1, 1]),
        (range(11), [8, 2, 1]),
        (range(12), [8, 2, 2]),
    ],
)
def test_tiny_sets(pixels, sizes):
    images = np.array(list(pixels), np.uint8)
    assert split_sizes(add_missing_splits(faces_of(images), OWN)) == sizes


@pytest.mark.parametrize(
    ("words", "split"),
    [
        ("train Training TRAIN", "train"),
        ("validation valid val dev PublicTest public_test", "validation"),
        ("test testing PrivateTest private_test Private-Test", "test"),
        ("happy tests 1 trains", None),
    ],
)
def test_words(words, split):
    assert [split_word(word) for word in words.split()] == [split] * len(words.split())
