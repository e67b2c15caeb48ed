"""From images to probabilities, from a photo to its faces, and what the network looked at."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from keras import ops
from PIL import Image, ImageOps
from tqdm import tqdm

from fer_helpers.datasets.files import IMAGE_SUFFIXES, decode, fit
from fer_helpers.labels import TASKS
from fer_helpers.model import IMAGE_SIZE

# Where the eyes and the corners of the mouth lie in the training data, as shares of the
# side: the medians that MTCNN finds in FER2013.
TEMPLATE = np.array([[0.315, 0.388], [0.685, 0.388], [0.36, 0.77], [0.64, 0.77]])
KEYPOINTS = ("left_eye", "right_eye", "mouth_left", "mouth_right")

# Detection gains nothing from more pixels than these along the longer side.
DETECTION_SIDE = 1280


def predict(
    model: keras.Model, images: np.ndarray, batch_size: int = 256, flip: bool = False
) -> dict[str, np.ndarray]:
    """Probabilities of every class of every task.

    Parameters
    ----------
    model
        As `get_model` or `load_model` gives it.
    images
        (N, 48, 48, 1), values 0 to 255; may be a memory map.
    batch_size
        Images a batch.
    flip
        Average with the prediction for the mirrored image.

    Returns
    -------
    dict
        Task -> float32 (N, classes); each row sums to 1.

    Raises
    ------
    ValueError
        Images of another shape, or with values that are not finite or beyond 0 to 255.
    """
    if images.ndim != 4 or images.shape[1:] != model.input_shape[1:]:
        raise ValueError(f"images must be (N, *{model.input_shape[1:]}), not {images.shape}")
    parts = {task: [] for task in TASKS}
    for start in tqdm(range(0, len(images), batch_size), desc="predicting", delay=2, leave=False):
        batch = np.asarray(images[start : start + batch_size])
        _check_values(batch)
        count = len(batch)
        if start:
            # A last batch of another size would make the backend compile once more.
            batch = np.resize(batch, (batch_size, *batch.shape[1:]))
        views = [batch, batch[:, :, ::-1]] if flip else [batch]
        outputs = [model.predict_on_batch(view) for view in views]
        for index, task in enumerate(TASKS):
            parts[task].append(np.mean([view[index] for view in outputs], axis=0)[:count])
    empty = {task: np.zeros((0, len(classes)), np.float32) for task, classes in TASKS.items()}
    return {task: np.concatenate([empty[task], *parts[task]]) for task in TASKS}


def _check_values(batch: np.ndarray) -> None:
    if batch.dtype == np.uint8:
        return
    if not np.isfinite(batch).all() or batch.min() < 0 or batch.max() > 255:
        raise ValueError(
            f"pixel values must be finite and from 0 to 255, found {batch.min()} to {batch.max()}"
        )
    if 0 < batch.max() <= 1:
        raise ValueError("pixel values end at 1: multiply by 255, the network scales them itself")


def prediction_table(
    paths: Sequence[str], probabilities: Mapping[str, np.ndarray], attributes: bool = False
) -> pd.DataFrame:
    """One row an image: the most probable class and the probability of each.

    Parameters
    ----------
    paths
        (N,) what stands in the column ``path``.
    probabilities
        As `predict` gives them.
    attributes
        Also gender, race and age. They are coarse labels given by annotators, here for the
        audit of labelled data sets; on people's photos they stay off unless asked for.

    Returns
    -------
    pandas.DataFrame
        Columns ``path``, ``emotion``, ``emotion_surprise`` ... ``emotion_neutral``, and
        the same for each attribute.
    """
    columns = {"path": list(paths)}
    for task in TASKS if attributes else ("emotion",):
        names = np.array(TASKS[task])
        columns[task] = names[probabilities[task].argmax(axis=1)]
        for index, name in enumerate(names):
            columns[f"{task}_{name}"] = probabilities[task][:, index]
    return pd.DataFrame(columns)


def image_files(paths: Sequence[str | Path]) -> list[Path]:
    """The files among `paths`, and the images below the folders among them, sorted.

    Raises
    ------
    FileNotFoundError
        A path that does not exist, or a folder without images.
    """
    found = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = [file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES]
            if not inside:
                raise FileNotFoundError(f"{path} holds no image ({', '.join(IMAGE_SUFFIXES)})")
            found += sorted(inside)
        elif path.exists():
            found.append(path)
        else:
            raise FileNotFoundError(f"no file or folder {path}")
    return found


def predict_crops(
    model: keras.Model, paths: Sequence[Path], attributes: bool = False, batch_size: int = 256
) -> pd.DataFrame:
    """Predict files that each hold one cropped face, of any size, grey or colour.

    Returns
    -------
    pandas.DataFrame
        As `prediction_table`, in the order of `paths`, with a last column ``error``: why a
        file could not be read, empty for those that could.
    """
    tables = []
    for start in tqdm(range(0, len(paths), batch_size), desc="reading", delay=2, leave=False):
        batch = paths[start : start + batch_size]
        crops = decode([_read_bytes(path) for path in batch], IMAGE_SIZE)
        good = [place for place, crop in enumerate(crops) if isinstance(crop, np.ndarray)]
        images = np.array([crops[place] for place in good], np.uint8)
        probabilities = predict(model, images.reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 1), batch_size)
        table = prediction_table([str(batch[place]) for place in good], probabilities, attributes)
        table.index = good
        table = table.reindex(range(len(batch)))
        table["path"] = [str(path) for path in batch]
        table["error"] = ["" if isinstance(crop, np.ndarray) else crop for crop in crops]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _read_bytes(path: Path) -> bytes | str:
    try:
        return path.read_bytes()
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def predict_photos(
    model: keras.Model, paths: Sequence[Path], attributes: bool = False
) -> pd.DataFrame:
    """Find the faces in photos and predict each.

    Returns
    -------
    pandas.DataFrame
        As `prediction_table`, a row a face, with the columns of `find_faces`, and
        ``error``. A photo that cannot be read, or without a face, has one row.
    """
    tables = []
    for path in tqdm(paths, desc="photos", delay=2, leave=False):
        crops, boxes, error = np.zeros((0, IMAGE_SIZE, IMAGE_SIZE, 1), np.uint8), None, ""
        try:
            crops, boxes = find_faces(open_photo(path))
            error = "" if len(crops) else "no face found"
        except (OSError, ValueError, Image.DecompressionBombError) as problem:
            error = str(problem)
        if len(crops):
            table = prediction_table([str(path)] * len(crops), predict(model, crops), attributes)
            tables.append(pd.concat([table, boxes], axis=1).assign(error=""))
        else:
            tables.append(pd.DataFrame({"path": [str(path)], "error": [error]}))
    table = pd.concat(tables, ignore_index=True)
    return table[[name for name in table if name != "error"] + ["error"]]


def open_photo(path: str | Path) -> Image.Image:
    """Open a photo the right way up.

    Raises
    ------
    ValueError
        The file is not an image, or is damaged.
    """
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as an image ({error})") from error


@cache
def _detector():
    from mtcnn import MTCNN

    return MTCNN()


def find_faces(
    photo: Image.Image | np.ndarray, least_confidence: float = 0.9
) -> tuple[np.ndarray, pd.DataFrame]:
    """Find faces and cut them out as the training data are cut.

    Detection and landmarks are MTCNN's (Zhang et al. 2016). Each face is turned, scaled and
    shifted so that eyes and mouth come to lie where they usually do in FER2013.

    Parameters
    ----------
    photo
        A picture, or uint8 (H, W) or (H, W, 3).
    least_confidence
        Faces of which the detector is less sure are left out.

    Returns
    -------
    crops
        uint8 (F, 48, 48, 1), largest face first.
    boxes
        DataFrame of F rows: ``left``, ``top``, ``right``, ``bottom`` in pixels of the photo,
        ``confidence``.
    """
    if isinstance(photo, np.ndarray):
        photo = Image.fromarray(photo)
    photo = photo.convert("RGB")
    shrink = max(1.0, max(photo.size) / DETECTION_SIDE)
    small = photo.resize([max(1, round(side / shrink)) for side in photo.size])
    # MTCNN's image pyramid has no level for a picture smaller than its 12-pixel window.
    found = _detector().detect_faces(np.asarray(small)) if min(small.size) >= 24 else []
    found = [face for face in found if face["confidence"] >= least_confidence]
    found.sort(key=lambda face: -face["box"][2] * face["box"][3])
    rows = []
    for face in found:
        left, top, width, height = (value * shrink for value in face["box"])
        rows.append((left, top, left + width, top + height, face["confidence"]))
    boxes = pd.DataFrame(rows, columns=["left", "top", "right", "bottom", "confidence"])
    crops = [_align(photo, face["keypoints"], shrink) for face in found]
    return np.array(crops, np.uint8).reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 1), boxes


def _align(photo: Image.Image, keypoints: Mapping, shrink: float) -> np.ndarray:
    """Cut a face out so that its keypoints lie on `TEMPLATE`, as well as a turn can do it."""
    points = np.array([keypoints[name] for name in KEYPOINTS], float) * shrink
    # Drawn larger and then reduced, so that a large face is averaged and not picked from.
    side = 4 * IMAGE_SIZE
    x, y = (TEMPLATE * side).T
    one, none = np.ones(4), np.zeros(4)
    # The similarity (turn, scale, shift) from crop to photo with the least squared error.
    equations = np.block([[np.c_[x, -y, one, none]], [np.c_[y, x, none, one]]])
    a, b, right, down = np.linalg.lstsq(equations, points.T.ravel(), rcond=None)[0]
    crop = photo.transform(
        (side, side), Image.Transform.AFFINE, (a, -b, right, b, a, down), Image.Resampling.BICUBIC
    )
    return fit(crop, IMAGE_SIZE)


def grad_cam(
    model: keras.Model, image: np.ndarray, task: str = "emotion", class_name: str | None = None
) -> np.ndarray:
    """Where the evidence for a class lies in an image (Selvaraju et al. 2017).

    Parameters
    ----------
    model
        As `get_model` gives it.
    image
        (48, 48, 1), values 0 to 255.
    task, class_name
        The class to explain; the most probable one if None.

    Returns
    -------
    numpy.ndarray
        float32 (48, 48), 0 to 1, where 1 is the strongest evidence; all 0 if there is none.
    """
    maps = model.get_layer("cam").output
    logits = model.get_layer(f"{task}_logits").output
    bottom, top = keras.Model(model.input, maps), keras.Model(maps, logits)
    activation = ops.cast(bottom(ops.convert_to_tensor(image[None]), training=False), "float32")
    scores = ops.convert_to_numpy(top(activation, training=False))[0]
    chosen = TASKS[task].index(class_name) if class_name else int(scores.argmax())
    slope = _gradient(lambda value: ops.sum(top(value, training=False)[:, chosen]), activation)
    weights = ops.mean(slope, axis=(1, 2), keepdims=True)
    heat = ops.relu(ops.sum(weights * activation, axis=-1, keepdims=True))
    heat = ops.image.resize(heat, image.shape[:2], interpolation="bicubic")
    heat = np.clip(ops.convert_to_numpy(heat)[0, :, :, 0], 0, None)
    return heat / heat.max() if heat.max() > 0 else heat


def _gradient(function, value):
    """Gradient of a scalar function: the one thing that Keras leaves to its backend."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(function)(value)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(value)
        result = function(value)
    return tape.gradient(result, value)
