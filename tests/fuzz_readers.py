"""Damage every kind of file that the readers read, at random.

``python tests/fuzz_readers.py 100000`` reads so many damaged data sets. A reader may return faces
or raise a ValueError or FileNotFoundError; anything else is a fault, and so is a case that takes
more than 20 seconds or 2 GB of memory.
"""

import contextlib
import io
import resource
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_helpers.datasets import fer2013, rafdb, utkface
from fer_helpers.datasets.faces import Faces
from fer_helpers.datasets.source import Source

SECONDS = 20


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
SETS = [(fer2013, FER_CSV), (fer2013, FER), (rafdb, RAF), (rafdb, KAGGLE_RAF), (utkface, UTKFACE)]

HOSTILE_NAMES = [
    *("../../outside.jpg", "/etc/passwd.jpg", "a" * 300 + ".jpg", "..\\..\\outside.jpg"),
    *("train/unknown/Training_9.jpg", "999_9_9_20170116174525125.jpg", ".hidden.jpg", "x\n.jpg"),
    *("test/5/train_00002_aligned.jpg", "inner.zip", "fer2013.csv", "manual.zip", "\ud800.jpg"),
]
NAMES = st.one_of(st.sampled_from(HOSTILE_NAMES), st.text(min_size=1, max_size=40))
BYTES = st.one_of(st.binary(max_size=64), st.sampled_from([*PICTURES.values(), CSV[:400], b"\0"]))
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
        with contextlib.suppress(OSError, ValueError):
            if path.resolve().is_relative_to(folder.resolve()):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)


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


def read(which: int, damages: list, packed: bool, zip_damages: list, scratch: Path) -> str:
    """Read one damaged data set and return what came of it, in a word."""
    reader, tree = SETS[which]
    folder = scratch / "case"
    folder.mkdir()
    try:
        tree = damage_files(tree, damages)
        if packed:
            (folder / "archive.zip").write_bytes(pack(tree, zip_damages))
        else:
            write(tree, folder)
        signal.alarm(SECONDS)
        with Source(folder, reader.INNER) as source:
            faces = reader.read(source, 16)
        assert isinstance(faces, Faces)
        assert faces.images.shape[1:] == (16, 16, 1)
        return "faces" if not faces.skipped else "faces, some skipped"
    except (ValueError, FileNotFoundError) as error:
        return type(error).__name__
    finally:
        signal.alarm(0)
        shutil.rmtree(folder)
        assert set(scratch.iterdir()) == set(), "something was written outside"


class TooSlowError(BaseException):
    """No Exception, as readers skip an image that raises one."""


def too_slow(*_) -> None:
    raise TooSlowError(f"a case took more than {SECONDS} seconds")


def run(count: int, scratch: Path) -> Counter:
    """Read `count` damaged data sets and return how often each outcome came."""
    outcomes = Counter()
    signal.signal(signal.SIGALRM, too_slow)

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
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
        began = time.monotonic()
        for outcome, times in run(int(sys.argv[1]), Path(name)).most_common():
            print(f"{outcome:<24}{times}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{time.monotonic() - began:.0f} s, peak {peak:.0f} MB")
    sys.exit(peak > 2048)
