"""Turn the parameters of faces into images."""

import numpy as np

from fer_helpers.datasets.sample.easel import (
    Easel,
    bump,
    fill,
    paint,
    segment,
    stroke,
    wave,
)
from fer_helpers.datasets.sample.traits import PARAMETERS, whole_number

CHUNK = 16  # faces rendered together: few enough for the processor's cache


def _paint_backdrop(e: Easel, image: np.ndarray) -> None:
    """Paint a plain wall, lighter on one side, and shoulders."""
    f = e.f
    image += f["backdrop"] + f["backdrop_slope"] * (e.picture_x + 0.5 * e.picture_y)
    shoulders = 1.02 + 0.25 * e.x * e.x - e.y
    paint(image, 0.35 + 0.5 * (f["backdrop"] - 0.5), fill(shoulders, e.soft))


def _hair_shade(e: Easel) -> np.ndarray:
    """Return the shade of hair: strands, or curls if `curl` is high, lit from above."""
    f, x, y = e.f, e.x - e.f["parting"], e.y
    curl = np.clip(f["curl"], 0, 1)
    strands = wave(3.1 * x + 0.9 * x * y) + wave(7.3 * x - 1.7 * x * y + 0.2)
    curls = wave(3.7 * x + 0.3 * wave(2.3 * y + 0.6 * x)) * wave(3.4 * y + 0.3 * wave(2.9 * x))
    curls = curls + 0.7 * wave(2.6 * (x + y)) * wave(2.9 * (x - y))
    texture = (1 - curl) * 0.035 * strands + curl * 0.07 * curls
    gloss = 0.10 * (1 - 0.5 * curl) * bump(x, y, 0.5 * f["light_x"], -0.82, 0.55, 0.16)
    shade = np.clip(f["hair"], 0.07, 0.74) * (1 + 0.20 * f["light_x"] * x - 0.15 * y)
    return shade + texture + gloss


def _paint_behind(e: Easel, image: np.ndarray, head: np.ndarray, hair: np.ndarray) -> None:
    """Paint the hair behind the head, neck and ears."""
    f = e.f
    left = np.clip((f["hair_length"] + 0.10 - e.y) * 2.2, 0, 1)  # hair thins towards its ends
    curl = np.clip(f["curl"] - 0.3, 0, 1)
    volume = np.maximum(f["hair_volume"], 0.03) * np.clip(1.1 - 0.3 * e.y, 0.6, 1.3)
    volume = volume + 0.05 * curl * (1 + wave(3.1 * e.x + 0.3) * wave(3.3 * e.y))
    # Below the cheeks long hair hangs straight instead of following the chin.
    hang = np.abs(e.x) - f["head_width"] + 0.02
    outline = np.where(e.y > 0.0, np.minimum(hang, head), head) - volume * left
    outline = np.maximum(outline, e.y - f["hair_length"] - 0.12 * bump(e.x, e.y, 0, 0, 0.9, 9))
    paint(image, hair * 0.80, fill(outline, e.soft))
    neck = np.maximum(np.abs(e.x) - 0.34 - 0.25 * np.maximum(e.y - 0.9, 0), 0.5 - e.y)
    below = bump(e.x, e.y, 0, e.at["chin_y"] - 0.05, 0.8, 0.4)
    paint(image, f["skin"] * (0.75 - 0.35 * below), fill(neck, e.soft))
    ears = np.sqrt((np.abs(e.x) - f["head_width"]) ** 2 / 0.36 + (e.y - 0.02) ** 2) - 0.13
    paint(image, f["skin"] * 0.78, fill(ears, e.soft))


def _relief(e: Easel) -> np.ndarray:
    """Return the height of the face towards the viewer, from which light and shade follow."""
    f, au, at, w, v = e.f, e.au, e.at, e.w, e.v
    height = 0.60 * (1 - 0.85 * e.x * e.x - 0.50 * e.y * e.y)
    height += 0.085 * bump(w, v, 0, f["nose_y"] - 0.12, 0.13, 0.34)
    height += 0.080 * bump(w, v, 0, f["nose_y"] - 0.03, 0.8 * f["nose_width"] + 0.03, 0.13)
    height += 0.022 * bump(w, v, f["nose_width"], at["nostril_y"] - 0.02, 0.07, 0.08)
    height -= 0.055 * bump(w, v, 0.27, f["eye_y"] - 0.04, 0.24, 0.20)
    raised = np.maximum(au[6], 0.7 * au[12])
    height += (0.04 + 0.05 * raised) * bump(w, v, 0.38, 0.20 - 0.06 * raised, 0.24, 0.22)
    mouth = f["mouth_y"] + 0.5 * at["mouth_open"]
    height += 0.035 * bump(w, v, 0, mouth, 0.40, 0.26)
    height -= 0.030 * bump(w, v, 0, mouth + 0.14, 0.20, 0.08)
    height += (0.045 + 0.03 * f["jaw"]) * bump(w, v, 0, at["chin_y"] - 0.16, 0.22, 0.15)
    return height


def _light(e: Easel, height: np.ndarray) -> np.ndarray:
    """Return the brightness (0 to about 1.2) of a surface lit from one side."""
    f, step = e.f, np.float32(4 / e.size)
    edge = np.pad(height, ((0, 0), (1, 1), (1, 1)), mode="edge")
    slope_x = (edge[:, 1:-1, 2:] - edge[:, 1:-1, :-2]) / step
    slope_y = (edge[:, 2:, 1:-1] - edge[:, :-2, 1:-1]) / step
    facing = 0.85 - slope_x * f["light_x"] - slope_y * f["light_y"]
    facing = np.maximum(facing, 0) / np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)
    length = np.sqrt(0.85 * 0.85 + f["light_x"] * f["light_x"] + f["light_y"] * f["light_y"])
    return f["ambient"] + (1.02 - f["ambient"]) * facing / length


def _crease(e: Easel, image: np.ndarray, distance, depth, half_width) -> None:
    """Darken a line of the skin, in place, by `depth` from 0 to 0.75."""
    image *= 1 - np.clip(depth, 0, 0.75) * stroke(distance, half_width, e.soft)


def _paint_upper_folds(e: Easel, image: np.ndarray, skin: np.ndarray) -> None:
    """Paint wrinkles of forehead, brows, nose and eyes, from action units and age."""
    f, au, at, w, v = e.f, e.au, e.at, e.w, e.v
    age = np.clip(f["wrinkles"], 0, 1)
    fine = 0.006 + 0.012 * age

    def line(x0, y0, x1, y1, depth, half_width):
        _crease(e, image, segment(w, v, x0, y0, x1, y1), depth, half_width)

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
    under = (0.50 * au[6] + 0.45 * au[7] + 0.40 * age) * bump(w, v, f["eye_x"], eye, 0.2, 0.4)
    _crease(e, image, v - bag, under, 0.012)


def _paint_lower_folds(e: Easel, image: np.ndarray, skin: np.ndarray) -> None:
    """Paint folds beside nose and mouth, from action units and age."""
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
    _crease(e, image, segment(w, v, x, y + 0.02, x + 0.03, y + 0.13), depth, 0.014)


def _paint_nose(e: Easel, image: np.ndarray, skin: np.ndarray) -> None:
    """Paint nostrils and the wings of the nose; the relief has shaded the rest."""
    f, at, w, v = e.f, e.at, e.w, e.v
    width, y = f["nose_width"], at["nostril_y"]
    holes = np.sqrt(((w - 0.48 * width) / 1.7) ** 2 + (v - y) ** 2) - 0.018
    paint(image, image * 0.35, 0.9 * fill(holes, e.soft))
    wing = segment(w, v, width, y - 0.075, width + 0.012, y - 0.012)
    paint(image, image * 0.68, stroke(wing, 0.014, e.soft))
    paint(image, image * 0.80, bump(w, v, 0, y + 0.035, 1.1 * width, 0.06))


def _paint_mouth(e: Easel, image: np.ndarray, skin: np.ndarray) -> None:
    """Paint lips around a line from corner to corner, and what shows between them."""
    au, at, soft = e.au, e.at, e.soft
    t = e.u / at["mouth_width"]
    t2 = np.minimum(t * t, 1.5)
    arch = 1 - t2
    line = at["mouth_top"] + (at["corner_y"] - at["mouth_top"]) * t2 * (1 + e.side)
    upper, lower = line, line + at["mouth_open"] * arch
    bow = 1 - 0.30 * bump(t, t, 0, 0, 0.40, 0.40)
    lip_top, lip_bottom = (upper - at["lip_upper"] * arch * bow, lower + at["lip_lower"] * arch)
    paint(image, image * 0.72, bump(e.u, e.v - lip_bottom, 0, 0.045, 0.20, 0.06))
    ends = (np.abs(t) - 1) * at["mouth_width"]  # nothing is painted beyond the corners
    lips = fill(np.maximum(np.maximum(lip_top - e.v, e.v - lip_bottom), ends), soft)
    red = skin * np.where(e.v < upper + 0.01, 0.60, 0.76) - 0.02
    paint(image, red, lips)
    gap = fill(np.maximum(np.maximum(upper - e.v, e.v - lower), ends), soft)
    gap *= np.clip(at["mouth_open"] / soft * 1.5, 0, 1)
    paint(image, 0.10, gap)
    tongue = bump(t, e.v - lower, 0, 0, 0.75, 0.13)
    paint(image, 0.33, gap * tongue * np.clip(au[26], 0, 1))
    teeth = np.minimum(0.6 * at["mouth_open"], 0.055 + 0.03 * au[12])
    paint(image, 0.92, gap * fill(e.v - upper - teeth, soft) * np.clip(1.15 - 0.5 * t2, 0, 1))
    lower_teeth = np.minimum(0.5 * at["mouth_open"], 0.05) * np.clip(au[16] + au[20], 0, 1)
    paint(image, 0.88, gap * fill(lower - lower_teeth - e.v, soft) * (lower_teeth > 0))
    # The closed mouth's line: darker and straighter when the lips are pressed together.
    closed = stroke(e.v - line, 0.014 + 0.006 * au[23], soft) * fill(np.abs(t) - 1.04, 8 * soft)
    closed *= np.clip(1 - at["mouth_open"] * 14, 0, 1)
    paint(image, skin * 0.22, closed)
    corners = bump(e.w, e.v, at["mouth_width"], at["corner_y"], 0.06, 0.05)
    paint(image, skin * 0.30, corners * (0.55 + 0.3 * np.maximum(au[12], au[15])))


def _paint_eyes(e: Easel, image: np.ndarray, skin: np.ndarray) -> None:
    """Paint white, iris and pupil between two lids, lashes and the crease above."""
    f, at, soft, v = e.f, e.at, e.soft, e.v
    t = (e.w - f["eye_x"]) / f["eye_width"]
    axis = f["eye_y"] - f["eye_tilt"] * t
    arch = 1 - t * t
    upper, lower = axis - at["lid_upper"] * arch, axis + at["lid_lower"] * arch
    near = fill(np.abs(t) - 1.08, 4 * soft)
    opening = fill(np.maximum(upper - v, v - lower), soft)
    paint(image, np.minimum(0.93, 0.68 + 0.35 * skin), opening)
    iris_x = e.u - np.where(e.u < 0, -f["eye_x"], f["eye_x"]) - f["gaze"]
    iris_r = np.sqrt(iris_x * iris_x + (v - f["eye_y"] + 0.008) ** 2)
    radius = 0.072
    paint(image, np.clip(f["iris"], 0.08, 0.6), opening * fill(iris_r - radius, soft))
    paint(image, 0.04, opening * fill(iris_r - 0.45 * radius, soft))
    glint = bump(iris_x, v, -0.025, f["eye_y"] - 0.035, 0.035, 0.035)
    paint(image, 0.98, opening * glint * 0.8)
    paint(image, skin * 0.16, near * stroke(v - upper, 0.017, soft))
    paint(image, skin * 0.45, near * 0.7 * stroke(v - lower, 0.009, soft))
    fold = upper - 0.050 - 0.02 * (1 - arch)
    crease = np.clip(f["crease"], 0, 1) * np.clip(1.2 - 0.5 * e.au[5], 0, 1)
    paint(image, skin * 0.55, near * crease * stroke(v - fold, 0.010, soft))


def _paint_brows(e: Easel, image: np.ndarray, skin: np.ndarray) -> None:
    """Paint arcs through three points that action units move, thinner outwards."""
    f, at = e.f, e.at
    inner, outer = at["brow_inner_x"], np.float32(0.515)
    t = np.clip((e.w - inner) / (outer - inner), -0.2, 1.2)
    y0, y1, y2 = at["brow_inner_y"], at["brow_middle_y"], at["brow_outer_y"]
    curve = y0 + t * (4 * y1 - 3 * y0 - y2) + t * t * (2 * y0 - 4 * y1 + 2 * y2)
    curve -= 0.05 * e.side
    half = np.maximum(f["brow_thickness"], 0.012) * (1.1 - 0.6 * t * t)
    cover = stroke(e.v - curve, half, e.soft)
    ends = np.maximum(inner - e.w, e.w - outer)
    cover *= fill(ends, 1.5 * e.soft)
    shade = 0.55 * np.clip(f["hair"], 0.08, 0.8) + 0.02
    paint(image, np.minimum(shade, 0.72 * f["skin"]), 0.92 * cover)


# Painted in this order, each between two heights of the face only.
FEATURES = (
    (_paint_upper_folds, -0.85, 0.35),
    (_paint_lower_folds, 0.00, 1.00),
    (_paint_nose, -0.05, 0.45),
    (_paint_mouth, 0.15, 1.10),
    (_paint_eyes, -0.45, 0.30),
    (_paint_brows, -0.85, 0.15),
)


def _paint_hair(e: Easel, image: np.ndarray, head: np.ndarray, hair: np.ndarray) -> None:
    """Paint the hair on the head, with a hairline that comes down at the temples."""
    f = e.f
    x = e.x - f["parting"]
    side = np.maximum(np.abs(x) - 0.28, 0)
    fringe = 0.03 * f["curl"] * wave(3.3 * e.x) * wave(1.7 * e.x + 0.2)
    line = f["hairline"] + 0.12 * x * x + 2.2 * side * side + fringe
    shadow = fill(e.y - line - 0.05, 3 * e.soft) * fill(head, e.soft)
    paint(image, image * 0.78, shadow)
    paint(image, hair, fill(np.maximum(e.y - line, head - 0.02), e.soft))
    # At the temples hair comes down as far as it is long, narrower towards its end.
    low = np.minimum(f["hair_length"] - 0.10, 0.55)
    strip = 0.11 * np.clip((low - e.y) * 3, 0, 1)
    temples = np.maximum(head - 0.02, f["head_width"] - strip - np.abs(e.x))
    paint(image, hair * 0.92, fill(np.maximum(temples, e.y - low), e.soft))


def _paint_occluder(e: Easel, image: np.ndarray, faces: np.ndarray) -> None:
    """Paint something rounded and out of focus in front of the faces that have an occluder."""
    x, y, half_width, half_height, shade = (c[:, None, None] for c in faces["occluder"].T)
    dx = np.maximum(np.abs(e.x - x) - half_width + half_height, 0)
    cover = fill(np.sqrt(dx * dx + (e.y - y) ** 2) - half_height, 1.5 * e.soft)
    paint(image, shade, cover * (half_width > 0))


def _grain(noise: np.ndarray, image_size: int) -> np.ndarray:
    """Return film grain, mean 0 and variance 1: float32 (N, S, S), a hash of face and pixel."""
    pixels = np.arange(image_size * image_size, dtype=np.uint32) * np.uint32(0x9E3779B1)
    bits = noise[:, None] ^ pixels
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        bits ^= bits >> np.uint32(shift)
        bits *= np.uint32(factor)
    total = sum((bits >> np.uint32(shift)) & np.uint32(255) for shift in (0, 8, 16, 24))
    grain = (total.astype(np.float32) - 510) / np.float32(147.8)
    return grain.reshape(-1, image_size, image_size)


def _render_chunk(faces: np.ndarray, image_size: int) -> np.ndarray:
    """Draw so few faces that their arrays stay in the processor's cache."""
    e = Easel(faces, image_size)
    image = np.zeros((len(faces), image_size, image_size), dtype=np.float32)
    head, hair = e.head_distance(), _hair_shade(e)
    _paint_backdrop(e, image)
    _paint_behind(e, image, head, hair)
    skin = np.clip(e.f["skin"], 0.25, 0.82) * _light(e, _relief(e))
    inside = fill(head, e.soft)
    behind, image = image, skin.copy()
    for feature, top, bottom in FEATURES:
        band, rows = e.rows(top, bottom)
        feature(band, image[:, rows], skin[:, rows])
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
        Side of the square images in pixels, at least 8. Edges are smoothed analytically, so
        that small and large images show the same face.

    Returns
    -------
    numpy.ndarray
        uint8 (N, image_size, image_size), 0 black to 255 white. The other faces do not
        influence a face's pixels.

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
