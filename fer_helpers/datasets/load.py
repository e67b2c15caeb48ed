"""Load a data set by its name, from whatever files there are, quickly from the second time on."""

import functools
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd

from fer_helpers import images, labels
from fer_helpers.datasets import fer2013, sample, source
from fer_helpers.datasets.cache import cached, code_fingerprint
from fer_helpers.datasets.faces import Faces, note
from fer_helpers.datasets.sample import drawing, easel, traits
from fer_helpers.datasets.source import ARCHIVE_SUFFIXES, Source, data_folder, walk
from fer_helpers.images import IMAGE_SUFFIXES, image_digests
from fer_helpers.labels import BLOCKS, DATASETS, check_dataset

READERS: dict[str, ModuleType] = {
    name: import_module(f"fer_helpers.datasets.{module}") for name, module in DATASETS.items()
}
SPLITS = ("all", "train", "validation", "test")
FER_SPLITS = dict(zip(SPLITS[1:], fer2013.SPLITS, strict=True))
SAMPLE_SIZE = 4800
SIZES = (8, 1024)  # pixels: the smallest and the largest side


def read_dataset(
    name: str,
    split: str = "all",
    image_size: int = 48,
    data_dir: str | Path | None = None,
    n: int | None = None,
    seed: int = 0,
) -> Faces:
    """Read a data set: images, labels, paths, splits, and what was skipped.

    Parameters
    ----------
    name
        "SAMPLE", "FER", "RAFDB" or "UTKFACE".
    split
        "all", "train", "validation" or "test"; for FER also "Training", "PublicTest" or
        "PrivateTest". RAFDB has no validation split, UTKFACE no test split.
    image_size
        Side S of the square images in pixels, 8 to 1024.
    data_dir
        Folder that holds a folder of the data set's name. By default that of the
        environment variable FER_DATA_DIR, or the project's folder ``data``.
    n
        For SAMPLE only: how many faces there are in all splits, 4,800 by default.
    seed
        For SAMPLE only: which faces, a whole number from 0.

    Returns
    -------
    Faces
        Images uint8 (N, S, S, 1), labels float32 (N, 18). The images are a read-only memory
        map if the split lies in one piece, see `load_data`.

    Raises
    ------
    ValueError
        An unknown name or split, a split that this copy lacks, a size out of range, or files
        that cannot be used.
    FileNotFoundError
        The files are not there; says what to download, from where, and where to put it.
    """
    reader = READERS[check_dataset(name)]
    own = _own_split(name, split)
    least, most = SIZES
    image_size = traits.whole_number("image_size", image_size, least)
    if image_size > most:
        raise ValueError(
            f"image_size must be a whole number from {least} to {most}, not {image_size}"
        )
    folder = data_folder(data_dir)
    if name == "SAMPLE":
        faces = _read_sample(folder, image_size, SAMPLE_SIZE if n is None else n, seed)
    elif n is not None:
        raise ValueError(f"n={n} is for SAMPLE only: {name} is read whole; take X[:n], y[:n]")
    else:
        faces = _read_files(reader, folder, image_size)
    absent = [known for known in reader.SPLITS if known not in faces.splits]
    _report(name, faces, absent)
    if own in absent:
        there = ", ".join(sorted(set(faces.splits)))
        raise ValueError(f"{folder / name} has no {own} (split {split!r}); it has {there}")
    return faces if own is None else _select(faces, faces.splits == own)


def load_data(
    name: str = "SAMPLE",
    split: str = "all",
    image_size: int = 48,
    data_dir: str | Path | None = None,
    n: int | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Load a data set's images and labels; `read_dataset` gives their paths and splits, too.

    Parameters
    ----------
    name
        "SAMPLE", "FER", "RAFDB" or "UTKFACE".
    split
        "all", "train", "validation" or "test"; for FER also "Training", "PublicTest" or
        "PrivateTest". RAFDB has no validation split, UTKFACE no test split.
    image_size
        Side S of the square images in pixels, 8 to 1024.
    data_dir
        Folder that holds a folder of the data set's name. By default that of the
        environment variable FER_DATA_DIR, or the project's folder ``data``.
    n
        For SAMPLE only: how many faces there are in all splits, 4,800 by default.
    seed
        For SAMPLE only: which faces, a whole number from 0.

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
        An unknown name or split, a split that this copy lacks, a size out of range, or files
        that cannot be used.
    FileNotFoundError
        The files are not there; says what to download, from where, and where to put it.
    """
    faces = read_dataset(name, split, image_size, data_dir, n, seed)
    return faces.images, faces.labels


def load_training_data(
    dataset_name: str, data_dir: str | Path | None = None
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Load the faces to learn from and those to choose the best epoch by, never a test split.

    A data set without a validation split, such as RAF-DB or a copy of FER2013 in folders,
    gives up a tenth of its training split, see `split_off_validation`.

    Parameters
    ----------
    dataset_name
        "SAMPLE", "FER", "RAFDB" or "UTKFACE".
    data_dir
        Folder that holds a folder of the data set's name. By default that of the
        environment variable FER_DATA_DIR, or the project's folder ``data``.

    Returns
    -------
    tuple
        ``(X, y), (X_validation, y_validation)``: images uint8 (N, 48, 48, 1), 0 black to 255
        white, and label rows float32 (N, 18).

    Raises
    ------
    ValueError
        An unknown name, no training split, too few faces for two splits, or files that
        cannot be used.
    FileNotFoundError
        The files are not there; says what to download, from where, and where to put it.
    """
    train = read_dataset(dataset_name, "train", data_dir=data_dir)
    everything = read_dataset(dataset_name, data_dir=data_dir)
    is_validation = everything.splits == _own_splits(dataset_name).get("validation", "")
    if is_validation.any():
        validation = _select(everything, is_validation)
    else:
        chosen = split_off_validation(train.images, train.labels)
        train, validation = _select(train, ~chosen), _select(train, chosen)
    return (train.images, train.labels), (validation.images, validation.labels)


def split_off_validation(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Choose a tenth of the faces for validation, the same ones at every call.

    Copies of an image stay together. Each class of the first labelled task (emotion, if it
    is labelled), and the faces without a label of it, give a tenth of their images, rounded
    up or down.

    Parameters
    ----------
    X
        Images (N, H, W, 1) of any dtype.
    y
        (N, 18) label rows.

    Returns
    -------
    numpy.ndarray
        bool (N,): which faces are for validation, at least one and not all.

    Raises
    ------
    ValueError
        Fewer than two different images.
    """
    _, first, copy_of = np.unique(image_digests(X), return_index=True, return_inverse=True)
    if len(first) < 2:
        raise ValueError(
            f"only {len(first)} different images among {len(X)} training faces: at least 2 are "
            "needed to split off validation faces"
        )
    task = next((task for task, block in BLOCKS.items() if y[:, block].any()), "emotion")
    order = np.random.default_rng(0).permutation(np.sort(first))
    block = y[order, BLOCKS[task]]
    classes = np.where(block.any(axis=1), block.argmax(axis=1), -1)
    # With the classes one after the other, every tenth image is a tenth of each class.
    order = order[np.argsort(classes, kind="stable")]
    return np.isin(first[copy_of], order[::10])


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
    folder = data_folder(data_dir)
    rows = []
    for name, reader in READERS.items():
        found = name == "SAMPLE" or any(_is_data_file(path) for path, _ in walk(folder / name))
        if name == "SAMPLE":
            where = "drawn by code"
        elif found:
            where = str(folder / name)
        else:
            where = f"not in {folder / name}: {reader.HOW_TO_GET}"
        rows.append((name, found, where, reader.TERMS))
    return pd.DataFrame(rows, columns=["name", "found", "where", "terms"])


def _is_data_file(path: str) -> bool:
    return path.lower().endswith((".zip", ".csv", *IMAGE_SUFFIXES))


def _own_splits(name: str) -> dict[str, str]:
    """Return the splits that a data set has, each with the data set's own word for it."""
    return FER_SPLITS if name == "FER" else {split: split for split in READERS[name].SPLITS}


def _own_split(name: str, split: str) -> str | None:
    """Return the data set's own word for a split; None for all splits."""
    own = _own_splits(name)
    if split == "all":
        return None
    if split in own.values():
        return split
    if split not in own:
        known = dict.fromkeys(("all", *own, *own.values()))
        raise ValueError(f"{name} has no split {split!r}: choose one of {', '.join(known)}")
    return own[split]


def _read_code(*readers: ModuleType) -> str:
    """Return a fingerprint of all code that decides about pixels and labels."""
    return code_fingerprint(labels, images, source, *readers)


def _read_files(reader: ModuleType, folder: Path, image_size: int) -> Faces:
    files = Source(folder / reader.NAME, reader.INNER)
    if not files.files:
        raise FileNotFoundError(_explain_missing(reader, files))

    def build() -> Faces:
        try:
            with files:
                return reader.read(files, image_size)
        except FileNotFoundError as error:
            raise FileNotFoundError(str(error) or _explain_missing(reader, files)) from None

    name = f"{reader.NAME}-{image_size}"
    return cached(folder, name, files.fingerprint, _read_code(reader), build)


def _explain_missing(reader: ModuleType, files: Source) -> str:
    if not files.folder.is_dir():
        there = "does not exist"
    elif not files.files:
        there = "is empty"
    else:
        there = f"holds {len(files.files)} files, but not those of {reader.NAME}"
    archives = [name for name in files.files if name.lower().endswith(ARCHIVE_SUFFIXES)]
    unpack = f" Unpack {archives[0]} first." if archives else ""
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
    for text in faces.notes:
        note(text)
    if absent:
        note(f"{name}: no {', '.join(absent)} in this copy")
    if faces.skipped:
        path, reason = faces.skipped[0]
        note(
            f"{name}: {len(faces.skipped)} skipped, {len(faces)} read; first {path}: {reason} "
            "(all in read_dataset(...).skipped)"
        )


def _select(faces: Faces, mask: np.ndarray) -> Faces:
    """Return some of the faces, as views if they lie in one piece."""
    index = np.flatnonzero(mask)
    if index[-1] - index[0] + 1 == len(index):
        index = slice(index[0], index[-1] + 1)
    return Faces(
        faces.images[index],
        faces.labels[index],
        faces.paths[index],
        faces.splits[index],
        faces.skipped,
        faces.notes,
    )
