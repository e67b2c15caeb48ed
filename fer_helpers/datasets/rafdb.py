"""RAF-DB (Li, Deng & Du, CVPR 2017): 15,339 faces with emotion, gender, race and age.

Either as its owners ship it (the folder ``basic``, its ``Image/aligned.zip`` and
``Annotation/manual.zip`` packed or not), or as Kaggle's folders, which have only emotions.
"""

import re
from pathlib import PurePosixPath

import numpy as np

from fer_helpers.datasets.faces import Faces, Skipped
from fer_helpers.datasets.source import READ_ERRORS, Source, decode_images, why_unread
from fer_helpers.images import IMAGE_SUFFIXES
from fer_helpers.labels import TASKS, encode_labels

NAME = "RAFDB"
TERMS = "Non-commercial research only, by application; not to be passed on."
HOW_TO_GET = "apply for it at http://www.whdeng.cn/raf/model1.html and take the folder 'basic'"
EXPECTED = (
    "EmoLabel/list_patition_label.txt with Image/aligned(.zip) and Annotation/manual(.zip), "
    "Kaggle's DATASET/train/5/train_00001_aligned.jpg, or a .zip of one of these"
)
SPLITS = ("train", "test")
INNER = ("aligned.zip", "manual.zip")

ATTRIBUTES = ("gender", "race", "age")
_LABEL_FILE = re.compile(r"list_par?tition_label\.txt")
_IMAGE = re.compile(r"((?:train|test)_\d+)_aligned")
_ATTRIBUTE_FILE = re.compile(r"((?:train|test)_\d+)_manu_attri\.txt")
_COMPOUND_STEM = re.compile(r"train_\d{4}")
LANDMARKS = 5


def read(source: Source, image_size: int) -> Faces:
    """Read RAF-DB's basic subset, labelled with emotion and, if annotated, the other tasks.

    See `fer_helpers.datasets`. FileNotFoundError, too, for labels without images; ValueError
    for the compound subset and for an unknown class folder.
    """
    pictures = _index_by_stem(_IMAGE, source.names, IMAGE_SUFFIXES)
    lists = [name for name in source.names if _LABEL_FILE.fullmatch(PurePosixPath(name).name)]
    if lists:
        emotions, skipped = _read_label_list(source, lists[0])
        if not pictures:
            raise FileNotFoundError(
                f"{source.folder / lists[0]} is there, but not its images: put "
                "Image/aligned.zip or Image/aligned/*_aligned.jpg beside EmoLabel"
            )
    elif pictures:
        emotions, skipped = _parse_folders(source, pictures), []
    else:
        raise FileNotFoundError
    skipped += [(stem, "no aligned image") for stem in emotions if stem not in pictures]
    stems = sorted(
        (stem for stem in emotions if stem in pictures),
        key=lambda stem: (not stem.startswith("train"), stem),
    )
    if not stems:
        raise ValueError(f"{source.folder / lists[0]}: no line names one of the aligned images")
    notes = []
    if unlisted := set(pictures) - set(emotions):
        notes.append(f"{NAME}: {len(unlisted)} images are not in the label list, not read")
    files = _index_by_stem(_ATTRIBUTE_FILE, source.names)
    if not files:
        notes.append(f"{NAME}: no Annotation/manual(.zip), so no labels of gender, race and age")
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
    )


def _index_by_stem(
    pattern: re.Pattern, names: list[str], suffixes: tuple[str, ...] | None = None
) -> dict[str, str]:
    """Return the first file of each face, such as ``train_00001``, that fits the pattern."""
    found: dict[str, str] = {}
    for name in names:
        path = PurePosixPath(name)
        if suffixes and path.suffix.lower() not in suffixes:
            continue
        if match := pattern.fullmatch(path.stem if suffixes else path.name):
            found.setdefault(match[1], name)
    return found


def _parse_emotion(stem: str, label: str, where: str) -> int:
    """Return the class index of RAF-DB's label 1 to 7; ValueError for any other label."""
    if _COMPOUND_STEM.fullmatch(stem) or (label.isdecimal() and int(label) > len(TASKS["emotion"])):
        raise ValueError(
            f"{where}: {stem} {label} is of RAF-DB's compound subset (11 or more classes); the "
            "basic subset has labels 1 to 7 and train_00001.jpg to train_12271.jpg: use 'basic'"
        )
    if label not in ("1", "2", "3", "4", "5", "6", "7"):
        raise ValueError(f"{where}: label {label[:20]!r} of {stem} is not 1 to 7")
    return int(label) - 1


def _read_label_list(source: Source, name: str) -> tuple[dict[str, int], Skipped]:
    try:
        lines = source.read(name).decode("utf-8-sig", "replace").splitlines()
    except READ_ERRORS as error:
        raise ValueError(f"{source.folder / name} cannot be read ({error})") from None
    emotions, skipped = {}, []
    for number, line in enumerate(lines, start=1):
        match = re.fullmatch(r"\s*((?:train|test)_\d+)\.\w+\s+(\S+)\s*", line)
        if match and match[2].isdecimal() and int(match[2]) > 0:
            emotions[match[1]] = _parse_emotion(
                match[1], match[2], f"{source.folder / name}:{number}"
            )
        elif line.strip():
            reason = f"{line.strip()[:40]!r} is not 'train_00001.jpg 5'"
            skipped.append((f"{name}:{number}", reason))
    if not emotions:
        raise ValueError(f"{source.folder / name}: no line is like 'train_00001.jpg 5'")
    return emotions, skipped


def _parse_folders(source: Source, pictures: dict[str, str]) -> dict[str, int]:
    return {
        stem: _parse_emotion(
            stem, PurePosixPath(name).parent.name, f"{name} (by its folder, without EmoLabel)"
        )
        for stem, name in pictures.items()
    }


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
