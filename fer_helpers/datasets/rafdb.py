"""RAF-DB (Li, Deng & Du, CVPR 2017): 15,339 faces with emotion, gender, race and age.

Either as its owners ship it (the folder ``basic``, its ``Image/aligned.zip`` and
``Annotation/manual.zip`` packed or not), or as Kaggle's folders, which have only emotions.
"""

import io
import re
from pathlib import PurePosixPath

import numpy as np

from fer_helpers.datasets.faces import Faces, Skipped
from fer_helpers.datasets.source import (
    READ_ERRORS,
    Source,
    decode_images,
    drop_copies,
    text_lines,
    why_unread,
)
from fer_helpers.images import may_be_image
from fer_helpers.labels import TASKS, class_index, encode_labels, is_class

NAME = "RAFDB"
TERMS = "Non-commercial research only, by application; not to be passed on."
HOW_TO_GET = "apply for it at http://www.whdeng.cn/raf/model1.html and take the folder 'basic'"
EXPECTED = (
    "EmoLabel/list_patition_label.txt with Image/aligned(.zip) and Annotation/manual(.zip), "
    "Kaggle's DATASET/train/5/train_00001_aligned.jpg or train_labels.csv, or a .zip of "
    "one of these"
)
SPLITS = ("train", "validation", "test")
INNER = ("aligned.zip", "manual.zip")

ATTRIBUTES = ("gender", "race", "age")
_LABEL_FILE = re.compile(r"list_par?tition_label\.txt")
_IMAGE = re.compile(r"((?:train|test)_\d+)_aligned")
_ATTRIBUTE_FILE = re.compile(r"((?:train|test)_\d+)_manu_attri\.txt")
_LABEL_TABLE = re.compile(r"(?:train|test)_labels\.csv")
_COMPOUND_STEM = re.compile(r"train_\d{4}")
LANDMARKS = 5
MAX_CHARACTERS = 10_000  # of an annotation


def read(source: Source, image_size: int) -> Faces:
    """Read RAF-DB's basic subset, labelled with emotion and, if annotated, the other tasks.

    See `fer_helpers.datasets`. FileNotFoundError, too, for labels without images; ValueError
    for the compound subset and for an unknown class folder.
    """
    pictures, ignored, twice = _index_pictures(source)
    lists = [name for name in source.names if _LABEL_FILE.fullmatch(PurePosixPath(name).name)]
    if lists:
        emotions, skipped = _read_label_list(source, lists[0])
        if not pictures:
            raise FileNotFoundError(
                f"{source.folder / lists[0]} is there, but not its images: put "
                "Image/aligned.zip or Image/aligned/*_aligned.jpg beside EmoLabel"
            )
    elif pictures:
        emotions, skipped = _parse_folders(source, pictures)
    else:
        raise FileNotFoundError
    skipped += twice
    skipped += [(stem, "no aligned image") for stem in emotions if stem not in pictures]
    stems = sorted(
        (stem for stem in emotions if stem in pictures),
        key=lambda stem: (not stem.startswith("train"), stem),
    )
    if not stems:
        raise ValueError(f"{source.folder / lists[0]}: no line names one of the aligned images")
    unlisted = sorted({*pictures} - {*emotions})
    ignored += [(pictures[stem], "not in the label list") for stem in unlisted]
    notes = []
    files = {
        match[1]: name
        for name in source.names
        if (match := _ATTRIBUTE_FILE.fullmatch(PurePosixPath(name).name))
    }
    if not files:
        notes.append("no Annotation/manual(.zip), so no labels of gender, race and age")
    attributes, bad_attributes = _read_attributes(source, stems, files)
    paths = np.array([pictures[stem] for stem in stems], dtype=str)
    images, kept, bad = decode_images(source, paths, image_size, label=NAME)
    classes = dict(zip(ATTRIBUTES, attributes[kept].T, strict=True))
    classes["emotion"] = np.array([emotions[stem] for stem in stems])[kept]
    return Faces(
        images=images,
        labels=encode_labels(classes),
        paths=paths[kept],
        splits=np.array([stem.split("_")[0] for stem in stems])[kept],
        skipped=skipped + bad_attributes + bad,
        notes=notes,
        ignored=ignored,
    )


def _index_pictures(source: Source) -> tuple[dict[str, str], Skipped, Skipped]:
    """Return the picture of each face, such as ``train_00001``, copies, and rival pictures."""
    stems = {
        name: match[1]
        for name in source.names
        if may_be_image(name) and (match := _IMAGE.fullmatch(PurePosixPath(name).stem))
    }
    names, ignored = drop_copies(source, list(stems), list(stems.values()))
    pictures: dict[str, str] = {}
    skipped = []
    for name in names:
        first = pictures.setdefault(stems[name], name)
        if first != name:
            skipped.append((name, f"another picture of {stems[name]} than {first}"))
    return pictures, ignored, skipped


def _parse_emotion(stem: str, label: str, where: str) -> int:
    """Return the class index of RAF-DB's label 1 to 7 or of an emotion's name.

    ValueError for any other label.
    """
    if _COMPOUND_STEM.fullmatch(stem) or (label.isdecimal() and int(label) > len(TASKS["emotion"])):
        raise ValueError(
            f"{where}: {stem} {label} is of RAF-DB's compound subset (11 or more classes); the "
            "basic subset has labels 1 to 7 and train_00001.jpg to train_12271.jpg: use 'basic'"
        )
    if label == "0":
        raise ValueError(
            f"{where}: label '0' of {stem}: RAF-DB counts from 1 to 7, so labels 0 to 6 are of "
            "another numbering: rename the classes to their emotions, such as happiness"
        )
    if label.isdecimal():
        return int(label) - 1
    try:
        return class_index("emotion", label)
    except ValueError as error:
        raise ValueError(f"{where}: {stem}: {error}; RAF-DB's own labels are 1 to 7") from None


def _read_lines(source: Source, name: str) -> list[str]:
    try:
        return list(text_lines(io.BytesIO(source.read(name))))
    except READ_ERRORS as error:
        raise ValueError(f"{source.folder / name} cannot be read ({error})") from None


def _read_label_list(source: Source, name: str) -> tuple[dict[str, int], Skipped]:
    emotions, skipped, zero = {}, [], None
    for number, line in enumerate(_read_lines(source, name), start=1):
        match = re.fullmatch(r"\s*((?:train|test)_\d+)\.\w+\s+(\S+)\s*", line)
        if match and match[2] == "0":
            zero = (match[1], "0", f"{source.folder / name}:{number}")
        if match and (match[2].strip("0").isdecimal() or is_class("emotion", match[2])):
            emotions[match[1]] = _parse_emotion(
                match[1], match[2], f"{source.folder / name}:{number}"
            )
        elif line.strip():
            reason = f"{line.strip()[:40]!r} is not 'train_00001.jpg 5'"
            skipped.append((f"{name}:{number}", reason))
    if zero and len(TASKS["emotion"]) - 1 not in emotions.values():
        _parse_emotion(*zero)  # 0 but no 7: all are of another numbering, which it refuses
    if not emotions:
        raise ValueError(f"{source.folder / name}: no line is like 'train_00001.jpg 5'")
    return emotions, skipped


def _parse_folders(source: Source, pictures: dict[str, str]) -> tuple[dict[str, int], Skipped]:
    """Return the emotion of each face, by its line in ``*_labels.csv`` or by its folder."""
    listed, skipped = {}, []
    for name in source.names:
        if not _LABEL_TABLE.fullmatch(PurePosixPath(name).name):
            continue
        for number, line in enumerate(_read_lines(source, name), start=1):
            if match := re.fullmatch(r"\s*((?:train|test)_\d+)(?:_aligned)?\.\w+,(\w+)\s*", line):
                where = f"{source.folder / name}:{number}"
                listed[match[1]] = _parse_emotion(match[1], match[2], where)
            elif number > 1 and line.strip():
                reason = f"{line.strip()[:40]!r} is not 'train_00001_aligned.jpg,5'"
                skipped.append((f"{name}:{number}", reason))
    folders = {
        stem: _parse_emotion(
            stem,
            PurePosixPath(name).parent.name,
            f"{source.folder / name} (by its folder, without EmoLabel)",
        )
        for stem, name in pictures.items()
        if stem not in listed
    }
    return folders | listed, skipped


def parse_attributes(text: str) -> tuple[int, ...]:
    """Return the classes in an annotation file.

    Parameters
    ----------
    text
        Five lines of landmarks, then a line each for gender, race and age.

    Returns
    -------
    tuple of int
        Class indices of gender, race and age, in the order of `TASKS`' classes.

    Raises
    ------
    ValueError
        Another number of lines, or an unknown class.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"{len(text)} characters, not some 150")
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if len(lines) != LANDMARKS + len(ATTRIBUTES):
        raise ValueError(f"{len(lines)} lines, not {LANDMARKS + len(ATTRIBUTES)}")
    for task, value in zip(ATTRIBUTES, lines[LANDMARKS:], strict=True):
        if not value.isdecimal() or int(value) >= len(TASKS[task]):
            raise ValueError(f"{task} {value[:20]!r} is not 0 to {len(TASKS[task]) - 1}")
    return tuple(map(int, lines[LANDMARKS:]))


def _read_attributes(
    source: Source, stems: list[str], files: dict[str, str]
) -> tuple[np.ndarray, Skipped]:
    """Return int64 (N, 3), -1 where not labelled, and the annotations that cannot be used."""
    attributes = np.full((len(stems), len(ATTRIBUTES)), -1)
    skipped = []
    for row, stem in enumerate(stems if files else ()):
        try:
            if stem not in files:
                raise ValueError("no annotation")
            attributes[row] = parse_attributes(source.read(files[stem]).decode("ascii", "replace"))
        except READ_ERRORS as error:  # the face keeps its emotion
            path = files.get(stem, stem)
            reason = why_unread(error) if isinstance(error, OSError) else str(error)
            skipped.append((path, f"{reason}: read without gender, race and age"))
    return attributes, skipped
