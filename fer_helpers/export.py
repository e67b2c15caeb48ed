"""The trained network as one file that runs without Keras: ONNX or LiteRT.

Only prediction is exported: float32 images (N, 48, 48, 1) with values 0 to 255 in, one output per
head out, named as in Keras, temperature included, any batch size. A file whose probabilities
differ from those of Keras is not written.

Each file describes itself, see `_description`. ONNX keeps the entries as JSON in its metadata
(``InferenceSession.get_modelmeta().custom_metadata_map``). To a LiteRT file a zip is appended, as
TensorFlow Lite does with its label files, so any zip tool reads ``description.json`` from it.
"""

import contextlib
import functools
import json
import logging
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from fer_helpers.backend import keras, no_native_log
from fer_helpers.batches import check_values
from fer_helpers.checkpoints import in_float32, replace_file
from fer_helpers.datasets import load_training_data
from fer_helpers.evaluation import accuracy_table
from fer_helpers.labels import OUTPUTS, TASKS
from fer_helpers.model import IMAGE_SIZE
from fer_helpers.prediction import predict
from fer_helpers.progress import tqdm

SUFFIXES = {"onnx": ".onnx", "litert": ".tflite"}
NEEDS = {"onnx": ("tf2onnx", "onnx", "onnxruntime"), "litert": ("ai_edge_litert",)}

TOLERANCE = 1e-3  # greatest difference allowed between a probability of the file and of Keras
BATCH = 256  # images at once
CHECKED = 512  # images that are compared, and others by which the ranges of int8 are set


def export(
    model: keras.Model,
    path: str | Path,
    form: str = "onnx",
    int8: bool = False,
    dataset_name: str | Path = "SAMPLE",
    data_dir: str | Path | None = None,
    labels: str | Path | None = None,
    ignore: Sequence[str] = (),
    origin: str = "not stated",
) -> dict:
    """Write a network to one file, and compare what the file computes with Keras.

    Parameters
    ----------
    model
        A network of `get_model` or `load_model`.
    path
        File to write, ``.onnx`` or ``.tflite``; replaced as a whole or not at all.
    form
        ``"onnx"``, for ONNX Runtime, or ``"litert"``, for LiteRT (formerly TensorFlow Lite).
    int8
        Weights and activations as 8-bit whole numbers: about a quarter of the size, and slightly
        less accurate. Inputs and outputs stay float32. LiteRT gives probabilities in steps of
        1/256, so they sum to 1 only roughly.
    dataset_name
        The faces to compare on (validation split) and to set the ranges of int8 by (training
        split); best the data that the network was trained on. See `load_data`.
    data_dir, labels, ignore
        See `load_data`.
    origin
        What the weights were trained on, and under which terms they may be used, see
        `fer_helpers.training.origin`. The file carries this text.

    Returns
    -------
    dict
        ``file``, its path; ``bytes``, its size, and ``float32_bytes``, that of the weights
        alone; ``images``, how many were compared: at most 512, with `int8` the whole validation
        split; ``difference``, the greatest one in any probability; ``accuracy``, task ->
        ``{"keras": ..., "exported": ...}``, each 0 to 1.

    Raises
    ------
    ValueError
        The form is unknown, `path` has not its ending, packages are missing, or the backend is
        not TensorFlow. Without `int8`, also if the file's probabilities differ from those of
        Keras by more than 1e-3: then `path` is not written.
    OSError
        `path` cannot be written.
    """
    path = Path(path)
    _check(path, form)
    model = in_float32(model, model.get_weights())
    (X, _), (X_val, y_val) = load_training_data(dataset_name, data_dir, labels, ignore)
    if not int8:
        X_val, y_val = X_val[:CHECKED], y_val[:CHECKED]
    # Spread over the data: their order may follow the classes.
    ranges = X[np.linspace(0, len(X) - 1, min(CHECKED, len(X))).astype(int)] if int8 else None
    expected = predict(model, X_val)

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / path.name
        with _quiet():
            WRITERS[form](model, file, ranges)
            _describe(file, origin)
        found = run_exported(load_exported(file), X_val)
        gap = _difference(expected, found)
        if not int8 and not gap <= TOLERANCE:
            raise ValueError(
                f"{path}: its probabilities for {len(X_val)} images would differ from those of "
                f"Keras by up to {gap:.2g}, more than {TOLERANCE:g}: it was not written"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, functools.partial(shutil.copyfile, file))
    before, after = (accuracy_table(y_val, p)["accuracy"] for p in (expected, found))
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "float32_bytes": 4 * model.count_params(),
        "images": len(X_val),
        "difference": gap,
        "accuracy": {
            task: {"keras": float(before[task]), "exported": float(after[task])}
            for task in before.index
        },
    }


def load_exported(path: str | Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Open a file that `export` wrote, without Keras.

    Parameters
    ----------
    path
        The file, ``.onnx`` or ``.tflite``.

    Returns
    -------
    function
        Takes images (N, 48, 48, 1) of any numeric dtype, values 0 to 255. Returns a dict of
        probabilities: ``"emotion_output"`` -> float32 (N, 7), ``"gender_output"`` (N, 3),
        ``"race_output"`` (N, 3), ``"age_output"`` (N, 5). Raises ValueError for images of
        another shape, or with values that `check_values` refuses.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It has neither of the two endings.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES.values():
        raise ValueError(f"{path} must end in {' or '.join(SUFFIXES.values())}")
    if not path.is_file():
        raise FileNotFoundError(f"no network at {path}: write one with `export`")
    if path.suffix == SUFFIXES["onnx"]:
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [*OUTPUTS.values()]
        return lambda images: dict(
            zip(names, session.run(names, {"image": _checked(images)}), strict=True)
        )
    with no_native_log():
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(path))
        interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    return lambda images: runner(image=_checked(images))


def _checked(images: np.ndarray) -> np.ndarray:
    """Return images as float32, or raise ValueError for what the network would misread."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE, 1):
        raise ValueError(f"images must be (N, {IMAGE_SIZE}, {IMAGE_SIZE}, 1), not {images.shape}")
    check_values(images)
    return images.astype(np.float32, copy=False)


def run_exported(
    network: Callable[[np.ndarray], dict[str, np.ndarray]], images: np.ndarray
) -> dict[str, np.ndarray]:
    """Predict images in batches with an exported network.

    Parameters
    ----------
    network
        A function of `load_exported`.
    images
        (N, 48, 48, 1), values 0 to 255 of any dtype, N at least 1; may be a memory map.

    Returns
    -------
    dict
        Task -> float32 (N, classes), as `predict` returns it.

    Raises
    ------
    ValueError
        Images of another shape, or with values that `check_values` refuses.
    """
    batches = [
        network(images[start : start + BATCH])
        for start in tqdm(range(0, len(images), BATCH), desc="comparing", delay=2, leave=False)
    ]
    return {task: np.concatenate([batch[OUTPUTS[task]] for batch in batches]) for task in TASKS}


def _check(path: Path, form: str) -> None:
    if form not in SUFFIXES:
        raise ValueError(f"unknown format {form!r}: choose one of {', '.join(SUFFIXES)}")
    if path.suffix != SUFFIXES[form]:
        raise ValueError(f"{path} must end in {SUFFIXES[form]}, the ending of format {form}")
    missing = [name for name in NEEDS[form] if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"format {form} needs {', '.join(missing)}: pip install 'fer-helpers[export]'"
        )
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"export runs on TensorFlow, not on {keras.backend.backend()}: set "
            "KERAS_BACKEND=tensorflow, which reads the same weights"
        )


def _difference(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> float:
    # NaN propagates: it must not count as agreement.
    return float(np.max([np.abs(a[task] - b[task]).max() for task in TASKS]))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the messages of the converters."""
    before = logging.root.manager.disable
    with warnings.catch_warnings(), no_native_log():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def _batches(images: np.ndarray) -> Iterator[list[np.ndarray]]:
    for start in range(0, len(images), 64):
        yield [images[start : start + 64].astype(np.float32)]


def _description(origin: str) -> dict:
    """Return what a program that knows nothing but the file needs to use it."""
    return {
        "input": {
            "name": "image",
            "shape": ["N", IMAGE_SIZE, IMAGE_SIZE, 1],
            "layout": "NHWC",
            "dtype": "float32",
            "colour": "grey (ITU-R 601 luma), upright",
            "range": [0, 255],
            "resize": "bilinear with antialiasing, as Pillow's Image.Resampling.BILINEAR",
        },
        "outputs": {OUTPUTS[task]: list(classes) for task, classes in TASKS.items()},
        "weights": origin,
    }


def _describe(file: Path, origin: str) -> None:
    """Store the description in a file that was just written."""
    description = _description(origin)
    if file.suffix == SUFFIXES["litert"]:
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr("description.json", json.dumps(description, indent=1))
        return
    import onnx

    proto = onnx.load(file)
    onnx.helper.set_model_props(proto, {key: json.dumps(description[key]) for key in description})
    onnx.save(proto, file)


def _write_onnx(model: keras.Model, path: Path, ranges: np.ndarray | None) -> None:
    import onnx

    model(
        np.zeros((1, *model.input_shape[1:]), np.float32)
    )  # Keras exports only models that were called
    model.export(str(path), format="onnx", verbose=False)
    proto = onnx.load(path)
    # The converter has numbered the outputs in their order.
    names = {old.name: new for old, new in zip(proto.graph.output, model.output_names, strict=True)}
    for node in proto.graph.node:
        node.output[:] = [names.get(name, name) for name in node.output]
    for output in proto.graph.output:
        output.name = names[output.name]
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
    if ranges is not None:
        _quantize_onnx(path, ranges)


def _quantize_onnx(path: Path, ranges: np.ndarray) -> None:
    import onnx
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        batches = _batches(ranges)

        def get_next(self):
            (images,) = next(self.batches, (None,))
            return None if images is None else {"image": images}

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / path.name
        quantization.quant_pre_process(path, prepared, skip_symbolic_shape=True)
        nodes = onnx.load(prepared).graph.node
        quantization.quantize_static(
            prepared,
            path,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            # Products of 8 bits overflow on processors without VNNI: weights have 7.
            reduce_range=True,
            # Otherwise probabilities are multiples of 1/256, most of them 0, and do not sum to 1.
            nodes_to_exclude=[node.name for node in nodes if node.op_type == "Softmax"],
        )


def _write_litert(model: keras.Model, path: Path, ranges: np.ndarray | None) -> None:
    import tensorflow as tf

    options = {}
    if ranges is not None:
        options = {
            "optimizations": [tf.lite.Optimize.DEFAULT],
            "representative_dataset": lambda: _batches(ranges),
        }
    outputs = dict(zip(model.output_names, model.outputs, strict=True))
    keras.Model(model.inputs[0], outputs).export(
        str(path), format="litert", verbose=False, **options
    )


WRITERS = {"onnx": _write_onnx, "litert": _write_litert}
