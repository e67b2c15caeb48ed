"""The table on screen, RESULTS.md and the figure of growth, made from what the stages found."""

from pathlib import Path

import pandas as pd

from fer_helpers import plots
from fer_helpers.studies import figures

TRAINING, GOAL = 28709, 0.55  # faces of FER2013's Training; accuracy on PublicTest
MILLION = "1000000"
LOG = "\n## Log of changes\n"  # from here on RESULTS.md is written by hand

# Without these stages there is no page to write.
NEEDED = {"costs", "read", "pipeline", "infer", "infer fer", "train", "growth"}

# Key in results.json: what it is, and its target.
PROMISES = {
    "train_ratio": (
        "speed of training, first call to trained epoch, as a multiple of the yardstick's",
        "≥ 3",
    ),
    "accuracy_after_one_epoch": ("PublicTest accuracy after that epoch", "> the yardstick's"),
    "yardstick_accuracy_after_one_epoch": ("the same for the yardstick", ""),
    "peak_memory_ratio": ("peak memory of training, as a share of the yardstick's", "≤ 0.333"),
    "image_array_ratio": ("image array, as a share of the yardstick's", "≤ 0.05"),
    "time_to_55_ratio": ("time to 55 % on PublicTest, as a share of the yardstick's", "≤ 0.25"),
    "reload_s": ("cached reload of FER2013, seconds", "≤ 0.2"),
    "input_over_train": ("input pipeline, as a multiple of the training rate", "≥ 20"),
    "best_path": ("the fastest way to predict with the shipped network", ""),
    "batch_faces_per_s": ("inference in batches that way, faces per second", "≥ 1,000"),
    "versus_fer_rate": ("the same, as a multiple of `fer`'s fastest way", "≥ 1.5"),
    "accuracy": ("PublicTest accuracy that way", "> `fer`'s + 0.10"),
    "fer_accuracy": ("the same for `fer` that way", ""),
    "one_face_ms": ("one warm face, median milliseconds", "≤ 10"),
    "detection_ratio": (
        "finding faces, photos per second as a multiple of the package mtcnn's",
        "≥ 3",
    ),
    "detection_found": ("faces found in those photos, as a share of all", "≥ the package's"),
    "package_found": ("the same for the package mtcnn", ""),
    "million_peak_mb": ("peak memory of an epoch of a million faces, MB", "< 1,536"),
    "two_process_loss_diff": (
        "two processes compared with one, greatest difference in loss",
        "≤ 1e-5",
    ),
    "floor_share": ("training, as a share of the rate that the floor allows", ""),
    "gpu_images_per_s": (
        "training the default network on a GPU, batches of 1,024, images per second",
        "",
    ),
    "gpu_ceiling_share": ("the same, as a share of the rate of a large matrix product", ""),
}


def summary(stages: dict) -> dict:
    """Return the figures of PROMISES whose stages have been measured."""
    keys = {}
    if train := stages.get("train"):
        ours, theirs = train["ours"], train["yardstick"]
        keys["train_ratio"] = theirs["epoch_s"] / ours["epoch_s"]
        keys["peak_memory_ratio"] = ours["peak_mb"] / theirs["peak_mb"]
        if ours["epochs"]:
            keys["accuracy_after_one_epoch"] = ours["epochs"][0]["accuracy"]
            keys["yardstick_accuracy_after_one_epoch"] = theirs["epochs"][0]["accuracy"]
        if "pipeline" in stages:
            alone = stages["pipeline"]["plain_images_per_s"]
            keys["input_over_train"] = alone / ours["images_per_s"]
        if "costs" in stages:
            floor_s = stages["costs"]["train_floor_s"]
            keys["floor_share"] = floor_s * ours["images_per_s"]
    if goal := stages.get("goal"):
        ours, theirs = goal["ours"]["epochs"], goal["yardstick"]["epochs"]
        if ours[-1]["accuracy"] >= GOAL:  # else there is no time to compare
            keys["time_to_55_ratio"] = ours[-1]["seconds"] / theirs[-1]["seconds"]
            # Stopped before it got there: it takes longer, and the ratio is less.
            keys["time_to_55_is_bound"] = theirs[-1]["accuracy"] < GOAL
    if ours := stages.get("read"):
        keys["reload_s"] = ours["again_s"]
        keys["image_array_ratio"] = ours["image_mb"] / stages["read yardstick"]["image_mb"]
    if "infer" in stages:
        paths = stages["infer"]
        keys["best_path"] = max(paths, key=lambda path: paths[path]["faces_per_s"])
        best = paths[keys["best_path"]]
        keys["batch_faces_per_s"] = best["faces_per_s"]
        keys |= {key: best[key] for key in ("accuracy", "one_face_ms")}
    if "infer fer" in stages:
        fer = max(stages["infer fer"].values(), key=lambda row: row["faces_per_s"])
        keys["versus_fer_rate"] = keys["batch_faces_per_s"] / fer["faces_per_s"]
        keys["fer_accuracy"] = fer["accuracy"]
    if "detection" in stages:
        ours, package = stages["detection"]["ours"], stages["detection"]["package"]
        keys["detection_ratio"] = ours["photos_per_s"] / package["photos_per_s"]
        keys |= {"detection_found": ours["found"], "package_found": package["found"]}
    if row := stages.get("growth", {}).get(MILLION):
        keys["million_peak_mb"] = row["peak_mb"]
    if "two processes" in stages:
        keys["two_process_loss_diff"] = stages["two processes"]["difference"]
    if "gpu" in stages:
        default = [rate for rate in stages["gpu"]["rates"] if rate["network"] == "compact"][-1]
        keys["gpu_images_per_s"] = default["images_per_s"]
        keys["gpu_ceiling_share"] = default["ceiling_share"]
    return keys


def table(results: dict) -> str:
    """Return the figures of `summary` beside their targets."""
    rows = [("key", "what", "target", "measured")]
    for key, (what, wanted) in PROMISES.items():
        if key in results:
            bound = key == "time_to_55_ratio" and results["time_to_55_is_bound"]
            value = f"{'at most ' * bound}{_show(results[key])}"
            rows.append((f"`{key}`", what, wanted, value))
    return _rows(*rows)


def _show(value: object) -> str:
    """Return a number with three figures, without an exponent where it is large."""
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _rows(header: tuple, *lines: tuple) -> str:
    """Return a Markdown table."""
    rows = [header, ["---"] * len(header), *([_show(value) for value in line] for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _parts(results: dict) -> str:
    stages = results["stages"]
    ours, theirs = stages["train"]["ours"], stages["train"]["yardstick"]
    reading = {"ours": stages["read"], "yardstick": stages["read yardstick"]}
    batches = (stages["pipeline"], stages["read yardstick"])
    augmented = stages["pipeline"]["augmented_images_per_s"]
    labels = {
        "images_per_s": "training, images/s once running",
        "first_step_s": "first call to first step, s",
        "epoch_s": "first call to trained epoch, s",
        "peak_mb": "peak memory of training, MB",
        "worker_mb": "the largest process that helped to read, MB",
    }
    return _rows(
        ("part", "ours", "yardstick"),
        ("reading FER2013 from its zip, s", *(row["seconds"] for row in reading.values())),
        ("again, from the cache, s", stages["read"]["again_s"], "as before"),
        ("image array, MB", *(row["image_mb"] for row in reading.values())),
        ("peak memory of reading, MB", *(row["peak_mb"] for row in reading.values())),
        ("batches alone, images/s", *(row["plain_images_per_s"] for row in batches)),
        ("batches and augmentation, images/s", augmented, "none"),
        *((label, ours[key], theirs[key]) for key, label in labels.items()),
        *_way_to_55(results),
    )


def _way_to_55(results: dict) -> list[tuple]:
    """Return the rows of the long runs, which `--quick` leaves out."""
    if "goal" not in results["stages"]:
        return []
    ways = {way: row["epochs"] for way, row in results["stages"]["goal"].items()}
    ours, theirs = (epochs[-1] for epochs in ways.values())
    last = [
        f"{'more than ' * (row['accuracy'] < GOAL)}{row['seconds']:,.0f}" for row in (ours, theirs)
    ]
    keys = ("accuracy_after_one_epoch", "yardstick_accuracy_after_one_epoch")
    return [
        ("PublicTest accuracy after one epoch", *(results.get(key, "") for key in keys)),
        ("on the way to 55 %", *(_accuracies(epochs) for epochs in ways.values())),
        ("seconds to 55 %", *last),
    ]


def _accuracies(epochs: list[dict]) -> str:
    return ", ".join(f"{row['accuracy']:.3f}" for row in epochs)


def _machines(machines: dict[str, str]) -> str:
    """Return which parts were measured on which machine."""
    parts = {}
    for part, machine in machines.items():
        parts.setdefault(machine, []).append(part)
    return "\n".join(f"- **{', '.join(names)}:** {machine}" for machine, names in parts.items())


def _inference(stages: dict) -> str:
    keys = ("faces_per_s", "one_face_ms", "mb")
    theirs = stages["infer fer"]
    paths = stages["infer"] | {f"`fer` 25.10.3, {form}": row for form, row in theirs.items()}
    return _rows(
        (
            "path",
            "faces/s",
            "one face, ms",
            "weights, MB",
            "accuracy",
            "peak memory, MB",
        ),
        *(
            (path, *(row.get(key, "") for key in keys), f"{row['accuracy']:.4f}", row["peak_mb"])
            for path, row in paths.items()
        ),
    )


def _gpu(stages: dict) -> str:
    """Return what a GPU reaches; the figures may come from another machine."""
    if "gpu" not in stages:
        return "Not measured yet: `make bench` does it where Keras sees a GPU."
    found = stages["gpu"]
    limits = found["limits"]
    keys = ("network", "batch", "images_per_s", "ceiling_share", "floor_share")
    table = _rows(
        ("network", "batch", "images/s", "share of the ceiling", "share of the floor's rate"),
        *(tuple(rate[key] for key in keys) for rate in found["rates"]),
    )
    return (
        f"{found['gpu']}, in bfloat16, compiled by XLA. The ceiling: "
        f"{limits['multiply_adds'] / 1e12:.0f} trillion multiply-adds per second in a large "
        f"matrix product; a copy moves {limits['bytes'] / 1e12:.1f} trillion bytes per second."
        f"\n\n{table}"
    )


def _growth(growth: pd.DataFrame) -> str:
    keys = ["us_per_image", "peak_mb", "load_s"]
    return _rows(
        ("faces", "microseconds per face", "peak memory, MB", "opening the cache, s"),
        *(tuple(row[["n", *keys]].astype(float)) for _, row in growth.iterrows()),
    )


def report(results: dict, old: str) -> str:
    """Return the text of RESULTS.md: the measured page anew, the log as it is in the `old` text."""
    _, heading, log = old.partition(LOG)
    stages = results["stages"]
    costs, limits = stages["costs"], stages["limits"]
    page = TEXT.format(
        machines=_machines(results["machines"]),
        table=table(results),
        parts=_parts(results),
        inference=_inference(stages),
        gpu=_gpu(stages),
        forward=costs["multiply_adds"] / 1e6,
        training=costs["train_multiply_adds"] / 1e6,
        moved=costs["train_bytes"] / 2**20,
        product=limits["float32"]["multiply_adds"] / 1e9,
        bfloat=limits["bfloat16"]["multiply_adds"] / 1e9,
        copy=limits["float32"]["bytes"] / 2**30,
        compute=1 / costs["compute_floor_s"],
        floor=1 / costs["train_floor_s"],
        share=results["floor_share"],
        growth=_growth(growth_table(stages)),
    )
    return page + heading + log


def growth_table(stages: dict) -> pd.DataFrame:
    """Return a row for each number of faces, in order."""
    return pd.DataFrame(stages["growth"].values()).sort_values("n")


def draw_growth(stages: dict, path: Path) -> None:
    """Draw the figure of growth, for RESULTS.md."""
    plots.use_style()
    plots.save(figures.growth(growth_table(stages)), path)


TEXT = """# What was measured

`make bench` writes `results.json` and this page down to the log of changes: do not change them by
hand. Speeds differ from machine to machine; what counts is the ratio of two ways measured side by
side.

{machines}

{table}

The **yardstick** follows the paper's public code and is written from its description: all images as
float64 50 × 50 × 3 in memory, a Python generator that appends image by image, the paper's CNN in
float32 with one emotion head, Adam, batches of 32. **Ours** is the default network on the same zip,
trained by `ours` in `stages.py`. Its settings were chosen on PublicTest, with one seed, only to
reach 55 % soon. Both clocks start at the first call: reading the zip counts, validation does not.
A yardstick that is still below 55 % after more than five times our time is stopped. Its last
accuracy may then be that of an unfinished epoch, and the ratio of the times is an upper bound.

## Parts

{parts}

Each stage runs in a process of its own; its peak is the greatest memory that the process has held
(`VmHWM`), TensorFlow included. On this page an MB is 2²⁰ bytes and a GB 2³⁰. In the one epoch of
the first table the learning rate rises and falls. On the way to 55 % its schedule is made for four
epochs, and at the end of the first one it has only just risen.

## Inference

The network that is shipped for FER, on PublicTest, in batches of 256: grey pictures in, the
probabilities of four heads out. `fer` is timed without resizing to its 64 × 64, and by both of its
files: the LiteRT one, its default, takes one face at a time. The size of the weights is that in
memory for our network in Keras, and that of the file for the others. The peak memory of our
exported files includes writing them.

{inference}

## The floor

A face costs the compact network {forward:.1f} million multiply-adds to predict and {training:.1f}
million to train on (forward, gradient of the weights, gradient of the input). Training
moves {moved:.1f} MB per face, if every layer reads and writes its numbers once each way. This
machine multiplies large matrices at {product:.0f} billion multiply-adds per second in float32
({bfloat:.2g} in bfloat16) and moves {copy:.0f} GB per second. Limited by its arithmetic alone it
could train on {compute:,.0f} faces per second; with each layer limited by the slower of its
arithmetic and its bytes, on {floor:,.0f}. Training reaches **{share:.0%}** of the latter.

## On a GPU

{gpu}

## Growth

One epoch of shuffled batches of 64 from a memory-mapped cache. 10,240 different faces are drawn
and repeated in the file, which makes no difference to how they are read.

{growth}

![Time and memory against the number of faces](growth.png)
"""
