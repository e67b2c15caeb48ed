"""Several devices at once: GPUs of one machine on TensorFlow, several machines on JAX.

On JAX every process runs the same program on its own share of each batch, and takes the same
step as one process on the whole batch: masks, batch normalisation, augmentation and dropout
see the global batch. On TensorFlow every GPU takes batch normalisation's statistics from its
own share, as is usual; the masked mean is over the whole batch there too.
"""

import contextlib
import inspect
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import NoReturn

import numpy as np
import pandas as pd

from fer_helpers.backend import keras

# Seconds without a signal after which a process counts as lost.
HEARTBEAT = 10
# Seconds to wait for all processes to start.
PATIENCE = 300
# Seconds that rank 0 outlasts an error, so that the others can report theirs: JAX aborts them
# with a stack trace once rank 0 is gone.
GRACE = 2
# How to go on after a stop.
GO_ON = (
    "What was saved is whole: start all processes again with the same command, and they go on "
    "from it"
)

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
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 65536):
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
    Call it from the main thread, once per process. From then on Ctrl-C, SIGTERM and any error
    inside end the process at once, with a line on stderr and status 130, 143, or 1 or 2: nothing
    is unwound, since that may wait for the other processes. These end within about `HEARTBEAT`
    seconds, with status 1. So does a process that has waited `PATIENCE` seconds for the others.

    Raises
    ------
    ValueError
        Keras does not run on JAX.
    OSError
        The port is in use on the machine of rank 0.
    """
    if keras.backend.backend() != "jax":
        raise ValueError(
            "training on several machines runs on JAX: pip install 'fer-helpers[jax]' and set "
            "KERAS_BACKEND=jax"
        )
    import jax

    if rank == 0:
        _check_port(address)
    timeouts = {
        "initialization_timeout": 2 * PATIENCE,  # JAX would abort with a stack trace
        "heartbeat_timeout_seconds": HEARTBEAT,
        "shutdown_timeout_seconds": HEARTBEAT,  # JAX 0.7 has no such argument
    }
    known = inspect.signature(jax.distributed.initialize).parameters
    _end_on_signals(rank)
    print(f"rank {rank} waits for {processes} processes at {address}", file=sys.stderr, flush=True)
    late = (
        f"error: the {processes} processes did not meet at {address} within {PATIENCE} seconds: "
        "start one for each rank, and check that all can reach this address"
    )
    timer = threading.Timer(PATIENCE, _end, (1, late))
    timer.daemon = True
    timer.start()
    # Not keras.distribution.initialize, which leaves the timeouts at minutes.
    jax.distributed.initialize(
        address, processes, rank, **{name: timeouts[name] for name in timeouts if name in known}
    )
    timer.cancel()
    _take_signals()  # JAX has taken SIGTERM, and would ignore it
    everywhere = keras.distribution.DataParallel(auto_shard_dataset=False)
    try:
        with everywhere.scope():
            yield
    except Exception as error:
        _end_on_error(error, rank)


def _check_port(address: str) -> None:
    """Raise OSError if no server can listen at the port: JAX would end in a segmentation fault."""
    port = int(address.rpartition(":")[2])
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        raise OSError(
            f"port {port} of {address} cannot be used ({os.strerror(error.errno)}): choose "
            "another port, and give it to all ranks"
        ) from error


def _take_signals() -> None:
    """Leave SIGINT and SIGTERM to the thread of `_end_on_signals`."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)


def _end_on_signals(rank: int) -> None:
    """End the process on SIGINT and SIGTERM, even while the main thread waits for others."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def watch():
        with writer:  # kept open as long as the thread runs
            while (number := reader.recv(1)[0]) not in (signal.SIGINT, signal.SIGTERM):
                pass
            _end(128 + number, f"rank {rank} was stopped. {GO_ON}")

    threading.Thread(target=watch, daemon=True).start()
    signal.set_wakeup_fd(writer.fileno())
    _take_signals()


def _end_on_error(error: Exception, rank: int) -> NoReturn:
    """End the process after an error, which may be that another process is lost."""
    import jax

    # Gloo, which carries the numbers between processes, raises a ValueError.
    lost = isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error)
    if lost and "RESOURCE_EXHAUSTED" not in str(error):  # that is memory of this process
        reason = str(error).strip().splitlines()[0]
        _end(1, f"error: rank {rank} lost another process ({reason}). {GO_ON}")
    if rank == 0:
        time.sleep(GRACE)
    if isinstance(error, ValueError | OSError):
        _end(2, f"error: {error}")
    _end(1, "".join(traceback.format_exception(error)))


def _end(status: int, text: str) -> NoReturn:
    """End the process at once: an orderly exit would wait for processes that may be gone."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)
    os._exit(status)


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


def check_agreement(settings: Mapping[str, object]) -> None:
    """Raise ValueError unless all processes have the same settings.

    Parameters
    ----------
    settings
        Name -> what this process has, as JSON can hold it; other values are compared as text.

    Raises
    ------
    ValueError
        They differ, and which ones, on which ranks; the same error in every process.
    """
    if process_info()[1] == 1:
        return
    from jax.experimental.multihost_utils import process_allgather

    [flat] = pd.json_normalize(dict(settings)).to_dict("records")
    text = json.dumps({name: json.dumps(value, default=str) for name, value in flat.items()})
    data = text.encode()
    longest = int(process_allgather(np.array(len(data))).max())
    rows = process_allgather(np.frombuffer(data.ljust(longest), np.uint8))
    first, *others = (json.loads(row.tobytes()) for row in rows)
    differences = [
        f"{name} is {first.get(name)} on rank 0, but {other.get(name)} on rank {rank}"
        for rank, other in enumerate(others, 1)
        for name in first | other
        if first.get(name) != other.get(name)
    ]
    if differences:
        more = f"; and {len(differences) - 3} more" * (len(differences) > 3)
        raise ValueError(
            f"the processes have different settings: {'; '.join(differences[:3])}{more}. Start all "
            "with the same command, data and folder for the run, except for --rank"
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
