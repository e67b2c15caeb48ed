"""Visitors and photos at the page of `make demo`.

    PYTHONPATH=notebooks python tests/photo_page_load.py [VISITORS] [PHOTOS]

Prints the memory of the server, what it left on the disk, and what the page asked other hosts for.
All visitors come at once. Some minutes for 20 visitors and 50 photos on two cores.
"""

import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from PIL import Image
from playwright.sync_api import sync_playwright
from skimage import data

from conftest import CHROMIUM
from test_browser import ROOT, choose_photos, serving

SIDES = (512, 1500, 3000, 7350)  # pixels; the last has 54 megapixels


class Watch:
    """The memory of a process, and its highest since the last look."""

    def __init__(self, process: int, folder: Path) -> None:
        self.process, self.folder, self.peak = psutil.Process(process), folder, 0
        threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        while self.process.is_running():
            self.peak = max(self.peak, self.process.memory_info().rss)
            time.sleep(0.05)

    def say(self, what: str) -> None:
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        kept = [path for path in files if path.suffix != ".py"]  # TensorFlow's own
        memory = self.process.memory_info().rss
        print(f"{what}: {memory / 1e9:.2f} GB (peak {self.peak / 1e9:.2f}), {len(kept)} files kept")
        self.peak = 0


def main(visitors: int = 20, photos: int = 50) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        files = [folder / f"{side}.jpg" for side in SIDES]
        for side, file in zip(SIDES, files, strict=True):
            Image.fromarray(data.astronaut()).resize((side, side)).save(file)
        temporary = folder / "temporary"
        temporary.mkdir()
        start = time.monotonic()
        words = [str(ROOT / "notebooks/photo_page.py"), "{port}"]
        server, address = stack.enter_context(serving(folder, words, "/", TMPDIR=temporary))
        print(f"the server answers after {time.monotonic() - start:.1f} s")
        watch = Watch(server.pid, temporary)
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        stack.callback(browser.close)
        asked = set()

        def visit():
            page = browser.new_context().new_page()
            page.on("request", lambda request: asked.add(urlsplit(request.url).netloc))
            page.goto(address)
            page.get_by_text("1 face found").wait_for()
            page.wait_for_timeout(500)  # until the page listens, too
            return page

        start = time.monotonic()
        page = visit()
        print(f"a page is ready after {time.monotonic() - start - 0.5:.1f} s")
        watch.say("at the start")
        pages = [visit() for _ in range(visitors)]
        for one in pages:
            choose_photos(one, files[:1], wait=False)
        for one in pages:
            choose_photos(one, [], wait=True)
            one.context.close()
        watch.say(f"after {visitors} visitors at once")
        for number in range(photos):
            start = time.monotonic()
            choose_photos(page, [files[number % len(files)]])
            if number % 10 == 9:
                watch.say(
                    f"after {number + 1} photos, the last in {time.monotonic() - start:.1f} s"
                )
        page.context.close()
        time.sleep(140)
        watch.say("after two minutes more")
        print("hosts asked:", ", ".join(sorted(asked - {""})))


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
