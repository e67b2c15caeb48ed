"""Load a data set by its name or path, from whatever files there are, quickly the second time."""

import difflib
import functools
import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd

from fer_helpers import images
from fer_helpers import labels as labels_module
from fer_helpers.datasets import faces as faces_module
from fer_helpers.datasets import folder, sample, source, splits
from fer_helpers.datasets.cache import cached, code_fingerprint
from fer_helpers.datasets.faces import Faces, note
from fer_helpers.datasets.sample import drawing, easel, traits
from fer_helpers.datasets.source import ARCHIVE_SUFFIXES, Source, data_folder, walk
from fer_helpers.datasets.splits import SPLITS, add_missing_splits
from fer_helpers.images import IMAGE_SUFFIXES
from fer_helpers.labels import DATASETS, check_dataset, short_name

READERS: dict[str, ModuleType] = {
    name: import_module(f"fer_helpers.datasets.{module}") for name, module in DATASETS.items()
}
SAMPLE_SIZE = 4800
SIZES = (8, 1024)  # pixels: the smallest and the largest side


def read_dataset(
    name: str | Path,
    split: str = "all",
    image_size: int = 48,
    data_dir: str | Path | None = None,
    n: int | None = None,
    seed: int = 0,
    labels: str | Path | None = None,
    ignore: Sequence[str] = (),
) -> Faces:
    """Read a data set: images, labels, paths, splits, and what was skipped or ignored.

    Parameters
    ----------
    name
        "SAMPLE", "FER", "RAFDB" or "UTKFACE"; or a path: a folder or a zip with a folder per
        class or with a ``metadata.csv``, or such a table itself, see `folder`.
    split
        "all", "train", "validation" or "test"; for FER also "Training", "PublicTest" or
        "PrivateTest". Where a data set has no validation or no test split, a tenth of training
        is taken for it, see `add_missing_splits`; but FER2013's Training stays whole where just
        PrivateTest is missing.
    image_size
        Side S of the square images in pixels, 8 to 1024.
    data_dir
        Folder that holds a folder of the data set's name. By default that of the
        environment variable FER_DATA_DIR, or the project's folder ``data``.
    n
        For SAMPLE only: how many faces there are in all splits, 4,800 by default.
    seed
        For SAMPLE only: which faces, a whole number from 0.
    labels
        With a path: the path of a table to take the labels from, in place of the folder's own.
        For FER: "ferplus", the votes of FER+'s ten taggers (``fer2013new.csv``) as shares.
    ignore
        Words for classes to leave out, such as ``["contempt"]``; for FER and paths.

    Returns
    -------
    Faces
        Images uint8 (N, S, S, 1), labels float32 (N, 18). The images are a read-only memory
        map if the split lies in one piece, see `load_data`.

    Raises
    ------
    ValueError
        An unknown name, split or class, a split that this copy lacks, a size out of range, or
        files that cannot be used.
    FileNotFoundError
        The files are not there; says what to download, from where, and where to put it.
    """
    own = _words_for_split(check_dataset(name), split)
    least, most = SIZES
    image_size = traits.whole_number("image_size", image_size, least)
    if image_size > most:
        raise ValueError(
            f"image_size must be a whole number from {least} to {most}, not {image_size}"
        )
    _check_options(str(name), n, labels, ignore)
    place = data_folder(data_dir)
    if name == "SAMPLE":
        faces = _read_sample(place, image_size, SAMPLE_SIZE if n is None else n, seed)
    elif name in DATASETS:
        options = {"votes": bool(labels), "ignore": tuple(ignore)}
        options = {option: value for option, value in options.items() if value}
        faces = _read_files(READERS[name], place, _find_folder(place, name), image_size, options)
    else:
        faces = _read_place(
            place, Path(os.path.expanduser(name)).absolute(), image_size, labels, ignore
        )
    _report(short_name(name), faces, _absent(str(name), faces))
    if own is None:
        return faces
    index = np.flatnonzero(np.isin(faces.splits, own))
    if not len(index):
        there = ", ".join(sorted({*faces.splits}))
        raise ValueError(
            f"{name} has no {own[0]} (split {split!r}); it has {there}: add faces, or choose "
            "another data set or split"
        )
    # In one piece they stay a memory map.
    in_one_piece = index[-1] - index[0] + 1 == len(index)
    return faces.take(slice(index[0], index[-1] + 1) if in_one_piece else index)


def load_data(
    name: str | Path = "SAMPLE",
    split: str = "all",
    image_size: int = 48,
    data_dir: str | Path | None = None,
    n: int | None = None,
    seed: int = 0,
    labels: str | Path | None = None,
    ignore: Sequence[str] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Load a data set's images and labels; `read_dataset` gives their paths and splits, too.

    Parameters
    ----------
    name
        "SAMPLE", "FER", "RAFDB" or "UTKFACE"; or a path: a folder or a zip with a folder per
        class or with a ``metadata.csv``, or such a table itself, see `folder`.
    split
        "all", "train", "validation" or "test"; for FER also "Training", "PublicTest" or
        "PrivateTest". Where a data set has no validation or no test split, a tenth of training
        is taken for it, see `add_missing_splits`; but FER2013's Training stays whole where just
        PrivateTest is missing.
    image_size
        Side S of the square images in pixels, 8 to 1024.
    data_dir
        Folder that holds a folder of the data set's name. By default that of the
        environment variable FER_DATA_DIR, or the project's folder ``data``.
    n
        For SAMPLE only: how many faces there are in all splits, 4,800 by default.
    seed
        For SAMPLE only: which faces, a whole number from 0.
    labels
        With a path: the path of a table to take the labels from, in place of the folder's own.
        For FER: "ferplus", the votes of FER+'s ten taggers (``fer2013new.csv``) as shares.
    ignore
        Words for classes to leave out, such as ``["contempt"]``; for FER and paths.

    Returns
    -------
    X
        uint8 (N, S, S, 1), grey, 0 black to 255 white. A read-only memory map if the split
        lies in one piece, as it does for all data sets but SAMPLE.
    y
        float32 (N, 18), one-hot blocks emotion 7 | gender 3 | race 3 | age 5; a block of
        zeros means: not labelled.

    Raises
    ------
    ValueError
        An unknown name, split or class, a split that this copy lacks, a size out of range, or
        files that cannot be used.
    FileNotFoundError
        The files are not there; says what to download, from where, and where to put it.
    """
    faces = read_dataset(name, split, image_size, data_dir, n, seed, labels, ignore)
    return faces.images, faces.labels


def load_training_data(
    dataset_name: str | Path,
    data_dir: str | Path | None = None,
    labels: str | Path | None = None,
    ignore: Sequence[str] = (),
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Load the faces to learn from and those to choose the best epoch by, never a test split.

    Parameters
    ----------
    dataset_name
        "SAMPLE", "FER", "RAFDB" or "UTKFACE", or a path, see `load_data`.
    data_dir, labels, ignore
        See `load_data`.

    Returns
    -------
    tuple
        ``(X, y), (X_validation, y_validation)``: images uint8 (N, 48, 48, 1), 0 black to 255
        white, and label rows float32 (N, 18).

    Raises
    ------
    ValueError
        An unknown name, no training split, too few faces for a validation split, or files that
        cannot be used.
    FileNotFoundError
        The files are not there; says what to download, from where, and where to put it.
    """
    options = {"data_dir": data_dir, "labels": labels, "ignore": ignore}
    train = load_data(dataset_name, "train", **options)
    return train, load_data(dataset_name, "validation", **options)


def find_datasets(data_dir: str | Path | None = None) -> pd.DataFrame:
    """List the data sets and whether their files are there, without reading any.

    Parameters
    ----------
    data_dir
        Folder that holds a folder per data set. By default that of the environment variable
        FER_DATA_DIR, or the project's folder ``data``.

    Returns
    -------
    pandas.DataFrame
        A row per data set: name (str), found (bool), where (str: the folder, or how to get
        the files) and terms (str: who may use them, and for what).
    """
    place = data_folder(data_dir)
    rows = []
    for name, reader in READERS.items():
        here = _find_folder(place, name)
        found = name == "SAMPLE" or any(_is_data_file(path) for path, _ in walk(here))
        if name == "SAMPLE":
            where = "drawn by code"
        elif found:
            where = str(here)
        else:
            where = f"not in {here}: {reader.HOW_TO_GET}"
        rows.append((name, found, where, reader.TERMS))
    return pd.DataFrame(rows, columns=["name", "found", "where", "terms"])


def _is_data_file(path: str) -> bool:
    return path.lower().endswith((".zip", ".csv", *IMAGE_SUFFIXES))


def _own_splits(name: str) -> dict[str, str]:
    """Return the data set's own word for each of the splits."""
    return dict(zip(SPLITS, READERS[name].SPLITS if name in DATASETS else SPLITS, strict=True))


def _absent(name: str, faces: Faces) -> list[str]:
    """Return the data set's own words for the splits that it has no face of."""
    own = _own_splits(name).items()
    return [word for split, word in own if not np.isin(faces.splits, (word, split)).any()]


def _words_for_split(name: str, split: str) -> tuple[str, ...] | None:
    """Return how a split is called in `Faces.splits`: by the data set, or by who made it.

    None for all splits.
    """
    own = _own_splits(name)
    if split == "all":
        return None
    if split in own.values():
        return (split,)
    if split not in own:
        known = dict.fromkeys(("all", *own, *own.values()))
        raise ValueError(f"{name} has no split {split!r}: choose one of {', '.join(known)}")
    return own[split], split


def _check_options(name: str, n: int | None, labels: str | Path | None, ignore: Sequence[str]):
    if n is not None and name != "SAMPLE":
        raise ValueError(f"n={n} is for SAMPLE only: {name} is read whole; take X[:n], y[:n]")
    if isinstance(ignore, str):
        raise ValueError(f"ignore takes a list of words, such as [{ignore!r}]")
    if name == "FER" and labels not in (None, "ferplus"):
        raise ValueError(f"labels={str(labels)!r}: for FER it is 'ferplus', or left out")
    if name in DATASETS and name != "FER" and (labels or ignore):
        raise ValueError(f"labels and ignore are for FER and for paths; {name} is read whole")


def _find_folder(place: Path, name: str) -> Path:
    """Return the folder of a data set, also if it is called UTKFace, RAF-DB or fer2013."""
    if (place / name).exists() or not place.is_dir():
        return place / name
    others = [other for other in sorted(place.iterdir()) if other.is_dir()]
    alike = [other for other in others if re.sub("[^a-z]", "", other.name.lower()) == name.lower()]
    return alike[0] if alike else place / name


def _read_code(*readers: ModuleType) -> str:
    """Return a fingerprint of all code that decides about pixels, labels and splits."""
    return code_fingerprint(labels_module, images, source, splits, faces_module, *readers)


def _read_files(
    reader: ModuleType, place: Path, where: Path, image_size: int, options: dict
) -> Faces:
    """Read the files below `where`, or take them from the cache in the data folder `place`."""
    files = Source(where, reader.INNER)
    if not files.files:
        raise FileNotFoundError(_explain_missing(reader, files, place))

    def build() -> Faces:
        try:
            with files:
                faces = reader.read(files, image_size, **options)
                _name_unread(files, faces)
        except FileNotFoundError as error:
            raise FileNotFoundError(str(error) or _explain_missing(reader, files, place)) from None
        own = dict(zip(SPLITS, reader.SPLITS, strict=True))
        # Names of their own are official ones.
        return add_missing_splits(faces, own, reader.SPLITS != SPLITS)

    name = f"{reader.NAME}-{image_size}"
    if reader is folder or options:
        content = [str(where), *(f"{key} {_content(option)}" for key, option in options.items())]
        digest = hashlib.sha256("\n".join(content).encode("utf-8", "surrogatepass")).hexdigest()
        name = f"{reader.NAME}_{digest[:16]}-{image_size}"
    return cached(place, name, files.fingerprint, _read_code(folder, reader), build)


def _content(option) -> str:
    """Return an option of a reader as text; of a table, what is in it."""
    if isinstance(option, Path):
        return hashlib.sha256(option.read_bytes()).hexdigest()
    return repr(option)


def _read_place(
    place: Path, where: Path, image_size: int, labels: str | Path | None, ignore: Sequence[str]
) -> Faces:
    """Read the faces at a path: a folder, a zip, or a table beside its pictures."""
    table = None if labels is None else Path(os.path.expanduser(labels)).absolute()
    if table is not None and not table.is_file():
        raise FileNotFoundError(f"no table at {table}")
    if where.suffix.lower() == ".csv" and table is None and where.is_file():
        where, table = where.parent, where
    elif where.is_file() and where.suffix.lower() != ".zip":
        raise ValueError(f"{where} is no folder, .zip or .csv. Expected: {folder.EXPECTED}")
    if table is not None and table.stat().st_size > source.MAX_BYTES:
        raise ValueError(f"{table}: {table.stat().st_size} bytes is too large for a table")
    return _read_files(folder, place, where, image_size, {"table": table, "ignore": tuple(ignore)})


def _name_unread(files: Source, faces: Faces) -> None:
    """Name each file that the reader did not mention, so that nothing is left out silently."""
    faces.skipped += files.skipped
    named = {path for path, _ in (*faces.skipped, *faces.ignored)}
    unread = sorted({*files.names} - files.opened - named)
    faces.ignored += [(name, "not read: no face of this data set") for name in unread]


def _explain_missing(reader: ModuleType, files: Source, place: Path) -> str:
    if not files.folder.is_dir():
        others = [other.name for other in place.iterdir()] if place.is_dir() else []
        near = difflib.get_close_matches(files.folder.name.lower(), map(str.lower, others), 1)
        there = f"does not exist (there is {near[0]})" if near else "does not exist"
    elif not files.files:
        there = "is empty"
    else:
        there = f"holds {len(files.files)} files, but not those of {reader.NAME}"
    archives = [
        name
        for name in files.files
        if name.lower().endswith(ARCHIVE_SUFFIXES) or source.VOLUME.search(name)
    ]
    unpack = f" Unpack {archives[0]} first." if archives else ""
    if files.skipped:
        unpack += " Not read: " + ": ".join(files.skipped[0]) + "."
    return (
        f"{reader.NAME}: {files.folder} {there}. Expected: {reader.EXPECTED}.{unpack} "
        f"Get it: {reader.HOW_TO_GET}. Terms: {reader.TERMS}"
    )


def _read_sample(folder: Path, image_size: int, n: int, seed: int) -> Faces:
    n, seed = traits.whole_number("n", n, 1), traits.whole_number("seed", seed, 0)
    build = functools.partial(sample.read, image_size, n, seed)
    code = _read_code(traits, easel, drawing, sample)
    return cached(folder, f"SAMPLE-{image_size}-n{n}-seed{seed}", "drawn", code, build)


def _report(name: str, faces: Faces, absent: list[str]) -> None:
    """Say once what was skipped or ignored, and what is remarkable about the data set."""
    for text in faces.notes:
        note(f"{name}: {text}")
    if absent:
        note(f"{name}: this copy has no {', '.join(absent)}")
    if faces.skipped:
        path, reason = faces.skipped[0]
        note(
            f"{name}: {len(faces.skipped)} skipped, {len(faces)} read; first {path}: {reason} "
            "(all in read_dataset(...).skipped)"
        )
    for reason, count in Counter(_kind(reason) for _, reason in faces.ignored).items():
        first = next(path for path, other in faces.ignored if _kind(other) == reason)
        note(f"{name}: {count} files ignored, {reason}; first {first}")


def _kind(reason: str) -> str:
    """Return a reason without the name of the file it speaks of."""
    return "copies of others" if reason.startswith(source.A_COPY) else reason
