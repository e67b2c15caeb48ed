"""Keras, loaded quietly, and what differs between its backends and between machines.

The other modules import Keras from here, never by ``import keras``: TensorFlow writes native
log lines to stderr while it loads.
"""

import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

# What runs the package, and how it is installed so that it uses an NVIDIA GPU.
BACKENDS = {"tensorflow": "tensorflow[and-cuda]", "jax": "jax[cuda12]"}

# oneDNN's convolutions are much faster; by itself TensorFlow uses them on some CPUs only.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Otherwise the first notebook takes all of a GPU's memory, and the second one gets none.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")


@contextmanager
def no_native_log() -> Iterator[None]:
    """Discard what compiled code writes to stderr; Python's exceptions are raised."""
    sys.stderr.flush()
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def check_settings() -> None:
    """Check Keras' own settings, at which Keras would stop or by which images would be misread.

    Raises
    ------
    ValueError
        ``keras.json`` is not a JSON object, puts channels first, or asks for a backend other than
        TensorFlow and JAX or for one that is not installed; ``KERAS_BACKEND`` likewise.
    """
    file = Path(os.path.expanduser(os.environ.get("KERAS_HOME", "~/.keras")), "keras.json")
    try:
        settings = json.loads(file.read_text())
    except (OSError, ValueError):  # Keras takes its defaults, too
        settings = {}
    if not isinstance(settings, dict):
        raise ValueError(f"{file} is not a JSON object: correct it, or remove it")
    order = settings.get("image_data_format", "channels_last")
    if order != "channels_last":
        raise ValueError(
            f"{file} has the image_data_format {order!r}, but images are (N, 48, 48, 1) here: "
            'write "channels_last" there, or remove the file'
        )
    asked = os.environ.get("KERAS_BACKEND")
    place, backend = ("KERAS_BACKEND", asked) if asked else (file, settings.get("backend"))
    if backend not in (None, *BACKENDS):
        raise ValueError(
            f"{place} asks for the backend {backend!r}, on which this package does not run: "
            f"write {' or '.join(BACKENDS)} there"
        )
    if backend and not find_spec(backend):
        raise ValueError(
            f"{place} asks for the backend {backend!r}, which is not installed: "
            f"pip install {backend}, or write another of {', '.join(BACKENDS)} there"
        )


check_settings()
with no_native_log():
    import keras

    if keras.backend.backend() == "jax":
        with suppress(ImportError):
            import tensorflow  # Keras' data adapters would load it later, with log lines

            tensorflow.config.set_visible_devices([], "GPU")  # JAX uses them
# Keras builds a new function for each model, which TensorFlow warns about.
logging.getLogger("tensorflow").setLevel(logging.ERROR)


def choose_precision() -> str:
    """Return the name of the dtype policy that trains fastest on this machine.

    ``"mixed_bfloat16"`` on a processor with bfloat16 units (AMX or AVX512_BF16) and on NVIDIA
    GPUs from Ampere on, ``"mixed_float16"`` on those from Volta on, else ``"float32"``.
    """
    capability = gpu_capability()
    if capability is not None:
        if capability < 7:
            return "float32"
        return "mixed_bfloat16" if capability >= 8 else "mixed_float16"
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "float32"
    return "mixed_bfloat16" if "amx_bf16" in flags or "avx512_bf16" in flags else "float32"


def gpu_capability() -> float | None:
    """Return the compute capability of the first GPU of Keras' backend, None without one."""
    if keras.backend.backend() == "jax":
        import jax

        gpus = [device for device in jax.devices() if device.platform == "gpu"]
        # Only NVIDIA's devices have such a number.
        return float(getattr(gpus[0], "compute_capability", 0)) if gpus else None
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return None
    major, minor = tf.config.experimental.get_device_details(gpus[0]).get(
        "compute_capability", (0, 0)
    )
    return major + minor / 10


def unused_gpu() -> str:
    """Return a line about an NVIDIA GPU that Keras' backend does not use; empty without one."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")  # on purpose
    if hidden or gpu_capability() is not None:
        return ""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):  # no driver, or no device
        return ""
    name, backend = answer.stdout.partition("\n")[0], keras.backend.backend()
    if not name:
        return ""
    return f'{name} is there, but {backend} does not use it: pip install "{BACKENDS[backend]}"'


def check_environment() -> None:
    """Print the versions, the device and the precision in use, and how to get a GPU."""
    gpu = gpu_capability() is not None
    print(f"Python {platform.python_version()}, Keras {keras.__version__}", end=" ")
    print(f"on {keras.backend.backend()}, precision {choose_precision()}")
    print("GPU found." if gpu else "No GPU: everything works, real data sets train slowly.")
    if line := unused_gpu():
        print(line)
    if not gpu and "COLAB_RELEASE_TAG" in os.environ:
        print("Runtime > Change runtime type > T4 GPU > Save, then run this cell again.")


@contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Let the layers built inside compute in the precision `name`: ``"mixed_bfloat16"``, …"""
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)


def gradient(function: Callable, value):
    """Return the gradient of a scalar function at a tensor; Keras leaves this to its backend."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(function)(value)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(value)
        result = function(value)
    return tape.gradient(result, value)


def compiled(function: Callable) -> Callable:
    """Compile a function of tensors with the backend's compiler."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function)


def predictor(model: keras.Model) -> Callable:
    """Return a function that predicts a batch, as `model.predict_on_batch` does.

    On JAX it returns JAX arrays without waiting for them: the device computes while the next
    batch is prepared. Random layers draw from their present state, which does not advance.
    """
    if keras.backend.backend() != "jax":
        return model.predict_on_batch

    @compiled
    def run(trainable, others, batch):
        return model.stateless_call(trainable, others, batch, training=False)[0]

    def predict(batch):
        variables = model.trainable_variables, model.non_trainable_variables
        return run(*([variable.value for variable in some] for some in variables), batch)

    return predict
