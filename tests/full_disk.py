"""A disk that is full: what do a run and a cache do on a tmpfs of 1 to 64 MB?

``python tests/full_disk.py 64`` needs root, to mount. Each size is tried in a process of its own:
once as it is, then again with room. An attempt counts as *whole* when the files fitted, as
*refused* when one line said that they did not, and as *signal N* when the process crashed.
"""

import contextlib
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import kill_training
from fer_helpers import cli
from fer_helpers.backend import keras
from fer_helpers.datasets import Faces, load_data, sample
from fer_helpers.datasets.cache import cached

ROOM = 512  # MB, for the second attempt
SIDE = 128


@contextlib.contextmanager
def disk(place: Path, size: int) -> Iterator[None]:
    """Mount a tmpfs of `size` MB."""
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}M", "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def in_process(attempt: Callable[[], int | None], log: Path) -> tuple[int, str]:
    """Return the exit status of `attempt` (below 0: the signal it died of) and what it printed."""
    child = os.fork()  # TensorFlow is imported once; nothing has run in it yet
    if child == 0:
        status = 1
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            try:
                status = attempt() or 0
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), log.read_text()


def outcome(status: int, said: str, refusal: str) -> str:
    """Return one word for an attempt."""
    if status < 0:
        return f"signal {-status}"
    if "Traceback" in said:
        return "traceback"
    lines = [line for line in said.splitlines() if refusal in line]
    if status == 0 and not lines:
        return "whole"
    return "refused" if len(lines) == 1 else f"exit status {status}, {len(lines)} lines"


def try_run(data: Path, place: Path, log: Path) -> Iterator[str]:
    """Train for two epochs into a full folder, and go on with room."""

    def train() -> int:
        # Step by step: to trace a graph takes longer than the few steps here.
        keras.Model.compile = functools.partialmethod(keras.Model.compile, run_eagerly=True)
        return cli.main([*kill_training.words(data, place / "out", 2), "--backbone", "compact"])

    yield outcome(*in_process(train, log), "error: ")
    left = [path.name for path in place.rglob(".writing-*")]
    subprocess.run(["mount", "-o", f"remount,size={ROOM}M", place], check=True)
    yield outcome(*in_process(train, log), "error: ") + (" but left files" if left else "")


def some_faces() -> Faces:
    """Return 15 MB of faces, in a nameless file if there is room for it."""
    shape = (SIDE * 7, SIDE, SIDE, 1)
    images = sample._allocate(shape)
    images[:] = np.arange(SIDE, dtype=np.uint8)[:, None]
    return Faces(images, np.zeros((len(images), 18), np.float32), *[np.full(len(images), "a")] * 2)


def try_cache(place: Path, log: Path) -> Iterator[str]:
    """Cache faces on a full disk, and again with room."""

    def load() -> None:
        tempfile.tempdir, sample.IN_MEMORY = str(place), 0
        faces = cached(place, "FACES", "files", "code", some_faces)
        if not (faces.images == some_faces().images).all():
            raise ValueError("these are not the faces")

    yield outcome(*in_process(load, log), "read without a cache")
    left = [path.name for path in place.rglob("*") if not path.is_dir()]
    whole = any(place.glob(".cache/FACES-*"))
    subprocess.run(["mount", "-o", f"remount,size={ROOM}M", place], check=True)
    found = outcome(*in_process(load, log), "read without a cache")
    yield found + (" but left files" if left and not whole else "")


def main(largest: int) -> None:
    if os.geteuid() != 0:
        sys.exit("skipped: only root can mount a small disk")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, place, log = folder / "data", folder / "disk", folder / "log.txt"
        kill_training.FACES = {"Training": 64, "PublicTest": 32}
        kill_training.write_faces(data)
        in_process(lambda: load_data("FER", data_dir=data) and 0, log)
        tries = {
            "cache": lambda: try_cache(place, log),
            "run": lambda: try_run(data, place, log),
        }
        for kind, attempts in tries.items():
            began, seen = time.monotonic(), Counter()
            for size in range(1, largest + 1):
                with disk(place, size):
                    came = " -> ".join(attempts())
                seen[came] += 1
                print(f"{kind} on {size} MB: {came}", flush=True)
            print(f"{kind}: {dict(seen)} in {time.monotonic() - began:.0f} seconds", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
