"""FER2013 (Goodfellow et al., 2013): 35,887 grey faces of 48 x 48, emotion only.

Read as the CSV of the Kaggle competition (``fer2013.csv`` or ``icml_face_data.csv``) or as
the folders of images made from it, unpacked or in a zip.
"""

import csv
import io
from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np
from PIL import Image
from tqdm import tqdm

from fer_helpers.datasets.files import (
    IMAGE_SUFFIXES,
    READ_ERRORS,
    Faces,
    Skipped,
    Source,
    decode_images,
    fit,
)
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
PARTS = ("Training", "PublicTest", "PrivateTest")
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
NAME_PARTS = {part.lower(): part for part in PARTS}
# What a folder says where the file's own name does not.
FOLDER_PARTS = NAME_PARTS | {
    "train": "Training",
    "validation": "PublicTest",
    "val": "PublicTest",
    "test": "PrivateTest",
}
SIDE = 48


def read(source: Source, image_size: int) -> Faces:
    """Read FER2013, from a CSV where there is one with the parts in it, else from images.

    Parameters
    ----------
    source
        The files.
    image_size
        Side of the square pictures.

    Returns
    -------
    Faces
        Labelled with the emotion; the parts one after the other.

    Raises
    ------
    FileNotFoundError
        No such files.
    ValueError
        A CSV without the columns, an unknown emotion folder, or nothing readable.
    """
    tables = [name for name in source.names if name.lower().endswith(".csv")]
    columns = {name: _header(source, name) for name in tables}
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


def _rows(source: Source, name: str) -> Iterator[list[str]]:
    # The csv module, not pandas: a row with a comma too many is then one bad row, with its
    # line number, and 300 MB pass through in little memory.
    csv.field_size_limit(1 << 20)
    try:
        with source.open(name) as stream:
            yield from csv.reader(io.TextIOWrapper(stream, "utf-8-sig", "replace", newline=""))
    except (csv.Error, *READ_ERRORS) as error:
        raise ValueError(f"{source.folder / name} cannot be read to its end ({error})") from None


def _header(source: Source, name: str) -> list[str]:
    return [column.strip() for column in next(_rows(source, name), [])]


def parse_pixels(text: str) -> np.ndarray:
    """Grey levels of one CSV row: uint8 (48, 48). ValueError says what is wrong."""
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
    # A number is read from its last three digits, as far as it has that many.
    pixels = (
        value[last] + 10 * value[last - 1] * (length > 1) + 100 * value[last - 2] * (length > 2)
    )
    if (length > 3).any() or (pixels > 255).any():
        raise ValueError("a pixel is above 255")
    return pixels.astype(np.uint8).reshape(SIDE, SIDE)


def _read_row(row: list[str], columns: list[str], image_size: int) -> tuple[np.ndarray, str, int]:
    """Image, part and emotion of one row. ValueError says what is wrong."""
    if len(row) != len(columns):
        raise ValueError(f"{len(row)} fields, not {len(columns)}")
    cell = dict(zip(columns, row, strict=True))
    emotion, part = cell["emotion"].strip(), cell["Usage"].strip()
    if emotion not in ("0", "1", "2", "3", "4", "5", "6"):
        raise ValueError(f"emotion {emotion[:20]!r} is not 0 to 6")
    if part not in PARTS:
        raise ValueError(f"Usage {part[:20]!r} is not one of {', '.join(PARTS)}")
    image = fit(Image.fromarray(parse_pixels(cell["pixels"])), image_size)
    return image, part, TASKS["emotion"].index(CSV_EMOTIONS[int(emotion)])


def _read_csv(source: Source, name: str, image_size: int) -> Faces:
    rows = _rows(source, name)
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
        raise ValueError(f"{source.folder / name}: no row of {len(skipped)} can be used{first}")
    images, parts, emotions = zip(*found, strict=True)
    order = np.argsort([PARTS.index(part) for part in parts], kind="stable")
    return Faces(
        images=np.stack(images)[order],
        labels=encode_labels({"emotion": np.array(emotions)[order]}),
        paths=np.array(paths)[order],
        parts=np.array(parts)[order],
        skipped=skipped,
    )


def _place(name: str) -> tuple[str | None, str, bool]:
    """Part, folder's name, and whether the file itself says its part."""
    path = PurePosixPath(name)
    prefix = path.name.split("_")[0].lower()
    by_name = NAME_PARTS.get(prefix)
    part = by_name or FOLDER_PARTS.get(path.parent.parent.name.lower())
    return part, path.parent.name, by_name is not None


def _read_images(source: Source, names: list[str], image_size: int) -> Faces:
    skipped, notes, faces = [], [], {}
    unnamed: set[str] = set()
    for name in names:
        part, folder, by_name = _place(name)
        if part is None:
            skipped.append((name, "not in a folder train/<emotion> or test/<emotion>"))
            continue
        if folder.lower() not in FOLDER_EMOTIONS:
            raise ValueError(
                f"{source.folder / name}: unknown emotion folder {folder!r}; known are "
                f"{', '.join(sorted(FOLDER_EMOTIONS))}"
            )
        if not by_name:
            unnamed.add(PurePosixPath(name).parent.parent.name)
        # The same name again is a second copy, say the zip beside the unpacked folder.
        key = (PARTS.index(part), FOLDER_EMOTIONS[folder.lower()], PurePosixPath(name).name)
        faces.setdefault(key, name)
    if not faces:
        name, reason = skipped[0]
        raise ValueError(f"{source.folder}: no image of {len(names)} is usable; {name} is {reason}")
    if repeated := len(names) - len(skipped) - len(faces):
        notes.append(f"{NAME}: {repeated} files are there twice, one copy is read")
    if unnamed:
        said = ", ".join(f"{name} = {FOLDER_PARTS[name.lower()]}" for name in sorted(unnamed))
        notes.append(
            f"{NAME}: file names lack Training_, PublicTest_ or PrivateTest_, so the folder "
            f"says the part ({said}); these may not be the official parts"
        )
    keys = sorted(faces)
    paths = np.array([faces[key] for key in keys], dtype=str)
    images, kept, bad = decode_images(source, paths, image_size, label=NAME)
    emotions = np.array([TASKS["emotion"].index(key[1]) for key in keys])
    return Faces(
        images=images,
        labels=encode_labels({"emotion": emotions[kept]}),
        paths=paths[kept],
        parts=np.array(PARTS)[[keys[place][0] for place in kept]],
        skipped=skipped + bad,
        notes=notes,
    )
