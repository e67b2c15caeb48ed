"""The photo widgets in a real browser: the page that `make demo` serves, and JupyterLab."""

import contextlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import ipywidgets
import pytest
from PIL import Image
from playwright.sync_api import expect
from skimage import data

from conftest import CHROMIUM
from run import MODULES

ROOT = Path(__file__).parent.parent
MINUTES = 60_000

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's package chromium"),
    pytest.mark.skipif(
        ipywidgets.__version__ < "8",
        reason="today's JupyterLab shows widgets of ipywidgets 8; Colab shows its own",
    ),
]


@pytest.fixture
def files(tmp_path):
    Image.fromarray(data.astronaut()).save(tmp_path / "astronaut.png")
    (tmp_path / "text.jpg").write_text("I am no photo.")
    return tmp_path


@contextlib.contextmanager
def serving(folder, words, path, **variables):
    """Start a server in a folder, wait until it answers, yield its process and address.

    `words` follow ``python``; `variables` are added to the environment.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [word.replace("{port}", str(port)) for word in words]
    log = folder / "server.log"
    with log.open("w") as file:
        server = subprocess.Popen(
            [sys.executable, *words],
            stdout=file,
            stderr=file,
            cwd=folder,
            env={**os.environ, **{name: str(value) for name, value in variables.items()}},
        )
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/static/favicons/favicon.ico")
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.5)
            else:
                break
        else:
            raise TimeoutError(log.read_text())
        yield server, f"http://127.0.0.1:{port}{path}"
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture
def serve(tmp_path):
    """Start a server and return its address; it ends with the test."""
    with contextlib.ExitStack() as servers:
        yield lambda *words, path, **variables: servers.enter_context(
            serving(tmp_path, words, path, **variables)
        )[1]
    # A server that was ended has left no photo.
    assert not suffixes(tmp_path / "temporary") & {".png", ".jpg"}


def lab():
    """The words with which the Makefile starts JupyterLab."""
    # Within make test, MAKEFLAGS would add the outer make's own words to the lines.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    lines = subprocess.check_output(["make", "-n", "lab"], cwd=ROOT, env=env, text=True)
    program, *words, settings = shlex.split(lines.splitlines()[-1])
    return ["-m", Path(program).name, *words, str(ROOT / settings)]


OPTIONS = ["--no-browser", "--port={port}"]


# JupyterLab without a password, for this machine alone.
OPEN = ["--ip=127.0.0.1", "--allow-root", "--IdentityProvider.token="]


def copy_notebook(name, folder):
    """A notebook, and the modules beside it that it imports."""
    for file in (name, *MODULES):
        shutil.copy(ROOT / "notebooks" / file, folder)


def upload(page, file):
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a photo").click()
    chooser.value.set_files(file)


def use_widgets(page, files, screenshots):
    """Upload a portrait, see a face and seven bars, then upload a file that is not an image."""
    status = page.get_by_role("status").filter(has_text=re.compile("face|not an image"))
    upload(page, files / "astronaut.png")
    expect(status).to_have_text("1 face found.", timeout=2 * MINUTES)
    expect(page.locator(".widget-hprogress:visible")).to_have_count(7, timeout=MINUTES)
    expect(page.locator("img.widget-image:visible")).to_have_count(2)
    shares = page.locator(".widget-hprogress:visible + .widget-label")
    expect(shares.last).to_have_text(re.compile("%"), timeout=MINUTES)
    percent = [int(share.rstrip("%")) for share in shares.all_inner_texts()]
    assert abs(sum(percent) - 100) <= 4
    # The probabilities follow the sliders: hardly any light.
    light = page.get_by_role("slider").nth(1)
    light.press("Home")
    expect(shares).not_to_have_text([f"{share}%" for share in percent], timeout=MINUTES)
    page.wait_for_timeout(500)
    page.screenshot(path=screenshots / "face.png", full_page=True)
    upload(page, files / "text.jpg")
    expect(page.locator(".widget-hprogress:visible")).to_have_count(0)
    expect(status).to_have_text(re.compile("text.jpg is not an image"), timeout=MINUTES)
    page.screenshot(path=screenshots / "text.png", full_page=True)


# The page of `make demo`, which keeps photos for twenty seconds only.
PHOTO_PAGE = ["-c", "import photo_page as p; p.KEPT = (1, 20); p.serve({port})"]


def choose_photos(page, files, wait=True):
    """Give the photo page photos, none for those that it has been given; wait for the answer."""
    if files:
        page.evaluate("document.querySelector('figcaption, [role=alert]')?.remove()")
        page.locator("input[type=file]").set_input_files(files)
    if wait:
        page.locator("figcaption, [role=alert]").first.wait_for(timeout=2 * MINUTES)


def suffixes(folder):
    return {path.suffix for path in folder.rglob("*") if path.is_file()}


def until(holds, seconds=60):
    for _ in range(seconds):
        if holds():
            return
        time.sleep(1)
    raise TimeoutError


def test_photo_page_shows_faces_and_keeps_no_photo(page, files, serve, screenshots):
    temporary = files / "temporary"
    temporary.mkdir()
    others = []
    page.on("request", lambda asked: others.append(asked.url))
    address = serve(*PHOTO_PAGE, path="/", PYTHONPATH=ROOT / "notebooks", TMPDIR=temporary)
    page.goto(address)
    for way in ("Click to upload or drop files", "Capture from camera", "Paste from clipboard"):
        expect(page.get_by_role("button", name=way)).to_be_visible(timeout=MINUTES)
    # It opens on a portrait.
    expect(page.get_by_role("status").filter(has_text="1 face found")).to_be_visible()
    expect(page.get_by_text("People would probably call this face happy")).to_be_visible()
    four = Image.new("RGB", (1024, 1024))
    for place in ((0, 0), (512, 0), (0, 512), (512, 512)):
        four.paste(Image.fromarray(data.astronaut()), place)
    four.save(files / "<b>four.png")
    choose_photos(page, [files / "<b>four.png", files / "text.jpg"])
    expect(page.get_by_role("status").filter(has_text="4 faces found")).to_be_visible()
    expect(page.get_by_role("article")).to_have_count(4)
    expect(page.get_by_role("meter")).to_have_count(4 * 7)
    shares = (
        page.locator("article")
        .first.get_by_role("meter")
        .evaluate_all("bars => bars.map(bar => bar.value)")
    )
    assert sum(shares) == pytest.approx(1, abs=0.005)
    expect(page.get_by_role("alert")).to_have_text(re.compile("text.jpg is not an image"))
    with page.expect_download() as saved:
        page.get_by_role("link", name="Save as a picture").click()
    assert Image.open(saved.value.path()).width > 400
    page.screenshot(path=screenshots / "photo_page.png", full_page=True)
    # Ready for the next photos; of these nothing is left after a while.
    expect(page.get_by_text("Drop Media Here")).to_be_visible()
    assert {".png", ".jpg"} <= suffixes(temporary)
    until(lambda: suffixes(temporary) <= {".py"})  # TensorFlow's own
    assert not page.evaluate("[...Object.keys(localStorage), ...document.cookie]").count("photo")
    assert {url.split("/")[2] for url in others if url.startswith("http")} == {
        address.split("/")[2]
    }
    # Chromium's own camera shows no face. It is closed after the picture.
    for name in ("Capture from camera", "Click to Access Webcam"):
        page.get_by_role("button", name=name).click()
    page.wait_for_function("document.querySelector('video')?.readyState == 4")
    page.wait_for_timeout(500)
    page.get_by_role("button", name="capture photo").click()
    expect(page.get_by_role("alert")).to_have_text(re.compile("No face found"), timeout=MINUTES)
    expect(page.locator("video")).to_have_count(0)
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_jupyterlab_opens_on_the_course(page, files, serve, screenshots, monkeypatch):
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(files / "settings"))  # as on the first day
    (files / "notebooks").mkdir()
    first = "00_in_ten_minutes.ipynb"
    for name in (first, "exercises.py", "publish.py", "run.py", "lab.py"):
        shutil.copy(ROOT / "notebooks" / name, files / "notebooks")
    page.goto(serve(*lab(), *OPEN, *OPTIONS, path="/"), timeout=2 * MINUTES)
    title = page.locator(".jp-MarkdownOutput h1").first
    expect(title).to_have_text(re.compile("ten minutes"), timeout=2 * MINUTES)
    listed = page.locator(".jp-DirListing-itemText")
    expect(listed).to_have_text([first, "exercises.py"], timeout=MINUTES)
    page.wait_for_timeout(2000)  # the question about news came a second after the page
    page.screenshot(path=screenshots / "first.png")
    expect(page.locator(".jp-Launcher")).to_have_count(0)
    expect(page.locator(".Toastify__toast")).to_have_count(0)


def test_notebook_07_runs_in_jupyterlab(page, files, serve, screenshots):
    name = "07_predict_your_photos.ipynb"
    copy_notebook(name, files)
    words = [*lab(), *OPTIONS, *OPEN, "--expose-app-in-browser"]
    page.goto(serve(*words, path=f"/lab/tree/{name}"), timeout=2 * MINUTES)
    page.locator(".jp-MarkdownOutput h1").first.wait_for(timeout=2 * MINUTES)
    kernel = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"
    page.wait_for_function(kernel + "?.status === 'idle'", timeout=2 * MINUTES)
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    cells = "window.jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model.toJSON())"
    error = "output => output.output_type == 'error'"
    last = f"{cells}.filter(cell => cell.cell_type == 'code').pop()"
    page.wait_for_function(last + ".execution_count", timeout=4 * MINUTES)
    page.wait_for_function(kernel + "?.status === 'idle'", timeout=2 * MINUTES)
    assert page.evaluate(f"{cells}.flatMap(cell => cell.outputs ?? []).filter({error})") == []
    button = page.get_by_role("button", name="Choose a photo")
    button.scroll_into_view_if_needed()
    use_widgets(page, files, screenshots)
