"""Folders, zips, damaged files and worker processes."""

import errno
import io
import os
import subprocess
import sys
import tracemalloc
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


# ------------------------------------------------------------------------ bad entries, limits

FACE = picture(0)


def listed(folder, **names) -> dict[str, str]:
    """Read a folder of faces, check which were read, and return why others were not."""
    faces = read_dataset(folder, data_dir=folder.parent / "data")
    assert sorted(faces.paths) == names["read"]
    again = read_dataset(folder, data_dir=folder.parent / "data")
    assert (again.paths.tolist(), again.skipped) == (faces.paths.tolist(), faces.skipped)
    return dict(faces.skipped)


def test_what_is_no_regular_file_is_listed_and_does_not_stop_the_others(tmp_path):
    place = write(tmp_path / "faces", {"happy/1.jpg": FACE, "sad/2.jpg": FACE})
    (place / "sad/itself.jpg").symlink_to("itself.jpg")
    (place / "sad/nowhere.jpg").symlink_to("nothing")
    (place / "sad/endless.jpg").symlink_to("/dev/zero")
    os.mkfifo(place / "sad/pipe.jpg")
    long = "/".join(["l" * 200] * 3) + ".jpg"
    write(place, {long: FACE})
    reasons = listed(place, read=["happy/1.jpg", "sad/2.jpg"])
    wanted = {f"sad/{name}.jpg" for name in ("itself", "nowhere", "endless", "pipe")}
    assert reasons == dict.fromkeys(wanted, source.NOT_A_FILE) | {long: source.LONG_NAME}


def test_a_folder_without_permission_is_listed_and_does_not_stop_the_others(tmp_path, monkeypatch):
    place = write(tmp_path / "faces", {"happy/1.jpg": FACE, "sad/2.jpg": FACE})
    scandir = os.scandir

    def refuse(folder):
        if str(folder).endswith("sad/"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(source.os, "scandir", lambda folder: refuse(f"{folder}/"))
    reasons = listed(place, read=["happy/1.jpg"])
    assert list(reasons) == ["sad/"]
    assert reasons["sad/"].startswith("cannot be read now")


@pytest.mark.parametrize("zip_it", [False, True])
def test_names_of_any_characters_are_read_and_cached(tmp_path, zip_it):
    names = ["happy/\r.jpg", "happy/a\rb.jpg", "happy/\u2028\x85.jpg", "happy/=1+1.jpg"]
    if zip_it:
        write(tmp_path / "faces", {"a.zip": zipped(dict.fromkeys(names, FACE))})
        names = [f"a.zip/{name}" for name in names]
    else:
        names.append("happy/\udcff.jpg")  # no UTF-8, as Python shows it
        write(tmp_path / "faces", dict.fromkeys(names, FACE))
    assert listed(tmp_path / "faces", read=sorted(names)) == {}


def test_a_damaged_entry_of_a_zip_is_one_skipped_file(tmp_path):
    packed = bytearray(zipped({"happy/1.jpg": FACE, "sad/2.jpg": picture(1)}))
    place = packed.index(b"sad/2.jpg") + 60
    packed[place : place + 90] = bytes(90)
    write(tmp_path / "faces", {"a.zip": bytes(packed)})
    assert list(listed(tmp_path / "faces", read=["a.zip/happy/1.jpg"])) == ["a.zip/sad/2.jpg"]


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_an_entry_packed_in_another_way_is_one_skipped_file(tmp_path, method):
    stream = io.BytesIO(zipped({"happy/1.jpg": FACE}))
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("sad/2.jpg", FACE, method)
    write(tmp_path / "faces", {"a.zip": stream.getvalue()})
    reasons = listed(tmp_path / "faces", read=["a.zip/happy/1.jpg"])
    assert reasons == {
        "a.zip/sad/2.jpg": "packed neither as stored nor as deflated: unpack it by hand"
    }


def test_an_entry_that_states_too_small_a_size_is_not_unpacked(tmp_path):
    packed = bytearray(zipped({"happy/1.jpg": bytes(64 << 20)}))
    stated = packed.index(b"PK\1\2") + 24
    packed[stated : stated + 4] = (1000).to_bytes(4, "little")
    write(tmp_path, {"a.zip": bytes(packed)})
    with source.Source(tmp_path) as files:
        (name,) = files.names
        tracemalloc.start()
        with pytest.raises(zipfile.BadZipFile, match="Bad CRC-32"):
            files.read(name)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 8 << 20


def test_a_zip_is_not_unpacked_beyond_its_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "MAX_UNPACKED", 10_000)
    tree = {"happy/1.jpg": FACE, "happy/2.jpg": bytes(2_000_000), "sad/3.jpg": FACE}
    tree |= {f"sad/{'long' * 125}.jpg": FACE}
    with pytest.warns(UserWarning, match="Duplicate"):
        packed = zipped_twice(tree, "sad/3.jpg")
    write(tmp_path / "faces", {"a.zip": packed})
    reasons = listed(tmp_path / "faces", read=["a.zip/happy/1.jpg", "a.zip/sad/3.jpg"])
    assert len(reasons) == 3
    assert "more than 20 times their size" in reasons["a.zip/happy/2.jpg"]
    assert reasons["a.zip/sad/3.jpg"] == "a second file of this name"
    assert reasons[f"a.zip/sad/{'long' * 125}.jpg"[:500]] == source.LONG_NAME


def zipped_twice(tree, name) -> bytes:
    stream = io.BytesIO(zipped(tree))
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr(name, FACE)
    return stream.getvalue()


def test_a_zip_is_opened_in_a_zip_but_no_deeper(tmp_path):
    inner = zipped({"a/manual.zip": zipped({"b.txt": "1"}), "c.txt": "2"})
    write(tmp_path, {"raf.zip": zipped({"aligned.zip": inner})})
    with source.Source(tmp_path, ("aligned.zip", "manual.zip")) as files:
        assert files.names == ["raf.zip/aligned.zip/c.txt"]
        ((name, reason),) = files.skipped
    assert name == "raf.zip/aligned.zip/a/manual.zip"
    assert "a zip in a zip in a zip" in reason


def test_lines_are_read_up_to_their_limits(monkeypatch):
    monkeypatch.setattr(source, "MAX_LINE", 5)
    monkeypatch.setattr(source, "MAX_LINES", 4)

    def lines(text):
        return list(source.text_lines(io.BytesIO(text)))

    assert lines(b"\xef\xbb\xbf1234567890123\n\xff\r\n5") == ["12345", "\ufffd\r\n", "5"]
    assert lines(b"1\r2\n\n3") == ["1\r", "2\n", "\n", "3"]
    with pytest.raises(ValueError, match="more than 4 lines"):
        lines(b"1\n" * 5)


def test_large_files_are_not_held_together(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "SERIAL_BELOW", 1000)
    for number in range(30):
        path = write(tmp_path, {f"{number}.jpg": FACE}) / f"{number}.jpg"
        os.truncate(path, 4 << 20)
    with source.Source(tmp_path) as files:
        tracemalloc.start()
        images, *_ = source.decode_images(files, files.names, 48)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert len(images) == 30
    assert peak < 40 << 20  # 120 MB are in the files


BOMBS = """
import sys
from pathlib import Path
from fer_helpers.datasets import read_dataset
for name in sys.argv[2:]:
    try:
        read_dataset(name, data_dir=sys.argv[1])
    except ValueError:
        pass
    print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024)
"""


def test_no_bomb_takes_more_than_500_mb(tmp_path):
    """Each took more: entries of 24 MB, a name of 60,000 letters, a line of 600 MB, commas."""
    large = b"P6 2896 2896 255\n" + bytes(3 * 2896**2)
    faces = {f"happy/{number}.ppm": large for number in range(24)}
    write(tmp_path / "entries", {"a.zip": zipped(faces)})
    names = {f"happy/{number}.jpg": FACE for number in range(2400)}
    write(tmp_path / "names", {"a.zip": zipped({"happy/" + "a" * 60_000 + ".jpg": FACE} | names)})
    head = "emotion,Usage,pixels\n"
    write(tmp_path / "FER", {"fer2013.csv": head})
    os.truncate(tmp_path / "FER/fer2013.csv", 600 << 20)
    write(tmp_path / "commas", {"metadata.csv": "file_name,emotion\n" + "," * 60_000_000})
    write(tmp_path / "commas", {"1.jpg": FACE})
    places = ["FER", *(str(tmp_path / name) for name in ("entries", "names", "commas"))]
    done = subprocess.run(
        [sys.executable, "-c", BOMBS, str(tmp_path), *places],
        capture_output=True,
        text=True,
        check=True,
    )
    peaks = [int(line) for line in done.stdout.split()]
    assert len(peaks) == len(places)
    assert max(peaks) < 500, peaks
