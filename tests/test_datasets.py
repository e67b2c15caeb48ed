"""Readers, zips and cache, on tiny made-up trees in every layout."""

import io
import os
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_helpers.datasets import (
    Faces,
    fer2013,
    files,
    find_datasets,
    load,
    load_data,
    rafdb,
    read_dataset,
    utkface,
)
from fer_helpers.labels import BLOCKS, TASKS, decode_labels, encode_labels

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


@pytest.fixture(autouse=True)
def _say_everything_again():
    files.note.cache_clear()


def picture(seed: int, side: int = 48, kind: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


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
    parts = ("PrivateTest", "Training", "PublicTest")
    if spaces:
        rows = [f"{code},{parts[code % 3]},{fer_pixels(code)}" for code in range(7)]
        return "\n".join([f"emotion,{gap}Usage,{gap}pixels", *rows, ""])
    rows = [f"{code},{fer_pixels(code)},{parts[code % 3]}" for code in range(7)]
    return "\n".join(["emotion,pixels,Usage", *rows, ""])


def raf_attributes(gender: object, race: object, age: object) -> str:
    return "".join(f"{x}.5\t{x}\n" for x in range(5)) + f"{gender}\n{race}\n{age}\n"


RAF_LABELS = {f"train_{i:05d}": i for i in range(1, 8)} | {"test_0001": 4}
RAF_ATTRIBUTES = {stem: (i % 3, (i + 1) % 3, i % 5) for i, stem in enumerate(RAF_LABELS, start=1)}


def raf_parts() -> tuple[str, dict[str, bytes], dict[str, str]]:
    lines = "".join(f"{stem}.jpg {label}\n" for stem, label in RAF_LABELS.items())
    images = {f"{stem}_aligned.jpg": picture(i, 100) for i, stem in enumerate(RAF_LABELS)}
    attributes = {
        f"{stem}_manu_attri.txt": raf_attributes(*codes) for stem, codes in RAF_ATTRIBUTES.items()
    }
    return lines, images, attributes


def raf_tree(packed: bool) -> dict[str, bytes | str]:
    lines, images, attributes = raf_parts()
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


def check_raf(faces: Faces, attributes: bool = True) -> None:
    assert len(faces) == 8
    assert faces.parts.tolist() == ["train"] * 7 + ["test"]
    named = decode_labels(faces.labels)
    for row, stem in enumerate(
        sorted(RAF_LABELS, key=lambda stem: (stem.startswith("test"), stem))
    ):
        assert stem in faces.paths[row]
        assert named["emotion"][row] == TASKS["emotion"][RAF_LABELS[stem] - 1]
        for task, code in zip(("gender", "race", "age"), RAF_ATTRIBUTES[stem], strict=True):
            block = faces.labels[row, BLOCKS[task]]
            assert block.sum() == attributes
            assert not attributes or block[code] == 1


def same(a: Faces, b: Faces) -> None:
    assert len(a) == len(b) > 0
    np.testing.assert_array_equal(a.images, b.images)
    np.testing.assert_array_equal(a.labels, b.labels)
    assert a.parts.tolist() == b.parts.tolist()


# ---------------------------------------------------------------------------- FER


@pytest.mark.parametrize("top", ["", "archive/fer2013/"])
@pytest.mark.parametrize("zip_it", [False, True])
def test_fer_folders(tmp_path, top, zip_it):
    tree = {top + name: content for name, content in fer_tree().items()}
    tree[f"__MACOSX/{top}train/angry/Training_0.jpg"] = b"resource fork"
    tree[f"{top}.DS_Store"] = b"x"
    write(tmp_path / "FER", {"archive (3).zip": zipped(tree)} if zip_it else tree)
    faces = read_dataset("FER", data_dir=tmp_path)
    assert faces.images.shape == (21, 48, 48, 1)
    assert faces.images.dtype == np.uint8
    assert faces.labels.shape == (21, 18)
    assert faces.labels.dtype == np.float32
    assert faces.parts.tolist() == ["Training"] * 7 + ["PublicTest"] * 7 + ["PrivateTest"] * 7
    known = dict(zip(FER_FOLDERS, FER_NAMES, strict=True))
    assert not faces.skipped
    assert not faces.notes
    assert (faces.labels.sum(axis=1) == 1).all()
    for path, name, image in zip(
        faces.paths, decode_labels(faces.labels)["emotion"], faces.images, strict=True
    ):
        assert known[path.split("/")[-2]] == name
        original = tree[path[path.index(top + "t") :]]
        np.testing.assert_array_equal(image[..., 0], np.asarray(Image.open(io.BytesIO(original))))


def test_zip_and_folder_are_the_same(tmp_path):
    write(tmp_path / "a/FER", fer_tree())
    write(tmp_path / "b/FER", {"x.ZIP": zipped(fer_tree(), zipfile.ZIP_STORED)})
    same(
        read_dataset("FER", data_dir=tmp_path / "a"),
        read_dataset("FER", data_dir=tmp_path / "b"),
    )


def test_a_file_without_a_name_in_a_zip_is_left_out(tmp_path):
    tree = fer_tree()
    packed = zipped(tree | {"nameless": b"x"}).replace(b"nameless", b"\0ameless")
    write(tmp_path / "FER", {"fer.zip": packed})
    assert len(read_dataset("FER", data_dir=tmp_path)) == len(tree)


def test_zip_beside_what_was_unpacked_from_it_is_read_once(tmp_path, capsys):
    write(tmp_path / "FER", fer_tree() | {"fer.zip": zipped(fer_tree())})
    faces = read_dataset("FER", data_dir=tmp_path)
    assert len(faces) == 21
    assert not any("zip" in path for path in faces.paths)
    assert "21 files are there twice" in capsys.readouterr().err


@pytest.mark.parametrize("zip_it", [False, True])
@pytest.mark.parametrize("spaces", [False, True])
def test_fer_csv(tmp_path, spaces, zip_it):
    tree = {
        "f/train.csv": "emotion,pixels\n0,1 2\n",  # Kaggle's archive has these without Usage
        "f/test.csv": "pixels\n1 2\n",
        "f/zz_icml.csv": fer_csv(spaces),
    }
    write(tmp_path / "FER", {"any.zip": zipped(tree)} if zip_it else tree)
    faces = read_dataset("FER", data_dir=tmp_path)
    expected = [1, 4, 2, 5, 0, 3, 6]  # by part: Training, PublicTest, PrivateTest
    assert decode_labels(faces.labels)["emotion"].tolist() == [FER_NAMES[c] for c in expected]
    assert faces.parts.tolist() == ["Training"] * 2 + ["PublicTest"] * 2 + ["PrivateTest"] * 3
    assert faces.paths[0].endswith("zz_icml.csv:3")
    pixels = np.array(fer_pixels(1).split(), dtype=int).reshape(48, 48)
    np.testing.assert_array_equal(faces.images[0, :, :, 0], pixels)


def test_fer_splits_by_both_names_and_in_one_piece(tmp_path, capsys):
    write(tmp_path / "FER", fer_tree())
    for ours, own in (
        ("train", "Training"),
        ("validation", "PublicTest"),
        ("test", "PrivateTest"),
    ):
        faces = read_dataset("FER", ours, data_dir=tmp_path)
        assert set(faces.parts) == {own}
        assert len(faces) == 7
        assert isinstance(faces.images, np.memmap)
        same(faces, read_dataset("FER", own, data_dir=tmp_path))
    X, y = load_data("FER", data_dir=tmp_path)
    assert X.shape == (21, 48, 48, 1)
    assert y.shape == (21, 18)
    assert capsys.readouterr().err == ""


def test_fer_with_private_test_only(tmp_path, capsys):
    tree = {name: c for name, c in fer_tree().items() if "PrivateTest" in name}
    write(tmp_path / "FER", tree)
    assert len(read_dataset("FER", "test", data_dir=tmp_path)) == 7
    assert "FER: no Training, PublicTest in this copy" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"no Training \(split 'train'\); it has PrivateTest"):
        read_dataset("FER", "train", data_dir=tmp_path)


def test_fer_names_without_part_fall_back_to_folders(tmp_path, capsys):
    tree = {
        "train/happy/im0.png": picture(0, kind="PNG"),
        "test/sad/im0.png": picture(1),
    }
    write(tmp_path / "FER", tree)
    faces = read_dataset("FER", data_dir=tmp_path)
    assert faces.parts.tolist() == ["Training", "PrivateTest"]
    assert "test = PrivateTest, train = Training" in capsys.readouterr().err


def test_fer_other_spellings_of_emotions(tmp_path):
    for place, name in enumerate(("Anger", "happiness", "sadness", "disgusted", "fearful")):
        write(tmp_path / "FER", {f"train/{name}/Training_{place}.jpg": picture(place)})
    names = decode_labels(read_dataset("FER", data_dir=tmp_path).labels)["emotion"]
    assert set(names) == {"anger", "happiness", "sadness", "disgust", "fear"}


def test_fer_unknown_emotion_folder(tmp_path):
    write(tmp_path / "FER", fer_tree() | {"train/contempt/Training_9.jpg": picture(1)})
    with pytest.raises(ValueError, match=r"unknown emotion folder 'contempt'; known are .*angry"):
        read_dataset("FER", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (f"0,{fer_pixels()} 7,Training", "2305 pixels, not 2304"),
        ("0,1 2 3,Training", "3 pixels, not 2304"),
        ("0,,Training", "0 pixels"),
        (f"0,{fer_pixels()[:-1]}x,Training", "not a whole number"),
        (f"0,-{fer_pixels()},Training", "not a whole number"),
        (f"0,{'256 ' + ' '.join(['1'] * 2303)},Training", "above 255"),
        (f"0,{'1000 ' + ' '.join(['1'] * 2303)},Training", "above 255"),
        (f"7,{fer_pixels()},Training", "emotion '7' is not 0 to 6"),
        (f"angry,{fer_pixels()},Training", "emotion 'angry'"),
        (f"0,{fer_pixels()},Holiday", "Usage 'Holiday'"),
        (f"0,{fer_pixels()}", "2 fields, not 3"),
        (f"0,{fer_pixels()},Training,extra", "4 fields, not 3"),
    ],
)
def test_fer_bad_csv_row_is_skipped_and_listed(tmp_path, capsys, row, reason):
    write(tmp_path / "a/FER", {"fer2013.csv": fer_csv() + row + "\n"})
    faces = read_dataset("FER", data_dir=tmp_path / "a")
    assert len(faces) == 7
    assert faces.skipped[0][0] == "fer2013.csv:9"
    assert reason in faces.skipped[0][1]
    assert "FER: 1 skipped, 7 read; first fer2013.csv:9" in capsys.readouterr().err
    write(tmp_path / "b/FER", {"fer2013.csv": "emotion,pixels,Usage\n" + row + "\n"})
    with pytest.raises(ValueError, match=r"no row of 1 can be used; first fer2013\.csv:2"):
        read_dataset("FER", data_dir=tmp_path / "b")


def test_fer_pixels_keep_every_digit():
    text = " ".join(str(value % 256) for value in range(2304))
    expected = np.arange(2304).reshape(48, 48) % 256
    np.testing.assert_array_equal(fer2013.parse_pixels(text), expected)
    np.testing.assert_array_equal(fer2013.parse_pixels(f"  {text.replace(' ', '  ')} "), expected)


@pytest.mark.parametrize("content", ["emotion,image\n0,x\n", "", "\n", "emotion,pixels\n0,1\n"])
def test_fer_csv_without_the_columns(tmp_path, content):
    write(tmp_path / "FER", {"fer2013.csv": content})
    with pytest.raises(ValueError, match=r"fer2013\.csv has the columns .* not emotion, Usage"):
        read_dataset("FER", data_dir=tmp_path)


def test_fer_csv_with_a_header_only(tmp_path):
    write(tmp_path / "FER", {"fer2013.csv": "emotion,pixels,Usage\n"})
    with pytest.raises(ValueError, match="no row of 0 can be used"):
        read_dataset("FER", data_dir=tmp_path)


# ---------------------------------------------------------------------------- RAF-DB


@pytest.mark.parametrize("form", ["unpacked", "packed", "zip of packed", "zip of unpacked"])
def test_raf_official(tmp_path, form):
    tree = raf_tree(packed=form.endswith(" packed") or form == "packed")
    if form == "packed":
        tree["basic/Image/original.zip"] = zipped({"original/train_00001.jpg": picture(99)})
    write(tmp_path / "RAFDB", {"my download.zip": zipped(tree)} if "zip" in form else tree)
    faces = read_dataset("RAFDB", data_dir=tmp_path)
    check_raf(faces)
    assert not faces.skipped
    write(tmp_path / "plain/RAFDB", raf_tree(packed=False))
    same(faces, read_dataset("RAFDB", data_dir=tmp_path / "plain"))
    assert len(read_dataset("RAFDB", "train", data_dir=tmp_path)) == 7
    with pytest.raises(ValueError, match="RAFDB has no split 'validation': choose one of all"):
        read_dataset("RAFDB", "validation", data_dir=tmp_path)


@pytest.mark.parametrize("zip_it", [False, True])
def test_raf_kaggle(tmp_path, capsys, zip_it):
    _, images, _ = raf_parts()
    tree = {
        f"DATASET/{name.split('_')[0]}/{RAF_LABELS[name[:-12]]}/{name}": content
        for name, content in images.items()
    }
    tree["train_labels.csv"] = b"image,label\ntrain_00001_aligned.jpg,1\n"
    write(tmp_path / "RAFDB", {"archive.zip": zipped(tree)} if zip_it else tree)
    check_raf(read_dataset("RAFDB", data_dir=tmp_path), attributes=False)
    assert "no labels of gender, race and age" in capsys.readouterr().err


def test_raf_without_annotations_keeps_emotions(tmp_path):
    tree = {n: c for n, c in raf_tree(packed=False).items() if "manual" not in n}
    write(tmp_path / "RAFDB", tree)
    check_raf(read_dataset("RAFDB", data_dir=tmp_path), attributes=False)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (raf_attributes(3, 0, 0), "gender '3' is not 0 to 2"),
        (raf_attributes(0, 3, 0), "race '3' is not 0 to 2"),
        (raf_attributes(0, 0, 5), "age '5' is not 0 to 4"),
        (raf_attributes("x", 0, 0), "gender 'x'"),
        (raf_attributes(0, 0, ""), "7 lines, not 8"),
        ("", "0 lines, not 8"),
        (None, "no annotation"),
    ],
)
def test_raf_bad_annotation_costs_only_the_attributes(tmp_path, text, reason):
    tree = raf_tree(packed=False)
    name = "basic/Annotation/manual/train_00002_manu_attri.txt"
    del tree[name]
    write(tmp_path / "RAFDB", tree | ({name: text} if text is not None else {}))
    faces = read_dataset("RAFDB", data_dir=tmp_path)
    assert len(faces.skipped) == 1
    assert reason in faces.skipped[0][1]
    assert faces.labels[1].sum() == 1
    assert faces.labels[0].sum() == 4


@pytest.mark.parametrize("line", ["train_00008.jpg 8", "train_0001.jpg 2", "test_0002.jpg 19"])
def test_raf_compound_part_is_named(tmp_path, line):
    tree = raf_tree(packed=False)
    tree["basic/EmoLabel/list_patition_label.txt"] += line + "\n"
    write(tmp_path / "RAFDB", tree)
    with pytest.raises(ValueError, match=r"label\.txt:9: .* compound part .* use 'basic'"):
        read_dataset("RAFDB", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("folder", "stem", "message"),
    [
        ("8", "train_00001", "compound part"),
        ("1", "train_0001", "compound part"),
        ("happy", "train_00001", "label 'happy' of train_00001 is not 1 to 7"),
        ("0", "train_00001", "label '0'"),
    ],
)
def test_raf_unknown_class_folder(tmp_path, folder, stem, message):
    write(tmp_path / "RAFDB", {f"train/{folder}/{stem}_aligned.jpg": picture(0)})
    with pytest.raises(ValueError, match=message):
        read_dataset("RAFDB", data_dir=tmp_path)


def test_raf_bad_lines_and_missing_images_are_listed(tmp_path):
    tree = raf_tree(packed=False)
    tree["basic/EmoLabel/list_patition_label.txt"] += (
        "train_00009.jpg x\nrubbish\n\ntrain_00010.jpg 0\ntrain_00011.jpg 3\n"
    )
    write(tmp_path / "RAFDB", tree)
    faces = read_dataset("RAFDB", data_dir=tmp_path)
    assert len(faces) == 8
    places = [path.rsplit("/", 1)[-1] for path, _ in faces.skipped]
    name = "list_patition_label.txt"
    assert places == [f"{name}:9", f"{name}:10", f"{name}:12", "train_00011"]


def test_raf_labels_go_with_the_name_past_a_damaged_file(tmp_path):
    tree = raf_tree(packed=False) | {"basic/Image/aligned/train_00002_aligned.jpg": b"x"}
    write(tmp_path / "RAFDB", tree)
    faces = read_dataset("RAFDB", data_dir=tmp_path)
    assert len(faces) == 7
    for path, row in zip(faces.paths, faces.labels, strict=True):
        stem = Path(path).name.removesuffix("_aligned.jpg")
        assert row[BLOCKS["emotion"]].argmax() == RAF_LABELS[stem] - 1
        attributes = [row[BLOCKS[task]].argmax() for task in ("gender", "race", "age")]
        assert tuple(attributes) == RAF_ATTRIBUTES[stem]


def test_raf_labels_without_images(tmp_path):
    write(
        tmp_path / "RAFDB",
        {"basic/EmoLabel/list_patition_label.txt": "train_00001.jpg 5\n"},
    )
    with pytest.raises(FileNotFoundError, match=r"put Image/aligned\.zip"):
        read_dataset("RAFDB", data_dir=tmp_path)


def test_raf_labels_of_other_images(tmp_path):
    tree = raf_tree(packed=False)
    tree["basic/EmoLabel/list_patition_label.txt"] = "train_00500.jpg 5\n"
    write(tmp_path / "RAFDB", tree)
    with pytest.raises(ValueError, match="no line names one of the aligned images"):
        read_dataset("RAFDB", data_dir=tmp_path)


def test_raf_label_list_without_a_good_line(tmp_path):
    tree = raf_tree(packed=False)
    tree["basic/EmoLabel/list_patition_label.txt"] = "nothing here\n"
    write(tmp_path / "RAFDB", tree)
    with pytest.raises(ValueError, match=r"list_patition_label\.txt: no line is like"):
        read_dataset("RAFDB", data_dir=tmp_path)


# ---------------------------------------------------------------------------- UTKFace


@pytest.mark.parametrize("zip_it", [False, True])
def test_utkface(tmp_path, capsys, zip_it):
    tree = {f"UTKFace/{name}": picture(i, 200) for i, name in enumerate(UTK_FILES)}
    tree[f"crop_part1/{UTK_FILES[0]}"] = tree[f"UTKFace/{UTK_FILES[0]}"]
    write(tmp_path / "UTKFACE", {"utkface.zip": zipped(tree)} if zip_it else tree)
    faces = read_dataset("UTKFACE", data_dir=tmp_path)
    named = decode_labels(faces.labels).astype(object)
    named.index = [path.split("/")[-1].split("_")[0] for path in faces.paths]
    assert named["emotion"].isna().all()
    assert named["gender"].to_dict() == {
        "1": "male", "19": "female", "20": "male", "69": "female", "116": "male", "39": "female"
    }  # fmt: skip
    assert named["age"].to_dict() == {
        "1": "0-3", "19": "4-19", "20": "20-39", "69": "40-69", "116": "70+", "39": "20-39"
    }  # fmt: skip
    races = named["race"].dropna().to_dict()
    assert races == {"1": "Caucasian", "19": "African-American", "20": "Asian"}
    said = capsys.readouterr().err
    assert "1 names lack the race" in said
    assert "39_1_2017" in said
    assert "1 files are there twice" in said


def test_utkface_part_and_labels_go_with_the_name_past_a_damaged_file(tmp_path):
    learnt, held_out = "201701091000", "201701091022"  # minutes
    people = ((1, 0, 0), (30, 1, 1), (80, 0, 2))
    tree = {
        f"{age}_{gender}_{race}_{minute}{number:05}.jpg.chip.jpg": picture(number, 60)
        for minute in (learnt, held_out)
        for number, (age, gender, race) in enumerate(people)
    }
    tree[min(name for name in tree if learnt in name)] = b"no image"
    write(tmp_path / "UTKFACE", tree)
    faces = read_dataset("UTKFACE", data_dir=tmp_path)
    assert len(faces) == 5
    for path, part, row in zip(faces.paths, faces.parts, faces.labels, strict=True):
        age, gender, race, date = path.split(".")[0].split("_")
        assert part == ("validation" if date.startswith(held_out) else "train")
        assert row[BLOCKS["gender"]].argmax() == int(gender)
        assert row[BLOCKS["race"]].argmax() == int(race)
        assert row[BLOCKS["age"]].argmax() == {1: 0, 30: 2, 80: 4}[int(age)]


def test_utkface_malformed_names_are_listed(tmp_path):
    bad = {
        "holiday.jpg": "is not [age]",
        "20_2_0_20170109142408075.jpg.chip.jpg": "gender 2",
        "20_0_5_20170109142408075.jpg.chip.jpg": "race 5",
        "117_0_0_20170109142408075.jpg.chip.jpg": "age 117",
        "20_0_0_2017.jpg.chip.jpg": "is not [age]",
        "53__0_20170116184028385.jpg": "is not [age]",
        "-1_0_0_20170109142408075.jpg.chip.jpg": "is not [age]",
    }
    write(tmp_path / "UTKFACE", dict.fromkeys((*bad, UTK_FILES[0]), picture(0)))
    faces = read_dataset("UTKFACE", data_dir=tmp_path)
    assert len(faces) == 1
    assert {path for path, _ in faces.skipped} == set(bad)
    assert all(bad[path] in reason for path, reason in faces.skipped)


def test_utkface_without_one_good_name(tmp_path):
    write(tmp_path / "UTKFACE", {"holiday.jpg": picture(0)})
    with pytest.raises(
        ValueError, match=r"no image of 1 is named as UTKFace's; first holiday\.jpg"
    ):
        read_dataset("UTKFACE", data_dir=tmp_path)


def test_utkface_parts_keep_a_minute_together():
    minutes = [f"2017{m:02d}{d:02d}{h:02d}{i:02d}" for m in (1, 2) for d in range(1, 29)
               for h in range(24) for i in range(0, 60, 7)]  # fmt: skip
    share = np.mean([utkface.in_validation(minute) for minute in minutes])
    assert 0.09 < share < 0.11
    stamps = [utkface.parse_name(f"20_0_0_20170109142{s}.jpg")[3] for s in ("408075", "459999")]
    assert stamps == ["201701091424"] * 2
    assert utkface.in_validation("201701091424") is False  # the same in every session


def test_utkface_window_mirrors_its_top():
    rows = np.repeat(np.arange(200, dtype=np.uint8)[:, None], 200, axis=1)
    out = files.fit(Image.fromarray(rows), 200, utkface.CROP)[..., 0]
    np.testing.assert_array_equal(out[20:], rows[:180])
    np.testing.assert_array_equal(out[:20], rows[:20][::-1])


def test_window_inside_the_picture():
    pixels = np.arange(100, dtype=np.uint8).reshape(10, 10)
    out = files.fit(Image.fromarray(pixels), 5, (0.2, 0.4, 0.7, 0.9))[..., 0]
    np.testing.assert_array_equal(out, pixels[4:9, 2:7])


# ---------------------------------------------------------------------------- bad input


def png_claiming(side: int) -> bytes:
    data = bytearray(picture(0, kind="PNG"))
    data[16:24] = side.to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


BAD_FILES = {
    "truncated": (picture(0)[:500], "truncated"),
    "text": (b"this is no image", "not an image"),
    "empty": (b"", "an empty file"),
    "3.6 billion pixels": (png_claiming(60_000), "decompression bomb"),
    "100 million pixels": (png_claiming(10_000), "decompression bomb"),
    "broken png": (picture(0, kind="PNG")[:60] + b"\0" * 900, ""),
}


@pytest.mark.parametrize("zip_it", [False, True])
@pytest.mark.parametrize("kind", BAD_FILES)
@pytest.mark.filterwarnings("default")
def test_one_bad_file_is_skipped_and_listed(tmp_path, capsys, kind, zip_it):
    content, said = BAD_FILES[kind]
    tree = fer_tree() | {"train/sad/Training_99.jpg": content}
    write(tmp_path / "FER", {"a.zip": zipped(tree)} if zip_it else tree)
    faces = read_dataset("FER", data_dir=tmp_path)
    assert len(faces) == 21
    ((path, reason),) = faces.skipped
    assert path.endswith("train/sad/Training_99.jpg")
    assert reason
    assert said in reason
    assert "FER: 1 skipped, 21 read" in capsys.readouterr().err
    assert decode_labels(faces.labels)["emotion"].value_counts().eq(3).all()
    assert read_dataset("FER", data_dir=tmp_path).skipped == faces.skipped  # from the cache
    assert read_dataset("FER", "train", data_dir=tmp_path).skipped == faces.skipped


def test_nothing_but_bad_files(tmp_path):
    write(tmp_path / "FER", {"train/sad/Training_1.jpg": b"no image"})
    with pytest.raises(ValueError, match=r"none of 1 images .*/Training_1.jpg: not an image"):
        read_dataset("FER", data_dir=tmp_path)


def test_a_file_said_to_be_enormous_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_BYTES", 5000)
    tree = fer_tree() | {"train/sad/Training_99.jpg": b"\0" * 5001}
    write(tmp_path / "FER", {"a.zip": zipped(tree)})
    assert read_dataset("FER", data_dir=tmp_path).skipped[0][1].endswith("5001 bytes is too large)")


def test_bad_checksum_in_a_zip_is_one_skipped_file(tmp_path):
    data = bytearray(zipped(fer_tree(), zipfile.ZIP_STORED))
    place = data.index(b"train/angry/Training_0.jpg") + 200
    data[place] ^= 255
    write(tmp_path / "FER", {"a.zip": bytes(data)})
    faces = read_dataset("FER", data_dir=tmp_path)
    assert len(faces) == 20
    assert "Bad CRC-32" in faces.skipped[0][1]


def test_bad_checksum_in_a_zipped_csv(tmp_path):
    data = bytearray(zipped({"fer2013.csv": fer_csv()}, zipfile.ZIP_STORED))
    data[2000:2003] = b"9 9"
    write(tmp_path / "FER", {"a.zip": bytes(data)})
    with pytest.raises(ValueError, match=r"fer2013\.csv cannot be read to its end \(Bad CRC"):
        read_dataset("FER", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["FER", "RAFDB", "UTKFACE"])
@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_zip_cut_off(tmp_path, name, keep):
    data = zipped(fer_tree())
    data = data[: keep if isinstance(keep, int) else int(keep * len(data))]
    write(tmp_path / name, {"fer.zip": data})
    with pytest.raises(ValueError, match=r"fer\.zip is not a whole zip .* download it again"):
        read_dataset(name, data_dir=tmp_path)


def test_inner_zip_cut_off(tmp_path):
    tree = raf_tree(packed=True)
    tree["basic/Image/aligned.zip"] = tree["basic/Image/aligned.zip"][:-30]
    write(tmp_path / "RAFDB", {"raf.zip": zipped(tree)})
    with pytest.raises(ValueError, match=r"raf\.zip/basic/Image/aligned\.zip is not a whole zip"):
        read_dataset("RAFDB", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["FER", "RAFDB", "UTKFACE"])
@pytest.mark.parametrize(
    ("tree", "said"),
    [
        (None, "is not there"),
        ({}, "is empty"),
        ({"readme.txt": "x"}, "holds 1 files, none of these"),
        ({"set.tar.gz": b"x"}, "Unpack set.tar.gz first"),
        ({"a.zip": zipped({"readme.txt": "x"})}, "holds 1 files"),
    ],
)
def test_missing_data_say_how_to_get_them(tmp_path, name, tree, said):
    if tree is not None:
        (tmp_path / name).mkdir()
        write(tmp_path / name, tree)
    with pytest.raises(FileNotFoundError) as error:
        read_dataset(name, data_dir=tmp_path)
    reader = load.READERS[name]
    for text in (
        str(tmp_path / name),
        said,
        reader.EXPECTED,
        reader.TERMS,
        reader.HOW_TO_GET,
    ):
        assert text in str(error.value)
    assert not list(tmp_path.glob(".cache/*"))  # nothing half done stays behind


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "FER2013"}, "unknown dataset 'FER2013': choose one of SAMPLE, FER"),
        ({"name": "SAMPLE", "split": "dev"}, "SAMPLE has no split 'dev'"),
        ({"name": "SAMPLE", "split": "PublicTest"}, "SAMPLE has no split"),
        ({"name": "UTKFACE", "split": "test"}, "UTKFACE has no split 'test'"),
        ({"name": "SAMPLE", "image_size": 7}, "image_size must be"),
        ({"name": "SAMPLE", "image_size": 48.5}, "image_size must be"),
        ({"name": "SAMPLE", "n": 0}, "n must be a whole number from 1, not 0"),
        ({"name": "SAMPLE", "seed": -1}, "seed must be"),
        ({"name": "FER", "n": 5}, "n=5 is for SAMPLE only"),
    ],
)
def test_wrong_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        load_data(data_dir=tmp_path, **arguments)


def test_faces_of_different_length():
    with pytest.raises(ValueError, match=r"differ in length: .*'images': 2, 'labels': 3"):
        Faces(
            np.zeros((2, 8, 8, 1)),
            np.zeros((3, 18)),
            np.array(["a"] * 2),
            np.array(["b"] * 2),
        )


def test_names_in_a_zip_cannot_leave_it(tmp_path):
    tree = {f"../../{name}": content for name, content in fer_tree().items()}
    write(tmp_path / "in/FER", {"a.zip": zipped(tree | {"/etc/evil.jpg": picture(0)})})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="no image of 1 is usable"):
        read_dataset("FER", data_dir=tmp_path / "in")
    assert [path for path in sorted(tmp_path.rglob("*")) if path.name != ".cache"] == before


# ---------------------------------------------------------------------------- source, decoding


def test_links_to_folders_are_followed_once(tmp_path):
    write(tmp_path / "elsewhere", fer_tree())
    (tmp_path / "FER").mkdir()
    (tmp_path / "FER/set").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/round").symlink_to(tmp_path / "elsewhere")
    assert len(read_dataset("FER", data_dir=tmp_path)) == 21


def test_windows_zip_names(tmp_path):
    tree = {name.replace("/", "\\"): content for name, content in fer_tree().items()}
    write(tmp_path / "FER", {"a.zip": zipped(tree)})
    assert len(read_dataset("FER", data_dir=tmp_path)) == 21


def test_worker_processes_give_the_same_in_order(tmp_path, monkeypatch):
    write(tmp_path / "FER", fer_tree() | {"test/sad/PublicTest_88.jpg": b"bad"})
    source = files.Source(tmp_path / "FER")
    names = [name for name in source.names if name.endswith("jpg")]
    serial = files.decode_images(source, names, 24)
    monkeypatch.setattr(files, "CHUNK", 2)
    monkeypatch.setattr(files, "SERIAL_BELOW", 1)
    parallel = files.decode_images(source, names, 24)
    np.testing.assert_array_equal(serial[0], parallel[0])
    np.testing.assert_array_equal(serial[1], parallel[1])
    assert serial[2] == parallel[2] == [("test/sad/PublicTest_88.jpg", "not an image")]
    assert len(serial[0]) == 21
    assert len(names) == 22


def test_a_picture_stands_as_its_camera_held_it(tmp_path):
    pixels = np.zeros((48, 48), np.uint8)
    pixels[:24] = 255  # bright above
    picture = Image.fromarray(pixels)
    lying = Image.Exif()
    lying[274] = 6  # to be turned a quarter clockwise
    lying[0x8298] = "Å"  # an entry like those that cameras write and Pillow does not
    for name in ("a.jpg", "b.png"):
        picture.save(tmp_path / name, exif=lying)
        (face,) = files.decode([(tmp_path / name).read_bytes()], 48)
        assert face[:, 30:].mean() > 250, name
        assert face[:, :18].mean() < 5, name


def test_pixels_of_which_nobody_knows_how_bright_they_are(tmp_path):
    for name, pixels in {
        "decimal point": np.full((48, 48), 0.5, np.float32),
        "32 bits": np.full((48, 48), 200, np.int32),
    }.items():
        Image.fromarray(pixels).save(tmp_path / "a.tif")
        (reason,) = files.decode([(tmp_path / "a.tif").read_bytes()], 48)
        assert isinstance(reason, str)
        assert name in reason
    Image.fromarray(np.full((48, 48), 40_000, np.int32)).save(tmp_path / "a.tif")
    (face,) = files.decode([(tmp_path / "a.tif").read_bytes()], 48)
    assert (face == 40_000 // 257).all()


def test_image_size_and_colour(tmp_path):
    stream = io.BytesIO()
    Image.new("RGB", (200, 200), (200, 100, 50)).save(stream, "JPEG")
    write(tmp_path / "UTKFACE", {UTK_FILES[0]: stream.getvalue()})
    for size in (24, 100):
        X, _ = load_data("UTKFACE", image_size=size, data_dir=tmp_path)
        assert X.shape == (1, size, size, 1)
        assert np.abs(X.astype(int) - 124).max() <= 2  # 0.299 R + 0.587 G + 0.114 B


def test_data_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("FER_DATA_DIR", raising=False)
    (tmp_path / "data").mkdir()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert files.data_folder() == tmp_path / "notebooks/data"
    (tmp_path / "README.md").touch()
    assert files.data_folder() == tmp_path / "data"
    monkeypatch.setenv("FER_DATA_DIR", str(tmp_path / "other"))
    assert files.data_folder() == tmp_path / "other"
    assert files.data_folder(tmp_path / "mine") == tmp_path / "mine"


def test_find_datasets(tmp_path, monkeypatch):
    write(tmp_path / "FER", {"fer.zip": b"not even a zip"})
    write(tmp_path / "UTKFACE", {"readme.txt": "x"})
    table = find_datasets(tmp_path).set_index("name")
    assert table["found"].to_dict() == {
        "SAMPLE": True, "FER": True, "RAFDB": False, "UTKFACE": False
    }  # fmt: skip
    assert table["where"]["FER"] == str(tmp_path / "FER")
    assert rafdb.HOW_TO_GET in table["where"]["RAFDB"]
    assert table["terms"].str.len().min() > 20


# ---------------------------------------------------------------------------- cache


def count_reads(monkeypatch) -> list[int]:
    calls, original = [], fer2013.read
    monkeypatch.setattr(fer2013, "read", lambda *args: calls.append(1) or original(*args))
    return calls


@pytest.mark.parametrize("zip_it", [False, True])
def test_cache_is_used_until_the_source_changes(tmp_path, monkeypatch, zip_it):
    def put(tree):
        write(tmp_path / "FER", {"a.zip": zipped(tree)} if zip_it else tree)

    put(fer_tree())
    calls = count_reads(monkeypatch)
    first = read_dataset("FER", data_dir=tmp_path)
    again = read_dataset("FER", data_dir=tmp_path)
    assert len(calls) == 1
    same(first, again)
    assert first.paths.tolist() == again.paths.tolist()
    assert isinstance(again.images, np.memmap)
    assert not again.images.flags.writeable
    read_dataset("FER", image_size=24, data_dir=tmp_path)
    assert len(calls) == 2
    put(fer_tree() | {"train/sad/Training_99.jpg": picture(99)})
    assert len(read_dataset("FER", data_dir=tmp_path)) == 22
    assert len(calls) == 3
    kept = sorted(path.name.rsplit("-", 1)[0] for path in tmp_path.glob(".cache/*"))
    assert kept == ["FER-24", "FER-48"]  # the older FER-48 is gone
    path = tmp_path / ("FER/a.zip" if zip_it else "FER/train/sad/Training_99.jpg")
    os.utime(path, ns=(1, 1))  # same size, another time: written to
    read_dataset("FER", data_dir=tmp_path)
    assert len(calls) == 4


def test_cache_notices_a_removed_and_a_renamed_file(tmp_path):
    write(tmp_path / "FER", fer_tree())
    assert len(read_dataset("FER", data_dir=tmp_path)) == 21
    (tmp_path / "FER/train/sad/Training_4.jpg").unlink()
    assert len(read_dataset("FER", data_dir=tmp_path)) == 20
    path = tmp_path / "FER/train/happy/Training_3.jpg"
    path.rename(tmp_path / "FER/train/sad/Training_3.jpg")
    faces = read_dataset("FER", "train", data_dir=tmp_path)
    assert decode_labels(faces.labels)["emotion"].value_counts()["sadness"] == 1


def test_cache_notices_a_new_size_or_folder_name_alone(tmp_path):
    write(tmp_path / "FER", fer_tree())
    read_dataset("FER", data_dir=tmp_path)
    path = tmp_path / "FER/train/happy/Training_3.jpg"
    before = path.stat()
    path.write_bytes(picture(77))
    assert path.stat().st_size != before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    row = read_dataset("FER", data_dir=tmp_path)
    place = row.paths.tolist().index("train/happy/Training_3.jpg")
    fresh = np.asarray(Image.open(io.BytesIO(picture(77))))
    np.testing.assert_array_equal(row.images[place, ..., 0], fresh)
    path.parent.rename(tmp_path / "FER/train/happiness")
    assert "train/happiness/Training_3.jpg" in read_dataset("FER", data_dir=tmp_path).paths


def test_damaged_cache_is_built_again(tmp_path, monkeypatch):
    write(tmp_path / "FER", fer_tree())
    calls = count_reads(monkeypatch)
    first = np.array(read_dataset("FER", data_dir=tmp_path).images)
    for damage in ("index.csv", "images.npy"):
        (place,) = tmp_path.glob(".cache/FER-48-*")
        (place / damage).write_bytes(b"")
        np.testing.assert_array_equal(read_dataset("FER", data_dir=tmp_path).images, first)
    assert len(calls) == 3


def test_read_only_folder_is_read_without_a_cache(tmp_path, capsys):
    write(tmp_path / "FER", fer_tree())
    (tmp_path / ".cache").touch()  # a file there: nobody, not even root, can make the folder
    for _ in range(2):
        assert len(read_dataset("FER", data_dir=tmp_path)) == 21
        assert len(load_data("SAMPLE", data_dir=tmp_path, n=3)[0]) == 3
    said = capsys.readouterr().err
    assert said.count("FER-48: read without a cache") == 1


def test_disk_full_while_writing_the_cache(tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_save", full)
    write(tmp_path / "FER", fer_tree())
    assert len(read_dataset("FER", data_dir=tmp_path)) == 21
    assert len(load_data("SAMPLE", data_dir=tmp_path, n=3)[0]) == 3
    assert "No space left" in capsys.readouterr().err
    assert not list(tmp_path.glob(".cache/*")) + list(tmp_path.glob(".cache/.*-*"))


def test_a_file_that_cannot_be_read_today_is_read_tomorrow(tmp_path, monkeypatch, capsys):
    write(tmp_path / "FER", fer_tree())
    read = files.Source.read

    def fail_once(source, name):
        if name.endswith("Training_3.jpg"):
            raise OSError(5, "Input/output error")
        return read(source, name)

    monkeypatch.setattr(files.Source, "read", fail_once)
    faces = read_dataset("FER", data_dir=tmp_path)
    assert len(faces) == 20
    assert "Input/output error" in dict(faces.skipped)["train/happy/Training_3.jpg"]
    assert "as train/happy/Training_3.jpg could not be read now" in capsys.readouterr().err
    monkeypatch.setattr(files.Source, "read", read)
    assert len(read_dataset("FER", data_dir=tmp_path)) == 21


def test_no_room_for_the_images_on_the_disk(tmp_path, monkeypatch, capsys):
    usage = files.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage._replace(free=0))
    X, _ = load_data("SAMPLE", data_dir=tmp_path, n=3)
    assert len(X) == 3
    assert "has 0 bytes free" in capsys.readouterr().err
    assert not list(tmp_path.glob(".cache/*")) + list(tmp_path.glob(".cache/.*-*"))


def test_two_processes_build_one_cache(tmp_path):
    write(tmp_path / "FER", fer_tree())
    code = (
        "import sys, time; from fer_helpers.datasets import fer2013, load_data\n"
        "read = fer2013.read\n"
        "def slow(*a):\n    faces = read(*a); time.sleep(0.5); return faces\n"
        "fer2013.read = slow\n"
        "print(int(load_data('FER', data_dir=sys.argv[1])[0].sum()))\n"
        "print('keras' in sys.modules or 'tensorflow' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[0].split() for process in both]
    X, _ = load_data("FER", data_dir=tmp_path)
    assert said == [[str(int(X.sum())), "False"]] * 2
    assert len(list(tmp_path.glob(".cache/*"))) == 1


def test_losing_the_race_keeps_the_winners_cache(tmp_path, monkeypatch):
    write(tmp_path / "FER", fer_tree())
    original = fer2013.read

    def overtaken(*args):
        monkeypatch.setattr(fer2013, "read", original)
        read_dataset("FER", data_dir=tmp_path)  # another process, done in the meantime
        return original(*args)

    monkeypatch.setattr(fer2013, "read", overtaken)
    assert len(read_dataset("FER", data_dir=tmp_path)) == 21
    assert len(list(tmp_path.glob(".cache/*"))) == 1


# ---------------------------------------------------------------------------- SAMPLE


def test_sample_comes_block_by_block_as_drawn(tmp_path, monkeypatch):
    from fer_helpers.datasets import sample

    n = sample.BLOCK + 3
    faces = read_dataset("SAMPLE", data_dir=tmp_path, n=n, seed=4, image_size=16)
    parameters = sample.draw_parameters(n, 4)
    images = sample.render(parameters, 16)[..., None]
    parts = np.array(sample.PARTS)[parameters["part"]]
    labels = encode_labels({task: parameters[task] for task in TASKS})
    paths = np.array([f"sample_{i:06d}.png" for i in range(n)])
    same(faces, Faces(images, labels, paths, parts, []))
    assert faces.paths.tolist() == paths.tolist()
    assert isinstance(faces.images, np.memmap)
    monkeypatch.setattr(sample, "draw_block", None)  # from here on only from the cache
    for split in ("train", "validation", "test"):
        part = read_dataset("SAMPLE", split, data_dir=tmp_path, n=n, seed=4, image_size=16)
        assert set(part.parts) == {split}
        assert len(part) == (parts == split).sum()
        np.testing.assert_array_equal(part.images, images[parts == split])


def test_sample_cache_keys(tmp_path):
    sets = [
        load_data(data_dir=tmp_path, n=n, seed=seed, image_size=size)[0].tobytes()
        for n, seed, size in ((4, 0, 8), (5, 0, 8), (4, 1, 8), (4, 0, 9), (4, 0, 8))
    ]
    assert len(set(sets)) == 4
    assert sets[0] == sets[-1]
    assert len(list(tmp_path.glob(".cache/*"))) == 4
