"""Anyone's faces: a folder per class, or a table that names the files and their labels.

A folder per class is what Keras' ``image_dataset_from_directory`` reads, a ``metadata.csv`` with
a column ``file_name`` what Hugging Face's ImageFolder reads.
"""

import csv
import io
import itertools
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from fer_helpers.datasets.faces import Faces, Skipped
from fer_helpers.datasets.source import (
    MAX_NAME,
    READ_ERRORS,
    Source,
    decode_images,
    drop_copies,
    text_lines,
)
from fer_helpers.datasets.splits import SPLITS, split_word
from fer_helpers.images import may_be_image
from fer_helpers.labels import TASKS, class_index, encode_labels, is_class, same_word

NAME = "faces"
TERMS = "Your own faces: the people in the pictures decide."
EXPECTED = (
    "a folder per class (happy/, angry/, ..., also below train/, validation/ and test/), or a "
    "metadata.csv with the column file_name and some of emotion, gender, race, age, split, person"
)
HOW_TO_GET = "put pictures of faces there, each cut out, or cut them with fer_helpers.find_faces"
INNER: tuple[str, ...] = ()

TABLE = "metadata.csv"
# Each column that is read, and other names that it may have.
COLUMNS = {
    "file_name": "filename file path image",
    "emotion": "expression label",
    "gender": "sex",
    "race": "ethnicity",
    "age": "",
    "split": "usage",
    "person": "subject",
}


def read(
    source: Source, image_size: int, table: Path | None = None, ignore: Sequence[str] = ()
) -> Faces:
    """Read faces whose labels are in a table, or in the names of their folders.

    See `fer_helpers.datasets`. ValueError, too, for an unknown class.

    Parameters
    ----------
    source, image_size
        Files, and side of the squares in pixels.
    table
        A CSV outside of the source. If None, each ``metadata.csv`` in it; without any, the
        folders name the classes.
    ignore
        Words for classes whose faces are left out.
    """
    pictures = [name for name in source.names if may_be_image(name)]
    tables = [name for name in source.names if PurePosixPath(name).name.lower() == TABLE]
    if not pictures:
        raise FileNotFoundError
    if table or tables:
        return _read_tables(source, image_size, pictures, table, tables, ignore)
    return _read_folders(source, image_size, pictures, ignore)


def parse_folders(name: str) -> tuple[str | None, str | None]:
    """Return what the folders of a file say: the nearest split, and the nearest other word."""
    split, word = None, None
    for folder in reversed(PurePosixPath(name).parent.parts):
        if found := split_word(folder):
            split = split or found
        elif not folder.lower().endswith(".zip"):
            word = word or folder
    return split, word


def sort_folders(
    source: Source, names: Sequence[str], ignore: Sequence[str]
) -> tuple[list[str], list[str | None], list[str], Skipped, Skipped]:
    """Find class and split of each picture in its folders' names, and leave out copies.

    Returns
    -------
    names, splits, words
        Of each picture that is in a folder: its name, the split ("train", "validation",
        "test", or None if no folder names one) and the word for its class.
    skipped, ignored
        Pictures that are in no folder; copies, and those of a class in `ignore`.
    """
    found = {name: parse_folders(name) for name in names}
    skipped = [
        (name, "not in a folder named after a class") for name in names if found[name][1] is None
    ]
    names = [name for name in names if found[name][1] is not None]
    ignored = [
        (name, f"left out: {word}") for name in names if same_word(word := found[name][1], ignore)
    ]
    names = [name for name in names if not same_word(found[name][1], ignore)]
    keys = [(*found[name], PurePosixPath(name).name) for name in names]
    names, copies = drop_copies(source, names, keys)
    splits, words = zip(*(found[name] for name in names), strict=True) if names else ((), ())
    return names, list(splits), list(words), skipped, ignored + copies


def _read_folders(source: Source, image_size: int, pictures: list[str], ignore: Sequence[str]):
    names, splits, words, skipped, ignored = sort_folders(source, pictures, ignore)
    if not names:
        raise ValueError(
            f"{source.folder}: none of {len(pictures)} pictures is in a folder named after a "
            f"class, nor is there a {TABLE}. Expected: {EXPECTED}. Faces without labels can be "
            "predicted: python -m fer_helpers predict"
        )
    task = _task_of(words)
    check_words(source, task, names, words)
    images, kept, bad = decode_images(source, names, image_size, label=NAME)
    return Faces(
        images=images,
        labels=encode_labels({task: np.array(words, object)[kept]}),
        paths=np.array(names, dtype=str)[kept],
        splits=np.array([split or SPLITS[0] for split in splits])[kept],
        skipped=skipped + bad,
        ignored=ignored,
    )


def _task_of(words: Sequence[str]) -> str:
    """Return the task that folders name classes of; emotion if they fit none."""
    different = {word for word in words if not word.isdecimal()}  # 0/ to 6/ are no years
    fits = (task for task in TASKS if all(is_class(task, word) for word in different))
    return next(fits, "emotion")


def check_words(source: Source, task: str, names: Sequence[str], words: Sequence[str]) -> None:
    """Raise a ValueError that names the first folder whose word is no class of the task."""
    for word, name in dict(zip(reversed(words), reversed(names), strict=True)).items():
        try:
            class_index(task, word)
        except ValueError as error:
            folder = PurePosixPath(name).parent
            raise ValueError(f"{source.folder / folder}: {error}. {how_to_ignore(word)}") from None


def how_to_ignore(word: str) -> str:
    """Return how faces of a class without a place among the seven emotions are left out."""
    return f"To leave these faces out: ignore=[{word!r}], or --ignore {word}"


# ---------------------------------------------------------------------------- tables


def _read_tables(
    source: Source,
    image_size: int,
    pictures: list[str],
    table: Path | None,
    tables: list[str],
    ignore: Sequence[str],
) -> Faces:
    texts = [(str(table), table.read_bytes())] if table else _read_texts(source, tables)
    rows, skipped = _find_pictures(source, pictures, texts, is_inside=table is None)
    if not len(rows):
        first = "; first " + ": ".join(skipped[0]) if skipped else ""
        raise ValueError(f"{source.folder}: no line of a table names one of its pictures{first}")
    ignored = [(name, "not in the table") for name in sorted({*pictures} - {*rows["name"]})]
    unwanted = rows[list(TASKS)].map(lambda word: same_word(word, ignore))
    rows[list(TASKS)] = rows[list(TASKS)].mask(unwanted, "")
    left_out = unwanted.any(axis=1) & (rows[list(TASKS)] == "").all(axis=1)
    ignored += [(name, "left out: a class to ignore") for name in rows.loc[left_out, "name"]]
    rows = rows[~left_out].reset_index(drop=True)
    _check_table(rows)
    images, kept, bad = decode_images(source, rows["name"].tolist(), image_size, label=NAME)
    rows = rows.iloc[kept]
    return Faces(
        images=images,
        labels=encode_labels({task: rows[task].to_numpy(object) for task in TASKS}),
        paths=rows["name"].to_numpy(str),
        splits=rows["split"].to_numpy(str),
        skipped=skipped + bad,
        ignored=ignored,
        persons=rows["person"].to_numpy(str),
    )


def _read_texts(source: Source, tables: Sequence[str]) -> list[tuple[str, bytes]]:
    try:
        return [(name, source.read(name)) for name in tables]
    except READ_ERRORS as error:
        raise ValueError(f"{source.folder}: a {TABLE} cannot be read ({error})") from None


def _find_pictures(
    source: Source, pictures: list[str], texts: Sequence[tuple[str, bytes]], is_inside: bool
) -> tuple[pd.DataFrame, Skipped]:
    """Return the lines that name a picture, and reasons for the others.

    The columns are ``name``, ``where`` (table and line) and those of `COLUMNS`, "" where a
    table lacks one; ``split`` is that of the column or of the folders, otherwise "train".
    """
    places = {name.rsplit(".zip/", 1)[-1]: name for name in reversed(pictures)}
    places |= {name: name for name in pictures}
    places |= {(source.folder / name).as_posix(): name for name in pictures}
    rows, skipped = {}, []
    for where, text in texts:
        parent = PurePosixPath(where).parent
        for line, row in _parse_table(text, where, skipped):
            file_name = row["file_name"].replace("\\", "/").removeprefix("./")
            beside = (parent / file_name).as_posix() if is_inside else file_name
            name = places.get(beside) or places.get(file_name)
            if name is None:
                skipped.append((f"{where}:{line}", f"no picture {file_name[:80]!r}"))
            elif name in rows:
                skipped.append((f"{where}:{line}", f"{name} is in the table already"))
            else:
                row["split"] = _find_split(row["split"], name, f"{where}:{line}")
                rows[name] = {"name": name, "where": f"{where}:{line}"} | row
    return pd.DataFrame(rows.values()), skipped


def _find_split(word: str, name: str, where: str) -> str:
    split = split_word(word) if word else parse_folders(name)[0] or SPLITS[0]
    if split is None:
        raise ValueError(f"{where}: unknown split {word[:40]!r}: choose from {', '.join(SPLITS)}")
    return split


def _parse_table(text: bytes, where: str, skipped: Skipped) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number and the cells of each line of a CSV; add reasons to `skipped`."""
    rows = _parse_rows(text, where)
    words = [word.strip().lower().replace(" ", "_") for word in next(rows, (1, []))[1]]
    places = {
        column: next(
            (words.index(word) for word in (column, *others.split()) if word in words), None
        )
        for column, others in COLUMNS.items()
    }
    if places["file_name"] is None or all(places[task] is None for task in TASKS):
        raise ValueError(
            f"{where} has the columns {textwrap.shorten(', '.join(words), 80)}: it needs file_name "
            f"and some of {', '.join(TASKS)}; split and person may be there, too"
        )
    for line, row in rows:
        if row and len(row) != len(words):
            reason = f"{len(row)} fields, not {len(words)}"
            skipped.append((f"{where}:{line}", reason))
        elif any(len(cell) > MAX_NAME for cell in row):
            reason = f"a field of more than {MAX_NAME} characters"
            skipped.append((f"{where}:{line}", reason))
        elif row:
            cells = {
                column: "" if place is None else row[place].strip()
                for column, place in places.items()
            }
            yield line, cells


def _parse_rows(text: bytes, where: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the last line and the fields of each row of a CSV."""
    lines = text_lines(io.BytesIO(text))
    head = next(lines, "")
    separator = max(",;\t", key=head.count)  # a spreadsheet writes what its language has
    reader = csv.reader(itertools.chain([head], lines), delimiter=separator)
    try:
        for row in reader:
            yield reader.line_num, row
    except (csv.Error, ValueError) as error:
        raise ValueError(
            f"{where}:{reader.line_num} cannot be read ({error}): split the table, or look for a "
            "quotation mark that is never closed"
        ) from None


def _check_table(rows: pd.DataFrame) -> None:
    """Raise a ValueError that names the first line with a word that is no class."""
    for task in TASKS:
        for row in rows.drop_duplicates(task).itertuples():
            word = getattr(row, task)
            try:
                class_index(task, word)
            except ValueError as error:
                raise ValueError(f"{row.where}: {error}. {how_to_ignore(word)}") from None
