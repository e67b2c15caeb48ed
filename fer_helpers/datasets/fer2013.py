"""FER2013 (Goodfellow et al., 2013): 35,887 grey faces of 48 x 48, emotion only.

Either the CSV of the Kaggle competition (``fer2013.csv`` or ``icml_face_data.csv``) or the
folders of images made from it, unpacked or in a zip.
"""

import csv
import io
from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np
from PIL import Image
from tqdm import tqdm

from fer_helpers.datasets.faces import Faces, Skipped
from fer_helpers.datasets.source import READ_ERRORS, Source, decode_images
from fer_helpers.images import IMAGE_SUFFIXES, crop_and_resize
from fer_helpers.labels import TASKS, encode_labels

NAME = "FER"
TERMS = "Kaggle's competition rules: for research and teaching, images not to be passed on."
HOW_TO_GET = (
    "kaggle competitions download -c "
    "challenges-in-representation-learning-facial-expression-recognition-challenge "
    "(after accepting its rules on kaggle.com), or the folders of images: "
    "kaggle datasets download msambare/fer2013"
)
EXPECTED = (
    "fer2013.csv, icml_face_data.csv, train/<emotion>/Training_*.jpg with "
    "test/<emotion>/PublicTest_*.jpg and PrivateTest_*.jpg, or a .zip of one of these"
)
SPLITS = ("Training", "PublicTest", "PrivateTest")
INNER: tuple[str, ...] = ()

CSV_EMOTIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
FOLDER_EMOTIONS = {
    "angry": "anger",
    "disgusted": "disgust",
    "fearful": "fear",
    "happy": "happiness",
    "sad": "sadness",
    "surprised": "surprise",
} | {name: name for name in CSV_EMOTIONS}
NAME_SPLITS = {split.lower(): split for split in SPLITS}
# Used where the file's own name does not start with its split.
FOLDER_SPLITS = NAME_SPLITS | {
    "train": "Training",
    "validation": "PublicTest",
    "val": "PublicTest",
    "test": "PrivateTest",
}
SIDE = 48


def read(source: Source, image_size: int) -> Faces:
    """Read FER2013, labelled with the emotion, from a CSV that has the splits or from images.

    See `fer_helpers.datasets`. ValueError, too, for an unknown emotion folder.
    """
    tables = [name for name in source.names if name.lower().endswith(".csv")]
    columns = {name: _read_header(source, name) for name in tables}
    for name in tables:
        if {"emotion", "Usage", "pixels"} <= set(columns[name]):
            return _read_csv(source, name, image_size)
    images = [name for name in source.names if name.lower().endswith(IMAGE_SUFFIXES)]
    if images:
        return _read_images(source, images, image_size)
    if tables:
        raise ValueError(
            f"{source.folder / tables[0]} has the columns {columns[tables[0]]}, "
            "not emotion, Usage and pixels: take fer2013.csv or icml_face_data.csv"
        )
    raise FileNotFoundError


def _read_rows(source: Source, name: str) -> Iterator[list[str]]:
    # Unlike pandas, the csv module skips a row with an extra comma alone, knows its number,
    # and reads 300 MB in little memory.
    csv.field_size_limit(1 << 20)
    try:
        with source.open(name) as stream:
            yield from csv.reader(io.TextIOWrapper(stream, "utf-8-sig", "replace", newline=""))
    except (csv.Error, *READ_ERRORS) as error:
        raise ValueError(f"{source.folder / name} cannot be read to its end ({error})") from None


def _read_header(source: Source, name: str) -> list[str]:
    return [column.strip() for column in next(_read_rows(source, name), [])]


def parse_pixels(text: str) -> np.ndarray:
    """Return the grey levels of one CSV row.

    Parameters
    ----------
    text
        2,304 whole numbers from 0 to 255, with spaces between them.

    Returns
    -------
    numpy.ndarray
        uint8 (48, 48).

    Raises
    ------
    ValueError
        Another count, or something that is not such a number.
    """
    raw = np.frombuffer(f"  {text} ".encode("ascii", "replace"), dtype=np.uint8)
    digit = raw != ord(" ")
    edges = np.flatnonzero(digit[1:] != digit[:-1])
    before, last = edges[::2], edges[1::2]
    if len(last) != SIDE * SIDE:
        raise ValueError(f"{len(last)} pixels, not {SIDE * SIDE}")
    value = raw.astype(np.int16) - ord("0")
    if ((value < 0) | (value > 9))[digit].any():
        raise ValueError("a pixel is not a whole number from 0 to 255")
    length = last - before
    # A number is made of its last three digits, or of as many as it has.
    pixels = (
        value[last] + 10 * value[last - 1] * (length > 1) + 100 * value[last - 2] * (length > 2)
    )
    if (length > 3).any() or (pixels > 255).any():
        raise ValueError("a pixel is above 255")
    return pixels.astype(np.uint8).reshape(SIDE, SIDE)


def _read_row(row: list[str], columns: list[str], image_size: int) -> tuple[np.ndarray, str, int]:
    """Return image, split and emotion of one row; ValueError says what is wrong with it."""
    if len(row) != len(columns):
        raise ValueError(f"{len(row)} fields, not {len(columns)}")
    cell = dict(zip(columns, row, strict=True))
    emotion, split = cell["emotion"].strip(), cell["Usage"].strip()
    if emotion not in ("0", "1", "2", "3", "4", "5", "6"):
        raise ValueError(f"emotion {emotion[:20]!r} is not 0 to 6")
    if split not in SPLITS:
        raise ValueError(f"Usage {split[:20]!r} is not one of {', '.join(SPLITS)}")
    image = crop_and_resize(Image.fromarray(parse_pixels(cell["pixels"])), image_size)
    return image, split, TASKS["emotion"].index(CSV_EMOTIONS[int(emotion)])


def _read_csv(source: Source, name: str, image_size: int) -> Faces:
    rows = _read_rows(source, name)
    columns = [column.strip() for column in next(rows)]
    found: list[tuple[np.ndarray, str, int]] = []
    paths: list[str] = []
    skipped: Skipped = []
    for line, row in enumerate(
        tqdm(rows, desc=NAME, unit=" rows", delay=2, mininterval=0.5, leave=False), start=2
    ):
        path = f"{name}:{line}"
        if not row:
            continue
        try:
            found.append(_read_row(row, columns, image_size))
            paths.append(path)
        except ValueError as error:
            skipped.append((path, str(error)))
    if not found:
        first = "; first " + ": ".join(skipped[0]) if skipped else ""
        raise ValueError(f"{source.folder / name}: none of {len(skipped)} rows can be used{first}")
    images, splits, emotions = zip(*found, strict=True)
    order = np.argsort([SPLITS.index(split) for split in splits], kind="stable")
    return Faces(
        images=np.stack(images)[order],
        labels=encode_labels({"emotion": np.array(emotions)[order]}),
        paths=np.array(paths)[order],
        splits=np.array(splits)[order],
        skipped=skipped,
    )


def _parse_path(name: str) -> tuple[str | None, str, bool]:
    """Return split, folder's name, and whether the split is in the file's own name."""
    path = PurePosixPath(name)
    prefix = path.name.split("_")[0].lower()
    by_name = NAME_SPLITS.get(prefix)
    split = by_name or FOLDER_SPLITS.get(path.parent.parent.name.lower())
    return split, path.parent.name, by_name is not None


def _read_images(source: Source, names: list[str], image_size: int) -> Faces:
    skipped, notes, faces = [], [], {}
    unnamed: set[str] = set()
    for name in names:
        split, folder, by_name = _parse_path(name)
        if split is None:
            skipped.append((name, "not in a folder train/<emotion> or test/<emotion>"))
            continue
        if folder.lower() not in FOLDER_EMOTIONS:
            raise ValueError(
                f"{source.folder / name}: unknown emotion folder {folder!r}; known are "
                f"{', '.join(sorted(FOLDER_EMOTIONS))}"
            )
        if not by_name:
            unnamed.add(PurePosixPath(name).parent.parent.name)
        # The same name again is a second copy, such as a zip beside what was unpacked from it.
        key = (SPLITS.index(split), FOLDER_EMOTIONS[folder.lower()], PurePosixPath(name).name)
        faces.setdefault(key, name)
    if not faces:
        name, reason = skipped[0]
        raise ValueError(
            f"{source.folder}: none of {len(names)} images can be used; first {name}: {reason}"
        )
    if repeated := len(names) - len(skipped) - len(faces):
        notes.append(f"{NAME}: {repeated} files are there twice, one copy is read")
    if unnamed:
        taken = ", ".join(f"{name} = {FOLDER_SPLITS[name.lower()]}" for name in sorted(unnamed))
        notes.append(
            f"{NAME}: file names lack Training_, PublicTest_ or PrivateTest_, so the split is "
            f"taken from the folder ({taken}); these may not be the official splits"
        )
    keys = sorted(faces)
    paths = np.array([faces[key] for key in keys], dtype=str)
    images, kept, bad = decode_images(source, paths, image_size, label=NAME)
    emotions = np.array([TASKS["emotion"].index(key[1]) for key in keys])
    return Faces(
        images=images,
        labels=encode_labels({"emotion": emotions[kept]}),
        paths=paths[kept],
        splits=np.array(SPLITS)[[keys[position][0] for position in kept]],
        skipped=skipped + bad,
        notes=notes,
    )
