"""UTKFace: labels from file names, minutes kept together, and its crop."""

import numpy as np
import pytest
from PIL import Image

from fer_helpers.datasets import read_dataset, utkface
from fer_helpers.images import crop_and_resize
from fer_helpers.labels import BLOCKS, decode_labels
from trees import UTK_FILES, picture, write, zipped


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
    assert "1 files ignored, copies of others; first" in said
    assert faces.ignored[0][0].endswith(f"crop_part1/{UTK_FILES[0]}")


def test_utkface_split_and_labels_go_with_the_name_past_a_damaged_file(tmp_path):
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
    for path, split, row in zip(faces.paths, faces.splits, faces.labels, strict=True):
        age, gender, race, date = path.split(".")[0].split("_")
        assert split == ("validation" if date.startswith(held_out) else "train")
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
        ValueError, match=r"none of 1 images is named like UTKFace's chips; first holiday\.jpg"
    ):
        read_dataset("UTKFACE", data_dir=tmp_path)


def test_utkface_splits_keep_a_minute_together():
    minutes = [f"2017{m:02d}{d:02d}{h:02d}{i:02d}" for m in (1, 2) for d in range(1, 29)
               for h in range(24) for i in range(0, 60, 7)]  # fmt: skip
    share = np.mean([utkface.in_validation(minute) for minute in minutes])
    assert 0.09 < share < 0.11
    stamps = [
        utkface.parse_name(f"20_0_0_20170109142{s}.jpg.chip.jpg")[3] for s in ("408075", "459999")
    ]
    assert stamps == ["201701091424"] * 2
    assert utkface.in_validation("201701091424") is False  # the same in every session


def test_utkface_window_mirrors_its_top():
    rows = np.repeat(np.arange(200, dtype=np.uint8)[:, None], 200, axis=1)
    out = crop_and_resize(Image.fromarray(rows), 200, utkface.CROP)[..., 0]
    np.testing.assert_array_equal(out[20:], rows[:180])
    np.testing.assert_array_equal(out[:20], rows[:20][::-1])


def test_utkface_in_the_wild_is_no_face(tmp_path):
    wild = "20_0_0_20170109142408075.jpg"
    write(tmp_path / "UTKFACE", {wild: picture(0, 300), UTK_FILES[0]: picture(1, 200)})
    faces = read_dataset("UTKFACE", data_dir=tmp_path)
    assert faces.paths.tolist() == [UTK_FILES[0]]
    ((path, reason),) = faces.skipped
    assert path == wild
    assert "a whole photo, not a face cut out of one" in reason


@pytest.mark.parametrize("name", ["UTKFace", "utkface", "UTK-Face"])
def test_utkface_in_a_folder_of_another_spelling(tmp_path, name):
    write(tmp_path / name, {file: picture(i, 200) for i, file in enumerate(UTK_FILES)})
    assert len(read_dataset("UTKFACE", data_dir=tmp_path)) == 6


def test_utkface_copies_have_equal_bytes(tmp_path):
    tree = {f"{place}/{UTK_FILES[0]}": picture(i // 2, 200) for i, place in enumerate("abc")}
    write(tmp_path / "UTKFACE", tree)
    faces = read_dataset("UTKFACE", data_dir=tmp_path)
    assert len(faces) == 2
    assert faces.ignored == [(f"b/{UTK_FILES[0]}", f"a copy of a/{UTK_FILES[0]}")]


def test_utkface_test_split_leaves_minutes_whole_and_validation_as_it_is(tmp_path):
    tree = {
        f"{20 + i % 9}_{i % 2}_0_2017010911{i // 3:02}{i:05}.jpg.chip.jpg": picture(i, 60)
        for i in range(150)
    }
    write(tmp_path / "UTKFACE", tree)
    faces = read_dataset("UTKFACE", data_dir=tmp_path)
    for minute in set(faces.persons):
        assert len(set(faces.splits[faces.persons == minute])) == 1
    held_out = np.array([utkface.in_validation(minute) for minute in faces.persons])
    assert ((faces.splits == "validation") == held_out).all()
    assert 5 <= (faces.splits == "test").sum() <= 30
