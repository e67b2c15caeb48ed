"""Compute where the features of a face are, and share tools among its painters."""

import copy

import numpy as np

from fer_helpers.datasets.sample.traits import TRAITS, UNIT_COLUMNS


def landmarks(faces: np.ndarray) -> dict[str, np.ndarray]:
    """Return where the features of faces are after their action units have moved them.

    Parameters
    ----------
    faces
        (N,) records of dtype `PARAMETERS`.

    Returns
    -------
    dict
        (N,) float32 arrays in the face's own coordinates (y runs down): lid, brow, mouth
        and chin positions and sizes, in halves of the image's side. Right and left differ
        by `skew` only.
    """
    f = {name: faces[name] for name in TRAITS}
    au = {unit: faces["units"][:, column] for unit, column in UNIT_COLUMNS.items()}
    lips = f["lips"] * (1 - 0.70 * au[23]) * (1 - 0.25 * au[20]) * (1 - 0.15 * au[12])
    parted = f["parted"]
    opening = (
        0.27 * au[26] + 0.075 * au[16] + parted * (0.13 * au[12] + 0.12 * au[20]) - 0.02 * au[23]
    )
    brow_y = f["brow_y"] + f["eye_y"] - TRAITS["eye_y"].mean
    return {
        "brow_inner_x": 0.125 - 0.055 * au[4] + 0.01 * au[1],
        "brow_inner_y": brow_y + 0.02 - 0.150 * au[1] + 0.120 * au[4] + 0.025 * au[9],
        "brow_middle_y": brow_y - 0.04 - 0.045 * au[1] - 0.095 * au[2] + 0.095 * au[4],
        "brow_outer_y": brow_y + 0.03 - 0.140 * au[2] + 0.020 * au[4] + 0.025 * au[1],
        "lid_upper": f["eye_height"]
        * (1 + 0.75 * au[5] - 0.38 * au[7] - 0.15 * au[6] - 0.22 * au[9]),
        "lid_lower": f["eye_height"] * (0.72 + 0.10 * au[5] - 0.62 * au[6] - 0.42 * au[7]),
        "nostril_y": f["nose_y"] + 0.035 - 0.045 * au[9],
        "mouth_width": f["mouth_width"]
        + (0.085 * au[12] + 0.105 * au[20] + 0.015 * au[15] - 0.045 * au[23] - 0.035 * au[26]),
        "corner_y": f["mouth_y"]
        + (-0.135 * au[12] + 0.125 * au[15] + 0.02 * au[20] + 0.04 * au[26] - 0.02 * au[9]),
        "mouth_top": f["mouth_y"] + 0.025 * au[12] - 0.065 * au[9] - 0.025 * au[15],
        "mouth_open": np.maximum(opening, 0),
        "lip_upper": 0.85 * lips,
        "lip_lower": 1.20 * lips * (1 + 0.25 * au[16]),
        "chin_y": f["chin"] + 0.10 * au[26],
    }


def fill(distance: np.ndarray, soft: np.ndarray) -> np.ndarray:
    """Return the share of each pixel inside an edge: 1 where `distance` is well below 0."""
    return np.clip(0.5 - distance / soft, 0, 1)


def stroke(distance: np.ndarray, half_width: np.ndarray | float, soft: np.ndarray) -> np.ndarray:
    """Return the share of each pixel covered by a line, however thin, around `distance` 0."""
    return fill(distance - half_width, soft) - fill(distance + half_width, soft)


def bump(x: np.ndarray, y: np.ndarray, cx, cy, rx, ry) -> np.ndarray:
    """Return a smooth hill: 1 at its centre (cx, cy), 0 outside an ellipse of radii rx, ry."""
    hill = np.maximum(1 - ((x - cx) / rx) ** 2 - ((y - cy) / ry) ** 2, 0)
    return hill * hill


def segment(x: np.ndarray, y: np.ndarray, x0, y0, x1, y1) -> np.ndarray:
    """Return the distance to the straight line from (x0, y0) to (x1, y1)."""
    dx, dy = x1 - x0, y1 - y0
    along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
    dx, dy = x - x0 - along * dx, y - y0 - along * dy
    return np.sqrt(dx * dx + dy * dy)


def wave(t: np.ndarray) -> np.ndarray:
    """Return a triangle wave between -1 and 1 with period 1."""
    return 4 * np.abs(t - np.rint(t)) - 1


def paint(image: np.ndarray, shade: np.ndarray | float, cover: np.ndarray) -> None:
    """Paint a shade over the image, in place, where `cover` is above 0."""
    image += cover * (shade - image)


class Easel:
    """Coordinates, traits and landmarks of a chunk of faces, for the painters.

    Every attribute is broadcast against (faces, rows, columns). `x`, `y` are coordinates of
    the head, `u`, `v` of its features (moved by yaw and pitch); `w` is `u` mirrored, so that
    one stroke paints both sides.
    """

    def __init__(self, faces: np.ndarray, image_size: int):
        def stand(array):
            return np.asarray(array, dtype=np.float32)[:, None, None]

        self.size = image_size
        self.f = {name: stand(faces[name]) for name in TRAITS}
        self.au = {unit: stand(faces["units"][:, col]) for unit, col in UNIT_COLUMNS.items()}
        self.at = {name: stand(place) for name, place in landmarks(faces).items()}
        f = self.f
        centres = ((np.arange(image_size, dtype=np.float32) + 0.5) * 2 - image_size) / image_size
        self.picture_x, self.picture_y = centres[None, None, :], centres[None, :, None]
        px = (self.picture_x - f["shift_x"]) / f["scale"]
        py = (self.picture_y - f["shift_y"]) / f["scale"]
        # A rotation by sin = roll: square roots round the same everywhere, sines do not.
        cos = np.sqrt(1 - f["roll"] * f["roll"])
        self.x, self.y = px * cos + py * f["roll"], py * cos - px * f["roll"]
        self.u = self.x - f["yaw"] * np.maximum(1 - self.x * self.x, 0)
        self.v = self.y - f["pitch"] * np.maximum(1 - self.y * self.y, 0)
        self.w = np.abs(self.u)
        # The two sides of a face never move exactly alike.
        self.side = f["skew"] * np.clip(self.u * 6, -1, 1)
        pixel = np.float32(2 / image_size)
        self.soft = np.sqrt(pixel * pixel + f["blur"] * f["blur"]) / f["scale"]

    def rows(self, top: float, bottom: float) -> tuple["Easel", slice]:
        """Return the easel of the rows between two heights of the face, and those rows."""
        band = (self.v > top) & (self.v < bottom) & (self.w < 0.75)
        rows = np.flatnonzero(band.any(axis=(0, 2)))
        rows = slice(rows[0], rows[-1] + 1) if len(rows) else slice(0, 0)
        band_easel = copy.copy(self)
        for name in ("x", "y", "u", "v", "w", "side"):
            setattr(band_easel, name, getattr(self, name)[:, rows])
        return band_easel, rows

    def head_distance(self) -> np.ndarray:
        """Return the distance to the outline: half an ellipse above, the jaw below."""
        f = self.f
        middle = np.float32(-0.02)
        down = self.y > middle
        height = np.where(down, self.at["chin_y"] - middle, 0.92 + middle)
        width = f["head_width"] + f["cheeks"] * bump(self.x, self.y, 0, 0.35, 9, 0.5)
        width = width - (0.16 - 0.25 * f["cheeks"]) * np.maximum(self.y - 0.1, 0)
        tx, ty = self.x / width, (self.y - middle) / height
        square = np.where(down, f["jaw"], 0.25)
        tx2, ty2 = tx * tx, ty * ty
        level = (1 - square) * (tx2 + ty2) + square * (tx2 * tx2 + ty2 * ty2) - 1
        slope_x = ((1 - square) + 2 * square * tx2) * tx / width
        slope_y = ((1 - square) + 2 * square * ty2) * ty / height
        return level / (2 * np.sqrt(slope_x * slope_x + slope_y * slope_y) + 0.05)
