"""The page of `make demo`: photos in, their faces and predictions out, on this machine alone.

    python notebooks/photo_page.py [PORT]

A photo is deleted after two minutes, and nothing of it is printed or logged. It is not deleted at
once since two visitors who choose the same photo share its file.
"""

import base64
import html
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
import matplotlib
import numpy as np
import pandas as pd
from PIL import Image
from skimage import data

from explorer import MAX_UPLOAD, png, read_upload
from fer_helpers import grad_cam, load_model, plots, predict_photo
from fer_helpers.backend import keras
from fer_helpers.labels import TASKS
from fer_helpers.photos import NO_FACE

KEPT = (10, 120)  # seconds: how often photos are deleted, and those of which age

SHOWN = ("surprised", "afraid", "disgusted", "happy", "sad", "angry", "neutral")

INTRODUCTION = """# Which expression would people see?
Drop photos, paste one, or take one. The network names the expression that people would *perceive*
in each face; it cannot know what somebody feels. Do not use it on people at work or in education:
the EU's AI Act forbids that (Article 5(1)(f)).

Your photos stay on this machine, and are deleted after two minutes."""

STYLE = """
.photo { display: flex; flex-wrap: wrap; gap: 1rem; margin-bottom: 2rem }
.photo figure { flex: 3 1 20rem; margin: 0 }
.many > .faces { flex-basis: 100% }
.photo svg { width: 100%; max-height: 80vh }
.photo rect { fill: none; stroke: #0072b2; stroke-width: 3; vector-effect: non-scaling-stroke }
.photo text { fill: #fff; stroke: #0072b2; stroke-width: 0.25em; paint-order: stroke }
.faces { flex: 2 1 20rem; display: grid; gap: 1rem; align-content: start;
  grid-template-columns: repeat(auto-fill, minmax(min(18rem, 100%), 1fr)) }
.face { border: 1px solid #ccc; border-radius: 8px; padding: 0.75rem }
.face img { display: inline-block; width: 6.5rem; margin: 0.75rem 0.75rem 0 0;
  image-rendering: pixelated }
.face :is(table, tr, td, th) { border: 0; padding: 0 0.75rem 0 0; text-align: left }
.face h2 { font-size: 1rem }
.face meter { width: 8rem; height: 1rem }
span.or { color: inherit !important } /* Gradio's own has too little contrast */
"""


def show_photo(model: keras.Model, picture: Image.Image) -> str:
    """Return a photo, its faces, and what the network predicts for each, as HTML."""
    crops, table = predict_photo(model, picture)
    if table.empty:
        return _alert(f"{NO_FACE.capitalize()}. A larger, sharper or frontal one may help.")
    probabilities = table[[f"emotion_{name}" for name in TASKS["emotion"]]].to_numpy()
    warnings = table["warning"].fillna("")
    faces = enumerate(zip(crops, probabilities, warnings, strict=True), start=1)
    cards = "".join(
        _card(number, crop, grad_cam(model, crop), p, warning)
        for number, (crop, p, warning) in faces
    )
    saved = _address(png(plots.photo(picture, table)))
    count = f"{len(table)} face{'s' * (len(table) > 1)} found"
    layout = "photo many" if len(table) > 3 else "photo"
    return (
        f"<section class='{layout}'><figure>{_marked(picture, table, count)}"
        f"<figcaption><span role=status>{count}.</span> "
        f"<a download=faces.png href='{saved}'>Save as a picture</a></figcaption></figure>"
        f"<div class=faces>{cards}</div></section>"
    )


def _marked(picture: Image.Image, table: pd.DataFrame, count: str) -> str:
    """Return the photo with a numbered box around each face."""
    width, height = picture.size
    size = max(width, height) / 25
    marks = "".join(
        f"<rect x={box.left:.0f} y={box.top:.0f} width={box.right - box.left:.0f} "
        f"height={box.bottom - box.top:.0f} />"
        # Above the box, or below it where there is no room.
        f"<text x={box.left:.0f} y={box.top - size / 4 if box.top > size else box.bottom + size} "
        f"font-size={size}>{number}</text>"
        for number, box in enumerate(table.itertuples(), start=1)
    )
    return (
        f"<svg viewBox='0 0 {width} {height}' role=img aria-label='Photo, {count}'><image "
        f"href='{_address(png(picture))}' width={width} height={height} />{marks}</svg>"
    )


def _card(
    number: int, crop: np.ndarray, heat: np.ndarray, probabilities: Sequence[float], warning: str
) -> str:
    best = int(np.argmax(probabilities))
    warned = f"<p>{html.escape(warning.capitalize())}: trust it less.</p>" if warning else ""
    rows = "".join(
        f"<tr><th scope=row>{name}<td><meter value={p:.3f} aria-label={name}></meter><td>{p:.0%}"
        for name, p in zip(TASKS["emotion"], probabilities, strict=True)
    )
    grey = np.repeat(crop, 3, axis=2)
    colours = 255 * matplotlib.colormaps["inferno"](heat)[..., :3]
    seen, looked = (
        f"<img src='{_address(png(Image.fromarray(image)))}' alt='{text}'>"
        for image, text in (
            (grey, f"Face {number} as the network sees it"),
            ((0.45 * grey + 0.55 * colours).astype(np.uint8), "Where the evidence lies: the light"),
        )
    )
    return (
        f"<article class=face><h2>Face {number}</h2><p>People would probably call this face "
        f"<b>{SHOWN[best]}</b>. Of the predictions with such a probability, about "
        f"{10 * probabilities[best]:.0f} in 10 agreed with the label.</p>{warned}"
        f"<table>{rows}</table>{seen}{looked}</article>"
    )


def _alert(text: str) -> str:
    return f"<p role=alert>{html.escape(text)}</p>"


def _address(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode()


def _read(path: Path) -> tuple[str, bytes | None]:
    """Return a photo's name and content; None if it has waited for so long that it is deleted."""
    return path.name, path.read_bytes() if path.is_file() else None


def page(model: keras.Model) -> gr.Blocks:
    """Return the page; it opens on a portrait that is in the public domain."""

    def show(chosen: list[tuple[str, str | None]] | None):
        if not chosen:  # these were shown, and are removed
            return gr.skip(), gr.skip()
        shown = []
        # All at once: the later ones are not to be deleted while the first are looked at.
        for name, content in [_read(Path(path)) for path, _ in chosen]:
            if content is None:
                shown.append(_alert(f"{name} waited until it was deleted: choose it once more."))
                continue
            try:
                upload = {"name": name, "size": len(content), "content": content}
                shown.append(show_photo(model, read_upload(upload)))
            except ValueError as error:
                shown.append(_alert(str(error)))
        return None, "".join(shown)

    with gr.Blocks(
        title="Expressions in your photos", analytics_enabled=False, delete_cache=KEPT
    ) as blocks:
        gr.Markdown(INTRODUCTION)
        photos = gr.Gallery(
            label="Photos",
            type="filepath",
            interactive=True,
            file_types=["image"],
            sources=["upload", "webcam", "clipboard"],
        )
        shown = gr.HTML(show_photo(model, Image.fromarray(data.astronaut())))
        photos.change(show, photos, [photos, shown], api_visibility="private")
    return blocks


def serve(port: int | None) -> None:
    """Serve the page to this machine; without a port, choose a free one and open a browser."""
    plots.use_style()
    for name in ("SIGTERM", "SIGHUP"):  # otherwise they would leave the photos on the disk
        if hasattr(signal, name):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}
        page(load_model("FER")).launch(
            server_name="127.0.0.1",
            server_port=port,
            inbrowser=port is None,
            share=False,
            run_history=False,  # it would keep the photos in the browser
            max_file_size=MAX_UPLOAD,
            footer_links=[],
            theme=gr.themes.Base(**fonts),  # others ask a server of Google's for their fonts
            css=STYLE,
        )


if __name__ == "__main__":
    serve(int(sys.argv[1]) if sys.argv[1:] else None)
