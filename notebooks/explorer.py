"""The widgets of notebook 07: a photo in, its faces and predictions out, and a face to change.

A photo is not written to disk, and nothing of it is printed or logged.
"""

import io
from collections.abc import Iterable, Mapping

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from fer_helpers import plots
from fer_helpers.backend import keras
from fer_helpers.detection import DETECTION_SIDE, SMALLEST_FACE
from fer_helpers.labels import TASKS
from fer_helpers.model import IMAGE_SIZE
from fer_helpers.photos import NO_FACE, open_photo, predict_photo
from fer_helpers.prediction import grad_cam, predict

MAX_UPLOAD = 20 << 20  # bytes; lab.py lets larger messages pass
# Pixels along the longer side of a photo: the smallest face found still fills the network's input.
PHOTO_SIDE = IMAGE_SIZE * DETECTION_SIDE // SMALLEST_FACE


def uploaded_files(value: Mapping | Iterable) -> list[dict]:
    """Return each file that was uploaded, as a dictionary with ``name``, ``size`` and ``content``.

    Parameters
    ----------
    value
        Of a `FileUpload`, of ipywidgets 7 (name -> dict) or 8 (a sequence of dicts).
    """
    if isinstance(value, Mapping):  # 7: {name: {"metadata": ..., "content": ...}}
        return [{**file["metadata"], "content": file["content"]} for file in value.values()]
    return list(value)


def read_upload(file: Mapping) -> Image.Image:
    """Open an uploaded file, whatever its name says.

    Parameters
    ----------
    file
        ``name``, ``size`` in bytes, and ``content``, bytes or a memoryview.

    Returns
    -------
    PIL.Image.Image
        Of mode RGB, upright, at most `PHOTO_SIDE` pixels along its longer side.

    Raises
    ------
    ValueError
        The file is larger than `MAX_UPLOAD`, or its content is not an image.
    """
    name, size = file["name"], max(file["size"], len(file["content"]))
    if size > MAX_UPLOAD:
        raise ValueError(
            f"{name} has {size / 2**20:.0f} MB: at most {MAX_UPLOAD >> 20} MB are read. Choose a "
            "smaller file."
        )
    try:
        # No `bytes(content)`: for a number, which a message may hold, it is that many bytes.
        picture = open_photo(memoryview(file["content"]))
    except ValueError as error:
        raise ValueError(str(error).replace("the file", name, 1)) from None
    picture.thumbnail((PHOTO_SIDE, PHOTO_SIDE))
    return picture


def change_face(
    crop: np.ndarray, angle: float = 0, light: float = 1, covered: float = 0
) -> np.ndarray:
    """Turn, brighten or darken, and cover a face.

    Parameters
    ----------
    crop
        uint8 (48, 48, 1).
    angle
        Degrees, counter-clockwise.
    light
        Factor by which the brightness is multiplied, at least 0.
    covered
        Share of the height, 0 to 1, that a grey bar covers from below.

    Returns
    -------
    numpy.ndarray
        uint8 (48, 48, 1).
    """
    picture = Image.fromarray(crop[:, :, 0])
    grey = int(np.median(crop))
    turned = picture.rotate(angle, Image.Resampling.BILINEAR, fillcolor=grey)
    changed = np.clip(np.asarray(turned, np.float32) * light, 0, 255).astype(np.uint8)
    rows = round(covered * len(changed))
    if rows:
        changed[-rows:] = grey
    return changed[..., None]


def photo_explorer(model: keras.Model) -> widgets.VBox:
    """Make widgets that take a photo, show its faces and predictions, and change a face.

    Parameters
    ----------
    model
        A network of `get_model` or `load_model`. Only its emotion head is shown.

    Returns
    -------
    ipywidgets.VBox
        To be displayed.
    """
    choice = widgets.FileUpload(accept="image/*", multiple=False, description="Choose a photo")
    message = widgets.HTML()
    shown = widgets.Image(format="png")
    face = widgets.Dropdown(description="face")
    angle = widgets.FloatSlider(0, min=-60, max=60, step=5, description="turn (°)")
    light = widgets.FloatSlider(1, min=0.1, max=2, step=0.1, description="light")
    covered = widgets.FloatSlider(0, min=0, max=0.8, step=0.05, description="cover")
    changed = widgets.Image(format="png")
    bars = {name: widgets.FloatProgress(max=1, description=name) for name in TASKS["emotion"]}
    numbers = {name: widgets.Label() for name in bars}
    rows = widgets.VBox([widgets.HBox([bars[name], numbers[name]]) for name in bars])
    tools = widgets.HBox([widgets.VBox([face, angle, light, covered]), changed, rows])
    tools.layout.flex_flow = "row wrap"
    for widget in (shown, tools):
        widget.layout.display = "none"
    sliders = {angle: 0, light: 1, covered: 0}  # and how a new photo is shown
    found: dict[str, np.ndarray] = {}

    def show_photo(file: Mapping) -> None:
        shown.layout.display = tools.layout.display = "none"
        _say(message, "Looking for faces …")
        try:
            picture = read_upload(file)
            crops, table = predict_photo(model, picture)
        except ValueError as error:
            _say(message, str(error), "#D55E00")
            return
        if table.empty:
            _say(message, f"{NO_FACE.capitalize()}. A larger, sharper or frontal one may help.")
            return
        _say(message, f"{len(table)} face{'s' * (len(table) > 1)} found.")
        figure = plots.photo(picture, table)
        figure.axes[0].set_title("")  # it would count the faces that are shown
        shown.value = png(figure)
        found["crops"] = crops
        for widget in (face, *sliders):
            widget.unobserve(show_change, "value")
        face.options = [(str(number + 1), number) for number in range(len(crops))]
        face.value = 0
        for slider, value in sliders.items():
            slider.value = value
        observe_tools()
        shown.layout.display = ""
        tools.layout.display = "flex"
        show_change()

    def show_change(_=None) -> None:
        crop = change_face(found["crops"][face.value], angle.value, light.value, covered.value)
        probabilities = predict(model, crop[None])["emotion"][0]
        best = TASKS["emotion"][int(probabilities.argmax())]
        changed.value = png(plots.looked_at(crop, grad_cam(model, crop), best))
        for name, probability in zip(bars, probabilities, strict=True):
            bars[name].value = float(probability)
            numbers[name].value = f"{probability:.0%}"

    def observe_tools() -> None:
        for widget in (face, *sliders):
            widget.observe(show_change, "value")

    def on_upload(change) -> None:
        for file in uploaded_files(change["new"]):
            show_photo(file)

    choice.observe(on_upload, "value")
    observe_tools()
    return widgets.VBox([choice, message, shown, tools])


def _say(place: widgets.HTML, text: str, colour: str = "inherit") -> None:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    place.value = f'<span role="status" style="color:{colour}">{escaped}</span>'


def png(picture: Figure | Image.Image) -> bytes:
    """Return a figure or a picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    if isinstance(picture, Figure):
        plots.save(picture, buffer, dpi=90)
    else:
        picture.save(buffer, "PNG")
    return buffer.getvalue()
