"""The cache: when it is used, rebuilt, shared, removed and done without."""

import io
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from fer_helpers.datasets import Faces, cache, fer2013, load, load_data, read_dataset, source
from fer_helpers.labels import decode_labels, encode_labels
from trees import fer_tree, picture, same, write, zipped


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
    kept = sorted(path.name.rsplit("-", 2)[0] for path in tmp_path.glob(".cache/*"))
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

    monkeypatch.setattr(cache, "_save", full)
    write(tmp_path / "FER", fer_tree())
    assert len(read_dataset("FER", data_dir=tmp_path)) == 21
    assert len(load_data("SAMPLE", data_dir=tmp_path, n=3)[0]) == 3
    assert "No space left" in capsys.readouterr().err
    assert not list(tmp_path.glob(".cache/*")) + list(tmp_path.glob(".cache/.*-*"))


def test_a_file_that_cannot_be_read_today_is_read_tomorrow(tmp_path, monkeypatch, capsys):
    write(tmp_path / "FER", fer_tree())
    read = source.Source.read

    def fail_once(source, name):
        if name.endswith("Training_3.jpg"):
            raise OSError(5, "Input/output error")
        return read(source, name)

    monkeypatch.setattr(source.Source, "read", fail_once)
    faces = read_dataset("FER", data_dir=tmp_path)
    assert len(faces) == 20
    assert "Input/output error" in dict(faces.skipped)["train/happy/Training_3.jpg"]
    assert "as train/happy/Training_3.jpg could not be read now" in capsys.readouterr().err
    monkeypatch.setattr(source.Source, "read", read)
    assert len(read_dataset("FER", data_dir=tmp_path)) == 21


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


def test_sample_cache_keys(tmp_path):
    sets = [
        load_data(data_dir=tmp_path, n=n, seed=seed, image_size=size)[0].tobytes()
        for n, seed, size in ((4, 0, 8), (5, 0, 8), (4, 1, 8), (4, 0, 9), (4, 0, 8))
    ]
    assert len(set(sets)) == 4
    assert sets[0] == sets[-1]
    assert len(list(tmp_path.glob(".cache/*"))) == 4


# ------------------------------------------------------------------ whose cache it is, and how long


def some_faces(level: int = 0) -> Faces:
    images = np.full((3, 8, 8, 1), level, np.uint8)
    return Faces(
        images,
        encode_labels({"age": [0, 1, 2]}),
        np.array(["a,\n.png", "NA", "ü.png"]),
        np.array(["train", "train", "test"]),
        [("b.png", "not an image"), ("", "NA")],
        ["one note", "another, with a comma"],
        [("c.txt", "not read")],
        np.array(["Ada", "", "007"]),
    )


def put(folder, name="MINE-48", source="files", code="code", level=0) -> Faces:
    return cache.cached(folder, name, source, code, lambda: some_faces(level))


def names(folder) -> set[str]:
    return {path.name for path in (folder / ".cache").iterdir()}


def age(folder, name: str, days: float) -> None:
    then = time.time() - days * 86_400
    os.utime(folder / ".cache" / name, (then, then))


def test_a_cache_gives_back_everything(tmp_path):
    built, kept = put(tmp_path), put(tmp_path, level=9)  # the second time nothing is built
    for faces in (built, kept):
        same(faces, some_faces())
        assert faces.paths.tolist() == some_faces().paths.tolist()
        assert faces.skipped == some_faces().skipped
        assert faces.ignored == some_faces().ignored
        assert faces.persons.tolist() == some_faces().persons.tolist()
        assert faces.notes == some_faces().notes
        assert isinstance(faces.images, np.memmap)
        assert not faces.images.flags.writeable
        assert faces.labels.dtype == np.float32
    assert kept.paths.dtype.kind == kept.splits.dtype.kind == "U"
    assert type(kept.skipped[0]) is tuple
    assert names(tmp_path) == {"MINE-48-files-code"}
    index = (tmp_path / ".cache/MINE-48-files-code/index.csv").read_text()
    assert index.startswith('"path","split","person"\n')


def test_names_like_numbers_are_given_back_as_they_were(tmp_path):
    words = np.array(["007", "1.0", "1e5"])
    faces = Faces(np.zeros((3, 8, 8, 1)), np.zeros((3, 18)), words, words, [("07", "1")], ["08"])
    kept = [cache.cached(tmp_path, "MINE", "files", "code", lambda: faces) for _ in range(2)]
    assert kept[1].paths.tolist() == kept[1].splits.tolist() == words.tolist()
    assert (kept[1].skipped, kept[1].notes) == ([("07", "1")], ["08"])


def test_names_of_any_bytes_are_given_back(tmp_path):
    faces = some_faces()
    faces.paths[1] = "\udcff.png"  # no UTF-8, as Python shows it
    faces.paths[0] = "a\r.png"
    faces.skipped[0] = ("\udcfe.png", "not an image")
    faces.notes[0] = "\r"
    kept = [cache.cached(tmp_path, "MINE", "files", "code", lambda: faces) for _ in range(2)]
    assert kept[1].paths[1] == "\udcff.png"
    assert kept[1].paths[0] == "a\r.png"
    assert kept[1].notes[0] == "\r"
    assert kept[1].skipped[0] == ("\udcfe.png", "not an image")


def test_two_checkouts_that_share_a_folder_keep_each_others_cache(tmp_path):
    put(tmp_path, code="ours")
    put(tmp_path, code="theirs", level=1)
    assert names(tmp_path) == {"MINE-48-files-ours", "MINE-48-files-theirs"}
    assert put(tmp_path, code="ours", level=2).images[0, 0, 0, 0] == 0
    assert put(tmp_path, code="theirs", level=2).images[0, 0, 0, 0] == 1


def test_another_codes_cache_is_removed_30_days_after_its_last_use(tmp_path):
    for code in ("recent", "unused", "used"):
        put(tmp_path, code=code)
    put(tmp_path, name="MINE-24", code="unused")
    age(tmp_path, "MINE-48-files-recent", 29.9)
    for name in ("MINE-48-files-unused", "MINE-48-files-used", "MINE-24-files-unused"):
        age(tmp_path, name, 30.1)
    put(tmp_path, code="used")  # from the cache
    put(tmp_path, code="new")
    left = {"MINE-48-files-recent", "MINE-48-files-used", "MINE-48-files-new"}
    assert names(tmp_path) == left | {"MINE-24-files-unused"}


def test_caches_of_other_files_are_removed_at_once_and_other_sets_stay(tmp_path):
    for name in ("MINE-48", "MINE-4", "MINE-480", "YOURS-48"):
        put(tmp_path, name=name, source="before")
    put(tmp_path, source="filesystem", code="theirs")
    put(tmp_path, source="files")
    others = {f"{name}-before-code" for name in ("MINE-4", "MINE-480", "YOURS-48")}
    assert names(tmp_path) == others | {"MINE-48-files-code"}


def test_what_a_killed_process_left_is_removed_after_a_day(tmp_path):
    for name in (".MINE-48-old", ".MINE-48-new", ".YOURS-48-old"):
        (tmp_path / ".cache" / name).mkdir(parents=True)
    (tmp_path / ".cache" / ".MINE-48-old" / "images.npy").touch()
    age(tmp_path, ".MINE-48-old", 1.1)
    age(tmp_path, ".MINE-48-new", 0.9)
    age(tmp_path, ".YOURS-48-old", 1.1)
    put(tmp_path)
    assert names(tmp_path) == {".MINE-48-new", ".YOURS-48-old", "MINE-48-files-code"}


def test_a_cache_of_others_that_nobody_may_touch_is_read(tmp_path, monkeypatch):
    put(tmp_path)

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refuse)
    same(put(tmp_path, level=9), some_faces())


def test_a_cache_that_cannot_be_read_back_is_an_error(tmp_path, monkeypatch):
    save = cache._save

    def save_half(faces, folder):
        save(faces, folder)
        (folder / "labels.npy").unlink()

    monkeypatch.setattr(cache, "_save", save_half)
    with pytest.raises(OSError, match=r"MINE-48-files-code was written but cannot be read back"):
        put(tmp_path)


@pytest.mark.parametrize(
    "damage", ["images.npy", "labels.npy", "index.csv", "skipped.csv", "notes.csv"]
)
@pytest.mark.parametrize("content", [None, b"", b"x\n1\n"])
def test_a_damaged_cache_is_replaced(tmp_path, damage, content):
    put(tmp_path)
    path = tmp_path / ".cache/MINE-48-files-code" / damage
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert (put(tmp_path, level=5).images == 5).all()
    assert (put(tmp_path, level=6).images == 5).all()


@pytest.mark.parametrize("damage", ["images.npy", "labels.npy", "index.csv", "notes.csv"])
def test_a_cache_with_a_flipped_bit_is_replaced(tmp_path, damage):
    put(tmp_path)
    path = tmp_path / ".cache/MINE-48-files-code" / damage
    content = bytearray(path.read_bytes())
    content[-2] ^= 1  # still an array or a table, of the same shape
    path.write_bytes(content)
    assert (put(tmp_path, level=5).images == 5).all()


def test_whole_files_that_were_not_written_together_are_no_cache(tmp_path):
    """NaN for labels, images of another size, other splits."""
    folder = tmp_path / ".cache/MINE-48-files-code"
    for change in (
        lambda: np.save(folder / "labels.npy", np.full((3, 18), np.nan, np.float32)),
        lambda: np.save(folder / "images.npy", np.zeros((3, 9, 9, 1))),
        lambda: (folder / "digests.json").unlink(),
        lambda: (folder / "digests.json").write_text("[1"),
    ):
        put(tmp_path, level=1)
        change()
        assert (put(tmp_path, level=5).images == 5).all()
        shutil.rmtree(folder)
    put(tmp_path, level=1)
    folder.rename(folder.with_name("MINE-24-files-code"))
    assert (put(tmp_path, "MINE-24", level=5).images == 5).all()


def test_corrected_labels_of_the_same_length_and_time_are_seen(tmp_path, monkeypatch):
    def prints_after(name, *contents):
        prints = set()
        for content in contents:
            (tmp_path / name).write_text(content)
            os.utime(tmp_path / name, ns=(1, 1))
            prints.add(source.Source(tmp_path).fingerprint)
        return len(prints)

    assert prints_after("metadata.csv", "a.png,sad", "a.png,joy") == 2
    assert prints_after("labels.TXT", "a.png 1", "a.png 2", "a.png 1") == 2
    assert prints_after("a.png", "one", "two") == 1  # pictures would have to be read for it
    monkeypatch.setattr(source, "LABEL_FILES", 1)
    assert prints_after("labels.TXT", "a.png 1", "a.png 2") == 1  # the other one is larger
    assert prints_after("metadata.csv", "a.png,sad", "a.png,joy") == 2
    monkeypatch.setattr(source, "LABEL_BYTES", 8)
    assert prints_after("metadata.csv", "a.png,sad", "a.png,joy") == 1


def test_files_in_place_of_old_caches_are_no_obstacle(tmp_path, capsys):
    (tmp_path / ".cache").mkdir()
    for name in ("MINE-48-other-code", ".MINE-48-scratch"):  # no folders: they stay
        (tmp_path / ".cache" / name).touch()
        age(tmp_path, name, 31)
    put(tmp_path)
    assert "MINE-48-files-code" in names(tmp_path)
    assert capsys.readouterr().err == ""


def test_a_file_in_place_of_the_cache_is_named(tmp_path):
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache/MINE-48-files-code").touch()
    with pytest.raises(OSError, match="cannot be read back: remove it and try again"):
        put(tmp_path)
    assert names(tmp_path) == {"MINE-48-files-code"}


def test_an_interrupted_writing_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(_, folder):
        (folder / "images.npy").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "_save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        put(tmp_path)
    assert names(tmp_path) == set()


def test_reading_without_a_cache_is_said_with_the_reason(tmp_path, capsys, monkeypatch):
    (tmp_path / ".cache").touch()
    same(put(tmp_path), some_faces())
    where = tmp_path / ".cache"
    said = f"MINE-48: read without a cache, as {where} cannot be written (Not a directory)\n"
    assert capsys.readouterr().err in (said, said.replace("Not a directory", "File exists"))

    def fail(*_):
        raise OSError("no number")

    monkeypatch.setattr(cache, "_save", fail)
    put(tmp_path / "other")
    assert "cannot be written (no number)" in capsys.readouterr().err


# ------------------------------------------------------------------------ the code that made it

MODULE = '''"""Read faces."""

SIDE = 48  # pixels


def read(x):
    """Return twice x."""
    # doubled
    return 2 * x


class Reader:
    """Reads."""

    name = "a"
'''


@pytest.fixture
def fingerprint(tmp_path):
    def of(*texts: str) -> str:
        modules = []
        for number, text in enumerate(texts):
            modules.append(ModuleType(f"module{number}"))
            modules[-1].__file__ = str(tmp_path / f"{number}.py")
            (tmp_path / f"{number}.py").write_text(text)
        return cache.code_fingerprint(*modules)

    return of


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Read faces.", "Read many faces."),
        ("pixels", "levels"),
        ("Return twice x.", "Double."),
        ("# doubled", "# twice, in fact"),
        ("Reads.", "Has read."),
        ("\n\n\n", "\n\n"),
    ],
)
def test_comments_and_docstrings_leave_the_fingerprint(fingerprint, old, new):
    assert old in MODULE
    assert fingerprint(MODULE.replace(old, new)) == fingerprint(MODULE)


@pytest.mark.parametrize(
    ("old", "new"),
    [("48", "49"), ("2 * x", "3 * x"), ("2 * x", "x * 2"), ('"a"', '"b"'), ("read", "reads")],
)
def test_changed_code_changes_the_fingerprint(fingerprint, old, new):
    prints = {fingerprint(MODULE), fingerprint(MODULE.replace(old, new))}
    assert len(prints) == 2
    assert {len(text) for text in prints} == {16}
    assert len({fingerprint(MODULE, "x = 1"), fingerprint(MODULE, "x = 2")}) == 2
    assert len({fingerprint("x = 1", MODULE), fingerprint("x = 2", MODULE)}) == 2


def changed_copy(module: ModuleType, folder: Path, text: str) -> ModuleType:
    """A module that works like another, but with a line more in its file."""
    stand_in = ModuleType(module.__name__)
    vars(stand_in).update({word: value for word, value in vars(module).items() if word[0] != "_"})
    stand_in.__file__ = str(folder / f"changed_{module.__name__}.py")
    Path(stand_in.__file__).write_text(Path(module.__file__).read_text() + text)
    return stand_in


@pytest.mark.parametrize(
    "name", ["labels_module", "images", "source", "splits", "faces_module", "folder", "FER"]
)
def test_changed_code_that_makes_faces_is_read_with_anew(tmp_path, monkeypatch, name):
    write(tmp_path / "FER", fer_tree())
    calls = count_reads(monkeypatch)
    read_dataset("FER", data_dir=tmp_path)
    before = names(tmp_path)
    for text, reads in (("# a remark\n", 1), ("CHANGED = True\n", 2)):
        module = changed_copy(load.READERS.get(name) or getattr(load, name), tmp_path, text)
        if name == "FER":
            monkeypatch.setitem(load.READERS, name, module)
        else:
            monkeypatch.setattr(load, name, module)
        read_dataset("FER", data_dir=tmp_path)
        assert len(calls) == reads
        assert len(names(tmp_path) - before) == reads - 1


@pytest.mark.parametrize("name", ["traits", "easel", "drawing", "sample"])
def test_changed_drawing_draws_anew(tmp_path, monkeypatch, name):
    load_data(data_dir=tmp_path, n=2, image_size=8)
    before = names(tmp_path)
    module = changed_copy(getattr(load, name), tmp_path, "CHANGED = True\n")
    monkeypatch.setattr(load, name, module)
    load_data(data_dir=tmp_path, n=2, image_size=8)
    assert len(names(tmp_path) - before) == 1
