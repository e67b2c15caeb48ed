"""Group photos whose faces are known: faces pasted on drawn and photographed backgrounds."""

import numpy as np
import pandas as pd
import skimage.data
from PIL import Image, ImageDraw, ImageFilter

BACKGROUNDS = ("drawn", "brick", "grass", "gravel", "coffee", "hubble_deep_field")
BOX = ("left", "top", "right", "bottom")
POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
COLUMNS = ["face", *BOX, *(f"{point}_{axis}" for point in POINTS for axis in "xy")]


def astronaut() -> tuple[Image.Image, np.ndarray]:
    """Return the astronaut's head and the points of her face, as `compose` takes them."""
    head = Image.fromarray(skimage.data.astronaut()).crop((120, 0, 330, 230))
    corners, points = [(62, 62), (148, 175)], [(84, 101), (126, 103), (103, 127)]
    return head, np.array([*corners, *points, (84, 141), (125, 142)], float)


def compose(
    faces: list[tuple[Image.Image, np.ndarray]],
    heights: list[float],
    size: tuple[int, int],
    generator: np.random.Generator,
    turn: float = 15,
) -> tuple[Image.Image, pd.DataFrame]:
    """Paste faces, turned by up to `turn` degrees, where there is room on a background.

    Parameters
    ----------
    faces
        Each a picture, and in its pixels float (7, 2): the left upper and the right lower corner
        of the face's box, then its `POINTS`.
    heights
        Of the faces' boxes in the photo, in pixels.
    size
        Width and height of the photo.
    generator
        Draws background, places and turns.
    turn
        In degrees.

    Returns
    -------
    photo
        PIL picture of mode RGB.
    truth
        A row per face that found room: ``face``, its index, and the columns of `detect`
        except for ``confidence``.
    """
    photo = _background(str(generator.choice(BACKGROUNDS)), size, generator)
    taken, rows = Image.new("1", size), []
    for face in np.argsort(heights)[::-1].tolist():
        picture, points = faces[face]
        scale = heights[face] / (points[1] - points[0])[1]
        spot = _room(taken, [max(1, round(side * scale)) for side in picture.size], generator)
        if not spot:
            continue
        taken.paste(1, spot)
        angle = float(generator.uniform(-turn, turn))
        _paste(photo, picture, spot, angle)
        middle = np.divide(picture.size, 2)
        sine, cosine = np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))
        # A box stays upright about its turned centre.
        points = np.vstack([points[:2].mean(axis=0), points[2:], points[1] - points[0]])
        points[:-1] = (points[:-1] - middle) @ [[cosine, -sine], [sine, cosine]] + middle
        points *= scale
        points[:-1] += spot[:2]
        box = np.concatenate([points[0] - points[-1] / 2, points[0] + points[-1] / 2])
        row = {"face": face} | dict(zip(BOX, box, strict=True))
        for name, (x, y) in zip(POINTS, points[1:-1], strict=True):
            row |= {f"{name}_x": x, f"{name}_y": y}
        rows.append(row)
    return photo, pd.DataFrame(rows, columns=COLUMNS)


def shared(one: np.ndarray, other: np.ndarray) -> float:
    """Return the intersection of two boxes, as a share of their union."""
    both = (np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])).clip(0).prod()
    return both / (sum((box[2:] - box[:2]).prod() for box in (one, other)) - both)


def count_found(boxes: np.ndarray, truth: pd.DataFrame) -> int:
    """Count the faces of `compose` that share at least 0.4 with one of boxes, float (N, 4)."""
    faces = truth[list(BOX)].to_numpy()
    return sum(any(shared(box, face) >= 0.4 for box in boxes) for face in faces)


def _background(name: str, size: tuple[int, int], generator: np.random.Generator) -> Image.Image:
    """Return a picture without faces, one of `BACKGROUNDS`."""
    if name != "drawn":
        return Image.fromarray(getattr(skimage.data, name)()).convert("RGB").resize(size)
    picture = Image.new("RGB", size, tuple(generator.integers(256, size=3).tolist()))
    draw = ImageDraw.Draw(picture)
    for shape in (draw.rectangle, draw.ellipse) * 10:
        (left, right), (top, bottom) = (
            np.sort(generator.integers(side, size=2)).tolist() for side in size
        )
        shape([left, top, right, bottom], fill=tuple(generator.integers(256, size=3).tolist()))
    return picture.filter(ImageFilter.GaussianBlur(2))


def _room(taken: Image.Image, size: list[int], generator: np.random.Generator) -> tuple | None:
    """Return a free rectangle of a size, None if thirty tries find none."""
    free = np.subtract(taken.size, size)
    for _ in range(30 if (free > 0).all() else 0):
        left, top = generator.integers(free).tolist()
        spot = (left, top, left + size[0], top + size[1])
        if not taken.crop(spot).getbbox():
            return spot
    return None


def _paste(photo: Image.Image, picture: Image.Image, spot: tuple, angle: float) -> None:
    """Paste a picture, turned and as an oval with a soft edge, on a rectangle of a photo."""
    edge = min(picture.size) // 20
    oval = Image.new("L", picture.size)
    inner = (edge, edge, picture.width - edge, picture.height - edge)
    ImageDraw.Draw(oval).ellipse(inner, fill=255)
    size = spot[2] - spot[0], spot[3] - spot[1]
    picture, oval = (
        image.rotate(angle, Image.Resampling.BICUBIC).resize(size, Image.Resampling.LANCZOS)
        for image in (picture, oval.filter(ImageFilter.GaussianBlur(edge)))
    )
    photo.paste(picture, spot, oval)
