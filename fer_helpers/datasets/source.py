"""Find the files of a data set, in folders and zips, and decode their images in parallel."""

import contextlib
import functools
import hashlib
import io
import itertools
import os
import re
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from joblib import Parallel, delayed

from fer_helpers.datasets.faces import Skipped
from fer_helpers.images import Box, decode
from fer_helpers.progress import tqdm

ARCHIVE_SUFFIXES = (".tar", ".gz", ".tgz", ".rar", ".7z")  # not read: must be unpacked first
VOLUME = re.compile(r"\.(z\d\d|zip\.\d\d\d)$", re.IGNORECASE)  # of a zip in several files
MAX_BYTES = 64 << 20  # larger than any face photo: such a file is not read
MAX_NAME = 500  # characters: an array of names takes the longest one's memory for each
MAX_LINE = 100_000  # characters; a row of FER2013 has at most 9,300
MAX_LINES = 1_000_000
MAX_INNER_BYTES = 4 << 30
# What all zips together may unpack to: so many bytes, or so many times their own size. Photos
# do not shrink in a zip, and FER2013's CSV shrinks fivefold.
MAX_UNPACKED = 64 << 20
MAX_RATIO = 20
# How files in zips may be packed. Of a few bytes of bzip2, zipfile makes gigabytes in one step.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
PIECE = 1 << 20  # bytes
LABEL_BYTES = 16 << 20  # larger files also hold pixels, as fer2013.csv does
LABEL_FILES = 100  # RAF-DB unpacked has 15,000 files of annotations
CHUNK = 128  # images sent together to a worker process
CHUNK_BYTES = 8 << 20  # of their files, unless one file is larger
SERIAL_BELOW = 4  # chunks; starting the workers takes about as long as decoding four

A_COPY = "a copy of"
# Prefix of reasons that may be temporary: the disk or a permission, not the file.
FOR_NOW = "cannot be read now"

NOT_A_FILE = "not a regular file, or a link that leads nowhere"
LONG_NAME = f"a name of more than {MAX_NAME} characters"

# What reading a file can raise: a lost disk, a zip's bad checksum, password or method.
READ_ERRORS = (
    *(OSError, EOFError, ValueError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)


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


def walk(folder: Path) -> Iterator[tuple[str, os.stat_result | str]]:
    """Yield the name below a folder, with ``/``, of each file that is not hidden, and its status.

    In place of the status is a reason (str) where a file or a folder cannot be read, or is no
    regular file. Links to folders are followed, but each folder is listed once. A folder that
    does not exist holds no files.
    """
    seen, todo = set(), [""] if folder.is_dir() else []
    while todo:
        prefix = todo.pop()
        try:
            here = os.stat(folder / prefix)
            if here.st_ino and (here.st_dev, here.st_ino) in seen:  # on some drives always 0
                continue
            seen.add((here.st_dev, here.st_ino))
            with os.scandir(folder / prefix) as scan:
                entries = [entry for entry in scan if not is_hidden(entry.name)]
        except OSError as error:
            yield prefix or ".", why_unread(error)
            continue
        for entry in entries:
            name = prefix + entry.name
            try:
                if entry.is_dir():
                    todo.append(f"{name}/")
                elif not entry.is_file():
                    yield name, NOT_A_FILE
                else:
                    yield name, entry.stat() if len(name) <= MAX_NAME else LONG_NAME
            except OSError as error:
                yield name, NOT_A_FILE if entry.is_symlink() else why_unread(error)


def text_lines(stream: IO[bytes]) -> Iterator[str]:
    """Yield the lines of a text in UTF-8, and of a line above `MAX_LINE` only the beginning.

    Parameters
    ----------
    stream
        Bytes; those that are not UTF-8 become U+FFFD.

    Raises
    ------
    ValueError
        There are more than `MAX_LINES`.
    READ_ERRORS
        The bytes cannot be read.
    """
    text = io.TextIOWrapper(stream, "utf-8-sig", "replace", newline="")
    for number in itertools.count():
        if not (line := text.readline(MAX_LINE)):
            return
        if number == MAX_LINES:
            raise ValueError(f"more than {MAX_LINES:,} lines")
        yield line
        while line and line[-1] not in "\r\n":
            line = text.readline(MAX_LINE)


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
    skipped
        Name and reason of each file that is not read; those in zips once `names` was used.
    opened
        Names of the files that were read.
    """

    def __init__(self, place: Path, inner: Sequence[str] = ()) -> None:
        if place.is_file():
            self.folder, found = place.parent, {place.name: place.stat()}
        else:
            self.folder, found = place, dict(sorted(walk(place), key=lambda pair: pair[0]))
        self.files = {name: state for name, state in found.items() if not isinstance(state, str)}
        self.skipped = [(name, state) for name, state in found.items() if isinstance(state, str)]
        self.inner, self.opened = inner, set[str]()
        self._zips = [name for name in self.files if name.lower().endswith(".zip")]
        packed = sum(self.files[name].st_size for name in self._zips)
        self._room = max(MAX_UNPACKED, MAX_RATIO * packed)  # bytes that may still be unpacked
        self._packed: dict[str, tuple[zipfile.ZipFile, zipfile.ZipInfo]] = {}
        self._streams = contextlib.ExitStack()

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        self._streams.close()

    @property
    def fingerprint(self) -> str:
        """16 characters, others once a file is added, removed, renamed or written to.

        A file counts as written to if its size or time differs. Of the `LABEL_FILES` largest
        .csv and .txt files the content counts, too, up to `LABEL_BYTES` each: a corrected label
        is often as long as the wrong one, and some programs keep a file's time.
        """
        state = [(name, status.st_size, status.st_mtime_ns) for name, status in self.files.items()]
        digest = hashlib.sha256(repr(state).encode("utf-8", "surrogatepass"))
        tables = [
            (size, name)
            for name, size, _ in state
            if name.lower().endswith((".csv", ".txt")) and size <= LABEL_BYTES
        ]
        for size, name in sorted(tables)[-LABEL_FILES:]:
            with contextlib.suppress(OSError), (self.folder / name).open("rb") as file:
                digest.update(file.read(size))
        return digest.hexdigest()[:16]

    @functools.cached_property
    def names(self) -> list[str]:
        """Names of all files, with ``/`` on every system: those on disk, then those in zips.

        Raises
        ------
        ValueError
            A zip is damaged, or a zip inside of a zip cannot be read.
        """
        packed = (self._list_zip(name, (self.folder / name).open("rb")) for name in self._zips)
        plain = [name for name in self.files if name not in self._zips]
        return plain + sorted(itertools.chain(*packed))

    def _list_zip(self, name: str, stream: IO[bytes]) -> list[str]:
        self._streams.enter_context(stream)
        try:
            archive = zipfile.ZipFile(stream)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            way = "download it again, or remove it"
            if any(VOLUME.search(other) for other in self.files):
                way = "join its volumes with 'zip -s 0'"
            elif isinstance(error, UnicodeDecodeError):
                way = "unpack it, as a name in it is not UTF-8"
            raise ValueError(f"{self.folder / name} is not a whole zip ({error}): {way}") from None
        names = []
        for info in archive.infolist():
            inside = info.filename.replace("\\", "/")
            # A damaged zip may hold a file without a name.
            if not inside or inside.endswith("/") or is_hidden(inside):
                continue
            full = f"{name}/{inside}"
            is_zip = inside.rsplit("/", 1)[-1] in self.inner
            if reason := self._why_left_out(full, info, is_zip and name in self._packed):
                self.skipped.append((full[:MAX_NAME], reason))
                continue
            self._room -= info.file_size
            self._packed[full] = archive, info
            if is_zip:
                names += self._list_zip(full, self._spool(full, info.file_size))
            else:
                names.append(full)
        return names

    def _why_left_out(self, name: str, info: zipfile.ZipInfo, is_too_deep: bool) -> str:
        """Return the reason why a file in a zip is not read, or "" if it is."""
        if len(name) > MAX_NAME:
            return LONG_NAME
        if name in self._packed:
            return "a second file of this name"
        if is_too_deep:
            return "a zip in a zip in a zip: unpack it by hand"
        if info.compress_type not in METHODS:
            return "packed neither as stored nor as deflated: unpack it by hand"
        if info.file_size > self._room:
            return f"the zips unpack to more than {MAX_RATIO} times their size: unpack them by hand"
        return ""

    def _spool(self, name: str, size: int) -> IO[bytes]:
        """Copy a zip out of a zip: into memory, or above 1 MB into a nameless file."""
        if size > MAX_INNER_BYTES:
            raise ValueError(f"{self.folder / name} holds {size} bytes: unpack it by hand")
        copy = tempfile.SpooledTemporaryFile(max_size=1 << 20)  # noqa: SIM115
        try:
            with self.open(name) as stream:
                shutil.copyfileobj(stream, copy, PIECE)
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
            # In pieces, since in one step zipfile unpacks more than the size that a file states.
            return b"".join(iter(lambda: stream.read(PIECE), b""))


def drop_copies(source: Source, names: Sequence[str], keys: Sequence) -> tuple[list[str], Skipped]:
    """Leave out copies of files, such as a zip beside what was unpacked from it.

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


def _chunks(source: Source, names: Sequence[str]) -> list[list[str]]:
    """Return the names in groups of at most `CHUNK` files and, if several, `CHUNK_BYTES`."""
    chunks, room = [], 0
    for name in names:
        room -= source.size(name)
        if not chunks or room < 0 or len(chunks[-1]) == CHUNK:
            chunks.append([])
            room = CHUNK_BYTES - source.size(name)
        chunks[-1].append(name)
    return chunks


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

    batches = _chunks(source, names)
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
