"""From files and photos to faces and their predictions."""

import io
import os
import re
import tracemalloc
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage import data

from fer_helpers import photos
from fer_helpers.datasets.faces import note
from fer_helpers.images import crop_and_resize
from fer_helpers.model import build_model
from fer_helpers.photos import (
    TEMPLATE,
    _align,
    find_faces,
    image_files,
    open_photo,
    predict_crops,
    predict_photo,
    predict_photos,
)
from fer_helpers.prediction import predict
from trees import png_claiming, write


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
    with pytest.raises(ValueError, match=r"holds no image$"):
        image_files([tmp_path])
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"holds no image \(1 file ignored, .*: notes\.txt\)"):
        image_files(tmp_path)
    with pytest.raises(ValueError, match="no file or folder"):
        image_files([tmp_path / "none"])


def test_every_file_of_a_folder_is_predicted_listed_or_counted(model, images, tmp_path, capsys):
    good = ("a.JPG", "b.jfif", "c", "sub/d.pgm", "e.heic")
    bad = ("README", "f.png")
    ignored = ("notes.txt", "old.jpg.bak", ".hidden.png", "sub/.git/HEAD", "sub/list.csv", "z.mp4")
    usual = (".DS_Store", "._a.JPG", "sub/.DS_Store")
    face = io.BytesIO()
    Image.fromarray(images[0, :, :, 0]).save(face, "PNG")
    contents = dict.fromkeys(good, face.getvalue()) | dict.fromkeys((*bad, *ignored, *usual), b"no")
    write(tmp_path, contents)
    (tmp_path / "sub" / "again").symlink_to(tmp_path)  # a circle
    table = predict_crops(model, tmp_path)
    rows = table.assign(
        path=[Path(path).relative_to(tmp_path).as_posix() for path in table["path"]]
    )
    assert rows.loc[rows["error"] == "", "path"].tolist() == sorted(good)
    assert rows.loc[rows["error"] != "", "path"].tolist() == sorted(bad)
    error = capsys.readouterr().err
    names = ".hidden.png, notes.txt, old.jpg.bak, sub/.git/HEAD, sub/list.csv, ..."
    ending = "6 files ignored, hidden, unreadable or without the ending of an image: "
    assert error == f"{tmp_path}: {ending}{names}\n"


def test_a_folder_that_cannot_be_opened_is_named(images, tmp_path, monkeypatch, capsys):
    Image.fromarray(images[0, :, :, 0]).save(tmp_path / "a.png")
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(place):
        if str(place).endswith("locked"):
            raise PermissionError(13, "denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    assert image_files(tmp_path) == [tmp_path / "a.png"]
    assert f"1 file ignored, hidden, unreadable or without the ending of an image: {tmp_path}" in (
        capsys.readouterr().err
    )


def test_links_to_folders_are_followed(images, tmp_path):
    Image.fromarray(images[0, :, :, 0]).save(write(tmp_path, {"real/x.txt": ""}) / "real/a.png")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "linked").symlink_to(tmp_path / "real")
    assert image_files(tmp_path / "photos") == [tmp_path / "photos" / "linked" / "a.png"]


# ------------------------------------------------------------------------- every door, every input

ASTRONAUT = data.astronaut()[:200, 130:330]  # her face, and little else
SINGLE, SEVERAL = (find_faces, predict_photo), (predict_photos, predict_crops)


def encoded(picture: np.ndarray | Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(stream, kind, **options)
    return stream.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.fromarray(ASTRONAUT).rotate(90), exif=exif)


def closed(folder: Path) -> Image.Image:
    with Image.open(folder / "face.png") as picture:
        return picture


GREY = np.asarray(Image.fromarray(ASTRONAUT).convert("L"))
GOOD = {
    "path": lambda folder: folder / "face.png",
    "str": lambda folder: str(folder / "face.png"),
    "wrong ending": lambda folder: folder / "face.txt",
    "bytes": lambda _: encoded(ASTRONAUT),
    "memoryview": lambda _: memoryview(encoded(ASTRONAUT)),
    "bytearray": lambda _: bytearray(encoded(ASTRONAUT)),
    "turned bytes": lambda _: turned(),
    "turned picture": lambda _: Image.open(io.BytesIO(turned())),
    "16 bits": lambda _: encoded(GREY.astype(np.uint16) * 257),
    **{
        f"picture {mode}": lambda _, mode=mode: Image.fromarray(ASTRONAUT).convert(mode)
        for mode in ("RGB", "L", "RGBA", "LA", "P", "CMYK", "YCbCr", "HSV")
    },
    "picture I;16": lambda _: Image.fromarray(GREY.astype(np.uint16) * 257),
    "lazy picture": lambda folder: Image.open(folder / "face.png"),
    "(H, W)": lambda _: GREY,
    "(H, W, 1)": lambda _: GREY[..., None],
    "(H, W, 3)": lambda _: ASTRONAUT,
    "(H, W, 4)": lambda _: np.dstack([ASTRONAUT, np.full(GREY.shape, 255, np.uint8)]),
    "not contiguous": lambda _: ASTRONAUT[:, ::-1].transpose(0, 1, 2)[:, ::-1],
    "float32": lambda _: ASTRONAUT.astype(np.float32),
    "float16": lambda _: ASTRONAUT.astype(np.float16),
    "int64": lambda _: ASTRONAUT.astype(np.int64),
}
BAD = {
    "none": (lambda _: None, "give .* not a NoneType|NoneType cannot be read .*give"),
    "number": (lambda _: 5, "not a int|type int cannot be read .*give"),
    "open file": (lambda _: io.BytesIO(encoded(ASTRONAUT)), "type BytesIO cannot|not a BytesIO"),
    "missing": (lambda folder: folder / "none.jpg", "No such file"),
    "missing str": (lambda _: "none.jpg", "No such file"),
    "empty str": (lambda _: "", "No such file|cannot be read"),
    "null character": (lambda _: "a\0b.jpg", "null"),
    "text file": (lambda folder: folder / "text.jpg", "not an image"),
    "empty file": (lambda folder: folder / "empty.jpg", "an empty file"),
    "empty bytes": (lambda _: b"", "an empty file"),
    "text": (lambda _: b"some text", "not an image"),
    "truncated": (lambda _: encoded(ASTRONAUT)[:9000], "truncated"),
    "many pixels": (lambda _: png_claiming(60_000), "million pixels|decompression bomb"),
    "closed picture": (lambda folder: closed(folder), "."),
    "picture F": (lambda _: Image.fromarray(GREY.astype(np.float32)), "floating-point numbers"),
    "picture I": (lambda _: Image.fromarray(GREY.astype(np.int32)), "no level above 255"),
    "8 in 16 bits": (lambda _: encoded(GREY.astype(np.uint16)), "16 bits per pixel, but no level"),
    "0 to 1": (lambda _: ASTRONAUT / 255, "multiply by 255"),
    "bool": (lambda _: GREY > 100, "multiply by 255"),
    "NaN": (lambda _: np.where(GREY > 100, np.nan, 9.0), "finite and from 0 to 255"),
    "negative": (lambda _: GREY.astype(float) - 128, "finite and from 0 to 255, found -12"),
    "above 255": (lambda _: GREY.astype(np.uint16) * 257, "from 0 to 255, found .* to 65"),
    "one row": (lambda _: GREY[0], r"\(H, W, 1\).*, not \(200,\)"),
    "two channels": (lambda _: ASTRONAUT[..., :2], r"not \(200, 200, 2\)"),
    "(N, H, W)": (lambda _: np.stack([GREY] * 5), r"not \(5, 200, 200\)"),
    "no rows": (lambda _: ASTRONAUT[:0], r"not \(0, 200, 3\)"),
    "scalar": (lambda _: np.array(5), r"not \(\)"),
    "no array": (lambda _: np.array(None), r"not \(\)"),
    "complex": (lambda _: GREY * 1j, "must be numbers from 0 to 255"),
    "dates": (lambda _: np.zeros((9, 9), "datetime64[s]"), "must be numbers from 0 to 255"),
    "records": (lambda _: np.zeros((9, 9), [("a", int)]), "must be numbers from 0 to 255"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tree = {"face.png": encoded(ASTRONAUT), "face.txt": encoded(ASTRONAUT), "text.jpg": "no"}
    return write(tmp_path_factory.mktemp("photos"), tree | {"empty.jpg": ""})


def enter(door, model, image):
    return door(image) if door is find_faces else door(model, image)


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize("door", [*SINGLE, *SEVERAL])
def test_every_door_takes_every_kind_of_image(door, kind, model, folder):
    image = GOOD[kind](folder)
    result = enter(door, model, image)
    if door in SINGLE:
        crops, boxes = result
        assert len(crops) == len(boxes) == 1
        return
    name = str(image) if "face" in str(image) else "image 0"
    assert result[["path", "error"]].to_numpy().tolist() == [[name, ""]]
    if door is predict_crops:  # however it is given, it is the same face
        wanted = predict(model, crop_and_resize(Image.fromarray(GREY), 48)[None])["emotion"][0]
        np.testing.assert_allclose(result.iloc[0, 2:9].astype(float), wanted, atol=0.02)


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("door", [*SINGLE, *SEVERAL])
def test_every_door_says_what_is_wrong_with_an_image(door, kind, model, folder):
    make, words = BAD[kind]
    if door in SEVERAL and not isinstance(make(folder), None | int | io.BytesIO):
        table = enter(door, model, make(folder))
        assert len(table) == 1
        assert re.search(words, table["error"][0])
        assert "emotion" not in table or table["emotion"].isna().all()
    else:
        with pytest.raises(ValueError, match=words):
            enter(door, model, make(folder))


@pytest.mark.parametrize("door", SEVERAL)
def test_a_list_may_mix_everything_and_bad_ones_do_not_stop_the_others(door, model, folder):
    images = [
        *(folder / "face.png", None, encoded(ASTRONAUT), "none.jpg", ASTRONAUT / 255),
        *(folder, Image.fromarray(ASTRONAUT), [ASTRONAUT], folder / "text.jpg"),
    ]
    table = door(model, images)
    inside = [(str(folder / name), name == "face.png") for name in ("empty.jpg", "face.png")]
    inside.append((str(folder / "text.jpg"), False))
    assert list(zip(table["path"], table["error"] == "", strict=True)) == [
        *((str(folder / "face.png"), True), ("image 1", False), ("image 2", True)),
        *(("none.jpg", False), ("image 4", False), *inside, ("image 6", True)),
        *(("image 7", False), (str(folder / "text.jpg"), False)),
    ]
    good = table[table["error"] == ""]
    assert good["emotion"].nunique() == 1
    assert good["emotion"].notna().all()


@pytest.mark.parametrize("door", SEVERAL)
def test_several_images_come_as_a_folder_a_stack_or_anything_to_go_through(door, model, folder):
    table = door(model, folder)
    names = [str(folder / name) for name in ("empty.jpg", "face.png", "text.jpg")]
    assert table["path"].tolist() == names
    wanted = table.iloc[1, 2:9].astype(float).to_numpy()
    stack = np.stack([ASTRONAUT] * 2)
    paths = [names[1]] * 2
    for images in (stack, tuple(stack), pd.Series(paths), np.array(paths), (p for p in paths)):
        rows = door(model, images)
        assert (rows["error"] == "").all()
        np.testing.assert_allclose(rows.iloc[:, 2:9].astype(float), [wanted] * 2, atol=1e-5)
    for nothing in ([], stack[:0], iter(())):
        with pytest.raises(ValueError, match="no image to predict"):
            door(model, nothing)
    (folder / "inside").mkdir(exist_ok=True)
    with pytest.raises(ValueError, match="inside holds no image"):
        door(model, folder / "inside")


@pytest.mark.parametrize("door", SINGLE)
def test_one_photo_is_not_a_folder_or_a_list(door, model, folder):
    with pytest.raises(ValueError, match=r"it is a folder: give one file, or .* predict_photos"):
        enter(door, model, folder)
    with pytest.raises(ValueError, match="type list cannot be read as an image"):
        enter(door, model, [ASTRONAUT])


def test_a_crop_in_which_no_face_is_found_is_told_how_crops_are_predicted(model, capsys):
    grey = np.full((480, 480), 128, np.uint8)
    table = predict_photos(model, [grey[:48, :48], grey, grey[:99, :20]])
    assert table["error"].tolist() == [
        "no face found in 48 × 48 pixels: if this is one face already cut out, use --no-detect "
        "(predict_crops in Python)",
        "no face found",
        table["error"][0].replace("48 × 48", "20 × 99"),
    ]
    capsys.readouterr()
    note.cache_clear()
    crops, table = predict_photo(model, grey[:48, :48])
    assert len(crops) == len(table) == 0
    assert "predict_crops in Python" in capsys.readouterr().err
    predict_photo(model, grey)
    assert capsys.readouterr().err == ""


# ------------------------------------------------------------------------------------ finding faces


def test_a_face_is_turned_upright_and_framed():
    # Eyes and corners of the mouth as bright dots on a photo, tilted by 30 degrees.
    turn = np.deg2rad(30)
    matrix = 160 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = TEMPLATE @ matrix.T + [150, 60]
    photo = np.zeros((400, 400), np.uint8)
    for x, y in points:
        photo[int(y) - 4 : int(y) + 5, int(x) - 4 : int(x) + 5] = 255
    crop, side = _align(Image.fromarray(photo), points)
    assert side == 160
    crop = crop[:, :, 0]
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


def test_a_face_with_fewer_pixels_than_the_crop_has_a_warning(model):
    photo = Image.fromarray(data.astronaut())
    assert predict_photo(model, photo)[1]["warning"].tolist() == [""]
    table = predict_photos(model, [photo, photo.reduce(4), np.zeros((200, 200), np.uint8)])
    words = r"small: 2\d × 2\d pixels, the network takes 48 × 48"
    assert table["warning"][0] == ""
    assert re.fullmatch(words, table["warning"][1])
    assert table["error"].tolist() == ["", "", "no face found"]


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_turned_photo_has_the_same_crops(quarters):
    photo = Image.fromarray(data.astronaut())
    upright, turned = (find_faces(p)[0] for p in (photo, photo.rotate(90 * quarters)))
    assert np.corrcoef(upright.ravel(), turned.ravel())[0, 1] > 0.98


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


# --------------------------------------------------------------------------- files without an end


@pytest.mark.parametrize("door", SEVERAL)
def test_only_regular_files_below_a_size_are_read(door, model, tmp_path):
    write(tmp_path, {"face.png": encoded(ASTRONAUT), "large.png": encoded(ASTRONAUT)})
    os.truncate(tmp_path / "large.png", 9 << 30)  # sparse: it takes no room
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "endless.jpg").symlink_to("/dev/zero")
    (tmp_path / "itself.jpg").symlink_to("itself.jpg")
    table = door(model, [tmp_path, tmp_path / "pipe.jpg"])
    reasons = {Path(path).name: reason for path, reason in table[["path", "error"]].to_numpy()}
    assert reasons.pop("face.png") == ""
    words = {"large": "larger than any photo", "pipe": "not a regular file"}
    words |= {"endless": "not a regular file", "itself": "Too many levels of symbolic links"}
    assert len(table) == len(words) + 2
    for name, word in words.items():
        assert word in reasons[f"{name}.{'png' if name == 'large' else 'jpg'}"]


def test_crops_are_not_held_together(model, tmp_path):
    for number in range(20):
        path = write(tmp_path, {f"{number}.png": encoded(ASTRONAUT)}) / f"{number}.png"
        os.truncate(path, 4 << 20)
    tracemalloc.start()
    table = predict_crops(model, tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (table["error"] == "").all()
    assert peak < 30 << 20  # 80 MB are in the files
