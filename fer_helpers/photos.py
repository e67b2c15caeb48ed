"""From photos and files to faces and a table of predictions."""

import contextlib
import io
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from fer_helpers.backend import keras
from fer_helpers.datasets.faces import note
from fer_helpers.datasets.source import is_hidden
from fer_helpers.detection import BOX, detect
from fer_helpers.images import crop_and_resize, decode, eight_bit, upright
from fer_helpers.model import IMAGE_SIZE
from fer_helpers.prediction import predict, prediction_table

# Where the eyes and the corners of the mouth lie in the training data, as shares of the
# side: the medians that MTCNN finds in FER2013.
TEMPLATE = np.array([[0.315, 0.388], [0.685, 0.388], [0.36, 0.77], [0.64, 0.77]])
KEYPOINTS = ("left_eye", "right_eye", "mouth_left", "mouth_right")

VIEWS = (1, 2, 10)

# Endings looked for in a folder; a file given by its own path may have any name.
PHOTO_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"),
    *(".tif", ".tiff", ".heic", ".heif"),
)

NO_FACE = "no face found"
ATTRIBUTES = (
    "Gender, race and age are coarse classes that annotators gave to strangers' faces. They serve "
    "the audit of labelled data sets. Sorting people by race from their faces is banned in the "
    "EU (AI Act, Art. 5(1)(g)): do not use them on people."
)


def image_files(paths: Sequence[str | Path]) -> list[Path]:
    """List the files among `paths`, and the images in the folders among them, sorted.

    Hidden files are left out, such as the ``._photo.jpg`` that macOS writes beside a photo.

    Parameters
    ----------
    paths
        Files and folders. A folder is searched to any depth.

    Returns
    -------
    list of pathlib.Path
        Each file once.

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
    # The same file may be given by its own path and by its folder's.
    return list({file.resolve(): file for file in found}.values())


def predict_crops(
    model: keras.Model, paths: Sequence[Path], attributes: bool = False, batch_size: int = 256
) -> pd.DataFrame:
    """Predict files that each hold one cropped face, of any size, grey or in colour.

    An image that is not square is squeezed into a square.

    Parameters
    ----------
    model
        From `get_model` or `load_model`.
    paths
        Image files.
    attributes
        Also gender, race and age, see `prediction_table`.
    batch_size
        Images read and predicted together.

    Returns
    -------
    pandas.DataFrame
        One row per file, in the order of `paths`: the columns of `prediction_table`, and
        ``error``, the reason why a file could not be read, empty if it could.

    Raises
    ------
    ValueError
        `paths` is empty.
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
        raise ValueError("no image to predict: `paths` is empty")
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

    Parameters
    ----------
    model
        From `get_model` or `load_model`.
    paths
        Image files.
    attributes
        Also gender, race and age, see `prediction_table`.

    Returns
    -------
    pandas.DataFrame
        One row per face: ``path``, the columns of `predict_photo`'s table, and ``error``. A
        photo that cannot be read, or without a face, has one row that says so.

    Raises
    ------
    ValueError
        `paths` is empty.
    """
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
        if len(tables) > 1000:  # a table of one row takes twenty times the memory of a row
            tables = [pd.concat(tables, ignore_index=True)]
    if not tables:
        raise ValueError("no photo to predict: `paths` is empty")
    table = pd.concat(tables, ignore_index=True)
    return table[[name for name in table if name != "error"] + ["error"]]


def predict_photo(
    model: keras.Model, photo: Image.Image | np.ndarray, attributes: bool = False
) -> tuple[np.ndarray, pd.DataFrame]:
    """Find the faces in one photo and predict each.

    Parameters
    ----------
    model
        From `get_model` or `load_model`.
    photo
        A picture from `open_photo`, or uint8 (H, W) or (H, W, 3).
    attributes
        Also gender, race and age, see `prediction_table`; prints why they are off by default.

    Returns
    -------
    crops
        uint8 (F, 48, 48, 1), what the network saw, largest face first.
    table
        One row per face: the columns of `prediction_table` without ``path``, then ``left``,
        ``top``, ``right``, ``bottom`` in pixels of the photo, and ``confidence``, the
        detector's, 0 to 1.
    """
    if attributes:
        note(ATTRIBUTES)
    crops, boxes = find_faces(photo)
    table = prediction_table([""] * len(crops), predict(model, crops), attributes)
    return crops, pd.concat([table.drop(columns="path"), boxes], axis=1)


def open_photo(source: str | Path | bytes) -> Image.Image:
    """Open a photo the right way up, in RGB; of an animation, its first image.

    Parameters
    ----------
    source
        Path or content of a file: JPEG, PNG, WebP, GIF, TIFF, BMP or any other format that
        Pillow recognises; HEIC if the package pillow-heif is installed.

    Returns
    -------
    PIL.Image.Image
        Of mode RGB, turned as its EXIF says.

    Raises
    ------
    ValueError
        It is not an image, is damaged, or has more pixels than `Image.MAX_IMAGE_PIXELS`
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
        except Exception as error:  # Pillow raises errors of many kinds on damaged files
            raise ValueError(f"{name} cannot be read as an image ({error})") from error


@cache
def _read_heic_too() -> None:
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()


def find_faces(photo: Image.Image | np.ndarray) -> tuple[np.ndarray, pd.DataFrame]:
    """Find faces and crop them as the training images are cropped.

    Each face that `detect` finds is turned, scaled and shifted so that eyes and mouth lie where
    they usually do in FER2013.

    Parameters
    ----------
    photo
        A picture from `open_photo`, or uint8 (H, W) or (H, W, 3).

    Returns
    -------
    crops
        uint8 (F, 48, 48, 1), largest face first.
    boxes
        DataFrame of F rows: ``left``, ``top``, ``right``, ``bottom`` in pixels of the photo,
        and ``confidence``, 0.9 to 1: less certain faces are left out.
    """
    if isinstance(photo, np.ndarray):
        photo = Image.fromarray(photo)
    photo = photo.convert("RGB")
    faces = detect(photo)
    names = [f"{point}_{axis}" for point in KEYPOINTS for axis in "xy"]
    crops = [_align(photo, points) for points in faces[names].to_numpy().reshape(-1, 4, 2)]
    crops = np.array(crops, np.uint8).reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 1)
    return crops, faces[[*BOX, "confidence"]]


def _align(photo: Image.Image, points: np.ndarray) -> np.ndarray:
    """Crop a face so that `points`, its `KEYPOINTS`, lie on `TEMPLATE` with least squared error."""
    # At four times the size first, so that the pixels of a large face are averaged.
    side = 4 * IMAGE_SIZE
    x, y = (TEMPLATE * side).T
    one, none = np.ones(4), np.zeros(4)
    # The similarity (turn, scale, shift) from crop to photo with the least squared error.
    equations = np.block([[np.c_[x, -y, one, none]], [np.c_[y, x, none, one]]])
    a, b, right, down = np.linalg.lstsq(equations, points.T.ravel(), rcond=None)[0]
    crop = photo.transform(
        (side, side), Image.Transform.AFFINE, (a, -b, right, b, a, down), Image.Resampling.BICUBIC
    )
    return crop_and_resize(crop, IMAGE_SIZE)
