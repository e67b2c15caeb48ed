"""UTKFace (Zhang, Song & Qi, CVPR 2017): 23,707 faces with gender, race and age.

The labels are in the file names: ``[age]_[gender]_[race]_[date].jpg.chip.jpg``.
"""

import re
import zlib
from pathlib import PurePosixPath

import numpy as np

from fer_helpers.datasets.faces import Faces
from fer_helpers.datasets.source import Source, decode_images, drop_copies
from fer_helpers.images import may_be_image
from fer_helpers.labels import age_class, encode_labels

NAME = "UTKFACE"
TERMS = "Non-commercial research only; the images are their owners', not to be passed on."
HOW_TO_GET = (
    "'Aligned & Cropped Faces' from https://susanqq.github.io/UTKFace/ (unpack the .tar.gz), "
    "or kaggle datasets download jangedoo/utkface-new"
)
EXPECTED = "[age]_[gender]_[race]_[date].jpg.chip.jpg anywhere below, or a .zip of them"
SPLITS = ("train", "validation", "test")
INNER: tuple[str, ...] = ()

# left, top, right, bottom, as fractions of the image. Faces are as large as FER2013's (median
# distance of the eyes 0.385 of the side, FER2013 0.370; eyes to mouth 0.392, FER2013 0.391;
# MTCNN's landmarks of 200 images each) but higher up (eyes at 0.290, FER2013 0.388), so the
# window moves up by a tenth, and the mirrored edge fills its top.
CROP = (0.0, -0.1, 1.0, 0.9)

# Some real names have a space or no dot before jpg; three have no race.
_FILE_NAME = re.compile(r"(\d{1,3})_(\d)_(?:(\d)_)?(\d{12})\d*\D.*")
RACES = (0, 1, 2, -1, -1)  # White, Black, Asian; RAF-DB has no class for Indian and Others
OLDEST = 116  # years, in UTKFace's own description
VALIDATION_SHARE = 0.1


def parse_name(file_name: str) -> tuple[int, int, int, str]:
    """Return what a file name says.

    Parameters
    ----------
    file_name
        ``[age]_[gender]_[race]_[date].jpg.chip.jpg``; the race may be missing.

    Returns
    -------
    age, gender, race, minute
        Years 0 to 116, class indices of gender and race (-1: not labelled), and the minute of
        the date (``201701161745``).

    Raises
    ------
    ValueError
        Another form of name, or a number out of range.
    """
    match = _FILE_NAME.fullmatch(file_name)
    if not match:
        raise ValueError("the name is not [age]_[gender]_[race]_[date].jpg.chip.jpg")
    if ".chip." not in file_name:
        raise ValueError(
            "no .chip. in the name: a whole photo, not a face cut out of one; take UTKFace's "
            "'Aligned & Cropped Faces'"
        )
    age, gender, race = (-1 if text is None else int(text) for text in match.groups()[:3])
    if age > OLDEST:
        raise ValueError(f"age {age} is not 0 to {OLDEST}")
    if gender > 1:
        raise ValueError(f"gender {gender} is not 0 or 1")
    if race >= len(RACES):
        raise ValueError(f"race {race} is not 0 to {len(RACES) - 1}")
    return age, gender, -1 if race < 0 else RACES[race], match[4]


def in_validation(minute: str) -> bool:
    """Return whether the faces of a minute (``201701161745``) are for validation: one in ten.

    UTKFace has no official splits. Its images were collected in bursts, and those of one
    minute often show one person, so a hash of the minute decides about all of them. The test
    split is taken out of training afterwards, see `add_missing_splits`; minutes stay whole.
    """
    return zlib.crc32(minute.encode()) / 2**32 < VALIDATION_SHARE


def read(source: Source, image_size: int) -> Faces:
    """Read UTKFace, labelled with gender, age and, if RAF-DB has a class for it, race.

    See `fer_helpers.datasets`.
    """
    names = [name for name in source.names if may_be_image(name)]
    if not names:
        raise FileNotFoundError
    # Downloads repeat faces (Kaggle's up to three times, in several folders).
    names, ignored = drop_copies(source, names, [PurePosixPath(name).name for name in names])
    rows, skipped, notes = [], [], []
    for name in names:
        try:
            rows.append((name, *parse_name(PurePosixPath(name).name)))
        except ValueError as error:
            skipped.append((name, str(error)))
    if not rows:
        raise ValueError(
            f"{source.folder}: none of {len(names)} images is named like UTKFace's chips; first "
            f"{skipped[0][0]}: {skipped[0][1]}"
        )
    if raceless := [row[0] for row in rows if PurePosixPath(row[0]).name.count("_") == 2]:
        notes.append(
            f"{len(raceless)} names lack the race; their age and gender are read: "
            f"{', '.join(raceless[:3])}"
        )
    rows.sort(key=lambda row: (in_validation(row[4]), row[0]))
    paths = np.array([row[0] for row in rows], dtype=str)
    images, kept, bad = decode_images(source, paths, image_size, CROP, NAME)
    ages, genders, races = np.array([row[1:4] for row in rows])[kept].T
    held_out = np.array([in_validation(row[4]) for row in rows])[kept]
    return Faces(
        images=images,
        labels=encode_labels({"gender": genders, "race": races, "age": age_class(ages)}),
        paths=paths[kept],
        splits=np.array(SPLITS)[held_out.astype(int)],
        skipped=skipped + bad,
        notes=notes,
        ignored=ignored,
        persons=np.array([row[4] for row in rows])[kept],
    )
