"""From images to probabilities, from a photo to its faces, and what the network looked at."""

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from fer_helpers.backend import dtype_policy, gradient, keras
from fer_helpers.batches import check_values
from fer_helpers.datasets.files import decode, eight_bit, fit, is_hidden, note, upright
from fer_helpers.evaluation import fit_temperature, labelled, true_and_predicted
from fer_helpers.labels import OUTPUTS, TASKS, check_task
from fer_helpers.model import IMAGE_SIZE

ops = keras.ops

# Where the eyes and the corners of the mouth lie in the training data, as shares of the
# side: the medians that MTCNN finds in FER2013.
TEMPLATE = np.array([[0.315, 0.388], [0.685, 0.388], [0.36, 0.77], [0.64, 0.77]])
KEYPOINTS = ("left_eye", "right_eye", "mouth_left", "mouth_right")

# Detection gains nothing from more pixels than these along the longer side.
DETECTION_SIDE = 1280

VIEWS = (1, 2, 10)

# What is looked for in a folder; a file that is named is read whatever it is called.
PHOTO_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"),
    *(".tif", ".tiff", ".heic", ".heif"),
)

NO_FACE = "no face found"
ATTRIBUTES = (
    "Gender, race and age are coarse classes that annotators gave to strangers' faces. They are "
    "here for the audit of labelled data sets. To sort people by race from their faces is "
    "banned in the EU (AI Act, Art. 5(1)(g)): do not use them on people."
)


def predict(
    model: keras.Model, images: np.ndarray, batch_size: int = 256, views: int = 1
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
    views
        How many views of each image are averaged: 1, the image; 2, also its mirror image;
        10, windows of 44/48 of the side in the four corners and the centre, and their
        mirror images.

    Returns
    -------
    dict
        Task -> float32 (N, classes); each row sums to 1.

    Raises
    ------
    ValueError
        Images of another shape, or with values that are not finite or beyond 0 to 255, or
        a number of views other than 1, 2 and 10.
    """
    if views not in VIEWS:
        raise ValueError(f"views must be one of {VIEWS}, not {views!r}")
    if images.ndim != 4 or images.shape[1:] != model.input_shape[1:]:
        raise ValueError(f"images must be (N, *{model.input_shape[1:]}), not {images.shape}")
    places = {task: model.output_names.index(output) for task, output in OUTPUTS.items()}
    parts = {task: [] for task in TASKS}
    for start in tqdm(range(0, len(images), batch_size), desc="predicting", delay=2, leave=False):
        batch = np.asarray(images[start : start + batch_size])
        check_values(batch)
        count = len(batch)
        if start:
            # A last batch of another size would make the backend compile once more.
            batch = np.resize(batch, (batch_size, *batch.shape[1:]))
        outputs = [model.predict_on_batch(view) for view in _views(batch, views)]
        for task, place in places.items():
            parts[task].append(np.mean([view[place] for view in outputs], axis=0)[:count])
    empty = {task: np.zeros((0, len(classes)), np.float32) for task, classes in TASKS.items()}
    return {task: np.concatenate([empty[task], *parts[task]]) for task in TASKS}


def _views(batch: np.ndarray, views: int) -> Iterator[np.ndarray]:
    plain = [batch]
    if views == 10:
        side = batch.shape[1]
        margin = side // 12
        corners = [(0, 0), (0, margin), (margin, 0), (margin, margin), (margin // 2, margin // 2)]
        inner = side - margin
        plain = [
            ops.convert_to_numpy(
                ops.image.resize(
                    ops.cast(batch[:, top : top + inner, left : left + inner], "float32"),
                    (side, side),
                )
            )
            for top, left in corners
        ]
    for view in plain:
        yield view
        if views > 1:
            yield view[:, :, ::-1]


def calibrate(model: keras.Model, X: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Set each head's temperature so that its confidence matches its accuracy on (X, y).

    Use validation faces: the training faces know the network too well, and test faces are
    for scoring. Which class is the most probable one does not change.

    Parameters
    ----------
    model
        As `get_model` gives it; changed in place. A head without labels in `y` stays as it
        is.
    X, y
        As `load_data` gives them.

    Returns
    -------
    dict
        Task -> temperature.
    """
    temperatures = {task: model.get_layer(OUTPUTS[task]).temperature for task in TASKS}
    rows = {task: labelled(y, task) for task in TASKS}
    fitted = {}
    tasks = [task for task in TASKS if rows[task].any()]
    for task in tasks:
        temperatures[task].assign(1.0)
    probabilities = predict(model, X)
    for task in tasks:
        true, _ = true_and_predicted(y, probabilities, task)
        fitted[task] = fit_temperature(probabilities[task][rows[task]], true)
        temperatures[task].assign(fitted[task])
    return fitted


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

    Hidden ones are left out, such as the ``._photo.jpg`` that a Mac writes beside a photo.

    Raises
    ------
    FileNotFoundError
        A path that does not exist, or a folder without images.
    """
    found = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = [
                file
                for file in path.rglob("*")
                if file.suffix.lower() in PHOTO_SUFFIXES
                and not is_hidden(file.relative_to(path).as_posix())
            ]
            if not inside:
                raise FileNotFoundError(f"{path} holds no image ({', '.join(PHOTO_SUFFIXES)})")
            found += sorted(inside)
        elif path.exists():
            found.append(path)
        else:
            raise FileNotFoundError(f"no file or folder {path}")
    # A file that is named and lies in a folder that is named, too, is one file.
    return list({file.resolve(): file for file in found}.values())


def predict_crops(
    model: keras.Model, paths: Sequence[Path], attributes: bool = False, batch_size: int = 256
) -> pd.DataFrame:
    """Predict files that each hold one cropped face, of any size, grey or colour.

    A picture that is not square is squeezed into one.

    Returns
    -------
    pandas.DataFrame
        As `prediction_table`, in the order of `paths`, with a last column ``error``: why a
        file could not be read, empty for those that could.

    Raises
    ------
    ValueError
        No pictures.
    """
    if attributes:
        note(ATTRIBUTES)
    _read_heic_too()
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
    if not tables:
        raise ValueError("no picture to predict")
    return pd.concat(tables, ignore_index=True)


def _read_bytes(path: Path) -> bytes | str:
    try:
        return path.read_bytes()
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def predict_photos(
    model: keras.Model, paths: Sequence[Path], attributes: bool = False
) -> pd.DataFrame:
    """Find the faces in photos and predict each; a bad file does not stop the others.

    Returns
    -------
    pandas.DataFrame
        As `predict_photo`, with a first column ``path`` and a last one ``error``. A photo
        that cannot be read, or without a face, has one row.

    Raises
    ------
    ValueError
        No photos, or Keras runs on another backend than TensorFlow, see `find_faces`.
    """
    _detector()  # what no photo can be blamed for
    tables = []
    for path in tqdm(paths, desc="photos", delay=2, leave=False):
        error = ""
        try:
            _, table = predict_photo(model, open_photo(path), attributes)
            if table.empty:
                error = NO_FACE
        except ValueError as problem:
            error = str(problem)
        if error:
            table = pd.DataFrame([{}])
        table.insert(0, "path", str(path))
        tables.append(table.assign(error=error))
    if not tables:
        raise ValueError("no photo to predict")
    table = pd.concat(tables, ignore_index=True)
    return table[[name for name in table if name != "error"] + ["error"]]


def predict_photo(
    model: keras.Model, photo: Image.Image | np.ndarray, attributes: bool = False
) -> tuple[np.ndarray, pd.DataFrame]:
    """Find the faces in one photo and predict each.

    Parameters
    ----------
    model
        As `get_model` or `load_model` gives it.
    photo
        As `find_faces` takes it.
    attributes
        See `prediction_table`; says why they are off otherwise.

    Returns
    -------
    crops
        uint8 (F, 48, 48, 1), what the network saw, largest face first.
    table
        A row a face, F of them: the columns of `prediction_table` without ``path``, then
        those of the boxes of `find_faces`.
    """
    if attributes:
        note(ATTRIBUTES)
    crops, boxes = find_faces(photo)
    table = prediction_table([""] * len(crops), predict(model, crops), attributes)
    return crops, pd.concat([table.drop(columns="path"), boxes], axis=1)


def open_photo(source: str | Path | bytes) -> Image.Image:
    """Open a photo the right way up, in RGB; of an animation, the first picture.

    Parameters
    ----------
    source
        A file's path or its content. JPEG, PNG, WebP, GIF, TIFF, BMP and what else Pillow
        knows by its content; HEIC too where the package pillow-heif is installed.

    Raises
    ------
    ValueError
        It is not an image, is damaged or has more pixels than `Image.MAX_IMAGE_PIXELS`
        (some 90 million).
    """
    name = "the image" if isinstance(source, bytes) else str(source)
    _read_heic_too()
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", "Corrupt EXIF data")
        try:
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                upright(image)
                return eight_bit(image).convert("RGB")
        except Image.UnidentifiedImageError:
            raise ValueError(f"{name} is not an image, whatever its name says") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            limit = Image.MAX_IMAGE_PIXELS / 1e6
            raise ValueError(f"{name} has more than {limit:.0f} million pixels") from None
        except Exception as error:  # Pillow raises many kinds on a file that is not whole
            raise ValueError(f"{name} cannot be read as an image ({error})") from error


@cache
def _read_heic_too() -> None:
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()


@cache
def _detector():
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "faces are found by MTCNN, which needs TensorFlow: set KERAS_BACKEND=tensorflow, or "
            "give crops that hold one face each (--no-detect)"
        )
    from mtcnn import MTCNN

    with dtype_policy("float32"):  # it cannot mix the numbers of a notebook that trains
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
        A picture, as `open_photo` gives it, or uint8 (H, W) or (H, W, 3).
    least_confidence
        Faces of which the detector is less sure are left out.

    Returns
    -------
    crops
        uint8 (F, 48, 48, 1), largest face first.
    boxes
        DataFrame of F rows: ``left``, ``top``, ``right``, ``bottom`` in pixels of the photo,
        ``confidence``.

    Raises
    ------
    ValueError
        Keras runs on another backend than TensorFlow.
    """
    if isinstance(photo, np.ndarray):
        photo = Image.fromarray(photo)
    photo = photo.convert("RGB")
    shrink = max(1.0, max(photo.size) / DETECTION_SIDE)
    size = [max(1, round(side / shrink)) for side in photo.size]
    small = photo.resize(size, Image.Resampling.BILINEAR, reducing_gap=2)
    # MTCNN's image pyramid has no level for a picture smaller than its 12-pixel window.
    found = []
    if min(small.size) >= 24:
        with contextlib.redirect_stdout(io.StringIO()):  # it moves the cursor about
            try:
                found = _detector().detect_faces(np.asarray(small))
            except ValueError as error:
                # No candidates for MTCNN's second network: Keras 3.13 refuses an empty batch.
                if "empty output" not in str(error):
                    raise
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

    Raises
    ------
    ValueError
        A task or a class that does not exist.
    """
    if class_name not in (None, *TASKS[check_task(task)]):
        raise ValueError(
            f"{task} has no class {class_name!r}: choose from {', '.join(TASKS[task])}"
        )
    maps = model.get_layer("cam").output
    logits = model.get_layer(f"{task}_logits").output
    bottom, top = keras.Model(model.input, maps), keras.Model(maps, logits)
    activation = ops.cast(bottom(ops.convert_to_tensor(image[None]), training=False), "float32")
    scores = ops.convert_to_numpy(top(activation, training=False))[0]
    chosen = TASKS[task].index(class_name) if class_name else int(scores.argmax())
    slope = gradient(lambda value: ops.sum(top(value, training=False)[:, chosen]), activation)
    weights = ops.mean(slope, axis=(1, 2), keepdims=True)
    heat = ops.relu(ops.sum(weights * activation, axis=-1, keepdims=True))
    heat = ops.image.resize(heat, image.shape[:2], interpolation="bicubic")
    heat = np.clip(ops.convert_to_numpy(heat)[0, :, :, 0], 0, None)
    return heat / heat.max() if heat.max() > 0 else heat
