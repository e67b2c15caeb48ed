"""Faces are found on photos whose faces are known, on both backends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_helpers import detection, find_faces, open_photo
from fer_helpers.backend import keras
from fer_helpers.detection import BOX, COLUMNS, POINTS, _keep_outer, detect

group_photos = pytest.importorskip("group_photos", reason="needs fer-helpers[lab]")


def compose(size, heights, seed=0):
    faces = [group_photos.astronaut()] * len(heights)
    return group_photos.compose(faces, heights, size, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("size", "heights"),
    [
        ((400, 300), [60, 40]),
        ((1000, 700), [180, 130, 90, 60, 40, 30, 25]),
        ((2000, 1500), [500, 150, 80]),
    ],
)
def test_every_face_of_a_group_is_found_with_its_eyes_and_mouth(size, heights):
    photo, truth = compose(size, heights)
    faces = detect(photo)
    assert list(faces) == COLUMNS
    assert len(faces) == len(truth) == len(heights)
    assert faces["confidence"].between(0.9, 1).all()
    # Both have the largest first.
    for face, true in zip(faces.to_dict("records"), truth.to_dict("records"), strict=True):
        assert (
            group_photos.shared(*(np.array([row[side] for side in BOX]) for row in (face, true)))
            > 0.5
        )
        apart = true["right_eye_x"] - true["left_eye_x"]
        for name in (f"{point}_{axis}" for point in POINTS for axis in "xy"):
            assert face[name] == pytest.approx(true[name], abs=0.25 * apart), name


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_faces_of_a_turned_photo_are_found_where_they_are(quarters):
    photo, _ = compose((500, 400), [120, 70])
    upright = detect(photo)
    faces = detect(photo.rotate(90 * quarters, expand=True))
    width, height = photo.size
    back = {  # x and y of the photo, from those of the turned one
        1: lambda x, y: (width - y, x),
        2: lambda x, y: (width - x, height - y),
        3: lambda x, y: (y, height - x),
    }[quarters]
    assert len(faces) == len(upright) == 2
    for point in POINTS:
        places = back(faces[f"{point}_x"], faces[f"{point}_y"])
        for axis, place in zip("xy", places, strict=True):
            np.testing.assert_allclose(place, upright[f"{point}_{axis}"], atol=4)
    corners = [*back(faces["left"], faces["top"]), *back(faces["right"], faces["bottom"])]
    found = np.sort(np.reshape(corners, (2, 2, 2)), axis=0).reshape(4, 2)
    np.testing.assert_allclose(found.T, upright[BOX], atol=6)


def test_a_face_on_its_side_is_not_taken_for_an_upright_one():
    photo = Image.fromarray(group_photos.skimage.data.astronaut()).rotate(270)
    assert 0.9 < detection.detect_upright(photo)["confidence"].max() < detection.SURE  # wrong eyes
    (face,) = detect(photo).to_dict("records")
    assert face["confidence"] > detection.SURE
    apart = face["right_eye_y"] - face["left_eye_y"]
    assert apart > 5 * abs(face["right_eye_x"] - face["left_eye_x"])


def test_only_a_photo_without_a_sure_face_is_searched_in_four_turns(monkeypatch):
    looked = []
    search = detection.detect_upright
    monkeypatch.setattr(
        detection, "detect_upright", lambda *given: looked.append(given[1:]) or search(*given)
    )
    detect(compose((400, 300), [60])[0])
    assert looked == [()]
    detect(Image.new("RGB", (64, 64), "grey"))
    assert looked == [(), (), (1,), (2,), (3,)]


def test_boxes_end_where_the_photo_ends():
    head = group_photos.astronaut()[0].crop((70, 60, 160, 170))
    faces = detect(head)
    assert len(faces) == 1
    assert faces.loc[0, BOX].between(0, [*head.size, *head.size]).all()


@pytest.mark.parametrize("size", [(1, 1), (11, 40), (2000, 5), (20, 20), (64, 64)])
def test_a_photo_without_a_face_has_no_row(size):
    faces = detect(Image.new("RGB", size, "grey"))
    assert (list(faces), len(faces)) == (COLUMNS, 0)


def test_noise_has_no_face():
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    assert detect(Image.fromarray(noise)).empty


def test_of_a_box_inside_another_the_better_is_kept():
    faces = np.array([[0, 0, 100, 100, 0.95], [20, 20, 60, 60, 0.99], [90, 0, 190, 100, 0.92]])
    assert _keep_outer(faces, 0.7).tolist() == faces[[1, 2]].tolist()
    assert _keep_outer(faces[:0], 0.7).shape == (0, 5)


def test_jax_finds_the_same_faces(tmp_path):
    photo, _ = compose((500, 400), [120, 50])
    photo.save(tmp_path / "photo.png")
    code = (
        "import sys; from fer_helpers import find_faces, open_photo\n"
        "crops, boxes = find_faces(open_photo(sys.argv[1]))\n"
        "print(boxes.round(2).to_json(orient='values'), crops.tolist(), sep='\\n')"
    )
    other = "tensorflow" if keras.backend.backend() == "jax" else "jax"
    pytest.importorskip(other, reason="needs fer-helpers[jax]")
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "photo.png"],
        env=os.environ | {"KERAS_BACKEND": other, "JAX_PLATFORMS": "cpu"},
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    crops, boxes = find_faces(open_photo(tmp_path / "photo.png"))
    here = [json.loads(boxes.round(2).to_json(orient="values")), crops.tolist()]
    assert len(here[0]) == 2
    assert [json.loads(line) for line in result.stdout.splitlines()] == here
