"""Batches: complete, shuffled by seed and epoch, and with their own targets."""

import json
import mmap

import numpy as np
import pytest

from fer_helpers import distributed
from fer_helpers.batches import batches_of, check_values, generate_images, mixed_batches
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
    X, y = faces
    images, targets = batches_of(X, y.astype("float64"), batch_size=10, is_training=True)[1]
    assert list(targets) == list(OUTPUTS.values())
    assert {target.dtype for target in targets.values()} == {np.dtype("float32")}
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


def test_a_batch_beyond_the_end_does_not_exist(faces):
    for is_training in (False, True):
        batches = batches_of(*faces, 10, is_training)
        for index in (len(batches), 99, -len(batches) - 1):
            with pytest.raises(IndexError, match=f"no batch {index}: an epoch has {len(batches)}"):
                batches[index]
        np.testing.assert_array_equal(batches[-1][0], batches[len(batches) - 1][0])
        np.testing.assert_array_equal(batches[-len(batches)][0], batches[0][0])
        assert len(list(batches)) == len(batches)  # a loop ends


def test_defaults_are_all_faces_in_order_32_at_a_time(faces):
    X, y = (np.concatenate([array] * 2) for array in faces)
    ages, emotions, genders, races = separate_category(y)
    for batches in (batches_of(X, y), generate_images(X, emotions, genders, races, ages)):
        assert [len(images) for images, _ in batches] == [32, 14]
        assert not batches.is_training
        assert batches.seed == 0


def test_a_last_batch_that_is_full_is_not_followed_by_an_empty_one(faces):
    X, y = faces
    assert len(batches_of(X[:20], y[:20], 10)) == 2
    assert len(batches_of(X[:20], y[:20], 10, True)) == 2


def test_a_set_smaller_than_a_batch_is_one_batch(faces):
    X, y = faces
    assert len(batches_of(X[:4], y[:4], 10, True)) == 1
    assert len(batches_of(X[:1], y[:1], 10)) == 1
    assert len(batches_of(X[:1], y[:1], 1, True)[0][0]) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": np.zeros((2, 48, 48, 1))}, r"not \(23, 7\): there are 2 images$"),
        ({"X": None}, "^no images: nothing to make batches from$"),
        ({"X": [[1, 2], [3]]}, "images must be an array of numbers"),
        ({"X": np.full((N, 48, 48, 1), "a")}, "must be numbers from 0 to 255, not <U1"),
        ({"X": np.zeros((N, 48, 48, 3), np.uint8)}, r"grey, \(N, H, W, 1\), not \(23, 48, 48, 3\)"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, not 0"),
        ({"batch_size": 2.5}, "batch_size must be a whole number of at least 1, not 2.5"),
        ({"batch_size": "32"}, "batch_size must be a whole number of at least 1, not '32'"),
        ({"ages": [None] * N}, r"labels of age must be .* not \(23,\)"),
        ({"ages": ["old"] * N}, "labels of age must be an array of numbers: could not convert"),
        ({"emotions": np.arange(N) % 7}, r"not \(23,\): encode_labels makes label rows from"),
        ({"emotions": np.zeros((N, 5))}, r"not \(23, 5\): these look like the labels of age$"),
        ({"ages": np.zeros((N, 3))}, "these look like the labels of gender or race$"),
        ({"races": np.zeros((N, 18))}, "these look like whole label rows, which separate_category"),
        ({"races": np.zeros((N, 4))}, r"labels of race must be \(N, classes\) = .* not \(23, 4\)$"),
        ({"races": np.zeros((N, 3, 1))}, r"not \(23, 3, 1\)$"),
        ({"sample_weight": np.ones(3)}, r"number per image, \(23,\), not \(3,\)"),
        ({"sample_weight": [*range(-1, N - 1)]}, "at least 0, but it reaches from -1.0 to 21.0"),
        ({"sample_weight": [np.nan] * N}, "sample_weight must be finite and at least 0"),
        ({"sample_weight": [np.inf] * N}, "sample_weight must be finite and at least 0"),
        ({"sample_weight": ["a"] * N}, "sample_weight must be an array of numbers"),
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


@pytest.mark.parametrize(
    "row",
    [
        [-1, 1, 1, 0, 0],
        [2, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0.5, 0.2, 0, 0, 0],
        [0.3, 0, 0, 0.69, 0],
        [5, 2, 3, 0, 0],  # votes that are counted, not divided by their number
        [np.nan] * 5,
        [1, np.inf, 0, 0, 0],
    ],
)
def test_labels_that_are_no_distribution_are_refused(faces, row):
    X, y = faces
    y = y.copy()
    y[3, 13:] = row
    with pytest.raises(ValueError, match=r"labels of age must be shares .* row 3 is \["):
        batches_of(X, y)


def test_shares_lists_and_unlabelled_rows_are_labels(faces):
    X, y = faces
    y = y.copy()
    y[3, 13:] = [0.5, 0.3, 0.1995, 0, 0]
    y[4, 13:] = [1 / 3] * 3 + [0, 0]
    y[5, 13:] = 0
    ages, emotions, genders, races = separate_category(y)
    lists = [block.tolist() for block in (emotions, genders, races, ages)]
    batches = generate_images(X.tolist(), *lists, batch_size=np.int64(N))
    np.testing.assert_array_equal(batches[0][1]["age_output"], y[:, 13:])
    np.testing.assert_array_equal(batches[0][0], X)


def test_numbers_of_numpy_can_be_stored_with_a_run(faces):
    for batches in (
        batches_of(*faces, np.int64(3), seed=np.int64(1)),
        mixed_batches([faces, faces], np.array([3, 2]), np.int64(1)),
    ):
        json.dumps(batches.describe())


def test_all_pixel_values_are_checked(faces):
    """Also those behind the first batches."""
    X = np.full((300, 48, 48, 1), 100.0)
    X[-1, 0, 0] = 256
    with pytest.raises(ValueError, match=r"found 100\.0 to 256\.0"):
        batches_of(X, np.zeros((300, 18), np.float32))


def test_a_sample_weight_is_the_mass_of_a_faces_targets(faces):
    X, y = faces
    ages, emotions, genders, races = separate_category(y)
    weight = np.arange(N) / 4
    batches = generate_images(X, emotions, genders, races, ages, N, sample_weight=weight)
    for target in batches[0][1].values():
        np.testing.assert_array_equal(target.sum(axis=1), weight)
        assert target.dtype == np.float32
    np.testing.assert_array_equal(y.sum(axis=1), [4] * N)  # what was given stays as it was
    plain = batches_of(X, y, N).describe()
    assert batches.describe()["labels"] != plain["labels"]


def test_no_images_is_an_error(faces):
    X, y = faces
    with pytest.raises(ValueError, match=r"^no images: nothing to make batches from$"):
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
        assert max(map(second.count, second)) == 2
    batches.set_epoch(0)
    begun = images_of(batches)
    batches.on_epoch_end()
    assert images_of(batches).tolist() != begun.tolist()
    other = mixed_batches([large, small], [4, 2], seed=1)
    assert images_of(other).tolist() != begun.tolist()
    assert (batches.is_training, batches.batch_size, batches.seed) == (True, 6, 0)


def test_three_data_sets_are_mixed_also_if_one_has_one_face(faces):
    X, y = faces
    batches = mixed_batches([(X[a:b], y[a:b]) for a, b in ((0, 4), (4, 5), (5, 23))], [2, 1, 3])
    assert len(batches) == 2
    for images, _ in batches:
        numbers = images[:, 0, 0, 0]
        assert np.histogram(numbers, [0, 4, 5, 23])[0].tolist() == [2, 1, 3]


def test_a_first_data_set_smaller_than_its_share_makes_one_batch(faces):
    X, y = faces
    batches = mixed_batches([(X[:3], y[:3]), (X[3:], y[3:])], [4, 1])
    assert len(batches) == 1
    assert len(batches[0][0]) == 5


def test_a_change_is_made_to_each_batch(faces):
    seen = []

    def change(images, targets, seed):
        seen.append((seed, list(targets)))
        return images + 1, targets

    plain = mixed_batches([faces], [10], seed=3)
    changed = mixed_batches([faces], [10], seed=3, change=change)
    for batches in (plain, changed):
        batches.set_epoch(2)
    np.testing.assert_array_equal(changed[-1][0], plain[-1][0] + 1)
    assert seen == [((3, 2, 1), list(OUTPUTS.values()))]


@pytest.mark.parametrize(
    ("rank", "processes", "devices", "own", "size"),
    [
        (0, 2, 2, range(5), 5),
        (1, 2, 2, range(5, 10), 5),
        (0, 2, 4, range(6), 6),  # of ten faces, three for each of four devices
        (1, 2, 4, range(6, 10), 6),
        (0, 1, 4, range(10), 12),
    ],
)
def test_each_process_reads_an_equal_share(rank, processes, devices, own, size, faces, monkeypatch):
    monkeypatch.setattr(distributed, "process_info", lambda: (rank, processes, devices))
    X, y = faces
    images, targets = batches_of(X[:10], y[:10], 10)[0]
    assert len(images) == size
    assert images[: len(own), 0, 0, 0].tolist() == list(own)
    assert images.shape[1:] == (48, 48, 1)
    for target in targets.values():
        assert len(target) == size
        assert (target[: len(own)].sum(axis=1) == 1).all()
        assert not target[len(own) :].any()  # filled up with what is not labelled


def test_devices_of_one_process_share_a_batch(faces):
    X, y = faces
    batches = batches_of(X[:10], y[:10], 10)
    assert len(batches[0][0]) == 10
    batches.devices = 3
    assert len(batches[0][0]) == 12


def test_what_is_read_of_a_memory_map_is_released(faces, tmp_path, monkeypatch):
    X, y = faces
    np.save(tmp_path / "X.npy", X)
    calls = []

    class Mapped(np.ndarray):
        mode, _mmap = "r", type("Map", (), {"madvise": lambda self, how: calls.append(how)})()

    batches_of(X.view(Mapped), y, 10)[0]
    assert calls == [mmap.MADV_DONTNEED]
    batches_of(X.view(Mapped), y, 10).describe()
    assert len(calls) == 2
    monkeypatch.setattr(Mapped, "mode", "r+")  # pages with changes of their own
    batches_of(X.view(Mapped), y, 10)[0]
    assert len(calls) == 2
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    np.testing.assert_array_equal(images_of(batches_of(mapped, y, 10)), np.arange(N))
    monkeypatch.delattr(mmap, "MADV_DONTNEED")  # as on Windows
    np.testing.assert_array_equal(images_of(batches_of(mapped, y, 10)), np.arange(N))


def test_a_description_tells_contents_apart_and_nothing_else(faces, tmp_path):
    X, y = (np.ascontiguousarray(array) for array in faces)
    X = np.concatenate([X] * 200)  # more than is hashed at a time
    y = np.concatenate([y] * 200)

    def described(X=X, y=y):
        return batches_of(X, y, 10, True, seed=3).describe()

    plain = described()
    assert plain["images"].startswith("uint8[4600, 48, 48, 1] ")
    assert plain["labels"].keys() == set(OUTPUTS.values())
    assert {key: plain[key] for key in ("batch_size", "is_training", "seed", "changed")} == {
        "batch_size": 10,
        "is_training": True,
        "seed": 3,
        "changed": False,
    }
    assert list(plain["sources"]) == []
    assert described(np.asfortranarray(X), np.asfortranarray(y)) == plain
    small = batches_of(X[:9], y[:9]).describe()
    assert batches_of(np.asfortranarray(X[:9]), np.asfortranarray(y[:9])).describe() == small
    assert described(X.repeat(2, axis=2)[:, :, ::2]) == plain
    np.save(tmp_path / "X.npy", X)
    assert described(np.load(tmp_path / "X.npy", mmap_mode="r")) == plain
    for place in (0, -1):
        other = X.copy()
        other[place, -1, -1] ^= 1
        assert described(other)["images"] != plain["images"]
        other = y.copy()
        other[place] = np.roll(other[place], 1)
        assert described(y=other)["labels"] != plain["labels"]
    assert described(X.astype("float32"))["images"] != plain["images"]
    assert described(X.reshape(-1, 24, 96, 1))["images"] != plain["images"]
    mixed = mixed_batches([faces, faces], [3, 2], change=print).describe()
    assert [*map(tuple, mixed["sources"])] == [(N, 3), (N, 2)]
    assert mixed["changed"]


def test_what_is_no_face_or_no_label_is_refused():
    X, y = np.full((4, 48, 48, 1), 200, np.uint8), np.zeros((4, 18), np.float32)
    ages, emotions, genders, races = separate_category(y)
    with pytest.raises(ValueError, match="multiply by 255"):
        generate_images(X / 255, emotions, genders, races, ages)
    with pytest.raises(ValueError, match=r"must be grey, \(N, H, W, 1\), not \(4, 48, 48\)"):
        generate_images(X[..., 0], emotions, genders, races, ages)
    with pytest.raises(ValueError, match=r"emotion .* \(4, 7\), .* the labels of age"):
        generate_images(X, ages, emotions, genders, races)  # in the order they are given in
    with pytest.raises(ValueError, match="labels of race must be shares"):
        generate_images(X, emotions, genders, races * np.nan, ages)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 256], "finite and from 0 to 255, found 0.0 to 256.0"),
        ([-1, 255], "finite and from 0 to 255, found -1.0 to 255.0"),
        ([0, np.nan], "finite and from 0 to 255"),
        ([0, np.inf], "finite and from 0 to 255"),
        ([0, 1], "^pixel values end at 1: multiply by 255, the network scales them itself$"),
        ([0, 0.5], "pixel values end at 1: multiply by 255"),
    ],
)
def test_pixel_values_that_are_no_grey_levels_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        check_values(np.array(values, "float32"))


def test_pixel_values_that_are_grey_levels_pass():
    for values in ([0, 255], [0, 1.5], [0, 0], [3, 3]):
        check_values(np.array(values, "float32"))
    check_values(np.array([0, 1], np.uint8))


def test_mixed_batches_want_a_share_for_each_source(faces):
    with pytest.raises(ValueError, match="need a share of at least 1 each"):
        mixed_batches([faces, faces], [4])
    X, y = faces
    with pytest.raises(ValueError, match=rf"a data set of {N} images has {N - 1} label rows"):
        mixed_batches([(X, y[1:]), (X[1:], y)], [1, 1])
    with pytest.raises(ValueError, match="need a share of at least 1 each"):
        mixed_batches([faces, faces], [4, 0])
    with pytest.raises(ValueError, match="need a share of at least 1 each"):
        mixed_batches([], [])
    with pytest.raises(ValueError, match="need a share of at least 1 each"):
        mixed_batches([faces, (faces[0][:0], faces[1][:0])], [4, 1])
