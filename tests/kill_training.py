"""Training that is killed again and again: does it end as a run that was left in peace?

``python tests/kill_training.py 24`` trains once undisturbed, then once more with 24 SIGKILLs, at
random moments and while a file of the run is being written, and compares the two. With SIGINT or
SIGTERM as a second argument it sends that, and counts exit statuses and last lines too.
"""

import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from fer_helpers import cli, load_model
from fer_helpers.runs import read_history

FACES = {"Training": 320, "PublicTest": 64}
LONGEST = 600  # seconds without a finished epoch, on a busy machine
PACKAGE = ("-m", "fer_helpers")
# The run stops early after some ten epochs, so not every kill may wait for one.
MOMENTS = ("writing", "any", "epoch", "writing", "any")


def write_faces(folder: Path) -> None:
    """A small made-up fer2013.csv: bright above or bright below."""
    generator = np.random.default_rng(0)
    rows = []
    for split, count in FACES.items():
        for number in range(count):
            emotion = number % 2
            pixels = generator.integers(0, 60, (48, 48))
            pixels[24 * emotion : 24 * (emotion + 1)] += 120
            rows.append((emotion, split, " ".join(map(str, pixels.ravel()))))
    (folder / "FER").mkdir(parents=True)
    table = pd.DataFrame(rows, columns=["emotion", "Usage", "pixels"])
    table.to_csv(folder / "FER" / "fer2013.csv", index=False)


def words(data: Path, out: Path, epochs: int) -> list[str]:
    """Return the arguments of the command that is killed."""
    options = {"--dataset": "FER", "--data-dir": data, "--out": out, "--epochs": epochs}
    return ["train", *(str(word) for pair in options.items() for word in pair)]


def start(data: Path, out: Path, epochs: int, program=PACKAGE) -> subprocess.Popen:
    environment = os.environ | {"TQDM_DISABLE": "1"}
    command = [sys.executable, *program, *words(data, out, epochs)]
    with (out.parent / "log.txt").open("a") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def wait_for(condition, process: subprocess.Popen) -> bool:
    """Whether `condition` came true before the process ended."""
    until = time.monotonic() + LONGEST
    while process.poll() is None:
        if condition():
            return True
        if time.monotonic() > until:
            process.kill()
            raise TimeoutError(f"no epoch in {LONGEST} seconds")
        time.sleep(0.002)
    return False


def kill(process, out: Path, moment: str, generator: random.Random, number: int) -> bool:
    """Send a signal to a run at a `moment`; False if it ended before."""
    done = len(read_history(out))
    match moment:
        case "writing":
            # Not before there is something to go on from.
            wait_for(lambda: len(read_history(out)) and any(out.glob(".writing-*")), process)
        case "epoch":
            if wait_for(lambda: len(read_history(out)) > done, process):
                time.sleep(generator.random() * 1.5)
        case "any":  # while it starts, reads, restores or trains
            time.sleep(generator.random() * 12)
    if process.poll() is not None:
        return False
    process.send_signal(number)
    process.wait(LONGEST)
    return True


def run(
    kills: int,
    epochs: int,
    folder: Path,
    seed: int = 0,
    program=PACKAGE,
    number: int = signal.SIGKILL,
) -> dict:
    """Train undisturbed and with `kills` signals of a `number`; return what came of both.

    Only what is killed runs as a process of its own, by `program`, such as ``("-m", "package")``.
    """
    data, whole, parts = folder / "data", folder / "whole", folder / "parts"
    write_faces(data)
    if cli.main(words(data, whole, epochs)) != 0:
        raise RuntimeError("the undisturbed run failed, see its error above")
    generator = random.Random(seed)
    killed, epochs_done, ends = [], [], []
    for _, moment in zip(range(kills), itertools.cycle(MOMENTS), strict=False):
        process = start(data, parts, epochs, program)
        if not kill(process, parts, moment, generator, number):
            break  # it reached its end
        lines = (folder / "log.txt").read_text().splitlines()
        ends.append((process.returncode, *(lines[-1:] if number != signal.SIGKILL else ())))
        killed.append(moment)
        epochs_done.append(len(read_history(parts)))
    code = cli.main(words(data, parts, epochs))
    histories = [read_history(path) for path in (whole, parts)]
    images = np.random.default_rng(1).integers(0, 256, (64, 48, 48, 1), dtype=np.uint8)
    probabilities = [
        load_model(path / "model.keras").predict_on_batch(images) for path in (whole, parts)
    ]
    return {
        "exit code": code,
        "kills": dict(Counter(killed)),
        "ends": dict(Counter(ends)),
        "epochs at the kills": epochs_done,
        "epochs": histories[1]["epoch"].tolist(),
        "loss difference": float((histories[0]["loss"] - histories[1]["loss"]).abs().max()),
        "probability difference": max(
            float(np.abs(a - b).max()) for a, b in zip(*probabilities, strict=True)
        ),
        "left behind": [path.name for path in parts.glob(".writing-*")],
    }


if __name__ == "__main__":
    number = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        began = time.monotonic()
        stop = signal.Signals[sys.argv[2]] if sys.argv[2:] else signal.SIGKILL
        report = run(number, number + 4, Path(name), number=stop)
    for key, value in itertools.chain(report.items(), [("seconds", time.monotonic() - began)]):
        print(f"{key:<24}{value}")
