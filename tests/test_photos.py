"""From files and photos to faces and their predictions."""

import tracemalloc

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fer_helpers import photos
from fer_helpers.model import build_model
from fer_helpers.photos import TEMPLATE, _align, image_files, open_photo, predict_crops
from fer_helpers.prediction import predict


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)  # a fixture of a module comes before that of a test
    return build_model(widths=(4, 4, 8, 8))


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 48, 48, 1), dtype=np.uint8)


def test_crops_of_any_kind_are_read_and_bad_ones_listed(model, images, tmp_path):
    Image.fromarray(images[0, :, :, 0]).save(tmp_path / "a_grey.png")
    Image.fromarray(np.repeat(images[1], 3, axis=2)).resize((100, 90)).save(tmp_path / "b_rgb.jpg")
    (tmp_path / "0_text.jpg").write_text("not a picture")
    (tmp_path / "d_empty.png").write_bytes(b"")
    # A file that is named, and lies in a folder that is named, is one file.
    assert image_files([tmp_path, *image_files([tmp_path])]) == image_files([tmp_path])
    table = predict_crops(model, image_files([tmp_path]), batch_size=3)
    assert [path.rsplit("/", 1)[-1][0] for path in table["path"]] == list("0abd")
    assert (table["error"] == "").tolist() == [False, True, True, False]
    assert table["emotion"].isna().tolist() == [True, False, False, True]
    expected = predict(model, images[:1])["emotion"][0]
    np.testing.assert_allclose(table.iloc[1, 2:9].astype(float), expected, atol=1e-5)


def test_paths_without_images_are_named(tmp_path):
    (tmp_path / "._photo.jpg").write_bytes(b"what a Mac keeps beside a photo")
    with pytest.raises(FileNotFoundError, match="holds no image"):
        image_files([tmp_path])
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        image_files([tmp_path / "none"])


def test_a_face_is_turned_upright_and_framed():
    # Eyes and corners of the mouth as bright dots on a photo, tilted by 30 degrees.
    turn = np.deg2rad(30)
    matrix = 160 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = TEMPLATE @ matrix.T + [150, 60]
    photo = np.zeros((400, 400), np.uint8)
    for x, y in points:
        photo[int(y) - 4 : int(y) + 5, int(x) - 4 : int(x) + 5] = 255
    crop = _align(Image.fromarray(photo), points)[:, :, 0]
    for x, y in TEMPLATE * 48:
        assert crop[int(y), int(x)] > 100
    assert crop[40:, :8].max() < 30


def test_template_is_where_fer2013_has_eyes_and_mouth():
    """In FER2013 eyes lie at 0.39 of the height, the corners of the mouth at 0.77."""
    left_eye, right_eye, left_mouth, right_mouth = TEMPLATE
    assert left_eye.tolist() == [0.315, 0.388]
    assert left_mouth.tolist() == [0.36, 0.77]
    # The template is symmetric.
    np.testing.assert_allclose(right_eye, [1 - left_eye[0], left_eye[1]])
    np.testing.assert_allclose(right_mouth, [1 - left_mouth[0], left_mouth[1]])


def test_each_face_is_cropped_by_its_own_eyes_and_mouth(monkeypatch):
    def face(left, top, side):
        row = dict(left=left, top=top, right=left + side, bottom=top + side, confidence=0.99)
        for name, (x, y) in zip(photos.KEYPOINTS, TEMPLATE * side + [left, top], strict=True):
            row |= {f"{name}_x": x, f"{name}_y": y}
        return row

    rows = pd.DataFrame([face(1200, 400, 400), face(200, 100, 120)])
    monkeypatch.setattr(photos, "detect", lambda photo: rows)
    photo = np.zeros((1280, 2560, 3), np.uint8)
    photo[400:800, 1200:1600] = 200
    crops, boxes = photos.find_faces(photo)
    sides = boxes[["left", "top", "right", "bottom"]].to_numpy().tolist()
    assert sides == [[1200, 400, 1600, 800], [200, 100, 320, 220]]
    assert crops[0].mean() > 190
    assert crops[1].mean() < 10


def test_photos_are_opened_the_right_way_up(tmp_path):
    photo = np.zeros((20, 40, 3), np.uint8)
    photo[:, 30:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held turned by a quarter
    Image.fromarray(photo).save(tmp_path / "turned.jpg", exif=exif)
    assert open_photo(tmp_path / "turned.jpg").size == (20, 40)
    (tmp_path / "text.jpg").write_text("no")
    with pytest.raises(ValueError, match=r"text\.jpg is not an image, whatever"):
        open_photo(tmp_path / "text.jpg")


def test_many_photos_take_the_memory_of_their_rows(monkeypatch):
    row = pd.DataFrame([{f"number{place}": 0.5 for place in range(20)}])
    monkeypatch.setattr(photos, "open_photo", lambda path: None)
    monkeypatch.setattr(photos, "predict_photo", lambda *_: (None, row.copy()))
    paths = [f"{number}.jpg" for number in range(3000)]
    tracemalloc.start()
    table = photos.predict_photos(None, paths)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert table["path"].tolist() == paths
    assert peak < 3000 * 4000  # bytes; as tables of one row each they take 7,000
