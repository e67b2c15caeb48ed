"""Keep faces on disk once they were read, so that reading them again takes no time."""

import ast
import contextlib
import csv
import functools
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd

from fer_helpers.datasets.faces import Faces, note
from fer_helpers.datasets.source import FOR_NOW, READ_ERRORS

DAY = 86_400  # seconds
UNUSED = 30 * DAY  # age at which a cache made by other code is removed
DIGESTS = "digests.json"


def cached(folder: Path, name: str, source: str, code: str, build: Callable[[], Faces]) -> Faces:
    """Return faces from the cache; without one, build them and cache them.

    A cache is written under another name and then renamed, so that no process reads half of
    one, and two may build the same one at once. It is read only if all its files still have
    the digests that they were written with; otherwise it is built again. If nothing can be
    written, or a file could not be read for a reason that may be temporary, the faces are
    returned without a cache, and a message says so.

    Parameters
    ----------
    folder
        The data folder; the caches are in its ``.cache``.
    name
        Data set and image size, such as ``FER-48``.
    source
        Fingerprint of the files that are read. Caches of other files are removed.
    code
        Fingerprint of the code that reads them. Caches made by other code may belong to
        another checkout that shares the data folder: they stay until 30 days after their
        last use.
    build
        Reads the faces.

    Returns
    -------
    Faces
        Images are a read-only memory map, unless they come without a cache.

    Raises
    ------
    OSError
        The cache was written but cannot be read back.
    """
    place = folder / ".cache" / f"{name}-{source}-{code}"
    if (faces := _load(place)) is not None:
        return faces
    faces = build()
    unread = [path for path, reason in faces.skipped if reason.startswith(FOR_NOW)]
    if unread:
        note(f"{name}: read without a cache, as {unread[0]} could not be read now")
        return faces
    scratch = place.with_name(f".{name}-{uuid.uuid4().hex}")
    try:
        try:
            scratch.mkdir(parents=True)
            _save(faces, scratch)
            (scratch / DIGESTS).write_text(json.dumps(_digests(scratch, place.name)))
        except OSError as error:
            reason = error.strerror or error
            note(f"{name}: read without a cache, as {place.parent} cannot be written ({reason})")
            return faces
        del faces  # frees their memory before the cache is opened
        _move(scratch, place)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _remove_stale(place.parent, name, source)
    if (faces := _load(place)) is None:
        raise OSError(f"{place} was written but cannot be read back: remove it and try again")
    return faces


@functools.cache
def code_fingerprint(*modules: ModuleType) -> str:
    """Return a fingerprint of the code of modules, in which comments and docstrings count nothing.

    It differs between Python versions, too.
    """
    code = []
    for module in modules:
        tree = ast.parse(Path(module.__file__).read_bytes())
        for node in ast.walk(tree):
            match node:
                case ast.Expr(value=ast.Constant(value=str())):
                    node.value.value = ""
        code.append(ast.dump(tree))
    return hashlib.sha256("\n".join(code).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _save(faces: Faces, folder: Path) -> None:
    np.save(folder / "images.npy", faces.images)
    np.save(folder / "labels.npy", faces.labels)
    for name, table in {
        "index": pd.DataFrame(
            {"path": faces.paths, "split": faces.splits, "person": faces.persons}
        ),
        "ignored": pd.DataFrame(faces.ignored, columns=["path", "reason"]),
        "skipped": pd.DataFrame(faces.skipped, columns=["path", "reason"]),
        "notes": pd.DataFrame({"note": faces.notes}),
    }.items():
        # Quoted, since a file name may contain a carriage return.
        table.to_csv(
            folder / f"{name}.csv",
            index=False,
            errors="surrogateescape",
            quoting=csv.QUOTE_ALL,
        )


def _digests(folder: Path, name: str) -> dict[str, str]:
    """Return the digest of each file of a cache, and the name that the cache was made for."""
    digests = {"name": name}
    for path in folder.iterdir():
        if path.name != DIGESTS:
            with path.open("rb") as file:
                digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _load(folder: Path) -> Faces | None:
    """Return the cached faces, or None if there are none or they are damaged."""

    def table(name: str) -> pd.DataFrame:
        return pd.read_csv(
            folder / f"{name}.csv",
            dtype=object,
            keep_default_na=False,
            encoding_errors="surrogateescape",
        )

    def pairs(name: str) -> list[tuple[str, str]]:
        return list(table(name)[["path", "reason"]].itertuples(index=False, name=None))

    try:
        if json.loads((folder / DIGESTS).read_text()) != _digests(folder, folder.name):
            return None
        index = table("index")
        faces = Faces(
            images=np.load(folder / "images.npy", mmap_mode="r"),
            labels=np.load(folder / "labels.npy"),
            paths=index["path"].to_numpy(dtype=str),
            splits=index["split"].to_numpy(dtype=str),
            persons=index["person"].to_numpy(dtype=str),
            skipped=pairs("skipped"),
            ignored=pairs("ignored"),
            notes=table("notes")["note"].tolist(),
        )
    except (KeyError, *READ_ERRORS):
        return None
    with contextlib.suppress(OSError):  # a cache that cannot be written to
        os.utime(folder)  # was used now, see `_remove_stale`
    return faces


def _move(scratch: Path, place: Path) -> None:
    """Rename a finished cache; one that another process finished first stays."""
    for _ in range(2):
        try:
            scratch.replace(place)
        except OSError:  # there is a folder already
            if _load(place) is not None:
                return
            shutil.rmtree(place, ignore_errors=True)  # damaged: try once more
        else:
            return


def _remove_stale(folder: Path, name: str, source: str) -> None:
    """Remove caches of other files, long unused ones, and what a killed process left."""
    for other in folder.glob(f"{name}-*"):
        if not other.name.startswith(f"{name}-{source}-") or _age(other) > UNUSED:
            shutil.rmtree(other, ignore_errors=True)
    for other in folder.glob(f".{name}-*"):
        if _age(other) > DAY:
            shutil.rmtree(other, ignore_errors=True)


def _age(path: Path) -> float:
    """Return the seconds since a folder was written or used; 0 if it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0
