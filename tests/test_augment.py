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
