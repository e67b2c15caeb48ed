"""SAMPLE: the drawn faces are the same every time, well labelled, and neither easy nor unfair."""

import hashlib
import itertools
import os
import warnings

import numpy as np
import pytest

from fer_helpers.datasets import Faces, read_dataset, sample
from fer_helpers.labels import BLOCKS, TASKS, decode_labels, encode_labels
from trees import same

# Expected bytes of read(48, n=8, seed=0): a change here changes every learner's figures.
FINGERPRINT = "b811edc1397ba8d285b6a7d6bd84e59309f1da795195e4febd32606cbb3dca80"
# What each action unit moves in a plain face: top and bottom row, of 96.
BROWS, LIDS, NOSE, MOUTH = (8, 42), (30, 52), (34, 64), (50, 96)
REGIONS = {
    1: BROWS,
    2: BROWS,
    4: BROWS,
    5: LIDS,
    6: (30, 66),
    7: LIDS,
    9: (20, 76),
    12: (42, 80),
    15: (50, 86),
    16: MOUTH,
    20: MOUTH,
    23: MOUTH,
    26: MOUTH,
}


@pytest.fixture(scope="module")
def faces():
    return sample.read(48, n=4800, seed=0)


def place(name, **units):
    """One landmark of a plain face with some action units at work."""
    return float(sample.landmarks(sample.plain_face(**units))[name][0])


def picture(size=96, **changes):
    return sample.render(sample.plain_face(**changes), size)[0].astype(int)


def cramers_v(a, b):
    counts = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(counts, (a, b), 1)
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    chi2 = ((counts - expected) ** 2 / expected).sum()
    return np.sqrt(chi2 / counts.sum() / (min(counts.shape) - 1))


# ------------------------------------------------------------------------ the same every time


def test_same_seed_same_bytes():
    one, two = sample.read(48, n=300, seed=3), sample.read(48, n=300, seed=3)
    assert one.images.tobytes() == two.images.tobytes()
    assert one.labels.tobytes() == two.labels.tobytes()
    other = sample.read(48, n=300, seed=4)
    assert not np.array_equal(one.images, other.images)
    assert not np.array_equal(one.labels, other.labels)


def test_bytes_are_the_published_ones():
    faces = sample.read(48, n=8, seed=0)
    digest = hashlib.sha256(faces.images.tobytes() + faces.labels.tobytes()).hexdigest()
    assert digest == FINGERPRINT


@pytest.mark.parametrize("n", [1, 17, 255, 256, 257])
def test_first_faces_do_not_depend_on_how_many_follow(faces, n):
    few = sample.read(48, n=n, seed=0)
    for name in ("images", "labels", "paths", "splits"):
        np.testing.assert_array_equal(getattr(few, name), getattr(faces, name)[:n])


def test_a_face_does_not_depend_on_its_neighbours(faces):
    parameters = sample.draw_parameters(600, 0)[::7]
    alone = np.concatenate([sample.render(parameters[i : i + 1]) for i in range(40)])
    np.testing.assert_array_equal(alone, faces.images[:600:7, ..., 0][:40])


def test_blocks_make_up_the_data_set(faces):
    for index in (0, 2):
        images, labels, splits = sample.draw_block(index, 48, seed=0)
        rows = slice(index * sample.BLOCK, (index + 1) * sample.BLOCK)
        np.testing.assert_array_equal(images, faces.images[rows])
        np.testing.assert_array_equal(labels, faces.labels[rows])
        np.testing.assert_array_equal(splits, faces.splits[rows])


def test_no_face_is_drawn_twice(faces):
    assert len({image.tobytes() for image in faces.images}) == len(faces)


def test_read_dataset_gives_the_drawn_faces_split_by_split_and_from_the_cache(
    tmp_path, monkeypatch
):
    n = sample.BLOCK + 3
    faces = read_dataset("SAMPLE", data_dir=tmp_path, n=n, seed=4, image_size=16)
    parameters = sample.draw_parameters(n, 4)
    images = sample.render(parameters, 16)[..., None]
    splits = np.array(sample.SPLITS)[parameters["split"]]
    labels = encode_labels({task: parameters[task] for task in TASKS})
    paths = np.array([f"sample_{i:06d}.png" for i in range(n)])
    same(faces, Faces(images, labels, paths, splits))
    assert faces.paths.tolist() == paths.tolist()
    assert isinstance(faces.images, np.memmap)
    monkeypatch.setattr(sample, "draw_block", None)  # from here on only from the cache
    for split in ("train", "validation", "test"):
        one = read_dataset("SAMPLE", split, data_dir=tmp_path, n=n, seed=4, image_size=16)
        assert set(one.splits) == {split}
        assert len(one) == (splits == split).sum()
        np.testing.assert_array_equal(one.images, images[splits == split])


def no_room(*_):
    raise OSError(28, "No space left on device")


def test_large_sets_are_drawn_into_a_file_with_the_same_bytes(monkeypatch):
    n, size = 300, 16
    in_memory = sample.read(size, n, 3)
    assert not isinstance(in_memory.images, np.memmap)
    monkeypatch.setattr(sample, "IN_MEMORY", n * size * size)
    assert not isinstance(sample.read(size, n, 3).images, np.memmap)  # just small enough
    monkeypatch.setattr(sample, "IN_MEMORY", n * size * size - 1)
    in_file = sample.read(size, n, 3)
    assert isinstance(in_file.images, np.memmap)
    assert in_file.images.dtype == np.uint8
    same(in_memory, in_file)
    monkeypatch.setattr(os, "posix_fallocate", no_room)
    without_room = sample.read(size, n, 3)
    monkeypatch.delattr(os, "posix_fallocate")  # as on Windows
    for again in (without_room, sample.read(size, n, 3)):
        assert not isinstance(again.images, np.memmap)
        same(in_memory, again)


def test_large_sets_are_cached_too(tmp_path, monkeypatch):
    monkeypatch.setattr(sample, "IN_MEMORY", 1000)
    faces = read_dataset("SAMPLE", data_dir=tmp_path, n=20, image_size=16)
    same(faces, sample.read(16, 20, 0))
    assert not faces.images.flags.writeable


# ------------------------------------------------------------------------------------- labels


def test_shapes_and_types(faces):
    assert faces.images.shape == (4800, 48, 48, 1)
    assert faces.images.dtype == np.uint8
    assert faces.labels.shape == (4800, 18)
    assert faces.labels.dtype == np.float32
    assert faces.paths[0] == "sample_000000.png"
    assert faces.paths[4799] == "sample_004799.png"
    assert faces.skipped == []


def test_every_face_has_all_four_labels(faces):
    for task, block in BLOCKS.items():
        assert (faces.labels[:, block].sum(axis=1) == 1).all()
        assert set(decode_labels(faces.labels)[task]) == set(TASKS[task])


def test_labels_are_those_of_the_parameters(faces):
    parameters = sample.draw_parameters(4800, 0)
    for task, block in BLOCKS.items():
        np.testing.assert_array_equal(faces.labels[:, block].argmax(axis=1), parameters[task])
    spans = np.array(sample.AGE_SPANS)[parameters["age"]]
    assert ((spans[:, 0] <= parameters["years"]) & (parameters["years"] <= spans[:, 1])).all()


def test_class_frequencies(faces):
    for task, block in BLOCKS.items():
        shares = sample.FREQUENCIES[task]
        assert sum(shares) == pytest.approx(1)
        np.testing.assert_allclose(faces.labels[:, block].mean(axis=0), shares, atol=0.025)


def test_splits(faces):
    shares = [np.mean(faces.splits == split) for split in sample.SPLITS]
    np.testing.assert_allclose(shares, sample.SPLIT_SHARES, atol=0.02)


@pytest.mark.parametrize(("a", "b"), [(a, b) for a in TASKS for b in TASKS if a < b])
def test_labels_are_independent(faces, a, b):
    classes = [faces.labels[:, BLOCKS[task]].argmax(axis=1) for task in (a, b)]
    assert cramers_v(*classes) < 0.1


# ------------------------------------------------------------------------------- action units


def test_prototypes_match_the_table():
    table = sample.prototypes()
    assert table.shape == (len(TASKS["emotion"]), len(sample.action_units))
    for row, name in zip(table, TASKS["emotion"], strict=True):
        units = {unit for unit, on in zip(sample.action_units, row, strict=True) if on}
        assert units == set(sample.EMOTION_UNITS[name])
    assert sample.EMOTION_UNITS["happiness"] == (6, 12)
    assert sample.EMOTION_UNITS["surprise"] == (1, 2, 5, 26)


def test_an_emotion_moves_its_own_units():
    parameters = sample.draw_parameters(2400, 0)
    assert parameters["units"].min() >= 0
    assert parameters["units"].max() <= 1
    for row, prototype in enumerate(sample.prototypes()):
        mean = parameters["units"][parameters["emotion"] == row].mean(axis=0)
        assert (mean[prototype == 1] > 0.4).all()
        assert (mean[prototype == 0] < 0.1).all()


@pytest.mark.parametrize("unit", sample.action_units)
def test_each_unit_changes_its_own_region(unit):
    change = np.abs(picture(**{f"AU{unit}": 1.0}) - picture())
    top, bottom = REGIONS[unit]
    inside = change[top:bottom].sum() / change.sum()
    assert change.max() > 25
    assert inside > 0.93


@pytest.mark.parametrize("unit", sample.action_units)
def test_a_unit_grows_smoothly(unit):
    levels = [picture(**{f"AU{unit}": level}) for level in np.linspace(0, 1, 11)]
    steps = [np.abs(b - a).sum() for a, b in itertools.pairwise(levels)]
    whole = np.abs(levels[-1] - levels[0]).sum()
    assert max(steps) < 0.6 * whole
    assert min(steps) > 0


def test_units_do_what_facs_says():
    assert place("brow_inner_y", AU1=1) < place("brow_inner_y") - 0.1
    assert place("brow_outer_y", AU2=1) < place("brow_outer_y") - 0.1
    assert place("brow_inner_y", AU4=1) > place("brow_inner_y") + 0.05
    assert place("brow_inner_x", AU4=1) < place("brow_inner_x") - 0.03
    assert place("lid_upper", AU5=1) > 1.5 * place("lid_upper")
    assert place("lid_lower", AU6=1) < 0.5 * place("lid_lower")
    assert place("lid_upper", AU7=1) < 0.7 * place("lid_upper")
    assert place("lid_lower", AU7=1) < 0.7 * place("lid_lower")
    assert place("nostril_y", AU9=1) < place("nostril_y") - 0.03
    assert place("mouth_top", AU9=1) < place("mouth_top") - 0.03
    assert place("corner_y", AU12=1) < place("corner_y") - 0.1
    assert place("mouth_width", AU12=1) > place("mouth_width") + 0.05
    assert place("corner_y", AU15=1) > place("corner_y") + 0.1
    assert place("lip_lower", AU16=1) > place("lip_lower")
    assert place("mouth_open", AU16=1) > place("mouth_open") + 0.05
    assert place("mouth_width", AU20=1) > place("mouth_width") + 0.08
    assert place("lip_upper", AU23=1) < 0.5 * place("lip_upper")
    assert place("mouth_open", AU26=1) > place("mouth_open") + 0.2
    assert place("chin_y", AU26=1) > place("chin_y") + 0.08


def test_pixels_follow_the_geometry():
    """The darkest row at a mouth corner rises with AU12 and sinks with AU15."""

    def corner_row(**units):
        face = sample.plain_face(**units)
        column = round((sample.landmarks(face)["mouth_width"][0] * 0.85 * 0.98 + 1) * 48)
        return 60 + sample.render(face, 96)[0][60:82, column].argmin()

    assert corner_row(AU12=0.8, parted=0) < corner_row(parted=0) < corner_row(AU15=0.8, parted=0)


# ------------------------------------------------------------------------------------ the task


def test_pixels_alone_do_not_give_the_emotion_away(faces):
    """A linear model on pixels does better than chance and worse than a network has to."""
    from sklearn.linear_model import LogisticRegression

    small = faces.images.reshape(-1, 16, 3, 16, 3).mean(axis=(2, 4)).reshape(4800, -1)
    emotion = faces.labels[:, BLOCKS["emotion"]].argmax(axis=1)
    train, test = faces.splits == "train", faces.splits == "test"
    small = (small - small[train].mean(axis=0)) / small[train].std(axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 25 steps need not converge
        model = LogisticRegression(max_iter=25).fit(small[train], emotion[train])
    assert 0.40 < model.score(small[test], emotion[test]) < 0.60


# --------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("size", [8, 32, 64, 97])
def test_other_sizes(size):
    faces = sample.read(size, n=20, seed=0)
    assert faces.images.shape == (20, size, size, 1)
    assert faces.images.std() > 20


def test_a_larger_picture_shows_the_same_face():
    face = sample.draw_parameters(32, 0)
    face["grain"] = 0
    large = sample.render(face, 96).reshape(-1, 48, 2, 48, 2).mean(axis=(2, 4))
    assert np.abs(large - sample.render(face, 48)).mean() < 5


def test_faces_are_neither_black_nor_blown_out(faces):
    middle = faces.images[:, 12:40, 12:36].mean(axis=(1, 2, 3))
    assert middle.min() > 35
    assert middle.max() < 235
    assert np.mean(faces.images == 255) < 0.02


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda: sample.read(48, n=0, seed=0), "n must"),
        (lambda: sample.read(48, n=-5, seed=0), "n must"),
        (lambda: sample.read(48, n=2.5, seed=0), "n must"),
        (lambda: sample.read(48, n=1, seed=-1), "seed"),
        (lambda: sample.read(0, n=1, seed=0), "image_size"),
        (lambda: sample.draw_block(-1, 48, 0), "index"),
        (lambda: sample.render(np.zeros((2, 3))), "parameters"),
        (lambda: sample.plain_face(AU3=1), "AU3"),
        (lambda: sample.plain_face(AUx=1), "AUx"),
        (lambda: sample.plain_face(beard=1), "beard"),
    ],
)
def test_wrong_arguments(wrong, word):
    with pytest.raises(ValueError, match=word):
        wrong()
