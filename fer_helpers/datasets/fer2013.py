"""FER2013 (Goodfellow et al., 2013): 35,887 grey faces of 48 x 48, emotion only.

Either the CSV of the Kaggle competition (``fer2013.csv`` or ``icml_face_data.csv``) or the
folders of images made from it, unpacked or in a zip. FER+ (Barsoum et al., ICMI 2016) labels the
same faces anew, by ten taggers each.
"""

import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
from PIL import Image

from fer_helpers.datasets.faces import Faces, Skipped
from fer_helpers.datasets.folder import check_words, sort_folders
from fer_helpers.datasets.source import (
    A_COPY,
    READ_ERRORS,
    Source,
    decode_images,
    text_lines,
)
from fer_helpers.datasets.splits import SPLITS as OUR_SPLITS
from fer_helpers.datasets.splits import split_word
from fer_helpers.images import crop_and_resize, may_be_image
from fer_helpers.labels import BLOCKS, TASKS, class_index, encode_labels
from fer_helpers.progress import tqdm

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

OWN_SPLIT = dict(zip(OUR_SPLITS, SPLITS, strict=True))
CSV_EMOTIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
VOTES = "fer2013new.csv"
MAX_VOTES_BYTES = 4 << 20  # FER+'s own file has 1.6 MB
OTHER_VOTES = ("contempt", "unknown", "NF")  # FER+ has no face's emotion for these
SIDE = 48


def read(source: Source, image_size: int, votes: bool = False, ignore: Sequence[str] = ()) -> Faces:
    """Read FER2013, labelled with the emotion, from CSVs or from images in folders.

    See `fer_helpers.datasets`. ValueError, too, for an unknown emotion folder.

    Parameters
    ----------
    source, image_size
        Files, and side of the squares in pixels.
    votes
        Label by FER+'s taggers: each emotion's share of the votes.
    ignore
        Words for emotion folders whose faces are left out.
    """
    columns = {
        name: _read_header(source, name)
        for name in source.names
        if name.lower().endswith(".csv") and PurePosixPath(name).name != VOTES
    }
    tables = [name for name, head in columns.items() if {"emotion", "pixels"} <= {*head}]
    taggers = [name for name in source.names if PurePosixPath(name).name == VOTES]
    pictures = [name for name in source.names if may_be_image(name)]
    if tables:
        faces = _read_tables(source, tables, image_size)
    elif pictures:
        faces = _read_images(source, pictures, image_size, ignore)
    elif columns:
        name, head = next(iter(columns.items()))
        raise ValueError(f"{source.folder / name} {_explain_header(head)}")
    else:
        raise FileNotFoundError
    if votes:
        _label_by_votes(source, taggers, tables, faces)
    elif taggers:
        faces.ignored += [(name, "FER+'s votes, read with labels='ferplus'") for name in taggers]
    return faces


def _explain_header(head: list[str]) -> str:
    way = "take fer2013.csv or icml_face_data.csv"
    if head and head[0].isdecimal():
        return f"has no header: its first line must be emotion,pixels,Usage; {way}"
    shown = ", ".join(word[:20] for word in head[:6])
    return f"has the columns {shown}, not emotion, pixels and Usage: {way}"


def _read_rows(source: Source, name: str) -> Iterator[list[str]]:
    # Unlike pandas, the csv module skips a row with an extra comma alone, knows its number,
    # and reads 300 MB in little memory. No row of FER2013 has more than one line.
    try:
        with source.open(name) as stream:
            for line in text_lines(stream):
                yield next(csv.reader([line]), [])
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


def _read_row(
    row: list[str], columns: list[str], image_size: int, split: str | None
) -> tuple[np.ndarray, str, int]:
    """Return image, split and emotion of one row; ValueError says what is wrong with it."""
    if len(row) != len(columns):
        raise ValueError(f"{len(row)} fields, not {len(columns)}")
    cell = dict(zip(columns, row, strict=True))
    emotion = cell["emotion"].strip()
    if emotion not in ("0", "1", "2", "3", "4", "5", "6"):
        raise ValueError(f"emotion {emotion[:20]!r} is not 0 to 6")
    if "Usage" in cell and (split := split_word(cell["Usage"])) is None:
        raise ValueError(f"Usage {cell['Usage'].strip()[:20]!r} is not one of {', '.join(SPLITS)}")
    image = crop_and_resize(Image.fromarray(parse_pixels(cell["pixels"])), image_size)
    return image, OWN_SPLIT[split], TASKS["emotion"].index(CSV_EMOTIONS[int(emotion)])


def _read_tables(source: Source, names: list[str], image_size: int) -> Faces:
    """Read the tables, the largest first; one whose rows are all in others is a copy."""
    found, paths, skipped, ignored = [], [], [], []
    seen: set[str] = set()
    for name in sorted(names, key=source.size, reverse=True):
        rows, places, bad = _read_table(source, name, image_size)
        content = {
            hashlib.sha256(repr((s, e)).encode() + x.tobytes()).hexdigest() for x, s, e in rows
        }
        if content and content <= seen:
            ignored.append((name, f"{A_COPY} rows in other tables"))
            continue
        seen |= content
        found += rows
        paths += places
        skipped += bad
    if not found:
        first = "; first " + ": ".join(skipped[0]) if skipped else ""
        raise ValueError(
            f"{source.folder / names[0]}: none of {len(skipped)} rows can be used{first}"
        )
    images, splits, emotions = zip(*found, strict=True)
    return Faces(
        images=np.stack(images),
        labels=encode_labels({"emotion": np.array(emotions)}),
        paths=np.array(paths),
        splits=np.array(splits),
        skipped=skipped,
        ignored=ignored,
    )


def _read_table(
    source: Source, name: str, image_size: int
) -> tuple[list[tuple[np.ndarray, str, int]], list[str], Skipped]:
    """Return (image, split, emotion) and place of each good row, and reasons for the others."""
    rows = _read_rows(source, name)
    columns = [column.strip() for column in next(rows)]
    # Where there is no Usage, the file's name says the split, as in val.csv.
    split = split_word(PurePosixPath(name).stem) or OUR_SPLITS[0]
    found, places, skipped = [], [], []
    for line, row in enumerate(
        tqdm(rows, desc=NAME, unit=" rows", delay=2, mininterval=0.5, leave=False), start=2
    ):
        if not row:
            continue
        try:
            found.append(_read_row(row, columns, image_size, split))
            places.append(f"{name}:{line}")
        except ValueError as error:
            skipped.append((f"{name}:{line}", str(error)))
    return found, places, skipped


def _label_by_votes(source: Source, taggers: list[str], tables: list[str], faces: Faces) -> None:
    """Replace the labels by each emotion's share of the votes of FER+'s taggers."""
    if not taggers or len({path.rsplit(":", 1)[0] for path in faces.paths}) != 1 or not tables:
        raise ValueError(
            f"{source.folder}: labels='ferplus' needs {VOTES} (from "
            "github.com/microsoft/FERPlus) beside one fer2013.csv, whose rows it follows"
        )
    if source.size(taggers[0]) > MAX_VOTES_BYTES:
        raise ValueError(
            f"{source.folder / taggers[0]}: {source.size(taggers[0])} bytes is too large"
        )
    votes = pd.read_csv(io.BytesIO(source.read(taggers[0])))
    lines = np.array([int(path.rsplit(":", 1)[1]) - 2 for path in faces.paths])
    missing = {*TASKS["emotion"], *OTHER_VOTES} - {*votes.columns}
    if missing or lines.max() >= len(votes):
        raise ValueError(
            f"{source.folder / taggers[0]} does not fit {tables[0]}: {len(votes)} rows for "
            f"{lines.max() + 1}, columns missing: {', '.join(sorted(missing)) or 'none'}"
        )
    counts = votes.loc[lines, list(TASKS["emotion"])].to_numpy(np.float32)
    others = votes.loc[lines, list(OTHER_VOTES)].to_numpy(np.float32)
    labelled = counts.max(axis=1) > others.max(axis=1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    faces.labels[:, BLOCKS["emotion"]] = shares * labelled[:, None]
    faces.notes.append(
        f"labels are the votes of FER+'s taggers; {(~labelled).sum()} faces have none, since no "
        f"emotion has more votes than {', '.join(OTHER_VOTES)}"
    )


def _read_images(source: Source, names: list[str], image_size: int, ignore: Sequence[str]) -> Faces:
    names, splits, words, skipped, ignored = sort_folders(source, names, ignore)
    check_words(source, "emotion", names, words)
    prefixes = [split_word(PurePosixPath(name).name.split("_")[0]) for name in names]
    known = [prefix or split for prefix, split in zip(prefixes, splits, strict=True)]
    if any(known):
        outside = [name for name, split in zip(names, known, strict=True) if split is None]
        skipped += [(name, "not in a folder train/<emotion> or test/<emotion>") for name in outside]
    else:
        known = [OUR_SPLITS[0]] * len(names)
    classes = [class_index("emotion", word) for word in words]
    rows = sorted(
        (OUR_SPLITS.index(split), classes[place], PurePosixPath(names[place]).name, place)
        for place, split in enumerate(known)
        if split
    )
    if not rows:
        left = skipped + ignored
        raise ValueError(
            f"{source.folder}: none of {len(left)} images can be used; first {': '.join(left[0])}"
        )
    order = [place for *_, place in rows]
    notes = []
    unnamed = {OWN_SPLIT[known[i]] for i in order if splits[i] and not prefixes[i]}
    if unnamed:
        notes.append(
            "file names lack Training_, PublicTest_ or PrivateTest_, so the split is taken from "
            f"the folder ({', '.join(sorted(unnamed))}); these may not be the official splits, and "
            "weights trained on FER2013 may have seen the faces that they are scored on"
        )
    paths = np.array(names, dtype=str)[order]
    images, kept, bad = decode_images(source, paths, image_size, label=NAME)
    kept = np.array(order)[kept]
    return Faces(
        images=images,
        labels=encode_labels({"emotion": np.array(classes)[kept]}),
        paths=np.array(names, dtype=str)[kept],
        splits=np.array([OWN_SPLIT[known[place]] for place in kept]),
        skipped=skipped + bad,
        notes=notes,
        ignored=ignored,
    )
