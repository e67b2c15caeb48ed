"""From a video to its faces and a table of predictions over time."""

import math
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
from PIL import Image

from fer_helpers.backend import keras
from fer_helpers.photos import NO_FACE, predict_photo
from fer_helpers.progress import tqdm

SUFFIXES = (".mp4", ".mov", ".webm", ".avi", ".mkv")


def is_video(path: Path) -> bool:
    """Return whether a file is a video: by its ending, or a GIF with more than one image."""
    if not path.is_file():  # a pipe, say, has no end
        return False
    if path.suffix.lower() != ".gif":
        return path.suffix.lower() in SUFFIXES
    try:
        with Image.open(path, formats=["GIF"]) as image:
            return image.n_frames > 1
    except OSError:
        return False


def predict_video(
    model: keras.Model, path: str | Path, fps: float = 2, attributes: bool = False
) -> pd.DataFrame:
    """Find the faces at moments of a video and predict each; people are not told apart.

    Parameters
    ----------
    model
        From `get_model` or `load_model`.
    path
        A video that FFmpeg reads (MP4, MOV, WebM, AVI, MKV), or an animated GIF.
    fps
        Moments per second, above 0. A video with fewer images per second is looked at whole.
    attributes
        Also gender, race and age, see `prediction_table`.

    Returns
    -------
    pandas.DataFrame
        One row per face and moment, in the order of time, at each moment the largest face
        first: ``path``, ``seconds`` since the start, the columns of `predict_photo`'s table,
        and ``error``. A moment without a face has one row that says so; where the video cannot
        be read, a last row without ``seconds`` says why.

    Raises
    ------
    ValueError
        `fps` is not above 0 and finite, or the package av is not installed.
    """
    if not 0 < fps < math.inf:
        raise ValueError(f"fps is {fps}: give the moments per second, above 0 and finite")
    if not find_spec("av"):
        raise ValueError("reading a video needs PyAV: pip install 'fer-helpers[video]'")
    tables = []
    try:
        for seconds, picture in tqdm(_moments(path, fps), desc="moments", delay=2, leave=False):
            _, table = predict_photo(model, picture, attributes)
            error = NO_FACE if table.empty else ""
            table = pd.DataFrame([{}]) if table.empty else table
            tables.append(table.assign(seconds=seconds, error=error))
    except OSError as problem:
        tables.append(pd.DataFrame([{"seconds": None, "error": str(problem)}]))
    table = pd.concat(tables, ignore_index=True).assign(path=str(path))
    ends = ["path", "seconds", "error"]
    return table[[*ends[:2], *(name for name in table if name not in ends), *ends[2:]]]


def _moments(path: str | Path, fps: float) -> Iterator[tuple[float, Image.Image]]:
    """Yield the first image of each 1/fps seconds of a video, and its time in seconds.

    Raises OSError where the video cannot be read.
    """
    import av

    try:
        with av.open(str(path)) as video:
            if not video.streams.video:
                raise OSError("it has sound but no pictures")
            stream = video.streams.video[0]
            stream.thread_type = "AUTO"  # all cores decode
            start, due = None, 0
            for image in video.decode(stream):
                start = image.time if start is None else start
                # Half a millisecond: times are rounded in some formats.
                if (image.time - start + 5e-4) * fps >= due:
                    due = int((image.time - start + 5e-4) * fps) + 1
                    # Phones film upright by a note that the picture has to be turned.
                    yield image.time - start, image.to_image().rotate(image.rotation, expand=True)
    except av.error.FFmpegError as error:
        raise OSError(f"it cannot be read as a video ({error.strerror})") from error
    if start is None:
        raise OSError("it has no pictures")
