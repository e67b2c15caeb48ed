"""Several devices at once: GPUs of one machine on TensorFlow, several machines on JAX.

On JAX every process runs the same program on its own share of each batch, and takes the same
step as one process on the whole batch: masks, batch normalisation, augmentation and dropout
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

# Seconds without a signal after which a process counts as lost.
HEARTBEAT = 10
# Seconds to wait for all processes to start.
PATIENCE = 300

# The environment variables that keras.distribution reads.
VARIABLES = {
    "address": "KERAS_DISTRIBUTION_JOB_ADDRESSES",
    "processes": "KERAS_DISTRIBUTION_NUM_PROCESSES",
    "rank": "KERAS_DISTRIBUTION_PROCESS_ID",
}


def read_settings(
    address: str | None = None, processes: int | None = None, rank: int | None = None
) -> tuple[str, int, int]:
    """Return address, number of processes and rank; what is None comes from the environment.

    Parameters
    ----------
    address
        ``HOST:PORT`` of the process of rank 0.
    processes
        How many processes train together, at least 1.
    rank
        Number of this process, from 0 to `processes` - 1.

    Returns
    -------
    tuple
        The three, checked.

    Raises
    ------
    ValueError
        One is missing, neither given nor in its variable of `VARIABLES`, or impossible.
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
def join_processes(address: str, processes: int, rank: int) -> Iterator[None]:
    """Join other processes, on JAX: they share the networks that are built and trained inside.

    Parameters
    ----------
    address
        ``HOST:PORT`` of the process of rank 0; the port must be free there.
    processes
        How many processes train together, at least 1.
    rank
        Number of this process, from 0.

    Notes
    -----
    If a process is lost, the others end within about `HEARTBEAT` seconds, with status 1.

    Raises
    ------
    ValueError
        Keras does not run on JAX.
    OSError
        The processes did not all start within `PATIENCE` seconds.
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
            f"start one for each rank, and check that all can reach this address ({error})"
        ) from error
    everywhere = keras.distribution.DataParallel(auto_shard_dataset=False)
    try:
        with everywhere.scope():
            yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        # Gloo, which carries the numbers between processes, raises a ValueError.
        if isinstance(error, ValueError) and "Gloo" not in str(error):
            raise
        if "RESOURCE_EXHAUSTED" in str(error):  # this process has run out of memory
            raise
        reason = str(error).strip().splitlines()[0]
        print(
            f"error: rank {rank} lost another process ({reason}). What was saved is whole: start "
            "all processes again with the same command, and they go on from it",
            file=sys.stderr,
            flush=True,
        )
        # An orderly exit would wait for the process that is gone.
        os._exit(1)


@contextlib.contextmanager
def on_all_gpus() -> Iterator[None]:
    """Train the networks that are built and compiled inside on all GPUs of this machine.

    Does nothing with fewer than two GPUs, on JAX, or inside another TensorFlow strategy.
    """
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    if tf.distribute.has_strategy() or len(tf.config.list_logical_devices("GPU")) < 2:
        yield
        return
    with tf.distribute.MirroredStrategy().scope():
        yield


def process_info() -> tuple[int, int, int]:
    """Return the rank of this process, the number of processes, and of devices in all.

    ``(0, 1, 1)`` outside of `join_processes`.
    """
    everywhere = keras.distribution.distribution()
    if everywhere is None:
        return 0, 1, 1
    import jax

    return jax.process_index(), jax.process_count(), everywhere.device_mesh.devices.size


def check_agreement(number: int, what: str) -> None:
    """Raise ValueError unless all processes give the same number.

    Parameters
    ----------
    number
        What this process has.
    what
        What it counts, for the message.
    """
    if process_info()[1] == 1:
        return
    from jax.experimental import multihost_utils

    numbers = multihost_utils.process_allgather(np.array(number)).tolist()
    if len(set(numbers)) > 1:
        raise ValueError(
            f"the processes see {what} {numbers}: all need the same data, and a folder for the "
            "run that all of them see"
        )


@contextlib.contextmanager
def undistributed() -> Iterator[None]:
    """Keep the networks that are built inside to this process."""
    everywhere = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(everywhere)


def sum_over_replicas(value):
    """Return the sum of a scalar tensor over TensorFlow's replicas; elsewhere the tensor itself."""
    if keras.backend.backend() != "tensorflow":
        return value  # on JAX it is that of the global batch already
    import tensorflow as tf

    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return value
    return replica.all_reduce(tf.distribute.ReduceOp.SUM, value)
