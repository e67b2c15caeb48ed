"""Anyone's faces: folders named after classes, tables, and their splits."""

import os
from pathlib import PureWindowsPath
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fer_helpers.datasets import folder, load_data, load_training_data, read_dataset
from fer_helpers.labels import BLOCKS, TASKS, decode_labels
from trees import picture, same, write, zipped

WORDS = ("angry", "disgust", "fear", "happy", "sad", "surprised", "neutral")
NAMES = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")


def class_folders(each: int = 3, prefix: str = "") -> dict[str, bytes]:
    """`each` pictures per emotion, no two alike."""
    return {
        f"{prefix}{word}/im{number}.png": picture(10 * place + number, kind="PNG")
        for place, word in enumerate(WORDS)
        for number in range(each)
    }


def labels_by_file(faces) -> dict[str, dict]:
    """For each face its class names; keys are paths."""
    names = decode_labels(faces.labels).astype(object)
    names = names.where(names.notna(), None)
    return dict(zip(faces.paths.tolist(), names.to_dict("records"), strict=True))


def seen(faces) -> int:
    return len(faces) + len(faces.skipped) + len(faces.ignored)


# ---------------------------------------------------------------------------- folders


@pytest.mark.parametrize("zip_it", [False, True])
def test_a_folder_per_class(tmp_path, zip_it):
    tree = class_folders()
    place = tmp_path / ("faces.zip" if zip_it else "faces")
    if zip_it:
        place.write_bytes(zipped(tree))
    else:
        write(place, tree)
    faces = read_dataset(place, data_dir=tmp_path / "data")
    assert len(faces) == 21
    assert not faces.skipped
    assert not faces.ignored
    known = dict(zip(WORDS, NAMES, strict=True))
    for path, classes in labels_by_file(faces).items():
        assert classes["emotion"] == known[path.split("/")[-2]]
        assert classes["age"] is None
    X, y = load_data(str(place), "train", data_dir=tmp_path / "data")
    assert (X.shape, y.shape) == ((16, 48, 48, 1), (16, 18))
    sizes = [
        len(load_data(place, split, data_dir=tmp_path / "data")[0])
        for split in ("validation", "test")
    ]
    assert sizes == [3, 2]
    (X_train, _), (X_validation, _) = load_training_data(place, tmp_path / "data")
    assert (len(X_train), len(X_validation)) == (16, 3)


def test_any_spelling_of_classes_and_splits(tmp_path):
    tree = {
        "Train/Happy/a.png": picture(0), "training/0_angry/b.png": picture(1),
        "valid/JOY/c.png": picture(2), "val/3-Sad/d.png": picture(3),
        "Validation/calm/e.png": picture(4), "dev/scared/f.png": picture(5),
        "testing/afraid/g.png": picture(6), "private_test/disgusted/h.png": picture(7),
        "surprise/test/i.png": picture(8), "test/train/sad/j.png": picture(9),
    }  # fmt: skip
    faces = read_dataset(write(tmp_path / "mine", tree), data_dir=tmp_path)
    found = {
        path[-5]: (split, labels_by_file(faces)[path]["emotion"])
        for path, split in zip(faces.paths, faces.splits, strict=True)
    }
    assert found == {
        "a": ("train", "happiness"), "b": ("train", "anger"), "c": ("validation", "happiness"),
        "d": ("validation", "sadness"), "e": ("validation", "neutral"), "f": ("validation", "fear"),
        "g": ("test", "fear"), "h": ("test", "disgust"), "i": ("test", "surprise"),
        "j": ("train", "sadness"),
    }  # fmt: skip


@pytest.mark.parametrize("task", ["gender", "race", "age"])
def test_folders_may_name_another_task(tmp_path, task):
    tree = {f"{word}/x.png": picture(place) for place, word in enumerate(TASKS[task])}
    faces = read_dataset(write(tmp_path / "mine", tree), data_dir=tmp_path)
    assert faces.labels[:, BLOCKS[task]].sum(axis=0).tolist() == [1] * len(TASKS[task])
    assert faces.labels.sum() == len(TASKS[task])


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("contempt", r"mine/contempt: unknown emotion 'contempt': the known words are .*happy.*"
                     r"--ignore contempt"),
        ("3", r"mine/3: unknown emotion '3': a number does not say which class it is"),
        ("smug face", r"unknown emotion 'smug face'"),
    ],
)  # fmt: skip
def test_an_unknown_class_is_an_error_that_says_what_is_known(tmp_path, folder, said):
    write(tmp_path / "mine", class_folders() | {f"{folder}/x.png": picture(99)})
    with pytest.raises(ValueError, match=said):
        read_dataset(tmp_path / "mine", data_dir=tmp_path)


def test_a_class_is_left_out_on_purpose_and_counted(tmp_path, capsys):
    tree = class_folders() | {"7_Contempt/x.png": picture(99), "train/contempt/y.png": picture(98)}
    place = write(tmp_path / "mine", tree)
    faces = read_dataset(place, data_dir=tmp_path, ignore=["contempt"])
    assert len(faces) == 21
    assert {path for path, _ in faces.ignored} == {"7_Contempt/x.png", "train/contempt/y.png"}
    assert "mine: 1 files ignored, left out: contempt; first" in capsys.readouterr().err
    assert len(read_dataset(place, data_dir=tmp_path, ignore=["contempt", "SAD"])) == 18


def test_pictures_outside_of_class_folders_and_other_files_are_counted(tmp_path):
    tree = class_folders() | {"cover.jpg": picture(50), "about.txt": "x", "sad/notes.md": "y"}
    tree |= {"sad/broken.jpg": b"x"}
    faces = read_dataset(write(tmp_path / "mine", tree), data_dir=tmp_path)
    assert dict(faces.skipped) == {
        "cover.jpg": "not in a folder named after a class", "sad/broken.jpg": "not an image"
    }  # fmt: skip
    assert [path for path, _ in faces.ignored] == ["about.txt", "sad/notes.md"]
    assert seen(faces) == len(tree)


def test_a_picture_at_the_top_of_a_zip_is_in_no_class(tmp_path):
    place = tmp_path / "happy.zip"
    place.write_bytes(zipped(class_folders() | {"cover.jpg": picture(50)}))
    faces = read_dataset(place, data_dir=tmp_path)
    assert faces.skipped == [("happy.zip/cover.jpg", "not in a folder named after a class")]


def test_equal_names_are_two_faces_and_equal_bytes_one(tmp_path):
    tree = {
        "a/train/happy/im0.png": picture(0),
        "b/train/happy/im0.png": picture(1),
        "c/train/happy/im0.png": picture(0),
        "c/train/sad/im0.png": picture(0),  # the same picture under another label stays
        "d/train/sad/im0.png": picture(5),
        "a/train/happy/im1.png": picture(2),
        "a/train/happy/im2.png": picture(2),  # and so does one under another name
        "all.zip": zipped({"a/train/happy/im0.png": picture(0)}),
    }
    faces = read_dataset(write(tmp_path / "mine", tree), data_dir=tmp_path)
    assert len(faces) == 6
    assert dict(faces.ignored) == {
        "c/train/happy/im0.png": "a copy of a/train/happy/im0.png",
        "all.zip/a/train/happy/im0.png": "a copy of a/train/happy/im0.png",
    }


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"x.png": picture(0)}, "none of 1 pictures is in a folder named after a class, nor is"),
        ({"sad/x.png": b"no image"}, "none of 1 images could be read; first sad/x.png"),
    ],
)
def test_nothing_to_use(tmp_path, tree, said):
    with pytest.raises(ValueError, match=said):
        read_dataset(write(tmp_path / "mine", tree), data_dir=tmp_path)


def test_places_that_hold_no_faces(tmp_path):
    for tree, said in (
        ({}, "is empty"),
        ({"a.txt": "x"}, "holds 1 files"),
        ({"a.tar.gz": "x"}, "Unpack a.tar.gz"),
    ):
        place = write(tmp_path / f"mine{len(said)}", tree)
        place.mkdir(exist_ok=True)
        with pytest.raises(FileNotFoundError, match=said):
            read_dataset(place, data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"unknown dataset .*there is no such folder or file"):
        read_dataset(tmp_path / "nowhere", data_dir=tmp_path)
    write(tmp_path, {"face.jpg": picture(0)})
    with pytest.raises(ValueError, match=r"face\.jpg is no folder, \.zip or \.csv"):
        read_dataset(tmp_path / "face.jpg", data_dir=tmp_path)


def test_zip_volumes_get_a_line_that_helps(tmp_path):
    whole = zipped(class_folders())
    write(tmp_path / "mine", {"faces.z01": whole[:900], "faces.zip": whole[900:1500]})
    with pytest.raises(ValueError, match=r"faces\.zip is not a whole zip .*zip -s 0"):
        read_dataset(tmp_path / "mine", data_dir=tmp_path)


# ---------------------------------------------------------------------------- tables

PEOPLE = """file_name,emotion,gender,race,age,split,person
a/1.png,Happy,f,white,25,train,Ada
a/2.png,,woman,Black,4-19,train,Ada
b/3.png,sad,,,70+,val,Ben
b/4.png,afraid,man,,0,testing,Cyd
"""
PICTURES = {
    f"{name}.png": picture(place) for place, name in enumerate(("a/1", "a/2", "b/3", "b/4"))
}


def check_people(faces) -> None:
    found = {path.rsplit("/", 1)[-1]: classes for path, classes in labels_by_file(faces).items()}
    expected = {
        "1.png": ("happiness", "female", "Caucasian", "20-39"),
        "2.png": (None, "female", "African-American", "4-19"),
        "3.png": ("sadness", None, None, "70+"),
        "4.png": ("fear", "male", None, "0-3"),
    }
    assert found == {name: dict(zip(TASKS, row, strict=True)) for name, row in expected.items()}
    assert faces.splits.tolist() == ["train", "train", "validation", "test"]
    assert faces.persons.tolist() == ["Ada", "Ada", "Ben", "Cyd"]
    assert not faces.skipped


@pytest.mark.parametrize("zip_it", [False, True])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_metadata_csv(tmp_path, zip_it, separator):
    tree = PICTURES | {"metadata.csv": "\ufeff" + PEOPLE.replace(",", separator)}
    place = tmp_path / ("faces.zip" if zip_it else "faces")
    if zip_it:
        place.write_bytes(zipped(tree))
    else:
        write(place, tree)
    check_people(read_dataset(place, data_dir=tmp_path))


def test_a_table_elsewhere_and_a_table_by_its_own_path(tmp_path):
    write(tmp_path / "faces", PICTURES)
    write(tmp_path, {"people.csv": PEOPLE, "faces/own.csv": PEOPLE, "faces.zip": zipped(PICTURES)})
    for place in ("faces", "faces.zip"):
        check_people(
            read_dataset(tmp_path / place, data_dir=tmp_path, labels=tmp_path / "people.csv")
        )
    check_people(read_dataset(tmp_path / "faces/own.csv", data_dir=tmp_path))
    full = PEOPLE.replace("\na/", f"\n{tmp_path}/faces/a/").replace("\nb/", "\n./b/")
    write(tmp_path, {"people.csv": full})
    check_people(
        read_dataset(tmp_path / "faces", data_dir=tmp_path, labels=tmp_path / "people.csv")
    )
    with pytest.raises(FileNotFoundError, match="no table at"):
        read_dataset(tmp_path / "faces", data_dir=tmp_path, labels=tmp_path / "lost.csv")


def test_a_table_per_split_as_image_folders_have_it(tmp_path):
    tree = {
        "train/metadata.csv": "file_name,label\nx.png,joy\n", "train/x.png": picture(0),
        "validation/metadata.csv": "file_name,label\nx.png,mad\n", "validation/x.png": picture(1),
        "test/metadata.csv": "file_name,label\nx.png,calm\n", "test/x.png": picture(2),
    }  # fmt: skip
    faces = read_dataset(write(tmp_path / "mine", tree), data_dir=tmp_path)
    assert faces.paths.tolist() == ["train/x.png", "validation/x.png", "test/x.png"]
    assert faces.splits.tolist() == ["train", "validation", "test"]
    assert [row["emotion"] for row in labels_by_file(faces).values()] == [
        "happiness",
        "anger",
        "neutral",
    ]


def test_every_line_and_every_picture_is_counted(tmp_path):
    table = PEOPLE + "c/5.png,sad,,,,,\na/1.png,sad,,,,,\nb/6.png,sad\n\n"
    tree = PICTURES | {"b/7.png": picture(9), "metadata.csv": table}
    faces = read_dataset(write(tmp_path / "mine", tree), data_dir=tmp_path)
    assert len(faces) == 4
    assert sorted(faces.skipped) == [
        ("metadata.csv:6", "no picture 'c/5.png'"),
        ("metadata.csv:7", "a/1.png is in the table already"),
        ("metadata.csv:8", "2 fields, not 7"),
    ]
    assert faces.ignored == [("b/7.png", "not in the table")]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (PEOPLE.replace("sad", "smug"), r"metadata\.csv:4: unknown emotion 'smug'.*--ignore smug"),
        (PEOPLE.replace("white", "7"), r"metadata\.csv:2: unknown race '7': a number does not"),
        (PEOPLE.replace("25", "-3"), r"metadata\.csv:2: unknown age '-3': .* or years"),
        (PEOPLE.replace("val,", "holiday,"), r"metadata\.csv:4: unknown split 'holiday'"),
        (PEOPLE.replace("file_name", "x"), r"has the columns x, emotion, .* it needs file_name"),
        ("emotion,pixels,Usage\n0,1 2,Training\n", r"columns emotion, pixels, usage: it needs"),
        ("file_name,person\na/1.png,Ada\n", "it needs file_name and some of emotion, gender"),
        ("file_name,emotion\nq.png,sad\n", r"no line of a table names .*first metadata\.csv:2"),
        ("", "it needs file_name"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_meant(tmp_path, table, said):
    write(tmp_path / "mine", PICTURES | {"metadata.csv": table})
    with pytest.raises(ValueError, match=said):
        read_dataset(tmp_path / "mine", data_dir=tmp_path)


def test_an_ignored_word_takes_the_label_and_only_if_none_is_left_the_face(tmp_path):
    table = (
        PEOPLE.replace("white", "Indian").replace("sad,,,70+", "contempt,,,") + "b/5.png,,,,,,\n"
    )
    place = write(tmp_path / "mine", PICTURES | {"metadata.csv": table, "b/5.png": picture(5)})
    faces = read_dataset(place, data_dir=tmp_path, ignore=["contempt", "indian"])
    assert len(faces) == 4
    assert not any(labels_by_file(faces)["b/5.png"].values())  # nothing to ignore in it
    assert faces.ignored == [("b/3.png", "left out: a class to ignore")]
    assert labels_by_file(faces)["a/1.png"]["race"] is None
    assert labels_by_file(faces)["a/1.png"]["emotion"] == "happiness"


def test_corrected_labels_are_read_anew(tmp_path):
    """Of equal size, and with the old time stamp: what is in the table counts."""
    write(tmp_path / "faces", PICTURES)
    table = write(tmp_path, {"people.csv": PEOPLE}) / "people.csv"
    read_dataset(tmp_path / "faces", data_dir=tmp_path, labels=table)
    table.write_text(PEOPLE.replace("afraid", "amazed"))
    faces = read_dataset(tmp_path / "faces", data_dir=tmp_path, labels=table)
    assert labels_by_file(faces)["b/4.png"]["emotion"] == "surprise"


def test_the_second_time_it_comes_from_the_cache(tmp_path, monkeypatch):
    place = write(tmp_path / "mine", class_folders())
    first = read_dataset(place, data_dir=tmp_path)
    monkeypatch.setattr("fer_helpers.datasets.folder.decode_images", None)
    second = read_dataset(place, data_dir=tmp_path)
    same(first, second)
    assert isinstance(second.images, np.memmap)
    with pytest.raises(TypeError):  # another wish is another cache
        read_dataset(place, data_dir=tmp_path, ignore=["sad"])


def test_every_format_is_read_or_listed(tmp_path):
    kinds = {
        "a.jfif": "JPEG", "b.jpe": "JPEG", "c.avif": "AVIF", "d.ppm": "PPM", "e.jp2": "JPEG2000",
        "f": "PNG", "g.TIF": "TIFF", "h.webp": "WEBP", "i.gif": "GIF",
    }  # fmt: skip
    tree = {f"happy/{name}": picture(i, kind=kind) for i, (name, kind) in enumerate(kinds.items())}
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    tree |= {
        "happy/j.HEIC": heic,
        "happy/k": b"no image",
        "happy/l.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    }
    faces = read_dataset(write(tmp_path / "mine", tree), data_dir=tmp_path)
    assert sorted(faces.paths) == sorted(f"happy/{name}" for name in kinds)
    reasons = dict(faces.skipped)
    assert sorted(reasons) == ["happy/j.HEIC", "happy/k"]
    assert "pillow-heif" in reasons["happy/j.HEIC"]
    assert [path for path, _ in faces.ignored] == ["happy/l.eps"]


@pytest.mark.parametrize("levels", ["8 bits in 16", "16 bits"])
def test_16_bit_pictures_have_the_right_levels_or_are_listed(tmp_path, levels):
    grey = np.random.default_rng(0).integers(0, 256, (48, 48))
    pixels = grey * 257 if levels == "16 bits" else grey
    for name in ("a", "b"):
        path = tmp_path / "mine" / "sad" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype("uint16") if name == "a" else grey.astype("uint8")).save(path)
    faces = read_dataset(tmp_path / "mine", data_dir=tmp_path)
    if levels == "16 bits":
        np.testing.assert_array_equal(faces.images[0], faces.images[1])
    else:
        assert faces.paths.tolist() == ["sad/b.png"]
        assert "no level above 255" in faces.skipped[0][1]


def test_lines_of_a_table_that_are_too_long_are_listed(tmp_path):
    lines = ["file_name,emotion,person", "1.jpg,happy,Ada", f"2.jpg,sad,{'B' * 501}", "," * 200_000]
    pictures = {f"{number}.jpg": picture(number) for number in (1, 2, 3)}
    write(tmp_path, {"metadata.csv": "\n".join([*lines, '"3.jpg",happy,"a ""b"""'])} | pictures)
    faces = read_dataset(tmp_path, data_dir=tmp_path / "data")
    assert faces.paths.tolist() == ["1.jpg", "3.jpg"]
    assert faces.persons.tolist() == ["Ada", 'a "b"']
    assert dict(faces.skipped) == {
        "metadata.csv:3": "a field of more than 500 characters",
        "metadata.csv:4": "100001 fields, not 3",
    }


def test_a_name_with_a_line_end_is_found_by_a_table(tmp_path):
    table = 'file_name,emotion\n"a\rb.jpg",happy\n"c\u2028d.jpg",sad\n'
    write(tmp_path, {"metadata.csv": table, "a\rb.jpg": picture(1), "c\u2028d.jpg": picture(2)})
    faces = read_dataset(tmp_path, data_dir=tmp_path / "data")
    assert faces.paths.tolist() == ["a\rb.jpg", "c\u2028d.jpg"]


def test_a_quotation_mark_that_is_never_closed_is_named(tmp_path):
    table = 'file_name,emotion\n1.jpg,"happy\n' + "2.jpg,sad\n" * 20_000
    write(tmp_path, {"metadata.csv": table, "1.jpg": picture(1)})
    with pytest.raises(ValueError, match=r"metadata\.csv:\d+ cannot be read .* never closed"):
        read_dataset(tmp_path, data_dir=tmp_path / "data")


def test_an_enormous_table_is_not_read(tmp_path):
    write(tmp_path, {"faces/1.jpg": picture(1), "table.csv": ""})
    os.truncate(tmp_path / "table.csv", 9 << 30)  # sparse: it takes no room
    for place, labels in ((tmp_path / "table.csv", None), (tmp_path, tmp_path / "table.csv")):
        with pytest.raises(ValueError, match=r"table\.csv: \d+ bytes is too large"):
            read_dataset(place, data_dir=tmp_path / "data", labels=labels)
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(FileNotFoundError, match=r"pipe\.csv does not exist"):
        read_dataset(tmp_path / "pipe.csv", data_dir=tmp_path / "data")


def test_a_table_names_pictures_by_their_whole_path_on_windows():
    source = SimpleNamespace(folder=PureWindowsPath("C:/faces"))
    text = b"file_name,emotion\nC:\\faces\\happy\\a.png,happy\n"
    rows, skipped = folder._find_pictures(source, ["happy/a.png"], [("metadata.csv", text)], True)
    assert rows["name"].tolist() == ["happy/a.png"]
    assert not skipped
