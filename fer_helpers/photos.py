"""From photos and files to faces and a table of predictions."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from fer_helpers.backend import keras
from fer_helpers.datasets.faces import note
from fer_helpers.datasets.source import is_hidden
from fer_helpers.detection import BOX, detect
from fer_helpers.images import (
    FilePath,
    ImageSource,
    check_file,
    crop_and_resize,
    decode,
    may_be_image,
    open_image,
)
from fer_helpers.model import IMAGE_SIZE
from fer_helpers.prediction import predict, prediction_table
from fer_helpers.progress import tqdm

# Where the eyes and the corners of the mouth lie in the training data, as shares of the
# side: the medians that MTCNN finds in FER2013.
TEMPLATE = np.array([[0.315, 0.388], [0.685, 0.388], [0.36, 0.77], [0.64, 0.77]])
KEYPOINTS = ("left_eye", "right_eye", "mouth_left", "mouth_right")

# To a table, of a face whose crop holds more pixels than the photo had.
SMALL = "small: {side} × {side} pixels, the network takes {size} × {size}"
CROP_SIDE = 100  # pixels; a smaller picture is rather a face already cut out than a photo
FIRST_NAMES = 5  # of files that are ignored

NO_FACE = "no face found"
ATTRIBUTES = (
    "Gender, race and age are coarse classes that annotators gave to strangers' faces. They serve "
    "the audit of labelled data sets. Sorting people by race from their faces is banned in the "
    "EU (AI Act, Art. 5(1)(g)): do not use them on people."
)


def image_files(paths: FilePath | Iterable[FilePath]) -> list[Path]:
    """List the files among `paths`, and in the folders among them all that may be images.

    In a folder, a file may be an image if its ending is an image's, or if it has none. Hidden
    files are left out, such as the ``._photo.jpg`` that macOS writes beside a photo. One line on
    stderr says how many files of a folder are left out, and names the first. Whether a file can
    be read is not checked here: pipes, devices and links that lead nowhere are listed, too.

    Parameters
    ----------
    paths
        Files and folders, or one of them. A folder is searched to any depth; links to folders
        are followed.

    Returns
    -------
    list of pathlib.Path
        Each file once; those of a folder are sorted.

    Raises
    ------
    ValueError
        A path that does not exist, or a folder without images.
    """
    found = []
    for path in [paths] if isinstance(paths, FilePath) else paths:
        if os.path.isdir(path):
            found += _search(Path(path))
        elif os.path.exists(path):
            found.append(Path(path))
        else:
            raise ValueError(f"no file or folder {path}")
    # The same file may be given by its own path and by its folder's.
    return list({os.path.abspath(file): file for file in found}.values())


def _search(folder: Path) -> list[Path]:
    """List the files in a folder that may be images; note how many others there are."""
    found, ignored, seen = [], [], set()

    def unreadable(error: OSError) -> None:
        ignored.append(str(error.filename))

    for here, folders, files in os.walk(folder, onerror=unreadable, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:  # links may lead in a circle
            folders.clear()
            continue
        seen.add(real)
        for path in (Path(here, name) for name in files):
            name = path.relative_to(folder).as_posix()
            if may_be_image(path) and not is_hidden(name):
                found.append(path)
            elif path.name != ".DS_Store" and not path.name.startswith("._"):
                ignored.append(name)
    others = ""
    if ignored:
        first = ", ".join(sorted(ignored)[:FIRST_NAMES]) + ", ..." * (len(ignored) > FIRST_NAMES)
        count = f"{len(ignored)} file{'s' * (len(ignored) > 1)}"
        others = f"{count} ignored, hidden, unreadable or without the ending of an image: {first}"
    if not found:
        raise ValueError(f"{folder} holds no image" + f" ({others})" * bool(others))
    if others:
        note(f"{folder}: {others}")
    return sorted(found)


def _name_each(images: ImageSource | Iterable[ImageSource]) -> list[tuple[str, ImageSource]]:
    """Return each image with its name for a table; a folder stands for the images in it."""
    if isinstance(images, np.ndarray) and (
        images.ndim == 4 or (images.ndim == 1 and images.dtype.kind in "OU")
    ):
        images = list(images)  # a stack, or paths
    elif isinstance(images, ImageSource):
        images = [images]
    elif not isinstance(images, Iterable) or hasattr(images, "read"):
        kind = type(images).__name__
        raise ValueError(f"give paths, bytes, PIL pictures, arrays or a list of them, not a {kind}")
    named = []
    for place, image in enumerate(images):
        if not isinstance(image, FilePath):
            named.append((f"image {place}", image))
        else:
            files = image_files(image) if os.path.isdir(image) else [image]
            named += [(str(file), file) for file in files]
    if not named:
        raise ValueError("no image to predict: the list is empty")
    return named


def predict_crops(
    model: keras.Model,
    images: ImageSource | Iterable[ImageSource],
    attributes: bool = False,
    batch_size: int = 256,
) -> pd.DataFrame:
    """Predict images that each hold one cropped face, of any size, grey or in colour.

    An image that is not square is squeezed into a square. A bad one does not stop the others.

    Parameters
    ----------
    model
        From `get_model` or `load_model`.
    images
        One image or several: paths of files and folders, see `image_files`; the content of
        files as bytes; PIL pictures; arrays of values 0 to 255, see `open_image`. An array
        (N, H, W, C) is N images.
    attributes
        Also gender, race and age, see `prediction_table`.
    batch_size
        Images read and predicted together.

    Returns
    -------
    pandas.DataFrame
        One row per image, in the order given: the columns of `prediction_table`, and
        ``error``, the reason why an image could not be read, empty if it could. ``path`` is
        that of the file, or ``image 0``, ``image 1`` ... by the place in the list.

    Raises
    ------
    ValueError
        No image, or a folder without images.
    """
    named = _name_each(images)
    if attributes:
        note(ATTRIBUTES)
    tables = []
    for start in tqdm(range(0, len(named), batch_size), desc="reading", delay=2, leave=False):
        names, sources = zip(*named[start : start + batch_size], strict=True)
        crops = decode(map(_read_bytes, sources), IMAGE_SIZE)  # one file at a time
        good = [place for place, crop in enumerate(crops) if isinstance(crop, np.ndarray)]
        pixels = np.array([crops[place] for place in good], np.uint8)
        probabilities = predict(model, pixels.reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 1), batch_size)
        table = prediction_table([names[place] for place in good], probabilities, attributes)
        table.index = good
        table = table.reindex(range(len(names)))
        table["path"] = names
        table["error"] = ["" if isinstance(crop, np.ndarray) else crop for crop in crops]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _read_bytes(source: ImageSource) -> ImageSource:
    """Return the content of a file, or the reason why it cannot be read; other images as given."""
    if not isinstance(source, FilePath):
        return source
    try:
        check_file(source)
        return Path(source).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: no path has a null character
        return f"cannot be read ({getattr(error, 'strerror', error)})"


def predict_photos(
    model: keras.Model, photos: ImageSource | Iterable[ImageSource], attributes: bool = False
) -> pd.DataFrame:
    """Find the faces in photos and predict each; a bad photo does not stop the others.

    Parameters
    ----------
    model
        From `get_model` or `load_model`.
    photos
        One photo or several: paths of files and folders, see `image_files`; the content of
        files as bytes; PIL pictures; arrays of values 0 to 255, see `open_image`. An array
        (N, H, W, C) is N photos.
    attributes
        Also gender, race and age, see `prediction_table`.

    Returns
    -------
    pandas.DataFrame
        One row per face: ``path``, the columns of `predict_photo`'s table, and ``error``. A
        photo that cannot be read, or without a face, has one row that says so. ``path`` is
        that of the file, or ``image 0``, ``image 1`` ... by the place in the list.

    Raises
    ------
    ValueError
        No photo, or a folder without images.
    """
    tables = []
    for name, source in tqdm(_name_each(photos), desc="photos", delay=2, leave=False):
        error = ""
        try:
            photo = open_image(source)
            _, table = predict_photo(model, photo, attributes)
            if table.empty:
                error = _why_no_face(photo)
        except ValueError as problem:
            error = str(problem)
        if error:
            table = pd.DataFrame([{}])
        table.insert(0, "path", name)
        tables.append(table.assign(error=error))
        if len(tables) > 1000:  # a table of one row takes twenty times the memory of a row
            tables = [pd.concat(tables, ignore_index=True)]
    table = pd.concat(tables, ignore_index=True)
    return table[[name for name in table if name != "error"] + ["error"]]


def _why_no_face(photo: Image.Image) -> str:
    if max(photo.size) >= CROP_SIDE:
        return NO_FACE
    return (
        f"{NO_FACE} in {photo.width} × {photo.height} pixels: if this is one face already cut "
        "out, use --no-detect (predict_crops in Python)"
    )


def predict_photo(
    model: keras.Model, photo: ImageSource, attributes: bool = False
) -> tuple[np.ndarray, pd.DataFrame]:
    """Find the faces in one photo and predict each.

    Parameters
    ----------
    model
        From `get_model` or `load_model`.
    photo
        The path of a file, its content as bytes, a PIL picture, or an array of values 0 to
        255, (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); see `open_image`.
    attributes
        Also gender, race and age, see `prediction_table`; prints why they are off by default.

    Returns
    -------
    crops
        uint8 (F, 48, 48, 1), what the network saw, largest face first.
    table
        One row per face: the columns of `prediction_table` without ``path``, then those of
        `find_faces`' boxes.

    Raises
    ------
    ValueError
        `photo` cannot be read as an image, see `open_image`.
    """
    photo = open_image(photo)
    if attributes:
        note(ATTRIBUTES)
    crops, boxes = find_faces(photo)
    if boxes.empty and max(photo.size) < CROP_SIDE:
        note(_why_no_face(photo))
    table = prediction_table([""] * len(crops), predict(model, crops), attributes)
    return crops, pd.concat([table.drop(columns="path"), boxes], axis=1)


open_photo = open_image


def find_faces(photo: ImageSource) -> tuple[np.ndarray, pd.DataFrame]:
    """Find faces and crop them as the training images are cropped.

    Each face that `detect` finds is turned, scaled and shifted so that eyes and mouth lie where
    they usually do in FER2013. Photos that lie on their side or are upside down are found out.

    Parameters
    ----------
    photo
        The path of a file, its content as bytes, a PIL picture, or an array of values 0 to
        255, (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); see `open_image`.

    Returns
    -------
    crops
        uint8 (F, 48, 48, 1), largest face first.
    boxes
        DataFrame of F rows: ``left``, ``top``, ``right``, ``bottom`` in pixels of the photo;
        ``confidence``, the detector's, 0.9 to 1 (less certain faces are left out); and
        ``warning``, empty unless the face has fewer pixels than the crop, in which case its
        predictions are worth little.

    Raises
    ------
    ValueError
        `photo` cannot be read as an image, see `open_image`.
    """
    photo = open_image(photo)
    faces = detect(photo)
    names = [f"{point}_{axis}" for point in KEYPOINTS for axis in "xy"]
    points = faces[names].to_numpy().reshape(-1, 4, 2)
    aligned = [_align(photo, four) for four in points]
    crops = np.array([crop for crop, _ in aligned], np.uint8).reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 1)
    warnings = [
        SMALL.format(side=side, size=IMAGE_SIZE) if side < IMAGE_SIZE else "" for _, side in aligned
    ]
    return crops, faces[[*BOX, "confidence"]].assign(warning=np.array(warnings, object))


def _align(photo: Image.Image, points: np.ndarray) -> tuple[np.ndarray, int]:
    """Crop a face so that `points`, its `KEYPOINTS`, lie on `TEMPLATE` with least squared error.

    Return the crop, and its side in pixels of the photo.
    """
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
    return crop_and_resize(crop, IMAGE_SIZE), round(side * float(np.hypot(a, b)))
