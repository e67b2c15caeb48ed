"""SAMPLE: grey faces drawn by code, with all four labels, the same for the same seed.

A face is a row of continuous numbers: the shape of the head, pose, light, hair, and how
strongly each of thirteen action units of FACS (Ekman & Friesen, Facial Action Coding
System, 1978) is at work. An emotion is its usual action units (the prototypes of EMFACS,
as in Cohn, Ambadar & Ekman, 2007), jittered, at an intensity that is often weak.

Gender, race and age of a drawn face are rendering parameters: stand-ins, so that the code
of the course can run on all four tasks. They say nothing about people, and the emotion is
drawn independently of them.

Face i depends on the seed and on i only, whatever the number of faces: random numbers come
in blocks of `BLOCK` faces, each from a Philox generator of its own. Only whole-number
arithmetic, ``+ - * /``, square roots and rounding make the pixels, which IEEE 754 fixes to
the last bit, so the same seed should give the same bytes on any machine; a build of NumPy
that fuses multiply and add could shift single grey levels.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fer_helpers.datasets.files import Faces, in_memory, in_parallel
from fer_helpers.labels import TASKS, encode_labels

NAME = "SAMPLE"
TERMS = "Drawn by this package's own code, under its licence (MIT); it shows no real person."
HOW_TO_GET = "Nothing to download: the faces are drawn when they are first needed."
PARTS = ("train", "validation", "test")
PART_SHARES = (0.70, 0.15, 0.15)

BLOCK = 256  # faces that share one random generator; changing it changes every face
SERIAL_BLOCKS = 24  # drawn here; more go to worker processes, which take a second to start
CHUNK = 16  # faces rendered together: small enough to stay in the processor's cache

action_units: dict[int, str] = {
    1: "inner brows raised",
    2: "outer brows raised",
    4: "brows lowered and drawn together",
    5: "upper lids raised",
    6: "cheeks raised",
    7: "lids tightened",
    9: "nose wrinkled",
    12: "lip corners pulled up",
    15: "lip corners pulled down",
    16: "lower lip pulled down",
    20: "lips stretched sideways",
    23: "lips tightened",
    26: "jaw dropped",
}
UNIT_COLUMNS = {unit: column for column, unit in enumerate(action_units)}

EMOTION_UNITS: dict[str, tuple[int, ...]] = {
    "surprise": (1, 2, 5, 26),
    "fear": (1, 2, 4, 5, 20, 26),
    "disgust": (9, 15, 16),
    "happiness": (6, 12),
    "sadness": (1, 4, 15),
    "anger": (4, 5, 7, 23),
    "neutral": (),
}
# How often each class is drawn, in the order of `TASKS`.
FREQUENCIES: dict[str, tuple[float, ...]] = {
    "emotion": (0.14, 0.12, 0.12, 0.20, 0.14, 0.13, 0.15),
    "gender": (0.44, 0.46, 0.10),
    "race": (0.36, 0.32, 0.32),
    "age": (0.12, 0.20, 0.32, 0.22, 0.14),
}
AGE_SPANS = ((0, 4), (4, 20), (20, 40), (40, 70), (70, 95))  # years, end excluded
GENDER_LATENT = (1.0, -1.0, 0.0)  # centre of the hidden scale behind the `gender` column
GENDER_SPREAD = 0.45

# Emotion strength is spread evenly between these; its units vary around it on their own.
INTENSITY = (0.40, 1.0)
UNIT_JITTER = (0.7, 1.2)
UNIT_MISSING = 0.06  # share of an emotion's units that stay still
BACKGROUND_SHARE, BACKGROUND_STRENGTH = 0.15, 0.35  # units at work without any emotion
OCCLUDED_SHARE = 0.10


class Trait(NamedTuple):
    """One number of a face: bell-shaped around `mean`, moved by its labels.

    `gender` is added times the hidden scale, `race` by class, `young` in full at birth and
    not at all from 18 years, `old` from 30 years and in full at 85.
    """

    mean: float
    spread: float
    gender: float = 0.0
    race: tuple[float, float, float] = (0.0, 0.0, 0.0)
    young: float = 0.0
    old: float = 0.0


# Lengths are in halves of the picture's side, x to the right and y down, (0, 0) mid-face;
# shades run from 0 (black) to 1 (white).
TRAITS: dict[str, Trait] = {
    # pose
    "scale": Trait(0.98, 0.035),
    "roll": Trait(0.0, 0.07),
    "shift_x": Trait(0.0, 0.055),
    "shift_y": Trait(0.03, 0.055),
    "yaw": Trait(0.0, 0.06),
    "pitch": Trait(0.0, 0.03),
    "skew": Trait(0.0, 0.15),
    # light and picture
    "light_x": Trait(0.0, 0.45),
    "light_y": Trait(-0.45, 0.20),
    "ambient": Trait(0.42, 0.07),
    "exposure": Trait(1.0, 0.07),
    "backdrop": Trait(0.50, 0.17),
    "backdrop_slope": Trait(0.0, 0.10),
    "blur": Trait(0.018, 0.012),
    "grain": Trait(0.020, 0.009),
    # head
    "head_width": Trait(0.665, 0.022, 0.01, young=0.06),
    "jaw": Trait(0.26, 0.09, 0.17, young=-0.10),
    "chin": Trait(0.90, 0.025, 0.02, young=-0.08),
    "cheeks": Trait(0.02, 0.012, young=0.06, old=-0.01),
    "skin": Trait(0.62, 0.055, race=(0.11, -0.13, 0.02), young=0.02),
    "wrinkles": Trait(0.02, 0.05, young=-0.10, old=1.10),
    # hair
    "hair": Trait(0.25, 0.07, race=(0.13, -0.08, -0.10), old=0.55),
    "hair_length": Trait(0.30, 0.22, -0.52, young=-0.15, old=-0.10),
    "hair_volume": Trait(0.10, 0.025, -0.015, (0.0, 0.03, 0.0), young=-0.05),
    "hairline": Trait(-0.60, 0.045, -0.02, young=-0.05, old=-0.06),
    "parting": Trait(0.0, 0.12),
    "curl": Trait(0.38, 0.14, race=(-0.08, 0.42, -0.30)),
    # brows, eyes, nose, mouth
    "brow_thickness": Trait(0.034, 0.005, 0.013, young=-0.012),
    "brow_y": Trait(-0.35, 0.015, 0.02, young=0.05),
    "eye_y": Trait(-0.13, 0.012, young=0.13),
    "eye_x": Trait(0.305, 0.012),
    "eye_width": Trait(0.165, 0.008, -0.006, young=0.025),
    "eye_height": Trait(0.082, 0.006, -0.006, (0.004, 0.004, -0.010), young=0.03, old=-0.012),
    "eye_tilt": Trait(0.0, 0.012, race=(-0.006, 0.0, 0.014), old=-0.012),
    "crease": Trait(0.50, 0.15, race=(0.15, 0.10, -0.30), young=-0.1),
    "iris": Trait(0.24, 0.07, race=(0.10, -0.06, -0.06)),
    "gaze": Trait(0.0, 0.018),
    "nose_width": Trait(0.125, 0.010, 0.006, (-0.015, 0.020, 0.0), young=-0.03),
    "nose_y": Trait(0.17, 0.015, 0.01, young=0.03, old=0.02),
    "mouth_y": Trait(0.46, 0.015, 0.01, young=0.04),
    "mouth_width": Trait(0.235, 0.015, 0.008, young=-0.06),
    "lips": Trait(0.050, 0.006, -0.008, (-0.006, 0.008, 0.0), old=-0.012),
    "parted": Trait(0.45, 0.28),
}
OCCLUDER = ("x", "y", "half_width", "half_height", "shade")

PARAMETERS = np.dtype(
    [(task, "i1") for task in TASKS]
    + [("part", "i1"), ("years", "f4"), ("strength", "f4"), ("units", "f4", len(action_units))]
    + [(trait, "f4") for trait in TRAITS]
    + [("occluder", "f4", len(OCCLUDER)), ("noise", "u4")]
)


# ---------------------------------------------------------------- drawing the parameters


class _Uniforms:
    """Uniform numbers of one block of faces, dealt out as arrays with one row a face.

    They come from the raw bits of Philox, which NumPy promises not to change, and not from
    the methods of `numpy.random.Generator`, which it may.
    """

    def __init__(self, seed: int, block: int):
        self._bits = np.random.Philox(np.random.SeedSequence([seed, block]))

    def integers(self) -> np.ndarray:
        """uint32 (BLOCK,)."""
        return (self._bits.random_raw(BLOCK) >> np.uint64(32)).astype(np.uint32)

    def even(self, columns: int | None = None) -> np.ndarray:
        """Even between 0 and 1: float64 (BLOCK,) or (BLOCK, columns)."""
        raw = self._bits.random_raw(BLOCK * (columns or 1))
        even = (raw >> np.uint64(11)) * 2.0**-53
        return even if columns is None else even.reshape(BLOCK, columns)

    def bell(self) -> np.ndarray:
        """Bell-shaped, mean 0, variance 1, never beyond 3: float64 (BLOCK,)."""
        return 2 * self.even(3).sum(axis=1) - 3

    def choice(self, shares: tuple[float, ...]) -> np.ndarray:
        """Class indices with these shares: int8 (BLOCK,)."""
        return np.searchsorted(np.cumsum(shares[:-1]), self.even(), side="right").astype(np.int8)


def _draw_units(emotion: np.ndarray, strength: np.ndarray, draw: _Uniforms) -> np.ndarray:
    """Action-unit intensities (BLOCK, 13), from 0 to 1, of emotions at some strength."""
    shape = (len(emotion), len(action_units))
    low, high = UNIT_JITTER
    jitter = low + (high - low) * draw.even(shape[1])
    jitter *= draw.even(shape[1]) >= UNIT_MISSING
    background = BACKGROUND_STRENGTH * draw.even(shape[1])
    background *= draw.even(shape[1]) < BACKGROUND_SHARE
    units = prototypes()[emotion] * strength[:, None] * jitter
    return np.clip(np.maximum(units, background), 0, 1)


def _draw_block(block: int, seed: int) -> np.ndarray:
    """Parameters of faces ``block * BLOCK`` up to the next block's first."""
    draw = _Uniforms(seed, block)
    faces = np.zeros(BLOCK, dtype=PARAMETERS)
    faces["part"] = draw.choice(PART_SHARES)
    for task, shares in FREQUENCIES.items():
        faces[task] = draw.choice(shares)
    spans = np.array(AGE_SPANS)[faces["age"]]
    faces["years"] = spans[:, 0] + (spans[:, 1] - spans[:, 0]) * draw.even()
    strength = INTENSITY[0] + (INTENSITY[1] - INTENSITY[0]) * draw.even()
    faces["strength"] = strength * (faces["emotion"] != TASKS["emotion"].index("neutral"))
    faces["units"] = _draw_units(faces["emotion"], strength, draw)

    gender = np.array(GENDER_LATENT)[faces["gender"]] + GENDER_SPREAD * draw.bell()
    young = np.clip(1 - faces["years"] / 18, 0, 1)
    old = np.clip((faces["years"] - 30) / 55, 0, 1)
    for name, trait in TRAITS.items():
        faces[name] = (
            trait.mean
            + trait.spread * draw.bell()
            + trait.gender * gender * (1 - 0.6 * young)
            + np.array(trait.race)[faces["race"]]
            + trait.young * young
            + trait.old * old
        )
    faces["occluder"] = draw.even(len(OCCLUDER)) * (0.9, 0.9, 0.30, 0.12, 0.9) + (
        (-0.45, -0.40, 0.15, 0.06, 0.05)
    )
    faces["occluder"] *= (draw.even() < OCCLUDED_SHARE)[:, None]
    faces["noise"] = draw.integers()
    return faces


def prototypes() -> np.ndarray:
    """Which action units make which emotion: float64 (7, 13) of zeros and ones."""
    return np.array(
        [[float(unit in EMOTION_UNITS[name]) for unit in action_units] for name in TASKS["emotion"]]
    )


def draw_parameters(n: int, seed: int = 0) -> np.ndarray:
    """Draw what n faces are to look like.

    Parameters
    ----------
    n
        Number of faces, at least 1. The first faces are the same whatever n is.
    seed
        A whole number from 0.

    Returns
    -------
    numpy.ndarray
        (n,) records of dtype `PARAMETERS`: class indices, action units, traits.

    Raises
    ------
    ValueError
        `n` is below 1, or `seed` negative.
    """
    n, seed = whole_number("n", n, 1), whole_number("seed", seed, 0)
    return np.concatenate([_draw_block(block, seed) for block in range(-(-n // BLOCK))])[:n]


def plain_face(**changes: float) -> np.ndarray:
    """One unexpressive face with every trait at its mean, to try single changes on.

    Parameters
    ----------
    changes
        Traits by name, and action units as ``AU12=0.8``.

    Returns
    -------
    numpy.ndarray
        (1,) record of dtype `PARAMETERS`, sharp and without grain.

    Raises
    ------
    ValueError
        Neither a trait nor an action unit.

    Examples
    --------
    A smile growing: ``[render(plain_face(AU12=level), 96) for level in (0, 0.5, 1)]``
    """
    face = np.zeros(1, dtype=PARAMETERS)
    columns = {f"AU{unit}": column for unit, column in UNIT_COLUMNS.items()}
    face["emotion"] = TASKS["emotion"].index("neutral")
    face["age"], face["years"] = 2, 30
    still = {"blur": 0.0, "grain": 0.0, "shift_y": 0.0, "skew": 0.0, "light_x": -0.3}
    for name, value in ({t: trait.mean for t, trait in TRAITS.items()} | still | changes).items():
        if name in TRAITS:
            face[name] = value
        elif name in columns:
            face["units"][:, columns[name]] = value
        else:
            raise ValueError(f"{name!r} is neither a trait nor an action unit such as 'AU12'")
    return face


def whole_number(name: str, value: int, least: int) -> int:
    """Return `value` as an int, or raise ValueError."""
    if isinstance(value, bool) or int(value) != value or value < least:
        raise ValueError(f"{name} must be a whole number from {least}, not {value!r}")
    return int(value)


# ------------------------------------------------------- where the action units put things


def landmarks(faces: np.ndarray) -> dict[str, np.ndarray]:
    """Where the features of faces are, once their action units have moved them.

    Parameters
    ----------
    faces
        (N,) records of dtype `PARAMETERS`.

    Returns
    -------
    dict
        (N,) float32 arrays in the face's own coordinates (y runs down): lid, brow, mouth
        and chin positions and sizes. Right and left differ by `skew` only.
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


# ------------------------------------------------------------------------------- rendering


def _fill(distance: np.ndarray, soft: np.ndarray) -> np.ndarray:
    """Share of each pixel inside an edge: 1 where `distance` is well below 0, else 0."""
    return np.clip(0.5 - distance / soft, 0, 1)


def _stroke(distance: np.ndarray, half_width: np.ndarray | float, soft: np.ndarray) -> np.ndarray:
    """Share of each pixel covered by a line, however thin, around `distance` 0."""
    return _fill(distance - half_width, soft) - _fill(distance + half_width, soft)


def _bump(x: np.ndarray, y: np.ndarray, cx, cy, rx, ry) -> np.ndarray:
    """A smooth hill: 1 at its centre (cx, cy), 0 from the ellipse of radii rx, ry on."""
    hill = np.maximum(1 - ((x - cx) / rx) ** 2 - ((y - cy) / ry) ** 2, 0)
    return hill * hill


def _segment(x: np.ndarray, y: np.ndarray, x0, y0, x1, y1) -> np.ndarray:
    """Distance to the straight line from (x0, y0) to (x1, y1)."""
    dx, dy = x1 - x0, y1 - y0
    along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
    dx, dy = x - x0 - along * dx, y - y0 - along * dy
    return np.sqrt(dx * dx + dy * dy)


def _wave(t: np.ndarray) -> np.ndarray:
    """Triangle wave between -1 and 1 with period 1."""
    return 4 * np.abs(t - np.rint(t)) - 1


def _paint(image: np.ndarray, shade: np.ndarray | float, cover: np.ndarray) -> None:
    """Lay a shade over the image, in place."""
    image += cover * (shade - image)


class _Easel:
    """Everything the painters below share about a chunk of faces.

    Every attribute is broadcast against (faces, rows, columns). `x`, `y` run over the head,
    `u`, `v` over its features (yaw and pitch have moved them), `w` is `u` mirrored, so that
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
        # The two sides of a face never move quite alike.
        self.side = f["skew"] * np.clip(self.u * 6, -1, 1)
        pixel = np.float32(2 / image_size)
        self.soft = np.sqrt(pixel * pixel + f["blur"] * f["blur"]) / f["scale"]

    def rows(self, top: float, bottom: float) -> tuple["_Easel", slice]:
        """The rows of the picture that hold features between two heights, and their easel."""
        band = (self.v > top) & (self.v < bottom) & (self.w < 0.75)
        rows = np.flatnonzero(band.any(axis=(0, 2)))
        rows = slice(rows[0], rows[-1] + 1) if len(rows) else slice(0, 0)
        part = copy.copy(self)
        for name in ("x", "y", "u", "v", "w", "side"):
            setattr(part, name, getattr(self, name)[:, rows])
        return part, rows

    def head_distance(self) -> np.ndarray:
        """Distance to the outline: half an ellipse above, a rounder or squarer jaw below."""
        f = self.f
        middle = np.float32(-0.02)
        down = self.y > middle
        height = np.where(down, self.at["chin_y"] - middle, 0.92 + middle)
        width = f["head_width"] + f["cheeks"] * _bump(self.x, self.y, 0, 0.35, 9, 0.5)
        width = width - (0.16 - 0.25 * f["cheeks"]) * np.maximum(self.y - 0.1, 0)
        tx, ty = self.x / width, (self.y - middle) / height
        square = np.where(down, f["jaw"], 0.25)
        tx2, ty2 = tx * tx, ty * ty
        level = (1 - square) * (tx2 + ty2) + square * (tx2 * tx2 + ty2 * ty2) - 1
        slope_x = ((1 - square) + 2 * square * tx2) * tx / width
        slope_y = ((1 - square) + 2 * square * ty2) * ty / height
        return level / (2 * np.sqrt(slope_x * slope_x + slope_y * slope_y) + 0.05)


def _paint_backdrop(e: _Easel, image: np.ndarray) -> None:
    """A plain wall, lighter on one side, and shoulders."""
    f = e.f
    image += f["backdrop"] + f["backdrop_slope"] * (e.picture_x + 0.5 * e.picture_y)
    shoulders = 1.02 + 0.25 * e.x * e.x - e.y
    _paint(image, 0.35 + 0.5 * (f["backdrop"] - 0.5), _fill(shoulders, e.soft))


def _hair_shade(e: _Easel) -> np.ndarray:
    """Strands, or curls where `curl` is high, with the gloss of a light from above."""
    f, x, y = e.f, e.x - e.f["parting"], e.y
    curl = np.clip(f["curl"], 0, 1)
    strands = _wave(3.1 * x + 0.9 * x * y) + _wave(7.3 * x - 1.7 * x * y + 0.2)
    curls = _wave(3.7 * x + 0.3 * _wave(2.3 * y + 0.6 * x)) * _wave(3.4 * y + 0.3 * _wave(2.9 * x))
    curls = curls + 0.7 * _wave(2.6 * (x + y)) * _wave(2.9 * (x - y))
    texture = (1 - curl) * 0.035 * strands + curl * 0.07 * curls
    gloss = 0.10 * (1 - 0.5 * curl) * _bump(x, y, 0.5 * f["light_x"], -0.82, 0.55, 0.16)
    shade = np.clip(f["hair"], 0.07, 0.74) * (1 + 0.20 * f["light_x"] * x - 0.15 * y)
    return shade + texture + gloss


def _paint_behind(e: _Easel, image: np.ndarray, head: np.ndarray, hair: np.ndarray) -> None:
    """Hair behind the head, neck and ears."""
    f = e.f
    left = np.clip((f["hair_length"] + 0.10 - e.y) * 2.2, 0, 1)  # hair thins towards its ends
    curl = np.clip(f["curl"] - 0.3, 0, 1)
    volume = np.maximum(f["hair_volume"], 0.03) * np.clip(1.1 - 0.3 * e.y, 0.6, 1.3)
    volume = volume + 0.05 * curl * (1 + _wave(3.1 * e.x + 0.3) * _wave(3.3 * e.y))
    # Below the cheeks long hair hangs straight instead of following the chin.
    hang = np.abs(e.x) - f["head_width"] + 0.02
    outline = np.where(e.y > 0.0, np.minimum(hang, head), head) - volume * left
    outline = np.maximum(outline, e.y - f["hair_length"] - 0.12 * _bump(e.x, e.y, 0, 0, 0.9, 9))
    _paint(image, hair * 0.80, _fill(outline, e.soft))
    neck = np.maximum(np.abs(e.x) - 0.34 - 0.25 * np.maximum(e.y - 0.9, 0), 0.5 - e.y)
    below = _bump(e.x, e.y, 0, e.at["chin_y"] - 0.05, 0.8, 0.4)
    _paint(image, f["skin"] * (0.75 - 0.35 * below), _fill(neck, e.soft))
    ears = np.sqrt((np.abs(e.x) - f["head_width"]) ** 2 / 0.36 + (e.y - 0.02) ** 2) - 0.13
    _paint(image, f["skin"] * 0.78, _fill(ears, e.soft))


def _relief(e: _Easel) -> np.ndarray:
    """Height of the face towards the viewer: what light and shade are made from."""
    f, au, at, w, v = e.f, e.au, e.at, e.w, e.v
    height = 0.60 * (1 - 0.85 * e.x * e.x - 0.50 * e.y * e.y)
    height += 0.085 * _bump(w, v, 0, f["nose_y"] - 0.12, 0.13, 0.34)
    height += 0.080 * _bump(w, v, 0, f["nose_y"] - 0.03, 0.8 * f["nose_width"] + 0.03, 0.13)
    height += 0.022 * _bump(w, v, f["nose_width"], at["nostril_y"] - 0.02, 0.07, 0.08)
    height -= 0.055 * _bump(w, v, 0.27, f["eye_y"] - 0.04, 0.24, 0.20)
    raised = np.maximum(au[6], 0.7 * au[12])
    height += (0.04 + 0.05 * raised) * _bump(w, v, 0.38, 0.20 - 0.06 * raised, 0.24, 0.22)
    mouth = f["mouth_y"] + 0.5 * at["mouth_open"]
    height += 0.035 * _bump(w, v, 0, mouth, 0.40, 0.26)
    height -= 0.030 * _bump(w, v, 0, mouth + 0.14, 0.20, 0.08)
    height += (0.045 + 0.03 * f["jaw"]) * _bump(w, v, 0, at["chin_y"] - 0.16, 0.22, 0.15)
    return height


def _light(e: _Easel, height: np.ndarray) -> np.ndarray:
    """Brightness (0 to about 1.2) of a surface lit from one side, by its slopes."""
    f, step = e.f, np.float32(4 / e.size)
    edge = np.pad(height, ((0, 0), (1, 1), (1, 1)), mode="edge")
    slope_x = (edge[:, 1:-1, 2:] - edge[:, 1:-1, :-2]) / step
    slope_y = (edge[:, 2:, 1:-1] - edge[:, :-2, 1:-1]) / step
    facing = 0.85 - slope_x * f["light_x"] - slope_y * f["light_y"]
    facing = np.maximum(facing, 0) / np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)
    length = np.sqrt(0.85 * 0.85 + f["light_x"] * f["light_x"] + f["light_y"] * f["light_y"])
    return f["ambient"] + (1.02 - f["ambient"]) * facing / length


def _crease(e: _Easel, image: np.ndarray, distance, depth, half_width) -> None:
    """Darken a line of the skin, in place; depth 0 leaves it as it is."""
    image *= 1 - np.clip(depth, 0, 0.75) * _stroke(distance, half_width, e.soft)


def _paint_upper_folds(e: _Easel, image: np.ndarray, skin: np.ndarray) -> None:
    """Wrinkles of forehead, brows, nose and eyes: of action units, and of age."""
    f, au, at, w, v = e.f, e.au, e.at, e.w, e.v
    age = np.clip(f["wrinkles"], 0, 1)
    fine = 0.006 + 0.012 * age

    def line(x0, y0, x1, y1, depth, half_width):
        _crease(e, image, _segment(w, v, x0, y0, x1, y1), depth, half_width)

    # Forehead: across the middle for AU1, over the outer brows for AU2.
    brow = at["brow_middle_y"] + f["brow_thickness"]
    middle, outer = np.clip(1 - w / 0.30, 0, 1), np.clip(2.2 - 4 * w, 0, 1)
    depth = 0.90 * np.maximum(au[1] * middle, au[2] * outer)
    depth = depth + 0.55 * age * np.clip(1.5 - 3 * w, 0, 1)
    for rise in (0.10, 0.19):
        _crease(e, image, v - brow + rise + 0.25 * w * w, depth, 0.010)
    # Between the brows (AU4), across the bridge of the nose (AU9).
    eye, inner = f["eye_y"], at["brow_inner_y"]
    line(0.050, inner - 0.05, 0.036, inner + 0.08, 0.70 * au[4] + 0.20 * age, 0.012)
    bridge = np.clip(2.4 - 20 * w, 0, 1) * au[9]
    for drop in (-0.01, 0.055, 0.12):
        _crease(e, image, v - eye - drop - 1.6 * w * w, 0.80 * bridge, 0.013)
    line(0.075, eye + 0.13, 0.145, eye + 0.08, 0.60 * au[9], 0.012)
    # Crow's feet and the fold under the eye (AU6); age has them too.
    corner = f["eye_x"] + f["eye_width"] + 0.035
    feet = (0.60 * au[6] + 0.40 * age) * np.clip(1.3 - 9 * (w - corner), 0, 1)
    for rise in (-0.07, 0.0, 0.07):
        line(corner, eye + 0.3 * rise, corner + 0.12, eye + rise, feet, 0.5 * (fine + 0.009))
    bag = eye + at["lid_lower"] + 0.045 - 0.35 * (w - f["eye_x"]) ** 2 / f["eye_width"]
    under = (0.50 * au[6] + 0.45 * au[7] + 0.40 * age) * _bump(w, v, f["eye_x"], eye, 0.2, 0.4)
    _crease(e, image, v - bag, under, 0.012)


def _paint_lower_folds(e: _Easel, image: np.ndarray, skin: np.ndarray) -> None:
    """Folds beside nose and mouth: of action units, and of age."""
    f, au, at, w, v = e.f, e.au, e.at, e.w, e.v
    age = np.clip(f["wrinkles"], 0, 1)
    # An arc from the nose to beside the mouth, deepest with AU9 and AU12.
    top, end = at["nostril_y"] - 0.05, at["corner_y"] + 0.02
    t = np.clip((v - top) / (end - top), -0.5, 1.5)
    start, stop = f["nose_width"] + 0.035, at["mouth_width"] + 0.065
    arc = start + (stop - start) * t * (1.5 - 0.5 * t)
    fold = 0.08 + 0.45 * au[12] + 0.60 * au[9] + 0.20 * au[15] + 0.35 * age
    _crease(e, image, (w - arc) * 0.85, fold * np.clip(2 - np.abs(4 * t - 2), 0, 1), 0.016)
    # Below the corners that AU15 pulls down.
    x, y = at["mouth_width"] + 0.02, at["corner_y"]
    depth = (0.50 * au[15] + 0.30 * age) * np.clip(1.1 - 8 * np.abs(v - y - 0.06), 0, 1)
    _crease(e, image, _segment(w, v, x, y + 0.02, x + 0.03, y + 0.13), depth, 0.014)


def _paint_nose(e: _Easel, image: np.ndarray, skin: np.ndarray) -> None:
    """Nostrils and the wings of the nose; the relief has shaded the rest."""
    f, at, w, v = e.f, e.at, e.w, e.v
    width, y = f["nose_width"], at["nostril_y"]
    holes = np.sqrt(((w - 0.48 * width) / 1.7) ** 2 + (v - y) ** 2) - 0.018
    _paint(image, image * 0.35, 0.9 * _fill(holes, e.soft))
    wing = _segment(w, v, width, y - 0.075, width + 0.012, y - 0.012)
    _paint(image, image * 0.68, _stroke(wing, 0.014, e.soft))
    _paint(image, image * 0.80, _bump(w, v, 0, y + 0.035, 1.1 * width, 0.06))


def _paint_mouth(e: _Easel, image: np.ndarray, skin: np.ndarray) -> None:
    """Lips around a line from corner to corner, and what shows between them."""
    au, at, soft = e.au, e.at, e.soft
    t = e.u / at["mouth_width"]
    t2 = np.minimum(t * t, 1.5)
    arch = 1 - t2
    line = at["mouth_top"] + (at["corner_y"] - at["mouth_top"]) * t2 * (1 + e.side)
    upper, lower = line, line + at["mouth_open"] * arch
    bow = 1 - 0.30 * _bump(t, t, 0, 0, 0.40, 0.40)
    lip_top, lip_bottom = (upper - at["lip_upper"] * arch * bow, lower + at["lip_lower"] * arch)
    _paint(image, image * 0.72, _bump(e.u, e.v - lip_bottom, 0, 0.045, 0.20, 0.06))
    ends = (np.abs(t) - 1) * at["mouth_width"]  # nothing is painted beyond the corners
    lips = _fill(np.maximum(np.maximum(lip_top - e.v, e.v - lip_bottom), ends), soft)
    red = skin * np.where(e.v < upper + 0.01, 0.60, 0.76) - 0.02
    _paint(image, red, lips)
    gap = _fill(np.maximum(np.maximum(upper - e.v, e.v - lower), ends), soft)
    gap *= np.clip(at["mouth_open"] / soft * 1.5, 0, 1)
    _paint(image, 0.10, gap)
    tongue = _bump(t, e.v - lower, 0, 0, 0.75, 0.13)
    _paint(image, 0.33, gap * tongue * np.clip(au[26], 0, 1))
    teeth = np.minimum(0.6 * at["mouth_open"], 0.055 + 0.03 * au[12])
    _paint(image, 0.92, gap * _fill(e.v - upper - teeth, soft) * np.clip(1.15 - 0.5 * t2, 0, 1))
    lower_teeth = np.minimum(0.5 * at["mouth_open"], 0.05) * np.clip(au[16] + au[20], 0, 1)
    _paint(image, 0.88, gap * _fill(lower - lower_teeth - e.v, soft) * (lower_teeth > 0))
    # The closed mouth's line: darker and straighter when the lips are pressed together.
    closed = _stroke(e.v - line, 0.014 + 0.006 * au[23], soft) * _fill(np.abs(t) - 1.04, 8 * soft)
    closed *= np.clip(1 - at["mouth_open"] * 14, 0, 1)
    _paint(image, skin * 0.22, closed)
    corners = _bump(e.w, e.v, at["mouth_width"], at["corner_y"], 0.06, 0.05)
    _paint(image, skin * 0.30, corners * (0.55 + 0.3 * np.maximum(au[12], au[15])))


def _paint_eyes(e: _Easel, image: np.ndarray, skin: np.ndarray) -> None:
    """White, iris and pupil between two lids, lashes and the crease above."""
    f, at, soft, v = e.f, e.at, e.soft, e.v
    t = (e.w - f["eye_x"]) / f["eye_width"]
    axis = f["eye_y"] - f["eye_tilt"] * t
    arch = 1 - t * t
    upper, lower = axis - at["lid_upper"] * arch, axis + at["lid_lower"] * arch
    near = _fill(np.abs(t) - 1.08, 4 * soft)
    opening = _fill(np.maximum(upper - v, v - lower), soft)
    _paint(image, np.minimum(0.93, 0.68 + 0.35 * skin), opening)
    iris_x = e.u - np.where(e.u < 0, -f["eye_x"], f["eye_x"]) - f["gaze"]
    iris_r = np.sqrt(iris_x * iris_x + (v - f["eye_y"] + 0.008) ** 2)
    radius = 0.072
    _paint(image, np.clip(f["iris"], 0.08, 0.6), opening * _fill(iris_r - radius, soft))
    _paint(image, 0.04, opening * _fill(iris_r - 0.45 * radius, soft))
    glint = _bump(iris_x, v, -0.025, f["eye_y"] - 0.035, 0.035, 0.035)
    _paint(image, 0.98, opening * glint * 0.8)
    _paint(image, skin * 0.16, near * _stroke(v - upper, 0.017, soft))
    _paint(image, skin * 0.45, near * 0.7 * _stroke(v - lower, 0.009, soft))
    fold = upper - 0.050 - 0.02 * (1 - arch)
    crease = np.clip(f["crease"], 0, 1) * np.clip(1.2 - 0.5 * e.au[5], 0, 1)
    _paint(image, skin * 0.55, near * crease * _stroke(v - fold, 0.010, soft))


def _paint_brows(e: _Easel, image: np.ndarray, skin: np.ndarray) -> None:
    """Arcs through three points, each moved by its own action units, thinner outwards."""
    f, at = e.f, e.at
    inner, outer = at["brow_inner_x"], np.float32(0.515)
    t = np.clip((e.w - inner) / (outer - inner), -0.2, 1.2)
    y0, y1, y2 = at["brow_inner_y"], at["brow_middle_y"], at["brow_outer_y"]
    curve = y0 + t * (4 * y1 - 3 * y0 - y2) + t * t * (2 * y0 - 4 * y1 + 2 * y2)
    curve -= 0.05 * e.side
    half = np.maximum(f["brow_thickness"], 0.012) * (1.1 - 0.6 * t * t)
    cover = _stroke(e.v - curve, half, e.soft)
    ends = np.maximum(inner - e.w, e.w - outer)
    cover *= _fill(ends, 1.5 * e.soft)
    shade = 0.55 * np.clip(f["hair"], 0.08, 0.8) + 0.02
    _paint(image, np.minimum(shade, 0.72 * f["skin"]), 0.92 * cover)


# Painted in this order, each on no more of the picture than from one height to another.
FEATURES = (
    (_paint_upper_folds, -0.85, 0.35),
    (_paint_lower_folds, 0.00, 1.00),
    (_paint_nose, -0.05, 0.45),
    (_paint_mouth, 0.15, 1.10),
    (_paint_eyes, -0.45, 0.30),
    (_paint_brows, -0.85, 0.15),
)


def _paint_hair(e: _Easel, image: np.ndarray, head: np.ndarray, hair: np.ndarray) -> None:
    """The hair that falls on the head: a hairline that comes down at the temples."""
    f = e.f
    x = e.x - f["parting"]
    side = np.maximum(np.abs(x) - 0.28, 0)
    fringe = 0.03 * f["curl"] * _wave(3.3 * e.x) * _wave(1.7 * e.x + 0.2)
    line = f["hairline"] + 0.12 * x * x + 2.2 * side * side + fringe
    shadow = _fill(e.y - line - 0.05, 3 * e.soft) * _fill(head, e.soft)
    _paint(image, image * 0.78, shadow)
    _paint(image, hair, _fill(np.maximum(e.y - line, head - 0.02), e.soft))
    # At the temples hair comes down as far as its length goes, narrower towards its end.
    low = np.minimum(f["hair_length"] - 0.10, 0.55)
    strip = 0.11 * np.clip((low - e.y) * 3, 0, 1)
    temples = np.maximum(head - 0.02, f["head_width"] - strip - np.abs(e.x))
    _paint(image, hair * 0.92, _fill(np.maximum(temples, e.y - low), e.soft))


def _paint_occluder(e: _Easel, image: np.ndarray, faces: np.ndarray) -> None:
    """Something rounded and out of focus in front of the face, where there is anything."""
    x, y, half_width, half_height, shade = (c[:, None, None] for c in faces["occluder"].T)
    dx = np.maximum(np.abs(e.x - x) - half_width + half_height, 0)
    cover = _fill(np.sqrt(dx * dx + (e.y - y) ** 2) - half_height, 1.5 * e.soft)
    _paint(image, shade, cover * (half_width > 0))


def _grain(noise: np.ndarray, image_size: int) -> np.ndarray:
    """Film grain, mean 0 and variance 1: float32 (N, S, S), a hash of face and pixel."""
    pixels = np.arange(image_size * image_size, dtype=np.uint32) * np.uint32(0x9E3779B1)
    bits = noise[:, None] ^ pixels
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        bits ^= bits >> np.uint32(shift)
        bits *= np.uint32(factor)
    total = sum((bits >> np.uint32(shift)) & np.uint32(255) for shift in (0, 8, 16, 24))
    grain = (total.astype(np.float32) - 510) / np.float32(147.8)
    return grain.reshape(-1, image_size, image_size)


def _render_chunk(faces: np.ndarray, image_size: int) -> np.ndarray:
    """`render` for so few faces that their arrays stay in the cache."""
    e = _Easel(faces, image_size)
    image = np.zeros((len(faces), image_size, image_size), dtype=np.float32)
    head, hair = e.head_distance(), _hair_shade(e)
    _paint_backdrop(e, image)
    _paint_behind(e, image, head, hair)
    skin = np.clip(e.f["skin"], 0.25, 0.82) * _light(e, _relief(e))
    inside = _fill(head, e.soft)
    behind, image = image, skin.copy()
    for paint, top, bottom in FEATURES:
        part, rows = e.rows(top, bottom)
        paint(part, image[:, rows], skin[:, rows])
    image = behind + inside * (image - behind)
    _paint_hair(e, image, head, hair)
    _paint_occluder(e, image, faces)
    image *= e.f["exposure"]
    # Grain grows with the light, as a sensor's does: dark and light faces are equally clear.
    grain = np.maximum(e.f["grain"], 0) * (0.2 + 1.4 * np.clip(image, 0, 1))
    image += grain * _grain(faces["noise"], image_size)
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def render(parameters: np.ndarray, image_size: int = 48) -> np.ndarray:
    """Draw faces from their parameters.

    Parameters
    ----------
    parameters
        (N,) records of dtype `PARAMETERS`, from `draw_parameters` or `plain_face`.
    image_size
        Side of the square pictures, at least 8. Edges are smoothed analytically, so
        that small and large pictures show the same face.

    Returns
    -------
    numpy.ndarray
        uint8 (N, image_size, image_size). A face's pixels do not depend on its neighbours.

    Raises
    ------
    ValueError
        `image_size` is too small, or the records are of another dtype.
    """
    image_size = whole_number("image_size", image_size, 8)
    if parameters.dtype != PARAMETERS or parameters.ndim != 1:
        raise ValueError("parameters must be (N,) records from draw_parameters or plain_face")
    images = np.empty((len(parameters), image_size, image_size), dtype=np.uint8)
    for start in range(0, len(parameters), CHUNK):
        chunk = slice(start, start + CHUNK)
        images[chunk] = _render_chunk(parameters[chunk], image_size)
    return images


# ---------------------------------------------------------------------------- the data set


def draw_block(
    index: int, image_size: int = 48, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw one block of faces, so that any number can be written with bounded memory.

    Parameters
    ----------
    index
        Number of the block, from 0: faces ``index * BLOCK`` to ``(index + 1) * BLOCK - 1``.
    image_size, seed
        As in `read`.

    Returns
    -------
    images, labels, parts
        uint8 (BLOCK, S, S, 1), float32 (BLOCK, 18) and str (BLOCK,): the same as those faces
        of `read`.

    Raises
    ------
    ValueError
        A negative `index` or `seed`, or too small an `image_size`.
    """
    parameters = _draw_block(whole_number("index", index, 0), whole_number("seed", seed, 0))
    images = render(parameters, image_size)[..., None]
    labels = encode_labels({task: parameters[task] for task in TASKS})
    return images, labels, np.array(PARTS)[parameters["part"]]


def read(
    image_size: int = 48,
    n: int = 4800,
    seed: int = 0,
    empty: Callable = in_memory,
) -> Faces:
    """Draw the SAMPLE data set, block by block: only labels and names are in memory whole.

    Parameters
    ----------
    image_size
        Side of the square pictures.
    n
        Number of faces. A larger n only adds faces: the first ones stay the same.
    seed
        A whole number from 0. The same seed gives the same bytes.
    empty
        Makes the uint8 array of the images from its shape, on disk for instance.

    Returns
    -------
    Faces
        Every face with all four labels; about 70 % train, 15 % validation, 15 % test.

    Raises
    ------
    ValueError
        `n` is below 1, `seed` negative or `image_size` too small.
    """
    n = whole_number("n", n, 1)
    total = -(-n // BLOCK)
    jobs = ((block, image_size, seed) for block in range(total))
    images = empty((n, image_size, image_size, 1))
    labels, parts = [], []
    for block, (faces, of_faces, places) in enumerate(
        in_parallel(draw_block, jobs, total, NAME, SERIAL_BLOCKS)
    ):
        start = block * BLOCK
        images[start : start + BLOCK] = faces[: n - start]
        labels.append(of_faces)
        parts.append(places)
    return Faces(
        images=images,
        labels=np.concatenate(labels)[:n],
        paths=np.array([f"sample_{i:06d}.png" for i in range(n)]),
        parts=np.concatenate(parts)[:n],
        skipped=[],
    )
