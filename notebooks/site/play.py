"""Draw every face that the first page can show, and ask the network about each.

    python notebooks/site/play.py FOLDER

Five sliders and a hand make 3,750 faces. Brows are drawn in the upper part of a picture, mouth and
chin in the lower one, and neither changes the other by a single grey level: so the page puts its
pictures together from 75 upper and 375 lower parts. `make site` calls this when it is needed.
"""

import base64
import hashlib
import json
import sys
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from fer_helpers import load_model, predict
from fer_helpers.backend import gradient, keras
from fer_helpers.datasets import sample
from fer_helpers.datasets.sample.easel import segment
from fer_helpers.labels import TASKS

UNITS = (4, 12, 26)  # the action units with a slider
LEVELS = (0, 0.25, 0.5, 0.75, 1)  # of each
YAWS = (-0.24, -0.12, 0, 0.12, 0.24)
LIGHTS = (-0.9, 0, 0.9)  # from the left, from the front, from the right
HANDS = (False, True)
GRID = (YAWS, LIGHTS, HANDS, LEVELS, LEVELS, LEVELS)  # in the order of the answers

SIDE = 256  # pixels of a face on the page
CUT = 115  # rows of its upper part
# The parts overlap in the sprites, and fill whole blocks of 16 pixels, so that no seam shows.
UPPER, LOWER = slice(0, 128), slice(112, SIDE)
QUALITY = 40
FINGERS = ((-0.40, 0.30), (-0.48, 0.45), (-0.44, 0.60), (-0.30, 0.75))  # their tips, x and y


def faces(settings: list[tuple]) -> np.ndarray:
    """Return the parameters of the faces with these settings, tuples of `GRID`'s values."""
    names = [f"AU{unit}" for unit in UNITS]
    return np.concatenate(
        [
            sample.plain_face(yaw=yaw, light_x=light, **dict(zip(names, levels, strict=True)))
            for yaw, light, _, *levels in settings
        ]
    )


def hand(side: int, yaw: float = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the shade (side, side) of a hand over the mouth, and how much of a pixel it covers.

    It comes from the right, and moves with the mouth when the face is turned.
    """
    centres = (np.arange(side) + 0.5) * 2 / side - 1
    x, y = centres[None, :] - yaw, centres[:, None]
    shade, cover = np.full((side, side), 0.5), np.zeros((side, side))
    for tip, height in FINGERS:
        distance = segment(x, y, tip, height, 1.4, height + 0.12) / 0.09
        inside = np.clip((1 - distance) * side / 22 + 0.5, 0, 1)
        shade += inside * (0.62 - 0.30 * np.clip(distance, 0, 1) ** 3 - shade)
        cover = np.maximum(cover, inside)
    return shade, cover


def pictures(settings: list[tuple], side: int = 48) -> np.ndarray:
    """Return the faces with these settings, uint8 (N, side, side, 1), as the page shows them."""
    images = sample.render(faces(settings), side).astype(float)
    hands = {yaw: hand(side, yaw) for yaw in YAWS}
    for image, (yaw, _, covered, *_) in zip(images, settings, strict=True):
        if covered:
            shade, cover = hands[yaw]
            image += cover * (255 * shade - image)
    return np.rint(images).astype(np.uint8)[..., None]


def evidence(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Return what `grad_cam` does, of many images, and as small as the network computes it."""
    maps, logits = model.get_layer("cam").output, model.get_layer("emotion_logits").output
    bottom, top = keras.Model(model.input, maps), keras.Model(maps, logits)
    heats = []
    for start in range(0, len(images), 250):
        activation = bottom(images[start : start + 250], training=False)
        best = keras.ops.argmax(top(activation, training=False), axis=-1)
        chosen = keras.ops.one_hot(best, len(TASKS["emotion"]))
        slope = gradient(lambda x, chosen=chosen: keras.ops.sum(top(x) * chosen), activation)
        weights = keras.ops.mean(slope, axis=(1, 2), keepdims=True)
        heat = keras.ops.relu(keras.ops.sum(weights * activation, axis=-1))
        heats.append(keras.ops.convert_to_numpy(heat))
    heats = np.concatenate(heats)
    return heats / np.maximum(heats.max(axis=(1, 2), keepdims=True), 1e-9)


def write(folder: Path) -> None:
    """Write the sprites, one for each turn, the hand, and the answers to all settings."""
    for number, yaw in enumerate(YAWS):
        blocks = []
        for light in LIGHTS:
            corner = (yaw, light, False)
            brows = [(*corner, level, 0, 0) for level in LEVELS]
            mouths = [(*corner, 0, *levels) for levels in product(LEVELS, LEVELS)]
            upper = pictures(brows, SIDE)[:, UPPER, :, 0]
            lower = pictures(mouths, SIDE)[:, LOWER, :, 0]
            blocks.append(np.concatenate(upper, axis=1))
            blocks += [np.concatenate(row, axis=1) for row in np.split(lower, len(LEVELS))]
        sprite = Image.fromarray(np.concatenate(blocks))
        sprite.save(folder / f"face{number}.webp", quality=QUALITY)
    shade, cover = (np.rint(255 * values).astype(np.uint8) for values in hand(SIDE))
    Image.merge("LA", [Image.fromarray(shade), Image.fromarray(cover)]).save(folder / "hand.webp")

    model, settings = load_model("SAMPLE"), list(product(*GRID))
    images = pictures(settings)
    p = predict(model, images)["emotion"]
    best = p.argmax(axis=1)[:, None].astype(np.uint8)  # two whole percentages may be the same
    percent = np.rint(100 * p).astype(np.uint8)
    heat = evidence(model, images)
    steps = np.rint(15 * heat).astype(np.uint8).reshape(len(heat), -1)  # two to a byte
    records = np.concatenate([best, percent, 16 * steps[:, ::2] + steps[:, 1::2]], axis=1)
    answers = {
        "classes": TASKS["emotion"],
        "counts": [len(values) for values in GRID],
        "side": SIDE,
        "cut": CUT,
        "upper": UPPER.stop,
        "lower": LOWER.start,
        "yaws": YAWS,
        "heat": heat.shape[1],
        "records": base64.b64encode(records.tobytes()).decode(),
    }
    (folder / "answers.js").write_text(f"const PLAY = {json.dumps(answers)};\n")


def key() -> str:
    """Return what the pictures and answers depend on, in one word."""
    package = Path(sample.__file__).parent
    weights = package.parent.parent / "pretrained" / "sample.weights.h5"
    files = [Path(__file__), *sorted(package.glob("*.py")), weights]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def write_if_needed(folder: Path) -> None:
    """Write what is missing or older than the code and the weights."""
    stamp = folder / "key.txt"
    if not stamp.exists() or stamp.read_text() != key():
        folder.mkdir(parents=True, exist_ok=True)
        write(folder)
        stamp.write_text(key())


if __name__ == "__main__":
    write_if_needed(Path(sys.argv[1]))
