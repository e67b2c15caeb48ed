"""The widgets of notebook 07 and of `make demo`: a photo in, its faces and predictions out.

A photo is not written to disk, and nothing of it is printed or logged.
"""

import io
from collections.abc import Callable, Iterable, Mapping

import ipywidgets as widgets
import numpy as np
import traitlets
from matplotlib.figure import Figure
from PIL import Image

from fer_helpers import plots
from fer_helpers.backend import keras
from fer_helpers.labels import TASKS
from fer_helpers.photos import NO_FACE, open_photo, predict_photo
from fer_helpers.prediction import grad_cam, predict

MAX_UPLOAD = 20 << 20  # bytes
SHOWN_FACES = 4


# The camera is asked for on a click, never before, and is released after the picture. The picture
# travels only to the kernel: on a laptop it stays there.
CAMERA = """
function render({ model, el }) {
  const button = document.createElement("button");
  const video = document.createElement("video");
  const message = document.createElement("span");
  button.className = "jupyter-button";
  button.textContent = "Open the camera";
  video.style.cssText = "display:none; max-width:320px; margin-top:8px";
  video.muted = true;
  let stream = null;
  const stop = () => {
    if (stream) stream.getTracks().forEach((track) => track.stop());
    stream = null;
    video.style.display = "none";
    button.textContent = "Open the camera";
  };
  button.onclick = async () => {
    message.textContent = "";
    if (!stream) {
      try {
        stream = await navigator.mediaDevices.getUserMedia({ video: true });
      } catch (error) {
        message.textContent = " No camera: " + error.message;
        return;
      }
      video.srcObject = stream;
      await video.play();
      video.style.display = "block";
      button.textContent = "Take the picture";
      return;
    }
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    stop();
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9));
    model.set("picture", new DataView(await blob.arrayBuffer()));
    model.save_changes();
  };
  el.append(button, message, video);
  return stop;
}
export default { render };
"""


def camera_button() -> widgets.Widget:
    """Return a button that opens the camera and then takes a picture.

    Its trait ``picture`` holds the picture as the bytes of a JPEG, empty at first. Without the
    package anywidget, return a line of text that names it.
    """
    try:
        import anywidget
    except ImportError:
        return widgets.HTML("To take a picture here: pip install anywidget, restart the kernel.")

    class Snapshot(anywidget.AnyWidget):
        picture = traitlets.CBytes().tag(sync=True)
        _esm = CAMERA

    return Snapshot()


def uploaded_files(value: Mapping | Iterable) -> list[tuple[str, bytes]]:
    """Return name and content of each file that was uploaded.

    Parameters
    ----------
    value
        Of a `FileUpload`, of ipywidgets 7 (name -> dict) or 8 (a sequence of dicts).
    """
    if isinstance(value, Mapping):  # 7: {name: {"metadata": ..., "content": ...}}
        return [(name, bytes(file["content"])) for name, file in value.items()]
    return [(file["name"], bytes(file["content"])) for file in value]


def read_upload(name: str, content: bytes) -> Image.Image:
    """Open an uploaded file, whatever its name says.

    Raises
    ------
    ValueError
        The file is larger than `MAX_UPLOAD`, or its content is not an image.
    """
    if len(content) > MAX_UPLOAD:
        raise ValueError(
            f"{name} has {len(content) / 2**20:.0f} MB: at most {MAX_UPLOAD >> 20} MB are read"
        )
    try:
        return open_photo(content)
    except ValueError as error:
        raise ValueError(str(error).replace("the file", name, 1)) from None


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
    upload = widgets.FileUpload(accept="image/*", multiple=False, description="Choose a photo")
    camera = camera_button()
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
    found: dict[str, np.ndarray] = {}

    def show_photo(read: Callable[[], Image.Image]) -> None:
        shown.layout.display = tools.layout.display = "none"
        _say(message, "Looking for faces …")
        try:
            picture = read()
            crops, table = predict_photo(model, picture)
        except ValueError as error:
            _say(message, str(error), "#D55E00")
            return
        if table.empty:
            _say(message, f"{NO_FACE.capitalize()}. A larger, sharper or frontal one may help.")
            return
        _say(message, f"{len(table)} face{'s' * (len(table) > 1)} found.")
        shown.value = _png(plots.photo(picture, table.head(SHOWN_FACES)))
        found["crops"] = crops
        face.unobserve(show_change, "value")
        face.options = [(str(number + 1), number) for number in range(len(crops[:SHOWN_FACES]))]
        face.value = 0
        face.observe(show_change, "value")
        shown.layout.display = ""
        tools.layout.display = "flex"
        show_change()

    def show_change(_=None) -> None:
        crop = change_face(found["crops"][face.value], angle.value, light.value, covered.value)
        probabilities = predict(model, crop[None])["emotion"][0]
        best = TASKS["emotion"][int(probabilities.argmax())]
        changed.value = _png(plots.looked_at(crop, grad_cam(model, crop), best))
        for name, probability in zip(bars, probabilities, strict=True):
            bars[name].value = float(probability)
            numbers[name].value = f"{probability:.0%}"

    def on_upload(_) -> None:
        for name, content in uploaded_files(upload.value):
            show_photo(lambda name=name, content=content: read_upload(name, content))

    def on_picture(change) -> None:
        if change["new"]:
            show_photo(lambda: read_upload("photo", change["new"]))

    upload.observe(on_upload, "value")
    camera.observe(on_picture, "picture")  # never called for a line of text
    for slider in (face, angle, light, covered):
        slider.observe(show_change, "value")
    return widgets.VBox([widgets.HBox([upload, camera]), message, shown, tools])


def _say(place: widgets.HTML, text: str, colour: str = "inherit") -> None:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    place.value = f'<span role="status" style="color:{colour}">{escaped}</span>'


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    plots.save(figure, buffer, dpi=90)
    return buffer.getvalue()
