"""What every reader shares: faces, folders and zips, decoding in parallel, and the cache."""

import contextlib
import functools
import hashlib
import io
import itertools
import os
import shutil
import sys
import tempfile
import time
import uuid
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from PIL import Image, ImageOps
from tqdm import tqdm

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
ARCHIVE_SUFFIXES = (".tar", ".gz", ".tgz", ".rar", ".7z")  # named in errors: to be unpacked by hand
MAX_BYTES = 64 << 20  # no face photo is larger; a zip entry that says so is not read
MAX_INNER_BYTES = 4 << 30
CHUNK = 128  # images that travel together to a worker process
SERIAL_BELOW = 4  # chunks; starting the workers costs about what decoding four of them does

# How the reason begins that may be another one tomorrow: a disk or a permission, not the file.
FOR_NOW = "cannot be read now"

# What reading a file can raise: a lost disk, a zip's bad checksum, its password or method.
READ_ERRORS = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)

Box = tuple[float, float, float, float]
Skipped = list[tuple[str, str]]


@dataclass
class Faces:
    """Faces of one data set, with their labels.

    Attributes
    ----------
    images
        uint8 (N, S, S, 1); may be a read-only memory map.
    labels
        float32 (N, 18), the rows of `fer_helpers.labels`.
    paths
        (N,) str, the name of each face inside its source.
    parts
        (N,) str, the part of the data set each face belongs to.
    skipped
        Pairs (path, reason), one for each file or row that could not be used.
    notes
        What else the reader has to say, a sentence each.

    Raises
    ------
    ValueError
        Images, labels, paths and parts of different length.
    """

    images: np.ndarray
    labels: np.ndarray
    paths: np.ndarray
    parts: np.ndarray
    skipped: Skipped = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        lengths = {
            name: len(getattr(self, name)) for name in ("images", "labels", "paths", "parts")
        }
        if len(set(lengths.values())) != 1:
            raise ValueError(f"a data set's arrays differ in length: {lengths}")

    def __len__(self) -> int:
        return len(self.images)


@functools.cache
def note(text: str) -> None:
    """Tell the reader of the screen something, once in a session."""
    print(text, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------- folders and zips


def data_folder(data_dir: str | Path | None = None) -> Path:
    """Where data sets are: `data_dir`, else FER_DATA_DIR, else the project's ``data``.

    The project's is the nearest ``data`` folder, from the current folder upwards, that has
    a pyproject.toml or README.md beside it; failing that, ``data`` in the current folder.
    """
    if data_dir := data_dir or os.environ.get("FER_DATA_DIR"):
        return Path(data_dir).expanduser().absolute()
    here = Path.cwd()
    for folder in (here, *here.parents):
        beside = any((folder / name).exists() for name in ("pyproject.toml", "README.md"))
        if beside and (folder / "data").is_dir():
            return folder / "data"
    return here / "data"


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder on the way to it, is what systems hide; ``/`` between names."""
    return any(part == "__MACOSX" or part.startswith(".") for part in name.split("/"))


def walk(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Each file below a folder: its name from there, with ``/``, and its status.

    Links to folders are followed, each folder once.
    """
    seen, todo = set(), [""]
    while todo:
        prefix = todo.pop()
        here = os.stat(folder / prefix)
        if here.st_ino and (here.st_dev, here.st_ino) in seen:  # some drives number nothing
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
    """The files of a folder, those in zips too: a zip reads like a folder of its name.

    Nothing is unpacked onto the disk. Names have ``/`` on every system, and are sorted,
    unpacked files first. Use it in a ``with``, which closes the zips.

    Parameters
    ----------
    folder
        Where to look. A folder that does not exist holds no files.
    inner
        Names of zips to open inside of other zips.
    """

    def __init__(self, folder: Path, inner: Sequence[str] = ()) -> None:
        self.folder, self.inner = folder, inner
        self.files = dict(sorted(walk(folder))) if folder.is_dir() else {}
        self._packed: dict[str, tuple[zipfile.ZipFile, zipfile.ZipInfo]] = {}
        self._streams = contextlib.ExitStack()

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        self._streams.close()

    @property
    def fingerprint(self) -> str:
        """Changes when a file is added, removed, renamed, or written to."""
        state = [(name, status.st_size, status.st_mtime_ns) for name, status in self.files.items()]
        return hashlib.sha256(repr(state).encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @functools.cached_property
    def names(self) -> list[str]:
        """Every file's name. ValueError names a zip that is broken."""
        zips = [name for name in self.files if name.lower().endswith(".zip")]
        packed = (self._list_zip(name, (self.folder / name).open("rb")) for name in zips)
        return [name for name in self.files if name not in zips] + sorted(itertools.chain(*packed))

    def _list_zip(self, name: str, stream: IO[bytes]) -> list[str]:
        self._streams.enter_context(stream)
        try:
            archive = zipfile.ZipFile(stream)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise ValueError(
                f"{self.folder / name} is not a whole zip ({error}): download it again, "
                "or remove it"
            ) from None
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
        """A zip in a zip, in memory, or from 256 MB in a nameless temporary file."""
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
        """Bytes in a file, once unpacked."""
        return self._packed[name][1].file_size if name in self._packed else self.files[name].st_size

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading its bytes."""
        if name in self._packed:
            archive, info = self._packed[name]
            return archive.open(info)
        return (self.folder / name).open("rb")

    def read(self, name: str) -> bytes:
        """All bytes of a file. ValueError where it is larger than any photo."""
        if (size := self.size(name)) > MAX_BYTES:
            raise ValueError(f"{size} bytes is too large")
        with self.open(name) as stream:
            return stream.read()


# ---------------------------------------------------------------------------- decoding


def in_parallel(
    function: Callable, jobs: Iterable[tuple], total: int, label: str, serial_below: int
) -> Iterator:
    """Results of ``function(*job)`` in order, on all cores, under a progress bar.

    Below `serial_below` jobs the work is done here. The bar shows after two seconds.
    """
    if total < serial_below:
        results = itertools.starmap(function, jobs)
    else:
        parallel = Parallel(n_jobs=-1, return_as="generator", batch_size=1)
        results = parallel(delayed(function)(*job) for job in jobs)
    return iter(tqdm(results, desc=label, total=total, delay=2, mininterval=0.5, leave=False))


def why_unread(error: Exception) -> str:
    """The reason to list for a file that gave one of `READ_ERRORS`."""
    # A damaged entry of a zip gives an OSError too, but one that no system has numbered.
    for_now = isinstance(error, OSError) and error.errno
    return f"{FOR_NOW if for_now else 'cannot be read'} ({error})"


def eight_bit(image: Image.Image) -> Image.Image:
    """Grey of 16 bits brought to 8, what is transparent put on white; others as they are.

    ValueError where nobody can say how bright the pixels are meant to be.
    """
    if image.mode == "F":
        raise ValueError("pixels with a decimal point: save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        pixels = np.asarray(image)
        if image.mode == "I" and pixels.max() <= 255:
            raise ValueError("32 bits a pixel, but none above 255: save it with 8 bits")
        # Pillow's own conversion cuts off what is above 255.
        return Image.fromarray((pixels.clip(0, 65535) // 257).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image


def upright(image: Image.Image) -> None:
    """Turn a picture as its EXIF says, in place."""
    image.getexif()  # stays known to it, while
    image.info.pop("exif", None)  # what Pillow cannot write back would cost the picture
    ImageOps.exif_transpose(image, in_place=True)


def fit(image: Image.Image, image_size: int, box: Box | None = None) -> np.ndarray:
    """Grey, cut to `box` and resized without aliasing: uint8 (S, S, 1).

    `box` is (left, top, right, bottom) in fractions of the picture. Where it reaches
    beyond the edge, the picture goes on as its mirror image.
    """
    if image.mode != "L":
        image = eight_bit(image).convert("L")
    width, height = image.size
    if box:
        left, top, right, bottom = np.array(box) * (width, height, width, height)
        over = np.ceil(np.maximum(0, (-left, -top, right - width, bottom - height))).astype(int)
        if over.any():
            pad = ((over[1], over[3]), (over[0], over[2]))
            image = Image.fromarray(np.pad(np.asarray(image), pad, mode="symmetric"))
        box = (left + over[0], top + over[1], right + over[0], bottom + over[1])
    side = (image_size, image_size)
    return np.asarray(image.resize(side, Image.Resampling.BILINEAR, box=box))[..., None]


def decode(
    batch: list[bytes | str], image_size: int, box: Box | None = None
) -> list[np.ndarray | str]:
    """One image, or the reason why there is none, for each file's bytes or reason."""
    results = []
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", "Corrupt EXIF data")
        for data in batch:
            if isinstance(data, bytes):
                try:
                    with Image.open(io.BytesIO(data)) as image:
                        image.draft("L", image.size)  # a JPEG need not decode its colours
                        upright(image)
                        data = fit(image, image_size, box)
                except Image.UnidentifiedImageError:
                    data = "not an image" if data else "an empty file"
                except Exception as error:  # Pillow raises many kinds; one bad file is no end
                    data = str(error) or type(error).__name__
            results.append(data)
    return results


def decode_images(
    source: Source,
    names: Sequence[str],
    image_size: int,
    box: Box | None = None,
    label: str = "",
) -> tuple[np.ndarray, np.ndarray, Skipped]:
    """Decode files of a source in parallel.

    Parameters
    ----------
    source, names
        Which files.
    image_size, box
        As in `fit`.
    label
        What stands before the progress bar.

    Returns
    -------
    images
        uint8 (K, S, S, 1), those that could be read.
    kept
        int64 (K,), the place of each in `names`.
    skipped
        Name and reason of the others.

    Raises
    ------
    ValueError
        Not one could be read.
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
    for place, result in enumerate(itertools.chain.from_iterable(results)):
        if isinstance(result, str):
            skipped.append((names[place], result))
        else:
            images[len(kept)] = result
            kept.append(place)
    if not kept:
        first = "; first " + ": ".join(skipped[0]) if skipped else ""
        raise ValueError(f"{source.folder}: none of {len(names)} images could be read{first}")
    return images[: len(kept)], np.array(kept), skipped


# ---------------------------------------------------------------------------- cache


def _save(faces: Faces, folder: Path) -> None:
    if isinstance(faces.images, np.memmap):
        faces.images.flush()
    else:
        np.save(folder / "images.npy", faces.images)
    np.save(folder / "labels.npy", faces.labels)
    for name, table in {
        "index": pd.DataFrame({"path": faces.paths, "part": faces.parts}),
        "skipped": pd.DataFrame(faces.skipped, columns=["path", "reason"]),
        "notes": pd.DataFrame({"note": faces.notes}),
    }.items():
        table.to_csv(folder / f"{name}.csv", index=False, errors="surrogateescape")


def _load(folder: Path) -> Faces | None:
    """The cached faces, or None where there are none that can be read."""

    def table(name: str) -> pd.DataFrame:
        return pd.read_csv(
            folder / f"{name}.csv",
            dtype=object,
            keep_default_na=False,
            encoding_errors="surrogateescape",
        )

    try:
        index = table("index")
        return Faces(
            images=np.load(folder / "images.npy", mmap_mode="r"),
            labels=np.load(folder / "labels.npy"),
            paths=index["path"].to_numpy(dtype=str),
            parts=index["part"].to_numpy(dtype=str),
            skipped=list(table("skipped").itertuples(index=False, name=None)),
            notes=table("notes")["note"].tolist(),
        )
    except (KeyError, *READ_ERRORS):
        return None


def cached(folder: Path, name: str, fingerprint: str, build: Callable[[Callable], Faces]) -> Faces:
    """Faces from the cache, or built and put there.

    Written beside and moved into place whole, so that two processes may build the same
    cache at once and no one reads half of one. Older caches of the name are removed.
    Where nothing can be written, or a file could not be read that may be readable tomorrow,
    the faces come without a cache, and a line says so.

    Parameters
    ----------
    folder
        The data folder; the cache is its ``.cache``.
    name, fingerprint
        Which faces, and of which state of their source.
    build
        Makes the faces. It is given a function from a shape to an empty uint8 array for
        the images: on disk where it can be, so that they need not fit into memory.
    """
    place = folder / ".cache" / f"{name}-{fingerprint}"
    if (faces := _load(place)) is not None:
        return faces
    scratch = place.with_name(f".{name}-{uuid.uuid4().hex}")
    uncached = f"{name}: read without a cache, as"
    unwritten = f"{uncached} {place.parent} cannot be written"
    try:
        scratch.mkdir(parents=True)
    except OSError as error:
        note(f"{unwritten} ({error.strerror})")
        return build(in_memory)

    no_room = []

    def place_for(shape: tuple[int, ...]) -> np.ndarray:
        try:
            return _on_disk(scratch / "images.npy", shape)
        except OSError as error:
            no_room.append(error)
            note(f"{unwritten} ({error})")
            return in_memory(shape)

    try:
        faces = build(place_for)
        unread = [path for path, reason in faces.skipped if reason.startswith(FOR_NOW)]
        if unread:
            note(f"{uncached} {unread[0]} could not be read now: slow until it can")
        if unread or no_room:
            return _held(faces)
        try:
            _save(faces, scratch)
        except OSError as error:
            note(f"{unwritten} ({error.strerror})")
            return _held(faces)
        faces = None  # closes its memory map: Windows does not move a folder in use
        _move(scratch, place)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _remove_stale(place, name)
    if (faces := _load(place)) is None:
        raise OSError(f"{place} was written but cannot be read back: remove it and try again")
    return faces


def _held(faces: Faces) -> Faces:
    """Faces that do not need the file their images are in."""
    if isinstance(faces.images, np.memmap):
        faces.images = np.array(faces.images)
    return faces


def in_memory(shape: tuple[int, ...]) -> np.ndarray:
    """An empty uint8 array."""
    return np.empty(shape, np.uint8)


def _on_disk(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """An empty uint8 array on disk. OSError where it does not fit: to run out later is fatal."""
    free = shutil.disk_usage(path.parent).free
    if np.prod(shape, dtype=np.int64) > free:
        raise OSError(f"{path.parent} has {free} bytes free, too few for images {shape}")
    return np.lib.format.open_memmap(path, "w+", np.uint8, shape)


def _move(scratch: Path, place: Path) -> None:
    for _ in range(2):
        try:
            return os.replace(scratch, place)
        except OSError:
            if _load(place) is not None:
                return None  # another process was first
            shutil.rmtree(place, ignore_errors=True)  # half a cache: someone deleted from it
    return None


def _remove_stale(place: Path, name: str) -> None:
    """Remove caches of other fingerprints, and what processes left that died a day ago."""
    for other in place.parent.glob(f"{name}-{'?' * 16}"):
        if other != place:
            shutil.rmtree(other, ignore_errors=True)
    for other in place.parent.glob(f".{name}-*"):
        with contextlib.suppress(OSError):  # its process may just have moved it
            if other.stat().st_mtime < time.time() - 86400:
                shutil.rmtree(other, ignore_errors=True)
