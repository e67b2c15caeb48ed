"""RAF-DB, as its owners ship it and as Kaggle's folders."""

import re
from pathlib import Path

import numpy as np
import pytest

from fer_helpers.datasets import Faces, rafdb, read_dataset
from fer_helpers.labels import BLOCKS, TASKS, decode_labels
from trees import (
    RAF_ATTRIBUTES,
    RAF_LABELS,
    picture,
    raf_attributes,
    raf_contents,
    raf_tree,
    same,
    write,
    zipped,
)


def check_raf(faces: Faces, attributes: bool = True) -> None:
    assert len(faces) == 8
    assert faces.splits.tolist() == ["train"] * 6 + ["validation", "test"]
    named = decode_labels(faces.labels)
    places = {re.search(r"(train|test)_\d+", path)[0]: row for row, path in enumerate(faces.paths)}
    assert faces.splits[places["test_0001"]] == "test"
    for stem in RAF_LABELS:
        row = places[stem]
        assert named["emotion"][row] == TASKS["emotion"][RAF_LABELS[stem] - 1]
        for task, code in zip(("gender", "race", "age"), RAF_ATTRIBUTES[stem], strict=True):
            block = faces.labels[row, BLOCKS[task]]
            assert block.sum() == attributes
            assert not attributes or block[code] == 1


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
    assert len(read_dataset("RAFDB", "train", data_dir=tmp_path)) == 6
    assert len(read_dataset("RAFDB", "validation", data_dir=tmp_path)) == 1


@pytest.mark.parametrize("zip_it", [False, True])
def test_raf_kaggle(tmp_path, capsys, zip_it):
    _, images, _ = raf_contents()
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
    is_bad = np.array(["train_00002" in path for path in faces.paths])
    assert faces.labels[is_bad].sum() == 1
    assert (faces.labels[~is_bad].sum(axis=1) == 4).all()


@pytest.mark.parametrize("line", ["train_00008.jpg 8", "train_0001.jpg 2", "test_0002.jpg 19"])
def test_raf_compound_subset_is_named(tmp_path, line):
    tree = raf_tree(packed=False)
    tree["basic/EmoLabel/list_patition_label.txt"] += line + "\n"
    write(tmp_path / "RAFDB", tree)
    with pytest.raises(ValueError, match=r"label\.txt:9: .* compound subset .* use 'basic'"):
        read_dataset("RAFDB", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("folder", "stem", "message"),
    [
        ("8", "train_00001", "compound subset"),
        ("1", "train_0001", "compound subset"),
        ("smug", "train_00001", "train_00001: unknown emotion 'smug': .* own labels are 1 to 7"),
        ("0", "train_00001", "labels 0 to 6 are of another numbering: rename the classes"),
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


def test_raf_list_that_counts_from_0_is_refused(tmp_path):
    tree = raf_tree(packed=False)
    name = "basic/EmoLabel/list_patition_label.txt"
    lines = [line.split() for line in tree[name].splitlines()]
    tree[name] = "".join(f"{file} {int(label) - 1}\n" for file, label in lines)
    write(tmp_path / "RAFDB", tree)
    with pytest.raises(ValueError, match="labels 0 to 6 are of another numbering"):
        read_dataset("RAFDB", data_dir=tmp_path)


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


def test_inner_zip_cut_off(tmp_path):
    tree = raf_tree(packed=True)
    tree["basic/Image/aligned.zip"] = tree["basic/Image/aligned.zip"][:-30]
    write(tmp_path / "RAFDB", {"raf.zip": zipped(tree)})
    with pytest.raises(ValueError, match=r"raf\.zip/basic/Image/aligned\.zip is not a whole zip"):
        read_dataset("RAFDB", data_dir=tmp_path)


RAF_NAMES = ("Surprise", "fear", "Disgusted", "happy", "sad", "angry", "neutral")


@pytest.mark.parametrize("form", ["folders", "list"])
def test_raf_names_in_place_of_numbers(tmp_path, form):
    lines, images, _ = raf_contents()
    names = {stem: RAF_NAMES[label - 1] for stem, label in RAF_LABELS.items()}
    if form == "list":
        tree = {f"Image/aligned/{name}": content for name, content in images.items()}
        lines = "".join(f"{stem}.jpg {word}\n" for stem, word in names.items())
        tree["EmoLabel/list_patition_label.txt"] = lines
    else:
        tree = {f"{n.split('_')[0]}/{names[n[:-12]]}/{n}": c for n, c in images.items()}
    write(tmp_path / "RAFDB", tree)
    check_raf(read_dataset("RAFDB", data_dir=tmp_path), attributes=False)


def test_raf_flat_folders_with_label_tables(tmp_path):
    _, images, _ = raf_contents()
    tree = {f"{name.split('_')[0]}/{name}": content for name, content in images.items()}
    for split in ("train", "test"):
        lines = [f"{s}_aligned.jpg,{label}" for s, label in RAF_LABELS.items() if split in s]
        tree[f"{split}_labels.csv"] = "\n".join(["image,label", *lines, "rubbish,9"])
    write(tmp_path / "RAFDB", tree)
    faces = read_dataset("RAFDB", data_dir=tmp_path)
    check_raf(faces, attributes=False)
    assert [path for path, _ in faces.skipped] == ["test_labels.csv:3", "train_labels.csv:9"]


def test_raf_folders_0_to_6(tmp_path):
    tree = {f"train/{i}/train_0000{i}_aligned.jpg": picture(i) for i in range(7)}
    write(tmp_path / "RAFDB", tree)
    with pytest.raises(ValueError, match="labels 0 to 6 are of another numbering"):
        read_dataset("RAFDB", data_dir=tmp_path)


def test_raf_two_pictures_of_one_face(tmp_path):
    tree = raf_tree(packed=False)
    name = "basic/Image/aligned/train_00001_aligned.jpg"
    tree |= {f"copy/{Path(name).name}": tree[name], f"new/{Path(name).name}": picture(77)}
    tree["basic/Image/original/train_00001.jpg"] = picture(78)
    write(tmp_path / "RAFDB", tree)
    faces = read_dataset("RAFDB", data_dir=tmp_path)
    check_raf(faces)
    assert [path for path, _ in faces.skipped] == [f"new/{Path(name).name}"]
    assert [path for path, _ in faces.ignored] == [
        f"copy/{Path(name).name}", "basic/Image/original/train_00001.jpg"
    ]  # fmt: skip


def test_an_annotation_of_many_megabytes_is_not_split():
    with pytest.raises(ValueError, match="10001 characters, not some 150"):
        rafdb.parse_attributes("\n" * 10_001)
