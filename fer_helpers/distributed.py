"""Several devices at once: GPUs of one machine on TensorFlow, several machines on JAX.

On JAX every process runs the same program on its own share of each batch, and the step is
that of one process on the whole batch: masks, batch normalisation, augmentation and dropout
see the global batch. On TensorFlow every GPU takes batch normalisation's statistics from its
own share, as is usual; the masked mean is over the whole batch there too.
"""

import contextlib
import inspect
import os
import sys
from collections.abc import Iterator

import numpy as np

from fer_helpers.backend import keras

# Seconds without a sign of life after which a process is taken for dead.
HEARTBEAT = 10
# Seconds to wait for all processes to start.
PATIENCE = 300

# Those of keras.distribution.
VARIABLES = {
    "address": "KERAS_DISTRIBUTION_JOB_ADDRESSES",
    "processes": "KERAS_DISTRIBUTION_NUM_PROCESSES",
    "rank": "KERAS_DISTRIBUTION_PROCESS_ID",
}


def read_settings(
    address: str | None = None, processes: int | None = None, rank: int | None = None
) -> tuple[str, int, int]:
    """Address, number of processes and rank; what is None is taken from the environment.

    Raises
    ------
    ValueError
        One is missing or impossible.
    """
    given = {"address": address, "processes": processes, "rank": rank}
    for name, variable in VARIABLES.items():
        if given[name] is None:
            given[name] = os.environ.get(variable)
        if given[name] is None:
            raise ValueError(f"training on several machines needs --{name} or ${variable}")
    try:
        processes, rank = int(given["processes"]), int(given["rank"])
    except ValueError:
        raise ValueError(f"processes and rank must be whole numbers: {given}") from None
    address = str(given["address"]).split(",")[0]
    if not address.rpartition(":")[2].isdigit() or ":" not in address:
        raise ValueError(f"address must be HOST:PORT of the process of rank 0, not {address!r}")
    if not 0 <= rank < processes:
        raise ValueError(f"rank must be from 0 to {processes - 1}, not {rank}")
    return address, processes, rank


@contextlib.contextmanager
def joined(address: str, processes: int, rank: int) -> Iterator[None]:
    """Networks built and trained inside are shared by `processes` processes, on JAX.

    Parameters
    ----------
    address
        ``HOST:PORT`` of the process of rank 0, which must be free there.
    processes, rank
        How many take part, and which one this is, from 0.

    Notes
    -----
    If a process is lost, the others end within about `HEARTBEAT` seconds, with status 1.

    Raises
    ------
    ValueError
        Keras does not run on JAX.
    OSError
        Not all processes came.
    """
    if keras.backend.backend() != "jax":
        raise ValueError(
            "training on several machines runs on JAX: pip install 'fer-helpers[jax]' and set "
            "KERAS_BACKEND=jax"
        )
    import jax

    timeouts = {
        "initialization_timeout": PATIENCE,
        "heartbeat_timeout_seconds": HEARTBEAT,
        "shutdown_timeout_seconds": HEARTBEAT,  # JAX 0.7 has no such argument
    }
    known = inspect.signature(jax.distributed.initialize).parameters
    try:
        # Not keras.distribution.initialize, which leaves the timeouts at minutes.
        jax.distributed.initialize(
            address, processes, rank, **{name: timeouts[name] for name in timeouts if name in known}
        )
    except RuntimeError as error:
        raise OSError(
            f"the {processes} processes did not meet at {address} within {PATIENCE} seconds: "
            f"start one for each rank, and let rank 0 be reached there ({error})"
        ) from error
    everywhere = keras.distribution.DataParallel(auto_shard_dataset=False)
    try:
        with everywhere.scope():
            yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        # What carries the numbers between processors raises a ValueError.
        if isinstance(error, ValueError) and "Gloo" not in str(error):
            raise
        if "RESOURCE_EXHAUSTED" in str(error):  # it is this one's memory that is full
            raise
        reason = str(error).strip().splitlines()[0]
        print(
            f"error: rank {rank} lost another process ({reason}). What was saved is whole: start "
            "all processes again with the same command, and they go on from it",
            file=sys.stderr,
            flush=True,
        )
        # An orderly end would wait for the one that is gone.
        os._exit(1)


@contextlib.contextmanager
def on_all_gpus() -> Iterator[None]:
    """Networks built and compiled inside are trained on all GPUs of this machine, if several."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    if tf.distribute.has_strategy() or len(tf.config.list_logical_devices("GPU")) < 2:
        yield
        return
    with tf.distribute.MirroredStrategy().scope():
        yield


def share() -> tuple[int, int, int]:
    """Rank of this process, processes, devices of all: ``(0, 1, 1)`` unless `joined`."""
    everywhere = keras.distribution.distribution()
    if everywhere is None:
        return 0, 1, 1
    import jax

    return jax.process_index(), jax.process_count(), everywhere.device_mesh.devices.size


def check_agreement(number: int, what: str) -> None:
    """Raise ValueError unless all processes come with the same number."""
    if share()[1] == 1:
        return
    from jax.experimental import multihost_utils

    numbers = multihost_utils.process_allgather(np.array(number)).tolist()
    if len(set(numbers)) > 1:
        raise ValueError(
            f"the processes see {what} {numbers}: all need the same data, and a folder for the "
            "run that all of them see"
        )


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Networks built inside are this process's own."""
    everywhere = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(everywhere)


def sum_over_replicas(value):
    """Sum of a number that each of TensorFlow's replicas has; elsewhere the number itself."""
    if keras.backend.backend() != "tensorflow":
        return value  # on JAX, `value` already is that of the global batch
    import tensorflow as tf

    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return value
    return replica.all_reduce(tf.distribute.ReduceOp.SUM, value)
