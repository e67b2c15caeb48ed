"""Folders, zips, damaged files and worker processes."""

import zipfile

import numpy as np
import pytest

from fer_helpers.datasets import read_dataset, source
from fer_helpers.labels import decode_labels
from trees import fer_tree, picture, png_claiming, same, write, zipped


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
    assert "21 files ignored, copies of others" in capsys.readouterr().err


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
    with pytest.raises(
        ValueError, match=r"none of 1 images could be read; first .*/Training_1.jpg: not an image"
    ):
        read_dataset("FER", data_dir=tmp_path)


def test_a_file_said_to_be_enormous_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "MAX_BYTES", 5000)
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


@pytest.mark.parametrize("name", ["FER", "RAFDB", "UTKFACE"])
@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_zip_cut_off(tmp_path, name, keep):
    data = zipped(fer_tree())
    data = data[: keep if isinstance(keep, int) else int(keep * len(data))]
    write(tmp_path / name, {"fer.zip": data})
    with pytest.raises(ValueError, match=r"fer\.zip is not a whole zip .* download it again"):
        read_dataset(name, data_dir=tmp_path)


def test_names_in_a_zip_cannot_leave_it(tmp_path):
    tree = {f"../../{name}": content for name, content in fer_tree().items()}
    write(tmp_path / "in/FER", {"a.zip": zipped(tree | {"/etc/evil.jpg": picture(0)})})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=r"a\.zip/etc: unknown emotion 'etc'"):
        read_dataset("FER", data_dir=tmp_path / "in")
    assert [path for path in sorted(tmp_path.rglob("*")) if path.name != ".cache"] == before


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
    folder = source.Source(tmp_path / "FER")
    names = [name for name in folder.names if name.endswith("jpg")]
    serial = source.decode_images(folder, names, 24)
    monkeypatch.setattr(source, "CHUNK", 2)
    monkeypatch.setattr(source, "SERIAL_BELOW", 1)
    parallel = source.decode_images(folder, names, 24)
    np.testing.assert_array_equal(serial[0], parallel[0])
    np.testing.assert_array_equal(serial[1], parallel[1])
    assert serial[2] == parallel[2] == [("test/sad/PublicTest_88.jpg", "not an image")]
    assert len(serial[0]) == 21
    assert len(names) == 22


def test_data_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("FER_DATA_DIR", raising=False)
    (tmp_path / "data").mkdir()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert source.data_folder() == tmp_path / "notebooks/data"
    (tmp_path / "README.md").touch()
    assert source.data_folder() == tmp_path / "data"
    monkeypatch.setenv("FER_DATA_DIR", str(tmp_path / "other"))
    assert source.data_folder() == tmp_path / "other"
    assert source.data_folder(tmp_path / "mine") == tmp_path / "mine"
