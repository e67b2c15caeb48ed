"""The widgets: uploads of both ipywidgets, what is refused, and a face that is changed."""

import datetime
import io
import sys

import ipywidgets
import numpy as np
import pytest
from PIL import Image
from skimage import data

import photo_page
from fer_helpers.labels import TASKS
from fer_helpers.model import build_model
from photo_page import change_face, photo_explorer, read_upload, uploaded_files


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def test_uploads_of_ipywidgets_7_and_8_are_the_same():
    seven = {"a.png": {"metadata": {"name": "a.png"}, "content": b"123"}}
    eight = ({"name": "a.png", "content": memoryview(b"123")},)
    assert uploaded_files(seven) == uploaded_files(eight) == [("a.png", b"123")]
    assert uploaded_files({}) == uploaded_files(()) == []


def test_what_is_no_image_is_refused_by_its_content(monkeypatch):
    assert read_upload("photo.txt", png(np.zeros((5, 7, 3), np.uint8))).size == (7, 5)
    with pytest.raises(ValueError, match=r"^notes\.jpg is not an image, whatever its name says$"):
        read_upload("notes.jpg", b"just text")
    with pytest.raises(ValueError, match=r"^half\.png cannot be read as an image"):
        read_upload("half.png", png(data.astronaut())[:20_000])
    monkeypatch.setattr(photo_page, "MAX_UPLOAD", 1 << 20)
    with pytest.raises(ValueError, match=r"large\.png has 2 MB: at most 1 MB are read"):
        read_upload("large.png", bytes(2 << 20))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(ValueError, match="more than 0 million pixels"):
        read_upload("wide.png", png(np.zeros((5, 7, 3), np.uint8)))


def test_a_face_is_turned_darkened_and_covered():
    face = np.full((48, 48, 1), 100, np.uint8)
    face[:5, 20:28] = 250  # a mark above
    np.testing.assert_array_equal(change_face(face), face)
    left = change_face(face, angle=90)
    assert left[20:28, :5].min() > 200  # counter-clockwise, what was above is at the left
    np.testing.assert_array_equal(change_face(face, light=0.5), face // 2)
    assert change_face(face, light=2).max() == 255
    covered = change_face(face[::-1], covered=0.25)
    assert covered[36:].max() == 100
    np.testing.assert_array_equal(covered[:36], face[::-1][:36])


def test_explorer_shows_a_face_or_says_what_is_wrong():
    explorer = photo_explorer(build_model(widths=(4, 4, 8, 8)))
    buttons, message, shown, tools = explorer.children
    upload, camera = buttons.children
    sliders, changed, answer = tools.children
    bars = [row.children[0] for row in answer.children]

    camera.picture = png(data.astronaut())
    assert "1 face found." in message.value
    assert shown.layout.display == ""
    assert Image.open(io.BytesIO(shown.value)).width > 400
    assert [bar.description for bar in bars] == list(TASKS["emotion"])
    before = [bar.value for bar in bars]
    assert sum(before) == pytest.approx(1, abs=1e-5)
    picture = changed.value
    sliders.children[1].value = 30  # turn
    assert changed.value != picture
    assert [bar.value for bar in bars] != before

    when = datetime.datetime.now(datetime.UTC)
    file = {"name": "<b>.jpg", "type": "image/jpeg", "size": 4, "last_modified": when}
    if ipywidgets.__version__ >= "8":
        value = ({**file, "content": memoryview(b"text")},)
    else:
        value = {file["name"]: {"metadata": file, "content": b"text"}}
    upload.set_trait("value", value)
    assert "&lt;b>.jpg is not an image" in message.value
    assert shown.layout.display == tools.layout.display == "none"
    camera.picture = png(np.zeros((90, 90, 3), np.uint8))
    assert "No face found" in message.value
    assert tools.layout.display == "none"


def test_without_anywidget_the_page_offers_the_upload_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    explorer = photo_explorer(build_model(widths=(4, 4, 8, 8)))
    upload, line = explorer.children[0].children
    assert isinstance(upload, ipywidgets.FileUpload)
    assert "pip install anywidget" in line.value
