"""The web site: nothing is broken or fetched from elsewhere, and it fits a desk and a phone."""

import functools
import itertools
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import CHROMIUM
from fer_helpers import TASKS, grad_cam, load_model, predict
from fer_helpers.backend import keras

pytest.importorskip("sphinx_book_theme", reason="needs fer-helpers[site]")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's package chromium")

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
PAGES = ["index", *NOTEBOOKS, "glossary", "reading"]

sys.path.append(str(ROOT / "notebooks" / "site"))
import play  # noqa: E402


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The site as `make site` builds it, with warnings as errors (dead links are warnings)."""
    folder = tmp_path_factory.mktemp("site")
    line = subprocess.check_output(["grep", "-m1", "-e", "-m sphinx", ROOT / "Makefile"], text=True)
    words = line.split()
    words = words[words.index("-m") : -1]  # without the folder of the result
    subprocess.run([sys.executable, *words, folder], cwd=ROOT, check=True)
    return folder


@pytest.fixture(scope="module")
def site(built):
    """Its address on a server of this test's own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=built))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def asked(page, site):
    """Addresses elsewhere that the browser asked for; it gets no answer."""
    elsewhere = []

    def answer(route):
        if route.request.url.startswith((site, "data:")):
            route.continue_()
        else:
            elsewhere.append(route.request.url)
            route.abort()

    page.route("**/*", answer)
    return elsewhere


CUT_OFF = """[...document.querySelectorAll("article pre")]
.filter((code) => code.scrollWidth > code.clientWidth).map((code) => code.textContent)"""

ROOM = """(() => {
  const code = document.querySelector(".cell_input pre");
  if (!code) return null;
  const style = getComputedStyle(code);
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = `${style.fontSize} ${style.fontFamily}`;
  const padding = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
  // The first cell is folded and has no width: the text before it is as wide as a cell.
  const width = document.querySelector("article section > p").clientWidth - 2;
  return Math.floor((width - padding) / pen.measureText("x").width);
})()"""


@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_is_whole_at_this_width(site, page, asked, width, screenshots):
    page.set_viewport_size({"width": width, "height": 900})
    for name in PAGES:
        page.goto(f"{site}/{name}.html")
        # Formulas are set after the page has loaded, and may be wide.
        page.evaluate("window.MathJax?.startup?.promise")
        broken = page.eval_on_selector_all(
            "article img", "images => images.filter(i => !i.naturalWidth).map(i => i.src)"
        )
        assert broken == [], name
        without_text = page.eval_on_selector_all(
            "article img", "images => images.filter(i => i.alt.length < 20).map(i => i.src)"
        )
        assert without_text == [], name
        assert page.locator("article img").count() >= (name not in PAGES[-2:]), name
        text = "\n".join(page.locator(".cell_output").all_inner_texts())
        raw = [word for word in ("(children=", "Output()", "|--") if word in text]
        assert raw == [], f"{name}: a widget or a table is shown as its source"
        found = page.evaluate("document.documentElement.scrollWidth")
        assert found <= width, f"{name} is {found} wide"
        if width == 1280:
            assert page.evaluate(CUT_OFF) == [], name
            room = page.evaluate(ROOM)
            assert room is None or room >= 84, f"{name}: {room} characters in a line of code"
        page.screenshot(path=screenshots / f"{name}.png")
    assert asked == []


def test_pages_lead_to_each_other_and_search_finds_them(site, page, asked):
    page.goto(f"{site}/{PAGES[1]}.html")
    for name in PAGES[2:]:
        page.locator("a.right-next").click()
        page.wait_for_url(f"**/{name}.html")
    page.locator("a.left-prev").click()
    page.wait_for_url(f"**/{PAGES[-2]}.html")
    page.goto(f"{site}/search.html?q=temperature")
    page.locator("#search-results li a").first.wait_for()
    found = page.locator("#search-results li a").evaluate_all("links => links.map(a => a.href)")
    assert any("06_visualize_results" in link for link in found)
    assert asked == []


NAMES = ("turn", "light", "hand", "brows", "corners", "jaw")  # in the order of play.GRID
SETTINGS = [(2, 1, 0, 0, 0, 0), (2, 1, 0, 2, 0, 4), (0, 2, 0, 0, 4, 1), (4, 0, 1, 0, 0, 0)]
SETTINGS += [(0, 0, 0, 2, 0, 2)]  # two classes have the same whole percentage there

MOVE = """([names, places]) => {
  const form = document.querySelector(".play form").elements;
  names.forEach((name, i) => {
    form[name].value = places[i];
    form[name].checked = places[i] == 1;
  });
  const start = performance.now();
  form[names[0]].dispatchEvent(new Event("input"));
  return performance.now() - start;
}"""

SHOWN = """[...document.querySelector(".face").getContext("2d").getImageData(0, 0, 256, 256).data]
.filter((_, i) => i % 4 == 0)"""


def values(places):
    return tuple(values[place] for values, place in zip(play.GRID, places, strict=True))


def bars(page):
    return [float(text) for text in page.locator(".bars td:last-child").all_inner_texts()]


def test_the_face_has_the_answers_of_the_network(built, page):
    """From the file, without a network, and as soon as a slider moves."""
    page.context.set_offline(True)
    page.goto((built / "index.html").as_uri())
    page.locator(".play .best").wait_for()
    model = load_model("SAMPLE")
    for places in SETTINGS:
        # The best of three: other processes may hold this one up.
        assert min(page.evaluate(MOVE, [NAMES, places]) for _ in range(3)) < 50
        answer = predict(model, play.pictures([values(places)]))["emotion"][0]
        np.testing.assert_allclose(bars(page), answer, atol=0.0051)
        best = TASKS["emotion"][answer.argmax()]
        assert page.get_by_role("status").first.inner_text() == f"{best} {answer.max():.2f}"
        text = page.locator(".face").get_attribute("aria-label")
        assert text.endswith("a hand over the mouth.") == bool(places[2])


def test_the_page_shows_the_face_that_the_network_is_asked_about(site, page, tmp_path):
    page.goto(f"{site}/index.html")
    page.locator(".play .best").wait_for()
    for places in SETTINGS:
        page.evaluate(MOVE, [NAMES, places])
        shown = np.array(page.evaluate(SHOWN)).reshape(256, 256)
        drawn = play.pictures([values(places)], 256)[0, :, :, 0].astype(int)
        assert np.abs(shown - drawn).mean() < 2
        # A large picture and the small one that the network gets show the same.
        small = Image.fromarray(drawn.astype(np.uint8)).resize((48, 48), Image.Resampling.BOX)
        asked = play.pictures([values(places)])[0, :, :, 0].astype(int)
        assert np.abs(np.asarray(small) - asked).mean() < 4


def test_upper_and_lower_parts_of_a_face_do_not_change_each_other():
    some = list(itertools.product(play.YAWS[::2], play.LIGHTS, (False,), *[(0, 1)] * 3))
    whole = dict(zip(some, play.pictures(some, play.SIDE), strict=True))
    for setting, picture in whole.items():
        *place, brows, corners, jaw = setting
        upper, lower = whole[(*place, brows, 0, 0)], whole[(*place, 0, corners, jaw)]
        assert (picture[: play.CUT] == upper[: play.CUT]).all()
        assert (picture[play.CUT :] == lower[play.CUT :]).all()


def test_the_heat_map_is_that_of_grad_cam():
    model = load_model("SAMPLE")
    images = play.pictures([values(places) for places in SETTINGS])
    for image, heat in zip(images, play.evidence(model, images), strict=True):
        large = keras.ops.image.resize(heat[..., None], (48, 48), interpolation="bicubic")
        large = np.clip(keras.ops.convert_to_numpy(large)[..., 0], 0, None)
        np.testing.assert_allclose(large / large.max(), grad_cam(model, image), atol=0.01)


def test_the_challenges_can_be_met_with_the_keyboard(site, page, asked):
    page.goto(f"{site}/index.html")
    page.locator(".play .best").wait_for()
    done = page.locator(".challenges .done")
    page.locator("[name=brows]").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    page.keyboard.press("End")
    assert done.count() == 1  # fear
    assert page.get_by_role("status").last.text_content() == "Done: Make it say fear."
    page.get_by_role("button", name="Back to the start").press("Enter")
    page.locator("[name=hand]").press("Space")
    assert done.count() == 2
    for _ in range(2):
        page.locator("[name=turn]").press("ArrowRight")
    assert done.count() == 3
    page.locator("[name=corners]").press("End")
    assert done.count() == 4
    assert asked == []
