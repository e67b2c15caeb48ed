"""load_data: one data set by its name, whatever its form, quickly from the second time on."""

import functools
import hashlib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd

from fer_helpers import labels
from fer_helpers.datasets import fer2013, files, sample
from fer_helpers.datasets.files import (
    Faces,
    Source,
    cached,
    data_folder,
    note,
    walk,
)
from fer_helpers.labels import DATASETS, check_dataset

READERS: dict[str, ModuleType] = {
    name: import_module(f"fer_helpers.datasets.{module}") for name, module in DATASETS.items()
}
SPLITS = ("all", "train", "validation", "test")
FER_SPLITS = dict(zip(SPLITS[1:], fer2013.PARTS, strict=True))
SAMPLE_SIZE = 4800


def read_dataset(
    name: str,
    split: str = "all",
    image_size: int = 48,
    data_dir: str | Path | None = None,
    n: int | None = None,
    seed: int = 0,
) -> Faces:
    """Read a data set, with paths and parts.

    Parameters
    ----------
    name
        "SAMPLE", "FER", "RAFDB" or "UTKFACE".
    split
        "all", "train", "validation" or "test"; for FER also "Training", "PublicTest" or
        "PrivateTest". RAFDB has no validation, UTKFACE no test part.
    image_size
        Side of the square pictures, 8 to 1024.
    data_dir
        Holds a folder of the data set's name. By default the environment variable
        FER_DATA_DIR, or the project's folder ``data``.
    n, seed
        For SAMPLE only: how many faces (4,800 by default), and which.

    Returns
    -------
    Faces
        Images are a read-only memory map where the split lies in one piece.

    Raises
    ------
    ValueError
        An unknown name or split, a size out of range, or files that cannot be used.
    FileNotFoundError
        The data are not there; says what to download, from where, and where to put it.
    """
    reader = READERS[check_dataset(name)]
    part = _part(name, split)
    if isinstance(image_size, bool) or int(image_size) != image_size or not 8 <= image_size <= 1024:
        raise ValueError(f"image_size must be a whole number from 8 to 1024, not {image_size!r}")
    image_size = int(image_size)
    folder = data_folder(data_dir)
    if name == "SAMPLE":
        faces = _read_sample(folder, image_size, SAMPLE_SIZE if n is None else n, seed)
    elif n is not None:
        raise ValueError(f"n={n} is for SAMPLE only: {name} is read whole; take X[:n], y[:n]")
    else:
        faces = _read_files(reader, folder, image_size)
    absent = [known for known in reader.PARTS if known not in faces.parts]
    _report(name, faces, absent)
    if part in absent:
        there = ", ".join(sorted(set(faces.parts)))
        raise ValueError(f"{folder / name} has no {part} (split {split!r}); it has {there}")
    return faces if part is None else _select(faces, faces.parts == part)


def load_data(
    name: str = "SAMPLE",
    split: str = "all",
    image_size: int = 48,
    data_dir: str | Path | None = None,
    n: int | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Load a data set's images and labels.

    Parameters
    ----------
    name, split, image_size, data_dir, n, seed
        As in `read_dataset`, which also gives the faces' paths and parts.

    Returns
    -------
    X
        uint8 (N, S, S, 1), grey; a read-only memory map where the split lies in one piece.
    y
        float32 (N, 18), one-hot blocks emotion 7 | gender 3 | race 3 | age 5; a block of
        zeros means: not labelled.

    Raises
    ------
    ValueError, FileNotFoundError
        As in `read_dataset`.
    """
    faces = read_dataset(name, split, image_size, data_dir, n, seed)
    return faces.images, faces.labels


def find_datasets(data_dir: str | Path | None = None) -> pd.DataFrame:
    """What is there: columns name, found, where (or what is missing) and terms.

    Only looks for files; reads none of them.
    """
    folder = data_folder(data_dir)
    rows = []
    for name, reader in READERS.items():
        found = name == "SAMPLE" or any(_wanted(path) for path, _ in _walk(folder / name))
        if name == "SAMPLE":
            where = "drawn by code"
        elif found:
            where = str(folder / name)
        else:
            where = f"not in {folder / name}: {reader.HOW_TO_GET}"
        rows.append((name, found, where, reader.TERMS))
    return pd.DataFrame(rows, columns=["name", "found", "where", "terms"])


def _walk(folder: Path):
    return walk(folder) if folder.is_dir() else ()


def _wanted(path: str) -> bool:
    return path.lower().endswith((".zip", ".csv", *files.IMAGE_SUFFIXES))


def own_parts(name: str) -> dict[str, str]:
    """The splits that a data set has, each with the data set's own word for it."""
    return FER_SPLITS if name == "FER" else {part: part for part in READERS[name].PARTS}


def _part(name: str, split: str) -> str | None:
    """The data set's own word for a split; None for all of it."""
    own = own_parts(name)
    if split == "all":
        return None
    if split in own.values():
        return split
    if split not in own:
        known = dict.fromkeys(("all", *own, *own.values()))
        raise ValueError(f"{name} has no split {split!r}: choose one of {', '.join(known)}")
    return own[split]


def _code_version(*modules: ModuleType) -> bytes:
    """A reader that changed reads anew: no version number to forget."""
    return b"".join(Path(module.__file__).read_bytes() for module in (labels, files, *modules))


def _fingerprint(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _read_files(reader: ModuleType, folder: Path, image_size: int) -> Faces:
    source = Source(folder / reader.NAME, reader.INNER)
    missing = _missing(reader, source)
    if not source.files:
        raise FileNotFoundError(missing)

    def build(_: Callable) -> Faces:
        try:
            with source:
                return reader.read(source, image_size)
        except FileNotFoundError as error:
            raise FileNotFoundError(str(error) or missing) from None

    key = _fingerprint(source.fingerprint, _code_version(reader))
    return cached(folder, f"{reader.NAME}-{image_size}", key, build)


def _missing(reader: ModuleType, source: Source) -> str:
    there = f"holds {len(source.files)} files, none of these" if source.files else "is empty"
    if not source.folder.is_dir():
        there = "is not there"
    archives = [name for name in source.files if name.lower().endswith(files.ARCHIVE_SUFFIXES)]
    unpack = f" Unpack {archives[0]} first." if archives else ""
    return (
        f"{reader.NAME}: {source.folder} {there}. Expected: {reader.EXPECTED}.{unpack} "
        f"Get it: {reader.HOW_TO_GET}. Terms: {reader.TERMS}"
    )


def _read_sample(folder: Path, image_size: int, n: int, seed: int) -> Faces:
    n, seed = sample.whole_number("n", n, 1), sample.whole_number("seed", seed, 0)
    key = _fingerprint(_code_version(sample))
    build = functools.partial(sample.read, image_size, n, seed)
    return cached(folder, f"SAMPLE-{image_size}-n{n}-seed{seed}", key, build)


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
    index = np.flatnonzero(mask)
    if index[-1] - index[0] + 1 == len(index):
        index = slice(index[0], index[-1] + 1)  # a view: the images stay on disk
    return Faces(
        faces.images[index],
        faces.labels[index],
        faces.paths[index],
        faces.parts[index],
        faces.skipped,
        faces.notes,
    )
