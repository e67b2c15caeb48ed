"""Visitors and photos at the page of `make demo`, and messages that are made to break it.

    python tests/photo_page_load.py [VISITORS] [PHOTOS]

Prints the memory of the server and of the kernels, and the kernels that are left. Every other
visitor leaves as after a crash, without the message that ends the kernel. A quarter of an hour for
20 visitors and 50 photos on two cores.
"""

import contextlib
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from PIL import Image
from playwright.sync_api import expect, sync_playwright
from skimage import data

from conftest import CHROMIUM
from test_browser import MINUTES, OPTIONS, copy_notebook, kernels, serving, upload

LIMIT = 8  # GB; what takes more is ended
SIDES = (512, 1500, 3000, 7350, 9000)  # pixels; the last two are 54 and 81 megapixels

# Sends messages to all widgets of the page by a connection of its own; each tries to take memory.
SEND = """
async (kind) => {
  const kernel = JSON.parse(document.getElementById("jupyter-config-data").textContent).kernelId;
  const address = `ws://${location.host}/api/kernels/${kernel}/channels`;
  const socket = new WebSocket(address, "v1.kernel.websocket.jupyter.org");
  socket.binaryType = "arraybuffer";
  await new Promise((open) => (socket.onopen = open));
  const send = (msg_type, content, metadata = {}) => {
    const header = { msg_id: crypto.randomUUID(), msg_type, session: "s", version: "5.3" };
    const words = ["shell", ...[header, {}, metadata, content].map((part) => JSON.stringify(part))];
    const parts = words.map((part) => new TextEncoder().encode(part));
    const offsets = [8 * (parts.length + 2)];
    for (const part of parts) offsets.push(offsets.at(-1) + part.length);
    const head = new BigUint64Array([offsets.length, ...offsets].map(BigInt));
    socket.send(new Blob([head, ...parts]));
  };
  const closed = new Promise((done) => (socket.onclose = (event) => done(`closed: ${event.code}`)));
  const widgets = new Promise((done) => {
    socket.onmessage = (event) => {
      const offsets = new BigUint64Array(event.data.slice(8, 56)).slice(0, 6);
      const at = (n) => Number(offsets[n]);
      const part = (n) => JSON.parse(new TextDecoder().decode(event.data.slice(at(n), at(n + 1))));
      if (part(1).msg_type === "comm_info_reply") done(Object.keys(part(4).comms));
    };
  });
  send("comm_info_request", {});
  const states = {
    number: { picture: 22.7e9, photo: { name: "a", size: 1, content: 22.7e9 },
              value: [{ name: "a", size: 1, content: 22.7e9 }] },
    slider: { max: 1e12, value: 1e12 },
  };
  const data = { method: "update", state: states[kind], buffer_paths: [] };
  if (kind in states) for (const comm_id of await widgets) send("comm_msg", { comm_id, data });
  if (kind === "lists") send("comm_msg", {}, Array(7e6).fill([]));  // 21 MB
  if (kind === "long") socket.send("x".repeat(50 << 20));
  const waited = new Promise((done) => setTimeout(() => done("open"), 8000));
  return await Promise.race([closed, waited]);
}
"""


class Watch:
    """The highest memory of the server and of a kernel since the last look, in GB."""

    def __init__(self, server: int) -> None:
        self.server = psutil.Process(server)
        self.peaks = [0.0, 0.0]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        while True:
            with contextlib.suppress(psutil.Error):
                for place, processes in enumerate(([self.server], kernels())):
                    highest = max((one.memory_info().rss for one in processes), default=0) / 1e9
                    self.peaks[place] = max(self.peaks[place], highest)
                    if highest > LIMIT:
                        print(f"more than {LIMIT} GB: ended", flush=True)
                        self.server.kill()
            time.sleep(0.1)

    def say(self, what: str) -> None:
        server = self.server.memory_info().rss / 1e9
        sizes = ", ".join(f"{one.memory_info().rss / 1e9:.2f}" for one in kernels()) or "none"
        print(
            f"{what}: server {server:.2f} GB (peak {self.peaks[0]:.2f}), "
            f"kernels {sizes} (peak {self.peaks[1]:.2f})",
            flush=True,
        )
        self.peaks = [0.0, 0.0]


def show(page, file: Path) -> None:
    """Upload a photo and wait for its picture."""
    images = page.locator("img.widget-image").first
    before = images.get_attribute("src")
    upload(page, file)
    expect(images).not_to_have_attribute("src", before, timeout=2 * MINUTES)
    expect(images).to_be_visible(timeout=MINUTES)


def visit(browser, address: str):
    page = browser.new_context().new_page()
    page.goto(address, timeout=2 * MINUTES)
    expect(page.get_by_role("button", name="Choose a photo")).to_be_visible(timeout=2 * MINUTES)
    return page


def main(visitors: int = 20, photos: int = 50) -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        copy_notebook("demo.ipynb", folder)
        files = [folder / f"{side}.jpg" for side in SIDES]
        for side, file in zip(SIDES, files, strict=True):
            Image.fromarray(data.astronaut()).resize((side, side)).save(file)
        translucent = Image.new("RGBA", (9400, 9400), (200, 100, 50, 128))
        translucent.save(folder / "translucent.png")
        words = ["serve_demo.py", *OPTIONS]
        server, address = stack.enter_context(serving(folder, words, "/"))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        stack.callback(browser.close)
        watch = Watch(server.pid)
        watch.say("at the start")

        for number in range(visitors):
            page = visit(browser, address)
            show(page, files[0])
            if number % 2:
                page.context.close()  # without a word to the page
            else:
                page.goto("about:blank")
                page.context.close()
        watch.say(f"after {visitors} visitors")
        if visitors:
            time.sleep(90)
            watch.say("90 seconds later")

        page = visit(browser, address)
        for number in range(photos):
            show(page, files[number % len(files)])
            if number % 10 == 9:
                watch.say(f"after {number + 1} photos")
        upload(page, folder / "translucent.png")
        status = page.get_by_role("status").filter(has_text="No face found")
        expect(status).to_be_visible(timeout=2 * MINUTES)
        watch.say("translucent photo of 88 megapixels")
        for kind in ("number", "slider", "lists", "long"):
            watch.say(f"message {json.dumps(kind)}, {page.evaluate(SEND, kind)}")
        page.reload()
        show(page, files[0])
        page.goto("about:blank")
        time.sleep(10)
        watch.say("at the end")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
