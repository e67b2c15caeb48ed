"""The web site: nothing is broken or fetched from elsewhere, and it fits a desk and a phone."""

import functools
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from conftest import CHROMIUM

pytest.importorskip("sphinx_book_theme", reason="needs fer-helpers[site]")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's package chromium")

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
PAGES = ["index", *NOTEBOOKS, "glossary", "reading"]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site as `make site` builds it, with warnings as errors (dead links are warnings)."""
    folder = tmp_path_factory.mktemp("site")
    line = subprocess.check_output(["grep", "-m1", "-e", "-m sphinx", ROOT / "Makefile"], text=True)
    words = line.split()
    words = words[words.index("-m") : -1]  # without the folder of the result
    subprocess.run([sys.executable, *words, folder], cwd=ROOT, check=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
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
