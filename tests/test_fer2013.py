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
    assert "FER: no Training, PublicTest in this copy" in capsys.readouterr().err
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
    with pytest.raises(ValueError, match=r"none of 1 rows can be used; first fer2013\.csv:2"):
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
    with pytest.raises(ValueError, match="none of 0 rows can be used"):
        read_dataset("FER", data_dir=tmp_path)


def test_bad_checksum_in_a_zipped_csv(tmp_path):
    data = bytearray(zipped({"fer2013.csv": fer_csv()}, zipfile.ZIP_STORED))
    data[2000:2003] = b"9 9"
    write(tmp_path / "FER", {"a.zip": bytes(data)})
    with pytest.raises(ValueError, match=r"fer2013\.csv cannot be read to its end \(Bad CRC"):
        read_dataset("FER", data_dir=tmp_path)
