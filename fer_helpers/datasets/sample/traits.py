"""SAMPLE: grey faces drawn by code, with all four labels, the same for the same seed.

A face is a row of continuous numbers: the shape of the head, pose, light, hair, and the
intensity of thirteen action units of FACS (Ekman & Friesen, Facial Action Coding System,
1978). An emotion is its usual action units (the prototypes of EMFACS, as in Cohn, Ambadar
& Ekman, 2007), each varied at random, with an overall intensity that is often low.

Gender, race and age of a drawn face are rendering parameters: stand-ins, so that the code
of the course can run on all four tasks. They say nothing about people, and the emotion is
drawn independently of them.

Face i depends only on the seed and on i, not on the number of faces: each block of `BLOCK`
faces has a Philox generator of its own. The pixels come from whole-number arithmetic,
``+ - * /``, square roots and rounding, which IEEE 754 defines to the last bit, so the same
seed should give the same bytes on any machine; a build of NumPy that fuses multiplication
and addition could change single grey levels by one.
"""

from typing import NamedTuple

import numpy as np

from fer_helpers.labels import TASKS

SPLITS = ("train", "validation", "test")
SPLIT_SHARES = (0.70, 0.15, 0.15)

BLOCK = 256  # faces that share one random generator; changing it changes every face

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

# An emotion's strength is uniform between these; each of its units varies around it.
INTENSITY = (0.40, 1.0)
UNIT_JITTER = (0.7, 1.2)
UNIT_MISSING = 0.06  # share of an emotion's units that do not move
BACKGROUND_SHARE, BACKGROUND_STRENGTH = 0.15, 0.35  # units that move without any emotion
OCCLUDED_SHARE = 0.10


class Trait(NamedTuple):
    """One number of a face: bell-shaped around `mean`, shifted by the face's labels.

    `gender` is multiplied by the hidden scale, `race` has a number per class, `young` counts
    in full at birth and no longer from 18 years on, `old` from 30 years on and in full at 85.
    """

    mean: float
    spread: float
    gender: float = 0.0
    race: tuple[float, float, float] = (0.0, 0.0, 0.0)
    young: float = 0.0
    old: float = 0.0


# Lengths are in halves of the image's side, x to the right and y down, (0, 0) mid-face;
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
    # light and image
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
    + [("split", "i1"), ("years", "f4"), ("strength", "f4"), ("units", "f4", len(action_units))]
    + [(trait, "f4") for trait in TRAITS]
    + [("occluder", "f4", len(OCCLUDER)), ("noise", "u4")]
)


class Uniforms:
    """Random numbers of one block of faces, as arrays with a row per face.

    They come from the raw bits of Philox, which NumPy promises not to change, unlike the
    methods of `numpy.random.Generator`.
    """

    def __init__(self, seed: int, block: int):
        self._bits = np.random.Philox(np.random.SeedSequence([seed, block]))

    def integers(self) -> np.ndarray:
        """Return uint32 (BLOCK,)."""
        return (self._bits.random_raw(BLOCK) >> np.uint64(32)).astype(np.uint32)

    def even(self, columns: int | None = None) -> np.ndarray:
        """Return uniform numbers from 0 to 1: float64 (BLOCK,) or (BLOCK, columns)."""
        raw = self._bits.random_raw(BLOCK * (columns or 1))
        even = (raw >> np.uint64(11)) * 2.0**-53
        return even if columns is None else even.reshape(BLOCK, columns)

    def bell(self) -> np.ndarray:
        """Return bell-shaped numbers, mean 0, variance 1, all within -3 to 3: float64 (BLOCK,)."""
        return 2 * self.even(3).sum(axis=1) - 3

    def choice(self, shares: tuple[float, ...]) -> np.ndarray:
        """Return class indices with these shares: int8 (BLOCK,)."""
        return np.searchsorted(np.cumsum(shares[:-1]), self.even(), side="right").astype(np.int8)


def _draw_units(emotion: np.ndarray, strength: np.ndarray, draw: Uniforms) -> np.ndarray:
    """Return action-unit intensities (BLOCK, 13), from 0 to 1."""
    shape = (len(emotion), len(action_units))
    low, high = UNIT_JITTER
    jitter = low + (high - low) * draw.even(shape[1])
    jitter *= draw.even(shape[1]) >= UNIT_MISSING
    background = BACKGROUND_STRENGTH * draw.even(shape[1])
    background *= draw.even(shape[1]) < BACKGROUND_SHARE
    units = prototypes()[emotion] * strength[:, None] * jitter
    return np.clip(np.maximum(units, background), 0, 1)


def block_parameters(block: int, seed: int) -> np.ndarray:
    """Return the parameters of the faces of one block, counted from 0."""
    draw = Uniforms(seed, block)
    faces = np.zeros(BLOCK, dtype=PARAMETERS)
    faces["split"] = draw.choice(SPLIT_SHARES)
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
    """Return which action units make which emotion: float64 (7, 13) of zeros and ones."""
    return np.array(
        [[float(unit in EMOTION_UNITS[name]) for unit in action_units] for name in TASKS["emotion"]]
    )


def draw_parameters(n: int, seed: int = 0) -> np.ndarray:
    """Draw at random what n faces look like.

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
    return np.concatenate([block_parameters(block, seed) for block in range(-(-n // BLOCK))])[:n]


def plain_face(**changes: float) -> np.ndarray:
    """Return one neutral face with every trait at its mean, to try single changes on.

    Parameters
    ----------
    changes
        Traits by name, see `TRAITS`, and action units from 0 to 1, as ``AU12=0.8``.

    Returns
    -------
    numpy.ndarray
        (1,) record of dtype `PARAMETERS`, sharp and without grain.

    Raises
    ------
    ValueError
        A name that is neither a trait nor an action unit.

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
    """Return `value` as an int, or raise a ValueError if it is none or below `least`."""
    if isinstance(value, bool) or int(value) != value or value < least:
        raise ValueError(f"{name} must be a whole number from {least}, not {value!r}")
    return int(value)
