"""Small made-up data sets in every layout, as trees: file name -> content."""

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from fer_helpers.datasets import Faces
from fer_helpers.datasets.sample import draw_block
from fer_helpers.datasets.utkface import in_validation
from fer_helpers.labels import BLOCKS, TASKS

FER_FOLDERS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


FER_NAMES = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")


UTK_FILES = (
    "1_0_0_20161219140623097.jpg.chip.jpg",
    "19_1_1_20170116174525125.jpg.chip.jpg",
    "20_0_2_20170109142408075.jpg.chip.jpg",
    "69_1_3_20170109150557335.jpg.chip.jpg",
    "116_0_4_20170110150557335 .jpg.chip.jpg",
    "39_1_20170116174525125.jpg.chip.jpg",
)


def picture(seed: int, side: int = 48, kind: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def png_claiming(side: int) -> bytes:
    """A small PNG whose header says that it is of this side."""
    data = bytearray(picture(0, kind="PNG"))
    data[16:24] = side.to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


def write(folder: Path, tree: dict[str, bytes | str]) -> Path:
    for name, content in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def zipped(tree: dict[str, bytes | str], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in tree.items():
            archive.writestr(name, content)
    return stream.getvalue()


def fer_tree() -> dict[str, bytes]:
    tree = {}
    for place, folder in enumerate(FER_FOLDERS):
        tree[f"train/{folder}/Training_{place}.jpg"] = picture(place)
        tree[f"test/{folder}/PublicTest_{place}.jpg"] = picture(10 + place)
        tree[f"test/{folder}/PrivateTest_{place}.jpg"] = picture(20 + place)
    return tree


def fer_pixels(seed: int = 0) -> str:
    return " ".join(map(str, np.random.default_rng(seed).integers(0, 256, 2304)))


def fer_csv(spaces: bool = False) -> str:
    gap = " " if spaces else ""
    splits = ("PrivateTest", "Training", "PublicTest")
    if spaces:
        rows = [f"{code},{splits[code % 3]},{fer_pixels(code)}" for code in range(7)]
        return "\n".join([f"emotion,{gap}Usage,{gap}pixels", *rows, ""])
    rows = [f"{code},{fer_pixels(code)},{splits[code % 3]}" for code in range(7)]
    return "\n".join(["emotion,pixels,Usage", *rows, ""])


def raf_attributes(gender: object, race: object, age: object) -> str:
    return "".join(f"{x}.5\t{x}\n" for x in range(5)) + f"{gender}\n{race}\n{age}\n"


RAF_LABELS = {f"train_{i:05d}": i for i in range(1, 8)} | {"test_0001": 4}


RAF_ATTRIBUTES = {stem: (i % 3, (i + 1) % 3, i % 5) for i, stem in enumerate(RAF_LABELS, start=1)}


def raf_contents() -> tuple[str, dict[str, bytes], dict[str, str]]:
    lines = "".join(f"{stem}.jpg {label}\n" for stem, label in RAF_LABELS.items())
    images = {f"{stem}_aligned.jpg": picture(i, 100) for i, stem in enumerate(RAF_LABELS)}
    attributes = {
        f"{stem}_manu_attri.txt": raf_attributes(*codes) for stem, codes in RAF_ATTRIBUTES.items()
    }
    return lines, images, attributes


def raf_tree(packed: bool) -> dict[str, bytes | str]:
    lines, images, attributes = raf_contents()
    tree: dict[str, bytes | str] = {"basic/EmoLabel/list_patition_label.txt": lines}
    if packed:
        tree["basic/Image/aligned.zip"] = zipped({f"aligned/{n}": c for n, c in images.items()})
        tree["basic/Annotation/manual.zip"] = zipped(
            {f"manual/{n}": c for n, c in attributes.items()}
        )
        tree["basic/Image/original.zip"] = b"large, never opened inside a zip"
    else:
        tree |= {f"basic/Image/aligned/{n}": c for n, c in images.items()}
        tree |= {f"basic/Annotation/manual/{n}": c for n, c in attributes.items()}
    return tree


def same(a: Faces, b: Faces) -> None:
    """Assert that two readings gave the same faces in the same order."""
    assert len(a) == len(b) > 0
    np.testing.assert_array_equal(a.images, b.images)
    np.testing.assert_array_equal(a.labels, b.labels)
    assert a.splits.tolist() == b.splits.tolist()


UTK_YEARS = (2, 12, 30, 55, 75)  # one for each age class


def drawn_faces(side: int, each: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Drawn faces (N, side, side, 1) and label rows, sorted by emotion, as many of each."""
    blocks = [draw_block(index, side, seed=9) for index in range(2)]
    images, labels = (np.concatenate(parts) for parts in list(zip(*blocks, strict=True))[:2])
    places = [np.flatnonzero(labels[:, emotion])[:each] for emotion in range(7)]
    chosen = np.concatenate(places)
    assert labels[chosen].any(axis=0).all(), "each class of each task has a face"
    return images[chosen], labels[chosen]


def jpeg(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image[..., 0]).save(stream, "JPEG", quality=92)
    return stream.getvalue()


def _class_of(row: np.ndarray, task: str) -> int:
    return int(row[BLOCKS[task]].argmax())


def drawn_fer() -> dict[str, bytes]:
    """FER2013's folders, with drawn faces: sorted by class, as they are read."""
    tree = {}
    for place, (image, row) in enumerate(zip(*drawn_faces(48), strict=True)):
        name = TASKS["emotion"][_class_of(row, "emotion")]
        split = ("Training", "PublicTest", "Training", "PrivateTest", "Training")[place % 5]
        top = "train" if split == "Training" else "test"
        tree[f"{top}/{FER_FOLDERS[FER_NAMES.index(name)]}/{split}_{place}.jpg"] = jpeg(image)
    return tree


def drawn_utkface() -> dict[str, bytes]:
    """UTKFace's names, with drawn faces: sorted by age; a fifth has a race without a class."""
    tree, minute = {}, 201701010000
    for place, (image, row) in enumerate(zip(*drawn_faces(200), strict=True)):
        gender, race = _class_of(row, "gender"), _class_of(row, "race")
        minute += 1
        while in_validation(str(minute)) != (place % 6 == 0):
            minute += 1
        years = UTK_YEARS[_class_of(row, "age")] + place % 3 - 1
        race = 3 + place % 2 if place % 5 == 4 else race
        tree[f"{years}_{min(gender, 1)}_{race}_{minute}12345.jpg.chip.jpg"] = jpeg(image)
    return tree


def drawn_rafdb() -> dict[str, bytes | str]:
    """RAF-DB's official folders, with drawn faces: sorted by class, with all attributes."""
    tree: dict[str, bytes | str] = {}
    lines = ""
    for place, (image, row) in enumerate(zip(*drawn_faces(100), strict=True), start=1):
        stem = f"{'test' if place % 5 == 0 else 'train'}_{place:05d}"
        lines += f"{stem}.jpg {_class_of(row, 'emotion') + 1}\n"
        codes = (_class_of(row, task) for task in ("gender", "race", "age"))
        tree[f"basic/Image/aligned/{stem}_aligned.jpg"] = jpeg(image)
        tree[f"basic/Annotation/manual/{stem}_manu_attri.txt"] = raf_attributes(*codes)
    return tree | {"basic/EmoLabel/list_patition_label.txt": lines}


def drawn_folder() -> dict[str, bytes]:
    """Anyone's folder with a folder per class and no splits, with drawn faces."""
    return {
        f"{TASKS['emotion'][_class_of(row, 'emotion')]}/face {place}.jpg": jpeg(image)
        for place, (image, row) in enumerate(zip(*drawn_faces(120), strict=True))
    }
