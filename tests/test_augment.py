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


# What each of the random numbers from 0 to 1 of an image is for.
DRAWS = ("angle", "zoom", "mirror", "right", "down", "contrast", "brightness")
DRAWS += ("top", "height", "left", "width", "erase", "grey")


@pytest.fixture
def drawn(monkeypatch):
    """Apply a layer with random numbers of a test's own; 0.5 changes nothing by default."""

    def apply(image, numbers, layer=None):
        row = [numbers.get(name, 0.5) for name in DRAWS]

        def uniform(shape, seed):
            assert tuple(shape) == (1, len(DRAWS))
            return keras.ops.convert_to_tensor([row], "float32")

        monkeypatch.setattr(keras.random, "uniform", uniform)
        face = augmented(layer or RandomFace(), np.asarray(image, "float32")[None, ..., None])
        return face[0, ..., 0]

    return apply


FACE = np.random.default_rng(1).integers(0, 256, (48, 48)).astype("float32")


def test_in_the_middle_of_all_ranges_nothing_changes(drawn):
    np.testing.assert_allclose(drawn(FACE, {}), FACE, atol=0.01)


@pytest.mark.parametrize(
    ("numbers", "gain", "lift"),
    [
        ({"contrast": 0}, 0.8, 0),
        ({"contrast": 1}, 1.2, 0),
        ({"brightness": 0}, 1, -25.5),
        ({"brightness": 1}, 1, 25.5),
        ({"contrast": 0.75, "brightness": 0.25}, 1.1, -12.75),
    ],
)
def test_contrast_and_brightness_change_by_as_much_as_it_says(numbers, gain, lift, drawn):
    expected = np.clip((FACE - 127.5) * gain + 127.5 + lift, 0, 255)
    np.testing.assert_allclose(drawn(FACE, numbers), expected, atol=0.05)


def test_the_first_half_of_the_numbers_mirrors(drawn):
    for number in (0, 0.49):
        np.testing.assert_allclose(drawn(FACE, {"mirror": number}), FACE[:, ::-1], atol=0.01)
    np.testing.assert_allclose(drawn(FACE, {"mirror": 0.99}), FACE, atol=0.01)


def spot(row, column):
    """A spot around a point, bright in its middle."""
    rows, columns = np.mgrid[:48, :48]
    return 255 * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 8)


def place(face):
    rows, columns = np.mgrid[:48, :48]
    return (face * rows).sum() / face.sum(), (face * columns).sum() / face.sum()


@pytest.mark.parametrize(
    ("numbers", "row", "column"),
    # The spot is 6 above and 10 to the right of the centre, which is at 23.5.
    [
        ({}, -6, 10),
        ({"zoom": 1}, -6 * 1.15, 10 * 1.15),
        ({"zoom": 0}, -6 * 0.85, 10 * 0.85),
        ({"mirror": 0}, -6, -10),
        ({"right": 1}, -6, 10 - 0.08 * 48),
        ({"right": 0}, -6, 10 + 0.08 * 48),
        ({"down": 1}, -6 - 0.08 * 48, 10),
        ({"down": 0.25}, -6 + 0.04 * 48, 10),
        # Ten degrees lift it by 1.7 and bring it 1 nearer, or the other way round.
        ({"angle": 1}, -7.65, 8.81),
        ({"angle": 0}, -4.17, 10.89),
        ({"angle": 0.75}, -6.85, 9.44),
    ],
)
def test_a_face_moves_to_where_it_says(numbers, row, column, drawn):
    found = place(drawn(spot(17.5, 33.5), numbers))
    assert found == pytest.approx((23.5 + row, 23.5 + column), abs=0.1)


def test_a_face_is_shifted_then_turned_and_zoomed_then_mirrored(drawn):
    numbers = {"right": 0.1, "down": 0.7, "angle": 0.9, "zoom": 0.8, "mirror": 0.2}
    right, down = 6 + 0.08 * 48 * 0.8, 3 - 0.08 * 48 * 0.4
    angle, zoom = np.radians(10 * 0.8), 1 + 0.15 * 0.6
    turned = np.exp(-1j * angle) * zoom * (right + 1j * down)
    row, column = place(drawn(spot(26.5, 29.5), numbers))
    assert (row - 23.5, column - 23.5) == pytest.approx((turned.imag, -turned.real), abs=0.1)


def test_what_comes_in_from_outside_is_black(drawn):
    white = np.full((48, 48), 255.0)
    face = drawn(white, {"down": 1, "right": 1}, RandomFace(shift=0.25))
    np.testing.assert_allclose(face[:36, :36], 255)
    assert (face[36:] == 0).all()
    assert (face[:, 36:] == 0).all()


@pytest.mark.parametrize(
    ("numbers", "rows", "columns"),
    [
        # Half a side of a twentieth to a fifth of 48: 2.4 to 9.6 pixels from the middle.
        ({"top": 0.5, "height": 0, "left": 0.5, "width": 0}, (22, 26), (22, 26)),
        ({"top": 0.5, "height": 1, "left": 0.5, "width": 1}, (14, 34), (14, 34)),
        ({"top": 0.25, "height": 0.5, "left": 0.75, "width": 0}, (6, 18), (34, 38)),
        ({"top": 0, "height": 0, "left": 1, "width": 0}, (0, 2), (46, 48)),
    ],
)
def test_a_rectangle_is_painted_where_it_says(numbers, rows, columns, drawn):
    face = np.full((48, 48), 100.0)
    expected = face.copy()
    expected[slice(*rows), slice(*columns)] = 0.2 * 255
    covered = drawn(face, numbers | {"erase": 0.2, "grey": 0.2})
    np.testing.assert_allclose(covered, expected, atol=0.01)
    np.testing.assert_allclose(drawn(face, numbers | {"erase": 0.25}), face, atol=0.01)


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
    assert copy.settings["zoom"] == 0.3
    assert RandomFace(name="turned").get_config()["name"] == "turned"


def test_results_have_the_dtype_of_the_layer(images):
    layer = RandomFace(dtype="mixed_bfloat16")
    assert layer(images.astype("uint8"), training=True).dtype == "bfloat16"
    assert RandomFace(dtype="float32")(images, training=True).dtype == "float32"


def test_training_is_off_unless_asked_for(images):
    np.testing.assert_array_equal(RandomFace()(images), images)


def test_xla_compiles_it_on_jax_only():
    assert RandomFace().supports_jit == (keras.backend.backend() != "tensorflow")
