"""Where the time goes: what a network has to compute and to move, and what the machine can do.

The floor of a layer is the shortest time in which this machine could run it: its multiply-adds
at the rate of a large matrix product, or its bytes at the rate of a copy, whichever takes longer
(the roofline of Williams, Waterman & Patterson 2009).
"""

import contextlib
import math
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from fer_helpers.backend import compiled, keras

layers, ops = keras.layers, keras.ops

BATCH = 64  # images at once, in `layer_seconds`


def seconds(function: Callable[[], object], repeats: int = 10) -> float:
    """Return the median time of a call, in seconds; a first call is not counted.

    Parameters
    ----------
    function
        Called without arguments, ``repeats + 1`` times. It must wait for its result.
    repeats
        Calls that are timed, at least 1.
    """
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def machine_limits(dtype: str = "float32", side: int = 2048) -> dict[str, float]:
    """Measure what this machine reaches in a large matrix product and in a copy.

    Parameters
    ----------
    dtype
        ``"float32"``, ``"bfloat16"`` or ``"float16"``.
    side
        Side of the square matrices that are multiplied. The array that is copied holds 16
        times as many numbers as one of them.

    Returns
    -------
    dict
        ``multiply_adds`` and ``bytes`` (read and written), both per second.
    """
    itemsize = 4 if dtype == "float32" else 2
    matrix = ops.cast(keras.random.normal((side, side), seed=0), dtype)
    # The best of several: a limit is what can be reached, whatever else the machine does.
    product = min(
        seconds(lambda: np.asarray(ops.matmul(matrix, matrix)[0, :1]), 1) for _ in range(8)
    )
    return {
        "multiply_adds": side**3 / product,
        "bytes": copy_rate(16 * itemsize * side**2 / 1e6, dtype),
    }


def copy_rate(megabytes: float, dtype: str = "float32") -> float:
    """Measure how many bytes per second are read and written where an array is scaled.

    Parameters
    ----------
    megabytes
        Size of the array. A small one stays in the processor's caches, a large one comes from
        the main memory; for a very small one the call itself takes most of the time.
    dtype
        ``"float32"``, ``"bfloat16"`` or ``"float16"``.

    Returns
    -------
    float
        Bytes per second: the array is read once and written once.
    """
    itemsize = 4 if dtype == "float32" else 2
    count = round(megabytes * 1e6 / itemsize)
    array = ops.cast(keras.random.normal((count,), seed=0), dtype)
    copy = min(seconds(lambda: np.asarray((array * 2)[:1]), 1) for _ in range(8))
    return 2 * itemsize * count / copy


def layer_costs(model: keras.Model, itemsize: int = 4) -> pd.DataFrame:
    """Count from the shapes what each layer costs for one image.

    Parameters
    ----------
    model
        A network of `get_model`.
    itemsize
        Bytes of a number: 4 in float32, 2 in bfloat16.

    Returns
    -------
    pandas.DataFrame
        A row per layer, without the input. Columns ``layer`` and ``kind`` (its name and class);
        ``multiply_adds`` and ``bytes`` of a prediction; ``train_multiply_adds`` and
        ``train_bytes`` of a training step: forward, the gradient of the weights, the gradient
        of the input. Weights are read once for a whole batch and are left out.
    """
    rows, first = [], True
    for layer in model.layers:
        if isinstance(layer, layers.InputLayer):
            continue
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        read = itemsize * sum(math.prod(tensor.shape[1:]) for tensor in inputs)
        written = itemsize * math.prod(layer.output.shape[1:])
        work = _multiply_adds(layer)
        # Nothing in front of the first layer that learns needs a gradient.
        directions = 1 if not work else 2 if first else 3
        first = first and not work
        # Batch normalisation reads its input twice: once for mean and variance.
        again = read if isinstance(layer, layers.BatchNormalization) else 0
        rows.append(
            {
                "layer": layer.name,
                "kind": type(layer).__name__,
                "multiply_adds": work,
                "bytes": read + written,
                "train_multiply_adds": directions * work,
                "train_bytes": (read + written) + (2 * read + written) + 2 * again,
            }
        )
    return pd.DataFrame(rows)


def _multiply_adds(layer: keras.Layer) -> int:
    if isinstance(layer, layers.Conv2D):
        return math.prod(layer.output.shape[1:3]) * math.prod(layer.kernel.shape)
    return math.prod(layer.kernel.shape) if isinstance(layer, layers.Dense) else 0


def floor(costs: pd.DataFrame, limits: dict[str, float], prefix: str = "") -> pd.Series:
    """Return the least seconds per image that each layer takes on a machine.

    Parameters
    ----------
    costs
        The table of `layer_costs`.
    limits
        ``multiply_adds`` and ``bytes`` per second, see `machine_limits`.
    prefix
        ``"train_"`` for a training step, empty for a prediction.

    Returns
    -------
    pandas.Series
        Seconds, with the index of `costs`.
    """
    computed = costs[f"{prefix}multiply_adds"] / limits["multiply_adds"]
    moved = costs[f"{prefix}bytes"] / limits["bytes"]
    return np.maximum(computed, moved)


def layer_seconds(model: keras.Model) -> pd.Series:
    """Measure how long each layer takes to predict, compiled on its own.

    Parameters
    ----------
    model
        A network of `get_model`.

    Returns
    -------
    pandas.Series
        Layer name -> seconds per image, the median of 5 calls on batches of 64 images of
        noise. The input layer is left out.
    """
    times = {}
    for layer in model.layers:
        if isinstance(layer, layers.InputLayer):
            continue
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        given = [keras.random.uniform((BATCH, *tensor.shape[1:]), seed=0) for tensor in inputs]
        given = given[0] if len(given) == 1 else given
        run = compiled(layer)
        times[layer.name] = seconds(lambda run=run, given=given: np.asarray(run(given)), 5)
    return pd.Series(times) / BATCH


@contextlib.contextmanager
def record_trace(folder: str | Path) -> Iterator[None]:
    """Record what every thread of this process does meanwhile, with the backend's profiler.

    Parameters
    ----------
    folder
        Where the recording is written. An older one in it is deleted.
    """
    shutil.rmtree(Path(folder, "plugins", "profile"), ignore_errors=True)
    if keras.backend.backend() == "jax":
        import jax

        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # every Python call would be recorded, and slowed down
        with jax.profiler.trace(folder, profiler_options=options):
            yield
    else:
        import tensorflow as tf

        with tf.profiler.experimental.Profile(str(folder)):
            yield


def span(name: str) -> contextlib.AbstractContextManager:
    """Return a context whose block appears under `name` in the recording of `record_trace`."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.profiler.TraceAnnotation(name)
    import tensorflow as tf

    return tf.profiler.experimental.Trace(name)


def read_trace(folder: str | Path) -> pd.DataFrame:
    """Read a recording of `record_trace`.

    Parameters
    ----------
    folder
        The folder that it was written to.

    Returns
    -------
    pandas.DataFrame
        A row per event, in the order of ``thread`` and ``start``. ``thread``: such as
        "tf_Compute 1". ``name``. ``start`` and ``duration``, in milliseconds from the start of
        the first event. ``operation``: its kind, such as "Conv2D" (on JAX "fusion"), and empty
        for all that is not an operation of the network: the spans, and the frames that TensorFlow
        and JAX put around operations. Events without a duration are left out.

    Raises
    ------
    FileNotFoundError
        There is no recording in the folder.
    """
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    files = sorted(Path(folder).glob("plugins/profile/*/*.xplane.pb"))
    if not files:
        raise FileNotFoundError(f"no recording in {folder}: make one with record_trace")
    space = xplane_pb2.XSpace.FromString(files[-1].read_bytes())
    rows = []
    for plane in space.planes:
        for number, line in enumerate(plane.lines):
            thread = f"{line.name.split('/')[0]} {number}"
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                start = line.timestamp_ns / 1e6 + event.offset_ps / 1e9
                rows.append((thread, name, start, event.duration_ps / 1e9))
    trace = pd.DataFrame(rows, columns=["thread", "name", "start", "duration"])
    trace = trace[trace["duration"] > 0].sort_values(["thread", "start"], ignore_index=True)
    trace["start"] -= trace["start"].min()
    pairs = zip(trace["thread"], trace["name"], strict=True)
    return trace.assign(operation=[_operation(thread, name) for thread, name in pairs])


def _operation(thread: str, name: str) -> str:
    # TensorFlow: "network/layer/convolution:_MklNativeConv2D".
    if found := re.fullmatch(r"[^:\s]+:(?:_Mkl(?:Native)?)?_?(\w+)", name):
        return found[1]
    # JAX: "add_maximum_fusion.3".
    if thread.startswith("tf_XLA") and re.fullmatch(r"[\w.-]+", name):
        return re.sub(r".*_(?=fusion)|\.\d+$", "", name)
    return ""
