"""Find the faces in a photo, and in each of them eyes, nose and mouth.

MTCNN (Zhang et al. 2016) with the weights of the package mtcnn: a small network looks at every
place of the photo in many sizes, and two larger ones look at the places that are left. They run
as TensorFlow functions, also where Keras runs on JAX.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import pandas as pd
from PIL import Image

from fer_helpers.backend import no_native_log

# Pixels along the longer side of a photo; with more, no more faces are found.
DETECTION_SIDE = 1280
SMALLEST_FACE = 20  # side of the smallest box, in those pixels
LEAST_CONFIDENCE = 0.9
SURE = 0.99  # no face as sure as that: the photo may lie on its side

# As in the paper: what the first network looks at and its step, in pixels, and from one size of
# the photo to the next.
WINDOW, STRIDE, STEP = 12, 2, 0.709
# After each layer of a network: side and padding of its max pooling with stride 2, if any.
POOLS = {
    "pnet": ((2, "SAME"), None, None),
    "rnet": ((3, "SAME"), (3, "VALID"), None, None),
    "onet": ((3, "SAME"), (3, "VALID"), (2, "SAME"), None, None),
}

BOX = ["left", "top", "right", "bottom"]
POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
COLUMNS = [*BOX, "confidence", *(f"{point}_{axis}" for axis in "xy" for point in POINTS)]


def detect(photo: Image.Image) -> pd.DataFrame:
    """Find the faces in a photo, largest first.

    A photo without a face that is surely one may lie on its side or be upside down. Then it is
    searched in all four turns, which takes four times as long, and the turn with the surest
    face counts. (On a photo that lies on its side, eyes and mouth are now and then found in
    wrong places, so that any face is not enough to stop.)

    Parameters
    ----------
    photo
        PIL picture of mode RGB, of any size.

    Returns
    -------
    pandas.DataFrame
        One row per face, in pixels of the photo: ``left``, ``top``, ``right``, ``bottom``;
        ``confidence``, 0.9 to 1 (less certain faces are left out); and ``left_eye_x``,
        ``left_eye_y`` and so on for both eyes, ``nose``, ``mouth_left`` and ``mouth_right``,
        left and right as the face shows them when it is upright.
    """
    shrink = max(1.0, max(photo.size) / DETECTION_SIDE)
    size = [max(1, round(side / shrink)) for side in photo.size]
    photo = photo.resize(size, Image.Resampling.BILINEAR, reducing_gap=2)
    faces = detect_upright(photo)
    if not (faces["confidence"] >= SURE).any():
        turns = [faces, *(detect_upright(photo, quarters) for quarters in (1, 2, 3))]
        faces = max(turns, key=lambda some: some["confidence"].max() if len(some) else 0)
    area = (faces["right"] - faces["left"]) * (faces["bottom"] - faces["top"])
    faces[[name for name in COLUMNS if name != "confidence"]] *= shrink
    return faces.loc[area.sort_values(ascending=False).index].reset_index(drop=True)


def detect_upright(photo: Image.Image, quarters: int = 0) -> pd.DataFrame:
    """Find the faces that are upright when the photo is turned counter-clockwise.

    Parameters
    ----------
    photo
        PIL picture of mode RGB, at most `DETECTION_SIDE` pixels along its longer side.
    quarters
        By how many right angles it is turned, 0 to 3.

    Returns
    -------
    pandas.DataFrame
        As `detect`'s, in pixels of the photo as it is given.
    """
    turned = photo.rotate(90 * quarters, expand=True)
    faces = _keep_best(_propose(turned), 0.7)
    faces = _keep_best(_look(turned, faces, "rnet", 24, least=0.7), 0.7)
    faces = _keep_outer(_look(turned, faces, "onet", 48, least=LEAST_CONFIDENCE), 0.7)
    faces = pd.DataFrame(faces, columns=COLUMNS)
    faces[BOX] = faces[BOX].clip(0, [*turned.size, *turned.size], axis=1)
    for width in (photo.width, photo.height, photo.width)[3 - quarters :]:
        # One quarter back: a row becomes the distance from the right edge.
        old = faces.copy()
        for point in POINTS:
            faces[f"{point}_x"], faces[f"{point}_y"] = width - old[f"{point}_y"], old[f"{point}_x"]
        faces["left"], faces["right"] = width - old["bottom"], width - old["top"]
        faces["top"], faces["bottom"] = old["left"], old["right"]
    return faces


@cache
def _network(name: str) -> Callable:
    """Return one of MTCNN's networks as a function of images, uint8 or float, 0 to 255.

    Its last axis is: the moves of a box's sides, in the last network ten coordinates of points,
    and two logits (not a face, a face).
    """
    with no_native_log():
        import tensorflow as tf
        from mtcnn.utils.tensorflow import load_weights

    weights = load_weights(f"{name}.lz4")
    end = 3 * len(POOLS[name])
    layers = list(zip(*(weights[i:end:3] for i in range(3)), POOLS[name], strict=True))
    heads = [np.concatenate(weights[end + i :: 2], axis=-1) for i in range(2)]

    def apply(kernel, bias, x):
        if kernel.ndim == 4:
            x = tf.nn.conv2d(x, kernel, 1, "VALID")
        else:
            if len(x.shape) == 4:  # these weights count a map's columns before its rows
                x = tf.reshape(tf.transpose(x, (0, 2, 1, 3)), (-1, len(kernel)))
            x = x @ kernel
        return tf.nn.bias_add(x, bias)

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3))])
    def run(images):
        x = (images - 127.5) / 128
        for kernel, bias, slope, pool in layers:
            x = apply(kernel, bias, x)
            x += (slope - 1) * tf.minimum(x, 0)
            if pool:
                x = tf.nn.max_pool2d(x, pool[0], 2, pool[1])
        return apply(*heads, x)

    return lambda images: run(tf.cast(images, tf.float32)).numpy()


def _propose(photo: Image.Image) -> np.ndarray:
    """Return boxes where the first network sees a face: (N, 5), four sides and the score."""
    found, scale, level = [np.empty((0, 5))], WINDOW / SMALLEST_FACE, photo
    while min(photo.size) * scale >= WINDOW:
        # Made from the level before, which is three times as fast as from the photo.
        level = level.resize([int(side * scale) for side in photo.size], Image.Resampling.BOX)
        output = _network("pnet")(np.asarray(level)[None])[0]
        scores = _scores(output)
        rows, columns = np.nonzero(scores > 0.6)
        corners = STRIDE * np.c_[columns, rows, columns, rows] + (0, 0, WINDOW, WINDOW)
        boxes = (corners + WINDOW * output[rows, columns, :4]) / scale
        found.append(_keep_best(np.c_[boxes, scores[rows, columns]], 0.5))
        scale *= STEP
    return np.concatenate(found)


def _look(photo: Image.Image, boxes: np.ndarray, name: str, side: int, least: float) -> np.ndarray:
    """Return the boxes in which a network sees a face: four sides, score, then points if any."""
    import tensorflow as tf

    if not len(boxes):  # no convolution of nothing
        return np.empty((0, 15))
    # Squares about the same centres.
    centres = (boxes[:, :2] + boxes[:, 2:4]) / 2
    halves = (boxes[:, 2:4] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    boxes = np.c_[centres - halves, centres + halves]
    shares = boxes[:, [1, 0, 3, 2]] / np.tile(photo.size[::-1], 2)
    indices = np.zeros(len(boxes), np.int32)
    crops = tf.image.crop_and_resize(np.asarray(photo)[None], shares, indices, (side, side))
    output = _network(name)(crops)
    scores = _scores(output)
    good = scores > least
    boxes, output, sides = boxes[good], output[good], 2 * halves[good]
    moved = boxes + output[:, :4] * sides
    points = np.repeat(boxes[:, :2], output.shape[1] // 2 - 3, axis=1) + output[:, 4:-2] * sides
    return np.c_[moved, scores[good], points]


def _scores(output: np.ndarray) -> np.ndarray:
    """Return the probability of a face from the logits, the last two numbers."""
    return 1 / (1 + np.exp(output[..., -2] - output[..., -1]))


def _keep_best(faces: np.ndarray, overlap: float) -> np.ndarray:
    """Of boxes that share more than `overlap` of their union keep the one with the best score."""
    import tensorflow as tf

    boxes, scores = faces[:, :4].astype(np.float32), faces[:, 4].astype(np.float32)
    return faces[tf.image.non_max_suppression(boxes, scores, len(faces), overlap).numpy()]


def _keep_outer(faces: np.ndarray, overlap: float) -> np.ndarray:
    """Of boxes that share more than `overlap` of the smaller keep the one with the best score."""
    kept = np.empty((0, faces.shape[1]))
    for face in faces[np.argsort(-faces[:, 4])]:
        both = np.minimum(kept[:, 2:4], face[2:4]) - np.maximum(kept[:, :2], face[:2])
        smaller = np.minimum(*((some[..., 2:4] - some[..., :2]).prod(-1) for some in (kept, face)))
        if (both.clip(0).prod(axis=1) <= overlap * smaller).all():
            kept = np.vstack([kept, face])
    return kept
