"""Damage every kind of file that is read from folders and zips, at random.

``python tests/fuzz_readers.py 100000`` reads so many damaged data sets and folders of photos. A
reader may return faces or raise a ValueError or FileNotFoundError; anything else is a fault. So
are a file that is neither read nor skipped nor ignored, a name that the cache changes, a file
written outside, and a case that takes more than 20 seconds or 1 GB of memory.
"""

import contextlib
import io
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path
from unittest.mock import patch

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from fer_helpers import photos
from fer_helpers.datasets import fer2013, folder, rafdb, utkface
from fer_helpers.datasets.cache import cached
from fer_helpers.datasets.faces import Faces
from fer_helpers.datasets.load import _name_unread
from fer_helpers.datasets.source import MAX_NAME, Source, is_hidden
from fer_helpers.images import may_be_image
from fer_helpers.labels import TASKS

SECONDS = 20
ROUND = 2000  # cases; Hypothesis keeps all of a round in memory


def picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    grey = np.random.default_rng(0).integers(0, 256, (12, 12), dtype=np.uint8)
    Image.fromarray(grey).save(buffer, kind)
    return buffer.getvalue()


PICTURES = {kind: picture(kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")}
ROW = "3,Training," + " ".join(["128"] * 48 * 48)
CSV = "\n".join(["emotion,Usage,pixels", ROW, ROW.replace("Training", "PublicTest")]).encode()
ATTRIBUTES = b"10\t10\n20\t10\n15\t15\n11\t20\n19\t20\n1\n0\n2\n"

# Whole data sets, small: file name -> content.
FER_CSV = {"fer2013.csv": CSV}
FER = {
    "train/happy/Training_1.jpg": PICTURES["JPEG"],
    "test/sad/PublicTest_2.jpg": PICTURES["PNG"],
    "test/fear/PrivateTest_3.png": PICTURES["GIF"],
}
RAF = {
    "basic/EmoLabel/list_patition_label.txt": b"train_00001.jpg 5\ntest_0001.jpg 4\n",
    "basic/Image/aligned/train_00001_aligned.jpg": PICTURES["JPEG"],
    "basic/Image/aligned/test_0001_aligned.jpg": PICTURES["WEBP"],
    "basic/Annotation/manual/train_00001_manu_attri.txt": ATTRIBUTES,
    "basic/Annotation/manual/test_0001_manu_attri.txt": ATTRIBUTES,
}
KAGGLE_RAF = {
    "DATASET/train/5/train_00001_aligned.jpg": PICTURES["BMP"],
    "DATASET/test/4/test_0001_aligned.jpg": PICTURES["TIFF"],
    "train_labels.csv": b"image,label\ntrain_00001_aligned.jpg,5\n",
}
UTKFACE = {
    "UTKFace/26_0_1_20170116174525125.jpg.chip.jpg": PICTURES["JPEG"],
    "UTKFace/61_1_20170109142408075.jpg.chip.jpg": PICTURES["PPM"],
}
FOLDERS = {
    "happy/1.jpg": PICTURES["JPEG"],
    "train/angry/2.png": PICTURES["PNG"],
    "test/sad/3.gif": PICTURES["GIF"],
    "test/sad/notes.txt": b"not a picture",
}
TABLE = {
    "faces/1.jpg": PICTURES["JPEG"],
    "faces/2.png": PICTURES["PNG"],
    "faces/metadata.csv": b"file_name,emotion,age,person\n1.jpg,happy,30,Ada\n2.png,,20-39,\n",
}
PHOTOS = {f"a/{kind}.{kind}": content for kind, content in PICTURES.items()}
# A reader, or None for `predict_crops`, and what it reads.
SETS = [
    *((fer2013, FER_CSV), (fer2013, FER), (rafdb, RAF), (rafdb, KAGGLE_RAF), (utkface, UTKFACE)),
    *((folder, FOLDERS), (folder, TABLE), (None, PHOTOS)),
]

# What stands for a file that is none; in a zip they are these words.
NO_FILES = {
    b"<pipe>": os.mkfifo,
    b"<endless>": lambda path: path.symlink_to("/dev/zero"),
    b"<to itself>": lambda path: path.symlink_to(path.name),
    b"<to nothing>": lambda path: path.symlink_to("nothing"),
    b"<circle>": lambda path: path.symlink_to("."),
}
HOSTILE_NAMES = [
    *("happy/\r.jpg", "a\rb.jpg", "sad/\udcff.png", "metadata.csv", "sad/\x1b[31m.jpg", "=1+1.jpg"),
    *("happy/" + "long/" * 120 + "1.jpg", "test/sad/PublicTest_4\r\n.jpg", "happy/\u2028.png"),
    *("../../outside.jpg", "/etc/passwd.jpg", "a" * 300 + ".jpg", "..\\..\\outside.jpg"),
    *("train/unknown/Training_9.jpg", "999_9_9_20170116174525125.jpg", ".hidden.jpg", "x\n.jpg"),
    *("test/5/train_00002_aligned.jpg", "inner.zip", "fer2013.csv", "manual.zip", "\ud800.jpg"),
]
NAMES = st.one_of(st.sampled_from(HOSTILE_NAMES), st.text(min_size=1, max_size=40))
BYTES = st.one_of(
    st.binary(max_size=64), st.sampled_from([*PICTURES.values(), *NO_FILES, CSV[:400]])
)
# (which file, what to do, where in it, with what)
DAMAGE = st.tuples(
    st.integers(0, 9),
    st.sampled_from(["cut", "flip", "insert", "replace", "rename", "add", "remove"]),
    st.floats(0, 1),
    BYTES,
    NAMES,
)
CASES = {
    "which": st.integers(0, len(SETS) - 1),
    "damages": st.lists(DAMAGE, min_size=1, max_size=4),
    "packed": st.booleans(),
    "zip_damages": st.lists(DAMAGE, max_size=2),
}


def damaged(content: bytes, what: str, where: float, new: bytes) -> bytes:
    place = int(where * len(content))
    match what:
        case "cut":
            return content[:place]
        case "flip":
            size = max(len(new), 1)
            return (
                content[:place]
                + bytes(b ^ 255 for b in content[place:][:size])
                + content[place + size :]
            )
        case "insert":
            return content[:place] + new + content[place:]
        case "replace":
            return content[:place] + new + content[place + len(new) :]
    return content


def damage_files(tree: dict[str, bytes], damages: list) -> dict[str, bytes]:
    tree = dict(tree)
    for number, what, where, new, name in damages:
        chosen = sorted(tree)[number % len(tree)] if tree else name
        match what:
            case "add":
                tree[name] = new
            case "remove":
                tree.pop(chosen, None)
            case "rename":
                tree[name] = tree.pop(chosen, new)
            case _:
                tree[chosen] = damaged(tree.get(chosen, b""), what, where, new)
    return tree


def write(tree: dict[str, bytes], folder: Path) -> None:
    for name, content in tree.items():
        path = folder / name
        # Only a zip can hold names that a file system refuses or that lead outside.
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            if path.resolve().is_relative_to(folder.resolve()):
                path.parent.mkdir(parents=True, exist_ok=True)
                NO_FILES.get(content, lambda path, content=content: path.write_bytes(content))(path)


def pack(tree: dict[str, bytes], damages: list) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in tree.items():
            with contextlib.suppress(ValueError, IndexError):  # an empty name
                archive.writestr(name.encode("utf-8", "replace").decode(), content)
    content = buffer.getvalue()
    for _, what, where, new, _ in damages:
        content = damaged(content, what, where, new)
    return content


def names_below(folder: Path) -> set[str]:
    """Return the names of all files in a folder and, if they can be opened, in its zips."""
    names = set()
    for here, _, files in os.walk(folder):
        for path in (Path(here, file) for file in files):
            name = path.relative_to(folder).as_posix()
            if path.suffix.lower() != ".zip" or not path.is_file():
                names.add(name)
                continue
            with contextlib.suppress(zipfile.BadZipFile, ValueError, NotImplementedError):
                inside = [item.filename.replace("\\", "/") for item in _entries(path)]
                names |= {f"{name}/{file}" for file in inside if file and not file.endswith("/")}
    return names


def _entries(path: Path) -> list[zipfile.ZipInfo]:
    with zipfile.ZipFile(path) as archive:
        return archive.infolist()


def check_faces(faces: Faces, source: Source, place: Path) -> None:
    """Check that each file was read, skipped or ignored, and that the cache gives all back."""
    assert faces.images.shape[1:] == (16, 16, 1)
    listed = [*faces.paths, *(name for name, _ in (*faces.skipped, *faces.ignored))]
    named = {name for path in listed for name in (str(path), str(path).rsplit(":", 1)[0])}
    named |= {name for name in source.opened if not may_be_image(name)}  # labels
    # Zips inside of zips are read, but not named; of a picture of RAF-DB's only its stem is.
    seen = {name for name in names_below(place) if not is_hidden(name)}
    lost = {name for name in seen - named if name[:MAX_NAME] not in named}
    assert not {name for name in lost if name not in source._packed}, lost
    words = [*faces.paths.tolist(), *faces.splits.tolist(), *sum(faces.skipped, ())]
    if not "".join(words).isprintable():
        with tempfile.TemporaryDirectory() as where:
            kept = cached(Path(where), "FUZZ", "files", "code", lambda: faces)
        back = [*kept.paths.tolist(), *kept.splits.tolist(), *sum(kept.skipped, ())]
        assert back == words


def predict_folder(place: Path) -> str:
    """Predict a folder with a network that knows nothing, and count its files."""
    said = []

    def predict(_, images, __):
        return {task: np.full((len(images), len(names)), 0.5) for task, names in TASKS.items()}

    try:
        with patch.multiple(photos, note=said.append, predict=predict):
            errors = photos.predict_crops(None, place)["error"].tolist()
    except ValueError as error:
        errors, said = [], [str(error)]
    usual = [n for n in names_on_disk(place) if re.search(r"(^|/)(\._[^/]*|\.DS_Store)$", n)]
    ignored = sum(
        int(count) for text in said for count in re.findall(r"(\d+) files? ignored", text)
    )
    assert len(errors) + ignored + len(usual) == len(names_on_disk(place)), said
    return "photos, some skipped" if any(errors) else "photos" if errors else "ValueError"


def names_on_disk(place: Path) -> list[str]:
    return [str(Path(here, name)) for here, _, files in os.walk(place) for name in files]


def read(which: int, damages: list, packed: bool, zip_damages: list, scratch: Path) -> str:
    """Read one damaged data set and return what came of it, in a word."""
    reader, tree = SETS[which]
    place = scratch / "case"
    place.mkdir()
    try:
        tree = damage_files(tree, damages)
        if packed and reader:
            (place / "archive.zip").write_bytes(pack(tree, zip_damages))
        else:
            write(tree, place)
        signal.alarm(SECONDS)
        if not reader:
            return predict_folder(place)
        with Source(place, reader.INNER) as source:
            faces = reader.read(source, 16)
            _name_unread(source, faces)
            check_faces(faces, source, place)
        return "faces" if not faces.skipped else "faces, some skipped"
    except (ValueError, FileNotFoundError) as error:
        return type(error).__name__
    finally:
        signal.alarm(0)
        shutil.rmtree(place)
        assert set(scratch.iterdir()) == set(), "something was written outside"


class TooSlowError(BaseException):
    """No Exception, as readers skip an image that raises one."""


def too_slow(*_) -> None:
    raise TooSlowError(f"a case took more than {SECONDS} seconds")


def peak_memory() -> float:
    """Return the most memory in MB that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(count: int, scratch: Path) -> Counter:
    """Read `count` damaged data sets and return how often each outcome came."""
    outcomes = Counter()
    signal.signal(signal.SIGALRM, too_slow)

    for start in range(0, count, ROUND):

        @seed(start)
        @settings(
            max_examples=min(ROUND, count - start),
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(**CASES)
        def case(**words):
            outcomes[read(**words, scratch=scratch)] += 1

        case()
    return outcomes


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        began, loaded = time.monotonic(), peak_memory()
        for outcome, times in run(int(sys.argv[1]), Path(name)).most_common():
            print(f"{outcome:<24}{times}")
    print(f"{time.monotonic() - began:.0f} s, peak {peak_memory():.0f} MB", end=", ")
    print(f"of which {loaded:.0f} MB before the first case")
    sys.exit(peak_memory() > 1024)
