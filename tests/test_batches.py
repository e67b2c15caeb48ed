"""Batches: complete, shuffled by seed and epoch, and with their own targets."""

import numpy as np
import pytest

from fer_helpers.batches import batches_of, generate_images, mixed_batches
from fer_helpers.labels import OUTPUTS, encode_labels, separate_category

N = 23


@pytest.fixture
def faces():
    """Image i is all i, and its emotion is i modulo 7."""
    X = np.broadcast_to(np.arange(N, dtype=np.uint8)[:, None, None, None], (N, 48, 48, 1))
    index = np.arange(N)
    y = encode_labels(
        {"emotion": index % 7, "gender": index % 3, "race": index % 3, "age": index % 5}
    )
    return X, y


def images_of(batches):
    return np.concatenate([batches[i][0][:, 0, 0, 0] for i in range(len(batches))])


def test_validation_batches_are_everything_in_order(faces):
    batches = batches_of(*faces, batch_size=10)
    assert len(batches) == 3
    np.testing.assert_array_equal(images_of(batches), np.arange(N))
    assert batches[0][0].dtype == np.uint8


def test_training_batches_are_full_and_shuffled(faces):
    batches = batches_of(*faces, batch_size=10, is_training=True)
    seen = images_of(batches)
    assert len(batches) == N // 10
    assert len(set(seen)) == 20
    assert seen.tolist() != sorted(seen)


def test_targets_belong_to_their_images(faces):
    images, targets = batches_of(*faces, batch_size=10, is_training=True)[1]
    assert list(targets) == list(OUTPUTS.values())
    numbers = images[:, 0, 0, 0]
    for task, classes in {"emotion": 7, "gender": 3, "race": 3, "age": 5}.items():
        target = targets[f"{task}_output"]
        np.testing.assert_array_equal(target.argmax(axis=1), numbers % classes)


def test_order_follows_from_seed_and_epoch(faces):
    first, again = (batches_of(*faces, 10, True, seed=3) for _ in range(2))
    np.testing.assert_array_equal(images_of(first), images_of(again))
    begun = images_of(first)
    first.on_epoch_end()
    assert images_of(first).tolist() != begun.tolist()
    again.set_epoch(1)
    np.testing.assert_array_equal(images_of(first), images_of(again))
    other = batches_of(*faces, 10, True, seed=4)
    assert images_of(other).tolist() != begun.tolist()


def test_a_set_smaller_than_a_batch_is_one_batch(faces):
    X, y = faces
    assert len(batches_of(X[:4], y[:4], 10, True)) == 1
    assert len(batches_of(X[:1], y[:1], 10)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": np.zeros((2, 48, 48, 1))}, "different length.*'images': 2"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
    ],
)
def test_bad_arguments_are_named(faces, change, message):
    X, y = faces
    arguments = {
        "X": X,
        "emotions": y[:, :7],
        "genders": y[:, 7:10],
        "races": y[:, 10:13],
        "ages": y[:, 13:],
    }
    with pytest.raises(ValueError, match=message):
        generate_images(**arguments | change)


def test_no_images_is_an_error(faces):
    X, y = faces
    with pytest.raises(ValueError, match="no images"):
        batches_of(X[:0], y[:0])


def test_mixed_batches_hold_their_share_of_each_source(faces):
    X, y = faces
    large, small = (X[:16], y[:16]), (X[16:21], y[16:21])
    batches = mixed_batches([large, small], [4, 2])
    assert len(batches) == 4
    for epoch in range(2):
        batches.set_epoch(epoch)
        first, second = [], []
        for index in range(len(batches)):
            images, targets = batches[index]
            numbers = images[:, 0, 0, 0]
            np.testing.assert_array_equal(targets["emotion_output"].argmax(axis=1), numbers % 7)
            assert (numbers < 16).sum() == 4
            assert (numbers >= 16).sum() == 2
            first += numbers[numbers < 16].tolist()
            second += numbers[numbers >= 16].tolist()
        assert sorted(first) == list(range(16))  # once each
        assert set(second) == set(range(16, 21))  # eight draws from five


def test_what_is_no_face_or_no_label_is_refused():
    X, y = np.full((4, 48, 48, 1), 200, np.uint8), np.zeros((4, 18), np.float32)
    ages, emotions, genders, races = separate_category(y)
    with pytest.raises(ValueError, match="multiply by 255"):
        generate_images(X / 255, emotions, genders, races, ages)
    with pytest.raises(ValueError, match=r"images must be \(N, H, W, 1\), not \(4, 48, 48\)"):
        generate_images(X[..., 0], emotions, genders, races, ages)
    with pytest.raises(ValueError, match=r"labels of emotion must be one-hot, \(4, 7\)"):
        generate_images(X, ages, emotions, genders, races)  # in the order they are given in
    with pytest.raises(ValueError, match="labels of race must be one-hot"):
        generate_images(X, emotions, genders, races * np.nan, ages)


def test_mixed_batches_want_a_share_for_each_source(faces):
    with pytest.raises(ValueError, match="need a share of at least 1 each"):
        mixed_batches([faces, faces], [4])
    with pytest.raises(ValueError, match="need a share of at least 1 each"):
        mixed_batches([faces, faces], [4, 0])
