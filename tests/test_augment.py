"""The augmentation layer: off outside of training, seeded, in range, and the right way round."""

import keras
import numpy as np
import pytest

from fer_helpers.augment import RandomFace

OFF = {"rotation": 0, "zoom": 0, "shift": 0, "contrast": 0, "brightness": 0, "erase": 0}


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (32, 48, 48, 1)).astype("float32")


def augmented(layer, images):
    return keras.ops.convert_to_numpy(layer(images, training=True))


def test_outside_of_training_images_pass_unchanged(images):
    np.testing.assert_array_equal(RandomFace()(images, training=False), images)


def test_only_mirroring_is_left_when_all_else_is_off(images):
    result = augmented(RandomFace(**OFF), images)
    same = np.isclose(result, images, atol=0.1).all(axis=(1, 2, 3))
    mirrored = np.isclose(result, images[:, :, ::-1], atol=0.1).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 4 <= mirrored.sum() <= 28


def test_same_state_same_result_and_images_differ(images):
    layer = RandomFace()
    layer.seed_generator.state.assign([1, 2])
    first = augmented(layer, images)
    second = augmented(layer, images)
    layer.seed_generator.state.assign([1, 2])
    np.testing.assert_array_equal(augmented(layer, images), first)
    assert np.abs(first - second).mean() > 1
    one_face = np.repeat(images[:1], 32, axis=0)
    assert len(np.unique(augmented(layer, one_face).mean(axis=(1, 2, 3)))) > 16


def test_values_stay_between_0_and_255(images):
    result = augmented(RandomFace(contrast=1, brightness=1), images)
    assert result.shape == images.shape
    assert result.min() >= 0
    assert result.max() <= 255


@pytest.mark.parametrize("share", [0, 1])
def test_erasing_paints_one_flat_rectangle(share):
    image = np.tile(np.arange(48, dtype="float32") * 5, (16, 48, 1))[..., None]
    layer = RandomFace(**OFF | {"erase": share})
    changed = ~np.isclose(np.sort(augmented(layer, image), axis=2), np.sort(image, axis=2))
    assert changed.any(axis=(1, 2, 3)).mean() == pytest.approx(share, abs=0.1)


def test_no_side_is_covered_more_often():
    faces = augmented(RandomFace(**OFF | {"erase": 1}), np.full((4000, 48, 48, 1), 100, "float32"))
    rows = (faces[..., 0] != 100).any(axis=2).mean(axis=0)
    assert rows[:3].sum() == pytest.approx(rows[-3:].sum(), rel=0.1)


def test_what_is_painted_is_a_small_flat_rectangle():
    image = np.full((32, 48, 48, 1), 100, "float32")
    for face in augmented(RandomFace(**OFF | {"erase": 1}), image)[..., 0]:
        painted = face != 100
        rows, columns = painted.any(axis=1), painted.any(axis=0)
        np.testing.assert_array_equal(painted, np.outer(rows, columns))
        assert 1 <= rows.sum() <= 21  # at most four tenths of the side, and a pixel at each end
        assert 1 <= columns.sum() <= 21
        assert np.ptp(face[painted]) == 0


@pytest.mark.parametrize(
    ("setting", "axis", "nearest", "furthest"),
    # A spot 16 pixels to the right of the centre: 10 degrees lift or sink it by 2.8, a zoom
    # of 0.3 brings it to 11 or takes it to 21.
    [({"rotation": 10}, 0, 0, 3), ({"zoom": 0.3}, 1, 11, 21)],
)
def test_turns_and_zooms_as_far_as_it_says(setting, axis, nearest, furthest):
    image = np.zeros((64, 48, 48, 1), "float32")
    image[:, 23:25, 39:41] = 255
    faces = augmented(RandomFace(**OFF | setting), image)[..., 0]
    away = np.abs(faces.sum(axis=2 - axis).argmax(axis=1) - 23.5)
    assert away.min() >= nearest - 1
    assert away.max() <= furthest + 1
    assert np.ptp(away) >= 2


def test_shift_moves_no_further_than_it_says():
    image = np.zeros((64, 48, 48, 1), "float32")
    image[:, 24, 24] = 255
    moved = augmented(RandomFace(**OFF | {"shift": 0.1}), image)
    rows, columns = moved.sum(axis=(2, 3)).argmax(axis=1), moved.sum(axis=(1, 3)).argmax(axis=1)
    assert np.abs(rows - 24).max() <= 6
    assert np.abs(columns - 23.5).max() <= 6
    assert np.ptp(rows) > 4


def test_settings_survive_saving():
    copy = RandomFace.from_config(RandomFace(zoom=0.3).get_config())
    assert copy.settings == RandomFace(zoom=0.3).settings
