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
import psutil
import pytest
from PIL import Image
from playwright.sync_api import expect
from skimage import data

from conftest import CHROMIUM

ROOT = Path(__file__).parent.parent
MINUTES = 60_000

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's package chromium"),
    pytest.mark.skipif(
        ipywidgets.__version__ < "8",
        reason="today's JupyterLab and Voila show widgets of ipywidgets 8; Colab shows its own",
    ),
]


@pytest.fixture
def files(tmp_path):
    Image.fromarray(data.astronaut()).save(tmp_path / "astronaut.png")
    (tmp_path / "text.jpg").write_text("I am no photo.")
    return tmp_path


@contextlib.contextmanager
def serving(folder, words, path):
    """Start a Jupyter server in a folder, wait until it answers, yield its process and address.

    `words` follow ``python``.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [word.replace("{port}", str(port)) for word in words]
    log = folder / "server.log"
    with log.open("w") as file:
        server = subprocess.Popen([sys.executable, *words], stdout=file, stderr=file, cwd=folder)
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
    """Start a Jupyter server and return its address; it ends with the test."""
    with contextlib.ExitStack() as servers:
        yield lambda *words, path: servers.enter_context(serving(tmp_path, words, path))[1]


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
    for file in (name, "exercises.py", "photo_page.py", "serve_demo.py"):
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


OLD_PROTOCOL = """
() => new Promise((done) => {
  const kernel = JSON.parse(document.getElementById("jupyter-config-data").textContent).kernelId;
  const socket = new WebSocket(`ws://${location.host}/api/kernels/${kernel}/channels`);
  socket.onopen = () => done("open");
  socket.onerror = () => done("refused");
})
"""


def kernels():
    """The kernels that run below this process."""
    below = psutil.Process().children(recursive=True)
    words = {process: process.as_dict(["cmdline"])["cmdline"] for process in below}
    return [process for process in below if "ipykernel_launcher" in (words[process] or ())]


def test_demo_page_finds_a_face_and_refuses_what_it_must(page, files, serve, screenshots):
    copy_notebook("demo.ipynb", files)
    address = serve("serve_demo.py", *OPTIONS, path="/")
    # Another name of this machine, as an attacker's would be, is refused before a kernel starts.
    assert page.goto(address.replace("127.0.0.1", "foreign.localhost")).status == 403
    assert not kernels()
    # The link cannot put a script into the page.
    script = urllib.parse.quote('"><img src=x onerror="window.hacked=1">')
    page.goto(f"{address}?theme={script}&template={script}", timeout=2 * MINUTES)
    expect(page.get_by_role("button", name="Choose a photo")).to_be_visible(timeout=2 * MINUTES)
    expect(page.locator("img[src=x]")).to_have_count(0)
    assert page.evaluate("window.hacked") is None
    # Nor does the server speak a protocol in which one picture makes it allocate gigabytes.
    assert page.evaluate(OLD_PROTOCOL) == "refused"
    use_widgets(page, files, screenshots)
    # Larger than a message may be, with which a file would be lost silently: it takes the place
    # of the answer for the photo before.
    upload(page, files / "astronaut.png")
    expect(page.locator(".widget-hprogress:visible")).to_have_count(7, timeout=MINUTES)
    (files / "huge.jpg").write_bytes(bytes(50 << 20))
    upload(page, files / "huge.jpg")
    status = page.get_by_role("status").filter(has_text="huge.jpg has 50 MB: at most 20 MB")
    expect(status).to_be_visible(timeout=MINUTES)
    expect(page.locator(".widget-hprogress:visible")).to_have_count(0)
    # The largest that is promised arrives.
    (files / "largest.jpg").write_bytes(bytes(20 << 20))
    upload(page, files / "largest.jpg")
    status = page.get_by_role("status").filter(has_text="largest.jpg is not an image")
    expect(status).to_be_visible(timeout=MINUTES)
    # The camera is a second way in. Chromium's fake one shows no face.
    page.get_by_role("button", name="Open the camera").click()
    page.get_by_role("button", name="Take the picture").click()
    status = page.get_by_role("status").filter(has_text="No face found")
    expect(status).to_be_visible(timeout=MINUTES)
    assert not [file for file in os.listdir(files) if "snapshot" in file]
    # With the page goes its kernel, and the last photo with it.
    assert len(kernels()) == 1
    page.goto("about:blank")
    for _ in range(60):
        if not kernels():
            break
        time.sleep(0.5)
    assert not kernels()


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
