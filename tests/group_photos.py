"""Group photos whose faces are known: faces pasted, turned a little, on drawn and real backgrounds."""

import numpy as np
import pandas as pd
import skimage.data
from PIL import Image, ImageDraw, ImageFilter

BACKGROUNDS = ("drawn", "brick", "grass", "gravel", "coffee", "hubble_deep_field")


def background(name: str, size: tuple[int, int], generator: np.random.Generator) -> Image.Image:
    """Return a picture without faces of a size (width, height): one of `BACKGROUNDS`."""
    if name != "drawn":
        return Image.fromarray(getattr(skimage.data, name)()).convert("RGB").resize(size)
    picture = Image.new("RGB", size, tuple(generator.integers(256, size=3).tolist()))
    draw = ImageDraw.Draw(picture)
    for _ in range(20):
        (left, right), (top, bottom) = (np.sort(generator.integers(side, size=2)) for side in size)
        shape = generator.choice([draw.rectangle, draw.ellipse])
        colour = tuple(generator.integers(256, size=3).tolist())
        shape([int(left), int(top), int(right), int(bottom)], fill=colour)
    return picture.filter(ImageFilter.GaussianBlur(2))


def astronaut() -> tuple[Image.Image, np.ndarray]:
    """Return the astronaut's head, and the points of her face as `compose` takes them."""
    points = [(174, 65), (273, 187), (200, 114), (246, 112), (205, 151), (248, 149)]
    head = Image.fromarray(skimage.data.astronaut()).crop((120, 0, 330, 230))
    return head, np.subtract(points, (120, 0)).astype(float)


def compose(
    faces: list[tuple[Image.Image, np.ndarray]],
    sides: list[float],
    size: tuple[int, int],
    generator: np.random.Generator,
    turn: float = 15,
) -> tuple[Image.Image, pd.DataFrame]:
    """Paste faces where there is room on a background.

    Parameters
    ----------
    faces
        Each a picture, and in its pixels float (P, 2): the left upper and right lower corner of
        the face's box, left eye, right eye (as the picture shows them), and more points if known.
    sides
        The length of each face's box in the photo, in pixels.
    size
        Width and height of the photo.
    generator
        Draws background, places and turns.
    turn
        Greatest turn of a face, in degrees.

    Returns
    -------
    photo
        PIL picture of mode RGB.
    truth
        A row per face that found room: ``face`` (its index), ``left``, ``top``, ``right``,
        ``bottom``, and ``x0``, ``y0``, ``x1``, ``y1``, ... of the points after the box.
    """
    photo = background(generator.choice(BACKGROUNDS), size, generator)
    taken, rows = Image.new("1", size), []
    for place in np.argsort(sides)[::-1].tolist():
        picture, points = faces[place]
        scale = sides[place] / (points[1] - points[0]).max()
        width, height = (max(1, round(side * scale)) for side in picture.size)
        if width >= size[0] or height >= size[1]:
            continue
        for _ in range(30):
            left, top = (
                int(generator.integers(side)) for side in np.subtract(size, (width, height))
            )
            spot = (left, top, left + width, top + height)
            if not taken.crop(spot).getbbox():
                break
        else:
            continue
        taken.paste(1, spot)
        angle = float(generator.uniform(-turn, turn))
        mask = Image.new("L", picture.size)
        edge = min(picture.size) // 20
        ImageDraw.Draw(mask).ellipse(
            (edge, edge, picture.width - edge, picture.height - edge), fill=255
        )
        mask = mask.filter(ImageFilter.GaussianBlur(edge))
        pasted, mask = (
            image.rotate(angle, Image.Resampling.BICUBIC).resize(
                (width, height), Image.Resampling.LANCZOS
            )
            for image in (picture, mask)
        )
        photo.paste(pasted, (left, top), mask)
        turned = np.deg2rad(angle)
        matrix = np.array([[np.cos(turned), np.sin(turned)], [-np.sin(turned), np.cos(turned)]])
        middle = np.divide(picture.size, 2)
        move = lambda some: ((some - middle) @ matrix.T + middle) * scale + (left, top)  # noqa: E731
        half = (points[1] - points[0]) / 2 * scale
        centre = move(points[:2].mean(axis=0))
        row = {"face": place}
        row |= dict(
            zip(
                ("left", "top", "right", "bottom"),
                (*(centre - half), *(centre + half)),
                strict=True,
            )
        )
        for index, (x, y) in enumerate(move(points[2:])):
            row |= {f"x{index}": x, f"y{index}": y}
        rows.append(row)
    return photo, pd.DataFrame(rows)
