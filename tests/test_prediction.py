"""From arrays and files to tables, from a photo to its faces."""

import keras
import numpy as np
import pytest
from PIL import Image

import tiny
from fer_helpers.evaluation import expected_calibration_error
from fer_helpers.labels import TASKS, encode_labels
from fer_helpers.model import build_model
from fer_helpers.prediction import calibrate, grad_cam, predict, prediction_table


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)  # a fixture of a module comes before that of a test
    return build_model(widths=(4, 4, 8, 8))


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 48, 48, 1), dtype=np.uint8)


def test_probabilities_do_not_depend_on_the_batch_size(model, images):
    whole, cut = predict(model, images), predict(model, images, batch_size=2)
    for task, names in TASKS.items():
        assert whole[task].shape == (5, len(names))
        np.testing.assert_allclose(whole[task], cut[task], atol=1e-5)
        np.testing.assert_allclose(whole[task].sum(axis=1), 1, atol=1e-5)


def test_answers_go_by_the_name_of_their_head(model, images):
    wanted = predict(model, images)
    turned = keras.Model(model.inputs, model.outputs[::-1])
    for task, found in predict(turned, images).items():
        np.testing.assert_allclose(found, wanted[task], atol=1e-6)


def test_flip_averages_both_ways_round(model, images):
    flipped = predict(model, images, views=2)["emotion"]
    np.testing.assert_allclose(
        flipped, predict(model, images[:, :, ::-1], views=2)["emotion"], atol=1e-5
    )
    both = [predict(model, view)["emotion"] for view in (images, images[:, :, ::-1])]
    np.testing.assert_allclose(flipped, np.mean(both, axis=0), atol=1e-5)


def test_ten_views_are_the_corners_the_centre_and_their_mirror_images(model, images):
    grey = np.full((1, 48, 48, 1), 128, np.uint8)
    np.testing.assert_allclose(
        predict(model, grey, views=10)["emotion"], predict(model, grey)["emotion"], atol=1e-5
    )
    ten = predict(model, images, views=10)["emotion"]
    np.testing.assert_allclose(
        ten, predict(model, images[:, :, ::-1], views=10)["emotion"], atol=1e-4
    )
    edge = images.copy()
    edge[:, 0] = 255 - edge[:, 0]  # the upper row is in the two upper windows only
    change = np.abs(predict(model, edge, views=10)["emotion"] - ten).max()
    assert (
        0
        < change
        < np.abs(predict(model, edge)["emotion"] - predict(model, images)["emotion"]).max()
    )
    with pytest.raises(ValueError, match="views must be one of"):
        predict(model, images, views=3)


def test_calibration_finds_the_temperature_that_makes_confidence_match_accuracy():
    network = build_model(widths=(4, 4, 8, 8), augment=False)
    X = np.random.default_rng(0).integers(0, 256, (2000, 48, 48, 1), dtype=np.uint8)
    head = network.get_layer("emotion_logits")
    spread = np.log(predict(network, X)["emotion"]).std(axis=1).mean()
    right = [weight * 1.5 / spread for weight in head.get_weights()]
    head.set_weights(right)
    honest = predict(network, X)["emotion"]
    # The true classes come up as often as the network says ...
    drawn = np.random.default_rng(1).random((2000, 1)) < honest.cumsum(axis=1)
    true = drawn.argmax(axis=1)
    y = encode_labels({"emotion": true})
    # ... and then it becomes three times as sure.
    head.set_weights([weight * 3 for weight in right])
    before = predict(network, X)
    assert expected_calibration_error(before["emotion"], true) > 0.1
    temperatures = calibrate(network, X, y)
    after = predict(network, X)
    assert list(temperatures) == ["emotion"]
    assert temperatures["emotion"] == pytest.approx(3, rel=0.1)
    assert expected_calibration_error(after["emotion"], true) < 0.05
    np.testing.assert_array_equal(after["emotion"].argmax(axis=1), before["emotion"].argmax(axis=1))
    np.testing.assert_allclose(after["age"], before["age"], atol=1e-5)
    assert calibrate(network, X, y) == pytest.approx(temperatures, rel=1e-3)


def test_stacks_without_channels_and_lists_are_unambiguous(model, images):
    wanted = predict(model, images)["emotion"]
    grey = images[..., 0]
    for others in (grey, list(images), tuple(grey), [Image.fromarray(face) for face in grey]):
        np.testing.assert_array_equal(predict(model, others, batch_size=5)["emotion"], wanted)
    cut = predict(model, grey.astype(float), batch_size=2)["emotion"]
    np.testing.assert_allclose(cut, wanted, atol=1e-5)


def test_no_images_give_empty_arrays(model, images):
    assert predict(model, images[:0])["emotion"].shape == (0, 7)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((48, 48)), r"images must be grey, \(N, 48, 48, 1\), not \(48, 48\): put a"),
        (np.zeros((48, 48, 1)), "put a single one into a list"),
        (np.zeros((2, 48, 48, 3)), "predict_crops takes files, any size, and colours"),
        (np.zeros((2, 64, 64, 1)), "predict_crops takes files, any size"),
        (Image.new("L", (48, 48)), r"not \(48, 48\)"),
        (Image.new("RGB", (48, 48)), "predict_crops"),
        ([np.zeros((48, 48)), np.zeros((50, 50))], "differ in size or kind: predict_crops takes"),
        ([], r"not \(0,\)"),
        ("face.png", "predict_crops takes files"),
        (["face.png"], "predict_crops takes files"),
        (None, "images must be grey"),
        (np.full((1, 48, 48, 1), "a"), "must be numbers from 0 to 255, not <U1"),
        (np.full((1, 48, 48, 1), None), "must be numbers from 0 to 255, not object"),
        (np.full((1, 48, 48, 1), 1j), "must be numbers from 0 to 255, not complex128"),
        (np.full((1, 48, 48, 1), -1), "from 0 to 255"),
        (np.full((1, 48, 48, 1), np.nan), "finite"),
        (np.full((1, 48, 48, 1), 300.0), "from 0 to 255"),
        (np.full((1, 48, 48, 1), 0.5), "multiply by 255"),
    ],
)
def test_bad_pixels_are_refused(model, bad, message):
    with pytest.raises(ValueError, match=message):
        predict(model, bad)


def test_table_has_the_documented_columns(model, images):
    probabilities = predict(model, images)
    table = prediction_table(list("abcde"), probabilities)
    assert table.columns.tolist() == ["path", "emotion"] + [
        f"emotion_{e}" for e in TASKS["emotion"]
    ]
    assert (
        table["emotion"].tolist()
        == np.array(TASKS["emotion"])[probabilities["emotion"].argmax(axis=1)].tolist()
    )
    full = prediction_table(list("abcde"), probabilities, attributes=True)
    assert "race_African-American" in full
    assert "age_0-3" in full
    assert full.columns.tolist().index("gender") == 9


def test_grad_cam_lies_on_what_decides():
    image = keras.Input((48, 48, 1))
    maps = keras.layers.AveragePooling2D(8, name="cam")(image)
    logits = keras.layers.Dense(7, name="emotion_logits")
    network = keras.Model(image, logits(keras.layers.GlobalAveragePooling2D()(maps)))
    brightness = np.zeros((1, 7), np.float32)
    brightness[0, 5], brightness[0, 0] = 1, -1  # for anger, and against surprise
    logits.set_weights([brightness, np.zeros(7)])
    spot = np.zeros((48, 48, 1), np.float32)
    spot[32:40, 8:16] = 255
    heat = grad_cam(network, spot, "emotion", "anger")
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert 30 <= row < 42
    assert 6 <= column < 18
    assert not grad_cam(network, spot, "emotion", "surprise").any()


def test_grad_cam_is_a_share_or_nothing(images):
    model = build_model(widths=(4, 4, 8, 8), augment=False)
    heat = grad_cam(model, images[0], "emotion", "anger")
    assert heat.shape == (48, 48)
    assert 0 <= heat.min() <= heat.max() <= 1
    spot = np.zeros((48, 48, 1), np.uint8)
    spot[30:42, 4:16] = 255
    heats = [grad_cam(model, spot, "age", name) for name in TASKS["age"]]
    assert any(heat.max() == 1 for heat in heats)
    assert not all(np.allclose(heat, heats[0]) for heat in heats)
    with pytest.raises(ValueError, match="emotion has no class 'happy': choose from surprise"):
        grad_cam(model, spot, "emotion", "happy")
    with pytest.raises(ValueError, match="unknown task 'mood'"):
        grad_cam(model, spot, "mood")


def test_weights_that_are_nan_predict_nothing():
    model = tiny.build()
    model.set_weights([np.full_like(weights, np.nan) for weights in model.get_weights()])
    with pytest.raises(ValueError, match="probabilities of emotion are NaN"):
        predict(model, np.zeros((1, 48, 48, 1), np.uint8))
