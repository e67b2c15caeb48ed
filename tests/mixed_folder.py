"""A folder of good and bad photos through the command line: what became of each, and the memory.

``python tests/mixed_folder.py 1000`` writes 1,000 files, predicts the folder in a process of its
own, and prints a row for each kind of file, and the peak memory of that process.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from skimage import data

KINDS = (
    *("good", "good_webp", "cmyk", "grey16", "alpha", "animated"),
    *("truncated", "empty", "text", "huge"),
)
GOOD = KINDS[:6]

# The command line, then the peak memory in kB of this process alone: getrusage would include the
# process that it was forked from.
PREDICT = """
import sys
from pathlib import Path
from fer_helpers.cli import main
status = main(sys.argv[2:])
peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
Path(sys.argv[1]).write_text(peak)
sys.exit(status)
"""


def write(folder: Path, number: int) -> None:
    """Write one file of the kind that its number stands for; no two are equal."""
    kind = KINDS[number % len(KINDS)]
    place = folder / f"{number:04}_{kind}"
    photo = Image.fromarray(data.astronaut())
    photo = photo.crop((0, 0, 400 + number % 100, 400 + number % 100))
    match kind:
        case "good":
            photo.save(place.with_suffix(".jpg"))
        case "good_webp":
            photo.save(place.with_suffix(".webp"))
        case "cmyk":
            photo.convert("CMYK").save(place.with_suffix(".jpg"))
        case "grey16":
            grey = np.asarray(photo.convert("L")).astype(np.uint16) * 257
            Image.fromarray(grey).save(place.with_suffix(".png"))
        case "alpha":
            photo.putalpha(255)
            photo.save(place.with_suffix(".png"))
        case "animated":
            frames = [photo, photo.rotate(90)]
            frames[0].save(place.with_suffix(".gif"), save_all=True, append_images=frames[1:])
        case "truncated":
            photo.save(place.with_suffix(".jpg"))
            content = place.with_suffix(".jpg").read_bytes()
            place.with_suffix(".jpg").write_bytes(content[: len(content) // 3])
        case "empty":
            place.with_suffix(".jpg").touch()
        case "text":
            place.with_suffix(".jpg").write_text("no photo")
        case "huge":
            Image.new("1", (20_000, 20_000)).save(place.with_suffix(".png"))


def run(count: int, folder: Path) -> tuple[pd.DataFrame, float]:
    """Return the table of `count` files, and the peak memory in MB of the process that made it."""
    photos, out = folder / "photos", folder / "out.csv"
    photos.mkdir()
    for number in range(count):
        write(photos, number)
    words = ["predict", photos, "--weights", "SAMPLE", "--out", out]
    memory = folder / "memory.txt"
    subprocess.run([sys.executable, "-c", PREDICT, *map(str, [memory, *words])], check=True)
    peak = int(memory.read_text()) / 1024
    table = pd.read_csv(out, keep_default_na=False)
    table["kind"] = table["path"].str.extract(r"\d{4}_(\w+)\.")[0]
    return table, peak


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        start = time.monotonic()
        rows, megabytes = run(int(sys.argv[1]), Path(name))
        rows["error"] = rows["error"].str.replace(r"^.*/\d{4}", "NNNN", regex=True)
        counts = rows.groupby(["kind", "error"]).size()
        print(counts.to_string())
        print(f"{len(rows)} rows, {time.monotonic() - start:.0f} s, peak {megabytes:.0f} MB")
