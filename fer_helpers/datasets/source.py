"""Find the files of a data set, in folders and zips, and decode their images in parallel."""

import contextlib
import functools
import hashlib
import itertools
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from joblib import Parallel, delayed
from tqdm import tqdm

from fer_helpers.datasets.faces import Skipped
from fer_helpers.images import Box, decode

ARCHIVE_SUFFIXES = (".tar", ".gz", ".tgz", ".rar", ".7z")  # not read: must be unpacked first
VOLUME = re.compile(r"\.(z\d\d|zip\.\d\d\d)$", re.IGNORECASE)  # of a zip in several files
MAX_BYTES = 64 << 20  # larger than any face photo: such a file is not read
MAX_INNER_BYTES = 4 << 30
CHUNK = 128  # images sent together to a worker process
SERIAL_BELOW = 4  # chunks; starting the workers takes about as long as decoding four

A_COPY = "a copy of"
# Prefix of reasons that may be temporary: the disk or a permission, not the file.
FOR_NOW = "cannot be read now"

# What reading a file can raise: a lost disk, a zip's bad checksum, password or method.
READ_ERRORS = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)


def data_folder(data_dir: str | Path | None = None) -> Path:
    """Return the folder of the data sets, which need not exist.

    Parameters
    ----------
    data_dir
        The folder. By default that of the environment variable FER_DATA_DIR; else the
        nearest ``data``, from the current folder upwards, that has a pyproject.toml or
        README.md beside it; else ``data`` in the current folder.

    Returns
    -------
    pathlib.Path
        Absolute.
    """
    if data_dir := data_dir or os.environ.get("FER_DATA_DIR"):
        return Path(os.path.expanduser(data_dir)).absolute()
    here = Path.cwd()
    for folder in (here, *here.parents):
        is_project = any((folder / name).exists() for name in ("pyproject.toml", "README.md"))
        if is_project and (folder / "data").is_dir():
            return folder / "data"
    return here / "data"


def is_hidden(name: str) -> bool:
    """Return whether a file, or a folder in its name (with ``/``), is hidden by convention."""
    return any(part == "__MACOSX" or part.startswith(".") for part in name.split("/"))


def walk(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the name below a folder, with ``/``, and the status of each file that is not hidden.

    Links to folders are followed, but each folder is listed once. A folder that does not
    exist holds no files.
    """
    seen, todo = set(), [""] if folder.is_dir() else []
    while todo:
        prefix = todo.pop()
        here = os.stat(folder / prefix)
        if here.st_ino and (here.st_dev, here.st_ino) in seen:  # on some drives always 0
            continue
        seen.add((here.st_dev, here.st_ino))
        with os.scandir(folder / prefix) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                if entry.is_dir():
                    todo.append(f"{prefix}{entry.name}/")
                elif entry.is_file():
                    yield prefix + entry.name, entry.stat()


class Source:
    """The files of a folder, including those in its zips.

    A zip reads like a folder of its name; nothing is unpacked onto the disk. Use a source in
    a ``with`` statement, which closes the zips.

    Parameters
    ----------
    place
        Where to look: a folder, or a single file such as a zip. A folder that does not exist
        holds no files.
    inner
        Names of zips to open inside of other zips.

    Attributes
    ----------
    folder
        The folder that all names are below.
    files
        The files on disk, zips among them: sorted name with ``/`` -> `os.stat_result`.
    opened
        Names of the files that were read.
    """

    def __init__(self, place: Path, inner: Sequence[str] = ()) -> None:
        if place.is_file():
            self.folder, self.files = place.parent, {place.name: place.stat()}
        else:
            self.folder, self.files = place, dict(sorted(walk(place)))
        self.inner, self.opened = inner, set[str]()
        self._packed: dict[str, tuple[zipfile.ZipFile, zipfile.ZipInfo]] = {}
        self._streams = contextlib.ExitStack()

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        self._streams.close()

    @property
    def fingerprint(self) -> str:
        """16 characters, others once a file is added, removed, renamed or written to."""
        state = [(name, status.st_size, status.st_mtime_ns) for name, status in self.files.items()]
        return hashlib.sha256(repr(state).encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @functools.cached_property
    def names(self) -> list[str]:
        """Names of all files, with ``/`` on every system: those on disk, then those in zips.

        Raises
        ------
        ValueError
            A zip is damaged, or a zip inside of a zip cannot be read.
        """
        zips = [name for name in self.files if name.lower().endswith(".zip")]
        packed = (self._list_zip(name, (self.folder / name).open("rb")) for name in zips)
        return [name for name in self.files if name not in zips] + sorted(itertools.chain(*packed))

    def _list_zip(self, name: str, stream: IO[bytes]) -> list[str]:
        self._streams.enter_context(stream)
        try:
            archive = zipfile.ZipFile(stream)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            volumes = any(VOLUME.search(other) for other in self.files)
            way = (
                "join its volumes with 'zip -s 0'" if volumes else "download it again, or remove it"
            )
            raise ValueError(f"{self.folder / name} is not a whole zip ({error}): {way}") from None
        names = []
        for info in archive.infolist():
            inside = info.filename.replace("\\", "/")
            # A damaged zip may hold a file without a name.
            if not inside or inside.endswith("/") or is_hidden(inside):
                continue
            full = f"{name}/{inside}"
            self._packed[full] = archive, info
            if inside.rsplit("/", 1)[-1] in self.inner:
                names += self._list_zip(full, self._spool(full, info.file_size))
            else:
                names.append(full)
        return names

    def _spool(self, name: str, size: int) -> IO[bytes]:
        """Copy a zip out of a zip: into memory, or above 256 MB into a nameless file."""
        if size > MAX_INNER_BYTES:
            raise ValueError(f"{self.folder / name} holds {size} bytes: unpack it by hand")
        copy = tempfile.SpooledTemporaryFile(max_size=256 << 20)  # noqa: SIM115
        try:
            with self.open(name) as stream:
                shutil.copyfileobj(stream, copy, 1 << 20)
        except READ_ERRORS as error:
            raise ValueError(f"{self.folder / name} cannot be read ({error})") from None
        return copy

    def size(self, name: str) -> int:
        """Return the number of bytes in a file, unpacked."""
        return self._packed[name][1].file_size if name in self._packed else self.files[name].st_size

    def open(self, name: str) -> IO[bytes]:
        """Open a file of `names` for reading bytes; raises one of `READ_ERRORS`."""
        self.opened.add(name)
        if name in self._packed:
            archive, info = self._packed[name]
            return archive.open(info)
        return (self.folder / name).open("rb")

    def read(self, name: str) -> bytes:
        """Return all bytes of a file of `names`.

        Raises
        ------
        ValueError
            The file is larger than any photo.
        READ_ERRORS
            It cannot be read.
        """
        if (size := self.size(name)) > MAX_BYTES:
            raise ValueError(f"{size} bytes is too large")
        with self.open(name) as stream:
            return stream.read()


def drop_copies(source: Source, names: Sequence[str], keys: Sequence) -> tuple[list[str], Skipped]:
    """Leave out files that lie there twice, such as a zip beside what was unpacked from it.

    Parameters
    ----------
    source, names
        Which files.
    keys
        For each file what it must share with another to be a copy of it, for instance its own
        name and its class. Only files with equal bytes are copies.

    Returns
    -------
    names
        The files without the copies, in their order.
    ignored
        Name of each copy, and of what.
    """
    counts = Counter(keys)
    seen, kept, ignored = {}, [], []
    for name, key in zip(names, keys, strict=True):
        if counts[key] > 1:
            try:
                content = hashlib.sha256(source.read(name)).digest()
            except READ_ERRORS:  # listed once it is decoded
                content = name
            first = seen.setdefault((key, content), name)
            if first != name:
                ignored.append((name, f"{A_COPY} {first}"))
                continue
        kept.append(name)
    return kept, ignored


def in_parallel(
    function: Callable, jobs: Iterable[tuple], total: int, label: str, serial_below: int
) -> Iterator:
    """Call a function for each job, on all cores, under a progress bar.

    Parameters
    ----------
    function, jobs
        Each job is the tuple of arguments of one call.
    total
        Number of jobs.
    label
        Text before the bar, which appears after two seconds.
    serial_below
        Fewer jobs than this are done in this process.

    Returns
    -------
    iterator
        The results, in the order of the jobs.
    """
    if total < serial_below:
        results = itertools.starmap(function, jobs)
    else:
        parallel = Parallel(n_jobs=-1, return_as="generator", batch_size=1)
        results = parallel(delayed(function)(*job) for job in jobs)
    return iter(tqdm(results, desc=label, total=total, delay=2, mininterval=0.5, leave=False))


def why_unread(error: Exception) -> str:
    """Return the reason to list for a file whose reading raised one of `READ_ERRORS`."""
    # A damaged entry of a zip raises OSError, too, but one without a number of the system's.
    for_now = isinstance(error, OSError) and error.errno
    return f"{FOR_NOW if for_now else 'cannot be read'} ({error})"


def decode_images(
    source: Source,
    names: Sequence[str],
    image_size: int,
    box: Box | None = None,
    label: str = "",
) -> tuple[np.ndarray, np.ndarray, Skipped]:
    """Decode images of a source, on all cores.

    Parameters
    ----------
    source, names
        Which files.
    image_size
        Side S of the squares that come out, in pixels.
    box
        What to crop, as fractions of the image, see `fer_helpers.images.crop_and_resize`.
    label
        Text before the progress bar.

    Returns
    -------
    images
        uint8 (K, S, S, 1), 0 black to 255 white: those that could be decoded.
    kept
        int64 (K,), the position of each in `names`.
    skipped
        Name and reason of the others.

    Raises
    ------
    ValueError
        Not one could be decoded.
    """

    def read(name: str) -> bytes | str:
        try:
            return source.read(name)
        except READ_ERRORS as error:
            return why_unread(error)

    batches = [names[start : start + CHUNK] for start in range(0, len(names), CHUNK)]
    jobs = (([read(name) for name in batch], image_size, box) for batch in batches)
    results = in_parallel(decode, jobs, len(batches), label, SERIAL_BELOW)
    images = np.empty((len(names), image_size, image_size, 1), dtype=np.uint8)
    kept, skipped = [], []
    for position, result in enumerate(itertools.chain.from_iterable(results)):
        if isinstance(result, str):
            skipped.append((names[position], result))
        else:
            images[len(kept)] = result
            kept.append(position)
    if not kept:
        first = "; first " + ": ".join(skipped[0]) if skipped else ""
        raise ValueError(f"{source.folder}: none of {len(names)} images could be read{first}")
    return images[: len(kept)], np.array(kept), skipped
