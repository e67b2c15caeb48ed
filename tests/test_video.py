"""From a video to a row per face and moment, and a picture of them."""

import json
import os
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fer_helpers import TASKS, load_model, plots, predict_photo, predict_video, video
from fer_helpers.cli import main
from fer_helpers.photos import NO_FACE


def need_av():
    return pytest.importorskip("av", reason="needs fer-helpers[video]")


@pytest.fixture(scope="module")
def model():
    return load_model("SAMPLE")


@pytest.fixture
def pictures(sample_test):
    """A wall, and before it two drawn faces that are surely found, each alone and both."""
    wall = Image.new("RGB", (320, 240), (90, 120, 150))
    one, two, both = wall.copy(), wall.copy(), wall.copy()
    for picture, index, side, spot in (
        *((one, 1, 150, (20, 60)), (two, 26, 150, (120, 30))),
        *((both, 1, 80, (20, 100)), (both, 26, 150, (140, 40))),
    ):
        face = Image.fromarray(sample_test[0][index, :, :, 0])
        picture.paste(face.resize((side, side), Image.Resampling.BICUBIC), spot)
    return {"wall": wall, "one": one, "two": two, "both": both}


def write(path, pictures, rate):
    """Write a video of pictures, `rate` per second."""
    av = need_av()
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=Fraction(rate), bit_rate=4_000_000)
        stream.width, stream.height = pictures[0].size
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            file.mux(stream.encode(av.VideoFrame.from_image(picture)))
        file.mux(stream.encode())


def test_a_video_of_ten_seconds_from_command_to_table_and_figure(capsys, tmp_path, pictures, model):
    # Four seconds of one face, two of the wall, four of two faces.
    names = ["one"] * 20 + ["wall"] * 10 + ["both"] * 20
    clip, table = tmp_path / "clip.mp4", tmp_path / "rows.csv"
    write(clip, [pictures[name] for name in names], 5)
    words = ["predict", clip, "--weights", "SAMPLE", "--out", table, "--figures", tmp_path]
    assert main([*map(str, words)]) == 0
    assert "28 rows" in capsys.readouterr().err
    rows = pd.read_csv(table, keep_default_na=False)
    assert rows.columns[:3].tolist() == ["path", "seconds", "emotion"]
    places = ["left", "top", "right", "bottom", "confidence", "warning", "error"]
    assert rows.columns[-7:].tolist() == places
    times = [*np.arange(0, 6, 0.5), *np.repeat(np.arange(6, 10, 0.5), 2)]
    # The first picture of each half second, at 5 pictures per second.
    np.testing.assert_allclose(rows["seconds"], np.ceil(np.multiply(times, 5)) / 5, atol=0.01)
    assert rows["error"].tolist() == [""] * 8 + [NO_FACE] * 4 + [""] * 16
    for name, start, step in (("one", 0, 1), ("both", 12, 2)):
        _, seen = predict_photo(model, pictures[name])
        found = rows.iloc[start : 28 if name == "both" else 8 : step]
        assert set(found["emotion"]) == {seen["emotion"][0]}
        np.testing.assert_allclose(found["left"].astype(float), seen["left"][0], atol=8)
    with Image.open(tmp_path / "clip-faces.png") as figure:
        assert figure.size[0] > 600


def test_moments_per_second_can_be_chosen(tmp_path, pictures, model):
    write(tmp_path / "clip.avi", [pictures["one"]] * 8, 4)
    for fps, times in ((1, [0, 1]), (4, np.arange(8) / 4), (100, np.arange(8) / 4)):
        rows = predict_video(model, tmp_path / "clip.avi", fps=fps)
        np.testing.assert_allclose(rows["seconds"], times, atol=0.01)
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="moments per second, above 0"):
            predict_video(model, tmp_path / "clip.avi", fps=fps)


def test_a_gif_that_moves_is_a_video_and_one_that_does_not_a_photo(
    capsys, tmp_path, pictures, monkeypatch
):
    need_av()
    monkeypatch.chdir(tmp_path)
    one, two = pictures["one"], pictures["two"]
    one.save("moves.gif", save_all=True, append_images=[pictures["wall"], two], duration=500)
    one.save("still.gif")
    words = ["predict", "moves.gif", "still.gif", "--weights", "SAMPLE", "--fps", "1", "--json"]
    assert main([*words, "--figures", "."]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["path"], row["seconds"]) for row in rows] == [
        *(("moves.gif", 0), ("moves.gif", 1)),
        ("still.gif", None),
    ]
    assert rows[1]["left"] > 100
    assert rows[2]["left"] < 100
    assert {path.name for path in tmp_path.glob("*.png")} == {"moves-faces.png", "still-faces.png"}


def test_the_figure_shows_the_largest_face_and_gaps():
    first, other = ({f"emotion_{name}": p for name in TASKS["emotion"]} for p in (0.1, 0.9))
    rows = [first | {"seconds": 0.0}, other | {"seconds": 0.0}, {"seconds": 0.5}]
    figure = plots.emotions_over_time(pd.DataFrame(rows))
    for line in figure.axes[0].lines:
        np.testing.assert_array_equal(line.get_ydata(), [0.1, np.nan])
    plots.plt.close(figure)


def test_a_phone_s_upright_video_is_turned(tmp_path, pictures, model):
    file = tmp_path / "phone.mp4"
    write(file, [pictures["two"].transpose(Image.Transpose.ROTATE_90)] * 2, 2)
    # The matrix of the track: as filmed, then a quarter clockwise to be shown.
    data = file.read_bytes()
    start = data.index(b"tkhd")
    matrices = []
    for turn in ((1, 0, 0, 1), (0, 1, -1, 0)):
        a, b, c, d = np.multiply(turn, 1 << 16)
        matrices.append(np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4").tobytes())
    assert data[start:].count(matrices[0]) == 1
    file.write_bytes(data[:start] + data[start:].replace(*matrices))
    rows = predict_video(model, file)
    assert (rows["error"] == "").all()
    assert rows["left"].between(120, 200).all()


def test_what_is_no_video_has_one_row_that_says_so(tmp_path, model):
    need_av()
    (tmp_path / "text.mp4").write_text("no video")
    rows = predict_video(model, tmp_path / "text.mp4")
    assert len(rows) == 1
    assert rows["error"][0].startswith("it cannot be read as a video")
    assert rows["seconds"].isna().all()


def test_the_missing_package_and_crops_from_a_video_are_one_line(capsys, monkeypatch, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"")
    words = ["predict", str(tmp_path / "clip.mp4"), "--weights", "SAMPLE"]
    assert main([*words, "--no-detect"]) == 2
    assert "is a video: leave out --no-detect" in capsys.readouterr().err
    monkeypatch.setattr(video, "find_spec", lambda name: None)
    assert main(words) == 2
    assert "pip install 'fer-helpers[video]'" in capsys.readouterr().err


def test_a_pipe_is_no_video(tmp_path):
    for name in ("pipe.gif", "pipe.mp4"):
        os.mkfifo(tmp_path / name)
        assert not video.is_video(tmp_path / name)
