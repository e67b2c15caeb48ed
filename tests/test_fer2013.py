"""FER2013, as a CSV and as folders of images."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from fer_helpers.datasets import fer2013, read_dataset
from fer_helpers.labels import decode_labels
from trees import FER_FOLDERS, FER_NAMES, fer_csv, fer_pixels, fer_tree, picture, write, zipped


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
    assert faces.splits.tolist() == ["Training"] * 7 + ["PublicTest"] * 7 + ["PrivateTest"] * 7
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
    expected = [1, 4, 2, 5, 0, 3, 6]  # by split: Training, PublicTest, PrivateTest
    assert decode_labels(faces.labels)["emotion"].tolist() == [FER_NAMES[c] for c in expected]
    assert faces.splits.tolist() == ["Training"] * 2 + ["PublicTest"] * 2 + ["PrivateTest"] * 3
    assert faces.paths[0].endswith("zz_icml.csv:3")
    pixels = np.array(fer_pixels(1).split(), dtype=int).reshape(48, 48)
    np.testing.assert_array_equal(faces.images[0, :, :, 0], pixels)


def test_fer_with_private_test_only(tmp_path, capsys):
    tree = {name: c for name, c in fer_tree().items() if "PrivateTest" in name}
    write(tmp_path / "FER", tree)
    assert len(read_dataset("FER", "test", data_dir=tmp_path)) == 7
    assert "FER: this copy has no Training, PublicTest" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"no Training \(split 'train'\); it has PrivateTest"):
        read_dataset("FER", "train", data_dir=tmp_path)


def test_fer_names_without_split_fall_back_to_folders(tmp_path, capsys):
    tree = {
        "train/happy/im0.png": picture(0, kind="PNG"),
        "test/sad/im0.png": picture(1),
    }
    write(tmp_path / "FER", tree)
    faces = read_dataset("FER", data_dir=tmp_path)
    assert faces.splits.tolist() == ["Training", "PrivateTest"]
    said = capsys.readouterr().err
    assert "split is taken from the folder (PrivateTest, Training)" in said
    assert "weights trained on FER2013 may have seen the faces that they are scored on" in said


def test_fer_other_spellings_of_emotions(tmp_path):
    for place, name in enumerate(("Anger", "happiness", "sadness", "disgusted", "fearful")):
        write(tmp_path / "FER", {f"train/{name}/Training_{place}.jpg": picture(place)})
    names = decode_labels(read_dataset("FER", data_dir=tmp_path).labels)["emotion"]
    assert set(names) == {"anger", "happiness", "sadness", "disgust", "fear"}


def test_fer_unknown_emotion_folder(tmp_path):
    write(tmp_path / "FER", fer_tree() | {"train/contempt/Training_9.jpg": picture(1)})
    with pytest.raises(ValueError, match=r"train/contempt: unknown emotion 'contempt': .*angry"):
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
    with pytest.raises(ValueError, match=r"none of 1 rows can be used; first fer2013\.csv:2"):
        read_dataset("FER", data_dir=tmp_path / "b")


def test_fer_pixels_keep_every_digit():
    text = " ".join(str(value % 256) for value in range(2304))
    expected = np.arange(2304).reshape(48, 48) % 256
    np.testing.assert_array_equal(fer2013.parse_pixels(text), expected)
    np.testing.assert_array_equal(fer2013.parse_pixels(f"  {text.replace(' ', '  ')} "), expected)


@pytest.mark.parametrize("content", ["emotion,image\n0,x\n", "", "\n", "a,pixels\n0,1\n"])
def test_fer_csv_without_the_columns(tmp_path, content):
    write(tmp_path / "FER", {"fer2013.csv": content})
    with pytest.raises(ValueError, match=r"fer2013\.csv has the columns .* not emotion, pixels"):
        read_dataset("FER", data_dir=tmp_path)


def test_fer_csv_with_a_header_only(tmp_path):
    write(tmp_path / "FER", {"fer2013.csv": "emotion,pixels,Usage\n"})
    with pytest.raises(ValueError, match="none of 0 rows can be used"):
        read_dataset("FER", data_dir=tmp_path)


def test_bad_checksum_in_a_zipped_csv(tmp_path):
    data = bytearray(zipped({"fer2013.csv": fer_csv()}, zipfile.ZIP_STORED))
    data[2000:2003] = b"9 9"
    write(tmp_path / "FER", {"a.zip": bytes(data)})
    with pytest.raises(ValueError, match=r"fer2013\.csv cannot be read to its end \(Bad CRC"):
        read_dataset("FER", data_dir=tmp_path)


def test_fer_in_several_tables(tmp_path):
    header, *rows = fer_csv().splitlines()
    more = [row.replace(" ", "  ", 1) for row in rows]  # not the same rows again
    tables = {
        "train.csv": [f"{code},{fer_pixels(20 + code)},Training" for code in range(7)] * 2,
        "val.csv": [f"{code},{fer_pixels(40 + code)},PublicTest" for code in range(7)],
        "test.csv": [f"{code},{fer_pixels(50 + code)},PrivateTest" for code in range(7)],
    }
    write(tmp_path / "FER", {name: "\n".join([header, *lines]) for name, lines in tables.items()})
    faces = read_dataset("FER", data_dir=tmp_path)
    assert len(faces) == 28
    assert [(faces.splits == split).sum() for split in fer2013.SPLITS] == [14, 7, 7]
    # The same rows once more, with other spaces: a copy. Other rows: read.
    write(tmp_path / "FER", {"again.csv": "\n".join([header, *tables["val.csv"]])})
    faces = read_dataset("FER", data_dir=tmp_path)
    assert len(faces) == 28
    assert len(faces.ignored) == 1
    assert faces.ignored[0][1] == "a copy of rows in other tables"
    write(tmp_path / "FER", {"more.csv": "\n".join([header, *more])})
    assert len(read_dataset("FER", data_dir=tmp_path)) == 35


def test_fer_tables_without_usage_are_split_by_their_names(tmp_path):
    tables = {"train.csv": (2, 0), "valid.csv": (3, 10), "test.csv": (4, 20)}
    for name, (count, seed) in tables.items():
        rows = [f"{i},{fer_pixels(seed + i)}" for i in range(count)]
        write(tmp_path / "FER", {name: "\n".join(["emotion,pixels", *rows])})
    faces = read_dataset("FER", data_dir=tmp_path)
    assert [(faces.splits == split).sum() for split in fer2013.SPLITS] == [2, 3, 4]


def test_fer_csv_without_a_header(tmp_path):
    write(tmp_path / "FER", {"fer2013.csv": fer_csv().split("\n", 1)[1]})
    with pytest.raises(ValueError, match=r"fer2013\.csv has no header") as error:
        read_dataset("FER", data_dir=tmp_path)
    assert len(str(error.value)) < 300


def test_fer_equal_names_are_two_faces_and_equal_bytes_one(tmp_path):
    tree = {
        "a/train/happy/im0.png": picture(0),
        "b/train/happy/im0.png": picture(1),
        "c/train/happy/im0.png": picture(1),
    }
    faces = read_dataset(
        "FER", data_dir=write(tmp_path / "x", {f"FER/{n}": c for n, c in tree.items()})
    )
    assert len(faces) == 2
    assert faces.ignored == [("c/train/happy/im0.png", "a copy of b/train/happy/im0.png")]


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("valid", "PublicTest"), ("val", "PublicTest"), ("Validation", "PublicTest"),
        ("public_test", "PublicTest"), ("testing", "PrivateTest"), ("private_test", "PrivateTest"),
        ("TRAINING", "Training"),
    ],
)  # fmt: skip
def test_fer_other_words_for_splits(tmp_path, folder, split):
    write(tmp_path / "FER", {"train/sad/a.png": picture(0), f"{folder}/sad/b.png": picture(1)})
    faces = read_dataset("FER", data_dir=tmp_path)
    assert dict(zip(faces.paths, faces.splits, strict=True))[f"{folder}/sad/b.png"] == split


def test_fer_folders_without_splits_get_all_three(tmp_path, capsys):
    tree = {
        f"{name}/{i}.png": picture(10 * n + i)
        for n, name in enumerate(FER_FOLDERS)
        for i in range(5)
    }
    write(tmp_path / "FER", tree)
    faces = read_dataset("FER", data_dir=tmp_path)
    names = ("Training", "validation", "test")  # no official ones, so no official names
    assert [(faces.splits == split).sum() for split in names] == [27, 4, 4]
    assert "FER: no test split: a tenth of each class, 4 of 35" in capsys.readouterr().err
    assert len(read_dataset("FER", "test", data_dir=tmp_path)) == 4
    with pytest.raises(ValueError, match=r"FER has no PrivateTest .* it has Training, test, valid"):
        read_dataset("FER", "PrivateTest", data_dir=tmp_path)


def test_fer_training_stays_whole_where_only_the_test_faces_are_missing(tmp_path, capsys):
    tree = {name: content for name, content in fer_tree().items() if "PrivateTest" not in name}
    write(tmp_path / "FER", tree)
    faces = read_dataset("FER", data_dir=tmp_path)
    assert faces.splits.tolist() == ["Training"] * 7 + ["PublicTest"] * 7
    assert "FER: this copy has no PrivateTest" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"no PrivateTest \(split 'test'\); it has Pub"):
        read_dataset("FER", "test", data_dir=tmp_path)


def test_fer_class_left_out_on_purpose(tmp_path):
    write(tmp_path / "FER", fer_tree() | {"train/contempt/Training_9.jpg": picture(1)})
    faces = read_dataset("FER", data_dir=tmp_path, ignore=["contempt"])
    assert len(faces) == 21
    assert faces.ignored == [("train/contempt/Training_9.jpg", "left out: contempt")]


VOTES = """\
Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF
PrivateTest,fer0.png,4,0,0,1,3,2,0,0,0,0
Training,fer1.png,6,0,1,1,0,0,0,0,2,0
PublicTest,fer2.png,0,10,0,0,0,0,0,0,0,0
PrivateTest,fer3.png,0,0,0,0,0,0,0,0,0,10
Training,fer4.png,2,0,0,0,0,0,0,8,0,0
PublicTest,fer5.png,0,0,5,0,0,0,5,0,0,0
PrivateTest,fer6.png,10,0,0,0,0,0,0,0,0,0
"""


def test_ferplus_votes_are_soft_targets(tmp_path, capsys):
    write(tmp_path / "FER", {"fer2013.csv": fer_csv(), "fer2013new.csv": VOTES})
    plain = read_dataset("FER", data_dir=tmp_path)
    assert set(np.unique(plain.labels)) == {0, 1}
    assert "FER+'s votes, read with labels='ferplus'" in capsys.readouterr().err
    faces = read_dataset("FER", data_dir=tmp_path, labels="ferplus")
    np.testing.assert_array_equal(faces.images, plain.images)
    shares = dict(zip(faces.paths, faces.labels[:, :7].round(3).tolist(), strict=True))
    # surprise, fear, disgust, happiness, sadness, anger, neutral
    assert shares["fer2013.csv:2"] == pytest.approx([0, 0, 0.2, 0, 0.1, 0.3, 0.4])
    assert shares["fer2013.csv:3"] == pytest.approx([0.125, 0, 0, 0, 0.125, 0, 0.75])
    assert shares["fer2013.csv:7"] == pytest.approx([0.5, 0.5, 0, 0, 0, 0, 0])
    assert shares["fer2013.csv:5"] == shares["fer2013.csv:6"] == [0] * 7  # no face, contempt
    assert not faces.labels[:, 7:].any()
    assert (
        "2 faces have none, since no emotion has more votes than contempt"
        in capsys.readouterr().err
    )


def test_folders_that_are_all_left_out_are_counted(tmp_path):
    write(tmp_path / "FER", {f"train/happy/Training_{n}.jpg": picture(n) for n in (1, 2)})
    with pytest.raises(
        ValueError, match=r"none of 2 images can be used; first .*: left out: happy"
    ):
        read_dataset("FER", data_dir=tmp_path, ignore=["happy"])


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"fer2013.csv": fer_csv()}, "'ferplus' needs fer2013new.csv"),
        (fer_tree() | {"fer2013new.csv": VOTES}, "beside one fer2013.csv, whose rows it follows"),
        ({"fer2013.csv": fer_csv(), "fer2013new.csv": "neutral\n1\n"}, "missing: NF, anger"),
        ({"fer2013.csv": fer_csv(), "fer2013new.csv": "\n".join(VOTES.split("\n")[:4])},
         "does not fit .* 3 rows for 7"),
    ],
)  # fmt: skip
def test_ferplus_that_does_not_fit(tmp_path, tree, said):
    write(tmp_path / "FER", tree)
    with pytest.raises(ValueError, match=said):
        read_dataset("FER", data_dir=tmp_path, labels="ferplus")


def test_an_endless_line_is_one_skipped_row(tmp_path):
    rows = fer_csv().splitlines()
    rows[3:3] = [rows[3] + " " + "9" * 200_000, "," * 200_000]
    write(tmp_path / "FER", {"fer2013.csv": "\r\n".join(rows)})
    faces = read_dataset("FER", data_dir=tmp_path)
    assert len(faces) == 7
    assert [path for path, _ in faces.skipped] == ["fer2013.csv:4", "fer2013.csv:5"]


def test_votes_of_another_size_than_ferplus_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fer2013, "MAX_VOTES_BYTES", 1000)
    tree = {"fer2013.csv": fer_csv(), "fer2013new.csv": "," * 1001}
    write(tmp_path / "FER", tree)
    with pytest.raises(ValueError, match=r"fer2013new\.csv: 1001 bytes is too large"):
        read_dataset("FER", data_dir=tmp_path, labels="ferplus")
