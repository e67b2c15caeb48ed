"""The widgets: uploads of both ipywidgets, what is refused, and a face that is changed."""

import datetime
import io

import ipywidgets
import numpy as np
import pytest
from PIL import Image
from skimage import data

import explorer
from explorer import change_face, photo_explorer, read_upload, uploaded_files
from fer_helpers.labels import TASKS
from fer_helpers.model import build_model


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def upload_of(name, content, size=None):
    return {"name": name, "size": len(content) if size is None else size, "content": content}


def test_uploads_of_ipywidgets_7_and_8_are_the_same():
    seven = {"a.png": {"metadata": {"name": "a.png", "size": 3}, "content": b"123"}}
    eight = ({"name": "a.png", "size": 3, "content": memoryview(b"123")},)
    assert uploaded_files(seven) == uploaded_files(eight) == [upload_of("a.png", b"123")]
    assert uploaded_files({}) == uploaded_files(()) == []


def test_what_is_no_image_is_refused_by_its_content(monkeypatch):
    small = png(np.zeros((5, 7, 3), np.uint8))
    assert read_upload(upload_of("photo.txt", small)).size == (7, 5)
    with pytest.raises(ValueError, match=r"^notes\.jpg is not an image, whatever its name says$"):
        read_upload(upload_of("notes.jpg", b"just text"))
    with pytest.raises(ValueError, match=r"^half\.png cannot be read as an image"):
        read_upload(upload_of("half.png", png(data.astronaut())[:20_000]))
    monkeypatch.setattr(explorer, "MAX_UPLOAD", 1 << 20)
    # The browser does not send what is too large, only its size; another sender may.
    for upload in (upload_of("large.png", b"", 2 << 20), upload_of("large.png", bytes(2 << 20), 1)):
        with pytest.raises(ValueError, match=r"large\.png has 2 MB: at most 1 MB are read"):
            read_upload(upload)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(ValueError, match="more than 0 million pixels"):
        read_upload(upload_of("wide.png", small))


def test_a_large_photo_is_shrunk_before_it_is_drawn():
    large = png(np.zeros((6000, 9000), np.uint8))  # 54 megapixels
    assert read_upload(upload_of("large.png", large)).size == (3072, 2048)


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


def choose(choice, name, content):
    when = datetime.datetime.now(datetime.UTC)
    file = {"name": name, "type": "image/png", "size": len(content), "last_modified": when}
    if ipywidgets.__version__ >= "8":
        value = ({**file, "content": memoryview(content)},)
    else:
        value = {name: {"metadata": file, "content": content}}
    choice.set_trait("value", value)


def test_explorer_shows_a_face_or_says_what_is_wrong():
    choice, message, shown, tools = photo_explorer(build_model(widths=(4, 4, 8, 8))).children
    sliders, changed, answer = tools.children
    bars = [row.children[0] for row in answer.children]

    choose(choice, "astronaut.png", png(data.astronaut()))
    assert "1 face found.<" in message.value
    assert shown.layout.display == ""
    assert Image.open(io.BytesIO(shown.value)).width > 400
    assert [bar.description for bar in bars] == list(TASKS["emotion"])
    before = [bar.value for bar in bars]
    assert sum(before) == pytest.approx(1, abs=1e-5)
    picture = changed.value
    for slider, value in zip(sliders.children[1:], (30, 0.5, 0.4), strict=True):
        previous, picture = picture, changed.value
        slider.value = value
        assert changed.value not in (previous, picture)
    assert [bar.value for bar in bars] != before

    # What is wrong is said, and the answer for the photo before goes.
    choose(choice, "<b>.jpg", b"text")
    assert "&lt;b>.jpg is not an image" in message.value
    assert shown.layout.display == tools.layout.display == "none"
    # The next photo begins as it is.
    choose(choice, "again.png", png(data.astronaut()))
    assert [slider.value for slider in sliders.children[1:]] == [0, 1, 0]
    assert [bar.value for bar in bars] == pytest.approx(before)
    choose(choice, "huge.jpg", bytes(25 << 20))
    assert "huge.jpg has 25 MB: at most 20 MB are read" in message.value
    assert shown.layout.display == tools.layout.display == "none"
    choose(choice, "black.png", png(np.zeros((90, 90, 3), np.uint8)))
    assert "No face found" in message.value
    assert tools.layout.display == "none"


def test_of_many_faces_all_are_counted_once_and_shown(monkeypatch):
    choice, message, _, tools = photo_explorer(build_model(widths=(4, 4, 8, 8))).children
    crops, table = explorer.predict_photo(build_model(widths=(4, 4, 8, 8)), data.astronaut())
    eleven = np.repeat(crops, 11, axis=0), table.loc[[0] * 11].reset_index(drop=True)
    titles = []
    monkeypatch.setattr(explorer, "predict_photo", lambda *_: eleven)
    monkeypatch.setattr(
        explorer, "png", lambda figure: titles.append(figure.axes[0].get_title()) or b""
    )
    choose(choice, "astronaut.png", png(data.astronaut()))
    assert "11 faces found.<" in message.value
    assert titles[0] == ""  # no second count
    assert len(tools.children[0].children[0].options) == 11
