"""Keras, loaded quietly, and what its backends and this machine do not share.

The other modules take Keras from here, never by ``import keras``: TensorFlow writes native
log lines to stderr while it loads.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# oneDNN's convolutions are much faster; TensorFlow turns them on by itself only on some CPUs.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Else the first notebook takes all of a GPU's memory, and the second one finds none.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")


@contextmanager
def no_native_log() -> Iterator[None]:
    """Keep what compiled code writes to stderr from showing; Python's errors are raised."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


with no_native_log():
    import keras

    if keras.backend.backend() == "jax":
        with suppress(ImportError):
            import tensorflow  # Keras' data adapters would load it later, aloud

            tensorflow.config.set_visible_devices([], "GPU")  # they are JAX's
# Keras builds a new function for each model, which TensorFlow takes for a mistake.
logging.getLogger("tensorflow").setLevel(logging.ERROR)


def choose_precision() -> str:
    """Name of the dtype policy that trains fastest on this machine.

    ``"mixed_bfloat16"`` on a processor with bfloat16 units (AMX or AVX512_BF16) and on GPUs
    from NVIDIA's Ampere on, ``"mixed_float16"`` on those from Volta on, else ``"float32"``.
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
    """Compute capability of the first GPU that Keras' backend sees, None without one."""
    if keras.backend.backend() == "jax":
        import jax

        gpus = [device for device in jax.devices() if device.platform == "gpu"]
        # Devices other than NVIDIA's have no such number.
        return float(getattr(gpus[0], "compute_capability", 0)) if gpus else None
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return None
    major, minor = tf.config.experimental.get_device_details(gpus[0]).get(
        "compute_capability", (0, 0)
    )
    return major + minor / 10


@contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Layers built inside compute in the precision `name`, such as ``"mixed_bfloat16"``."""
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)


def gradient(function: Callable, value):
    """Gradient of a scalar function: the one thing that Keras leaves to its backend."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(function)(value)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(value)
        result = function(value)
    return tape.gradient(result, value)


def compiled(function: Callable) -> Callable:
    """A function of tensors, compiled by the backend."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function)


def predictor(model: keras.Model) -> Callable:
    """A function that answers as `model.predict_on_batch`; with arrays of its own on JAX.

    There it does not wait for the answers: the device works on them while the next batch is
    put together. What random layers draw follows from the state they have; it stays as it is.
    """
    if keras.backend.backend() != "jax":
        return model.predict_on_batch

    @compiled
    def run(trainable, others, batch):
        return model.stateless_call(trainable, others, batch, training=False)[0]

    def answer(batch):
        variables = model.trainable_variables, model.non_trainable_variables
        return run(*([variable.value for variable in some] for some in variables), batch)

    return answer
