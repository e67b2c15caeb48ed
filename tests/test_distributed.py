"""Several processes on JAX, several devices on TensorFlow: the same as one, and safely so."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.errors import JaxRuntimeError
from jax.experimental import multihost_utils

import tiny
from fer_helpers import distributed, runs
from fer_helpers.backend import keras
from fer_helpers.batches import batches_of
from fer_helpers.cli import main
from fer_helpers.distributed import read_settings
from fer_helpers.runs import read_history
from fer_helpers.training import compile_model
from kill_training import write_faces

HERE = Path(__file__).parent
LONGEST = 300  # seconds; a hang must not last


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "TQDM_DISABLE": "1",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",  # quicker to compile
        # A start after another compiles less.
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def start(*words, environment):
    words = [sys.executable, str(HERE / "distributed_worker.py"), *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(words, env=environment, **pipes)


def finish(*processes):
    texts = []
    try:
        for process in processes:
            texts.append(process.communicate(timeout=LONGEST)[0])
    finally:
        for process in processes:
            process.kill()
    return texts


def test_two_processes_are_one(tmp_path, environment):
    where = address()
    files = [(tmp_path / f"two-{rank}.npz", tmp_path / f"one-{rank}.npz") for rank in range(2)]
    processes = [
        start("steps", *files[rank], where, 2, rank, environment=environment) for rank in range(2)
    ]
    texts = finish(*processes)
    assert [process.returncode for process in processes] == [0, 0], texts
    for two, one in files:
        together, alone = ([*np.load(file).values()] for file in (two, one))
        assert alone[0].shape == (20,)
        print("greatest difference in loss", np.abs(together[0] - alone[0]).max())
        np.testing.assert_allclose(together[0], alone[0], rtol=0, atol=1e-5)
        for a, b in zip(together[1:], alone[1:], strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)


def test_a_lost_process_ends_the_run_and_the_next_start_goes_on(tmp_path, environment):
    write_faces(tmp_path)
    out = tmp_path / "run"
    words = ["--dataset", "FER", "--data-dir", tmp_path, "--out", out, "--distributed"]

    def both(epochs):
        where = address()
        return [
            start(
                *("train", *words, "--epochs", epochs),
                *("--address", where, "--processes", 2, "--rank", rank),
                environment=environment,
            )
            for rank in range(2)
        ]

    first, second = both(500)
    until = time.monotonic() + LONGEST
    while not len(read_history(out)) and first.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    second.send_signal(signal.SIGKILL)
    second.wait()
    killed = time.monotonic()
    (text,) = finish(first)
    assert first.returncode == 1, text
    assert "lost another process" in text
    assert "go on from it" in text
    assert time.monotonic() - killed < 60
    done = len(read_history(out))
    assert 1 <= done < 500
    again = both(done + 1)
    texts = finish(*again)
    assert [process.returncode for process in again] == [0, 0], texts
    assert read_history(out)["epoch"].tolist() == list(range(1, done + 2))
    assert texts[0].count("epoch ") == 1  # only rank 0 tells, and of one epoch
    assert "epoch " not in texts[1]
    assert len(list(out.glob("resume-*"))) == 1
    assert not list(out.glob(".writing-*"))


def test_processes_with_other_settings_end_before_they_build_a_network(tmp_path, environment):
    write_faces(tmp_path)
    words = ["train", "--dataset", "FER", "--data-dir", tmp_path, "--out", tmp_path / "run"]
    where = address()
    processes = [
        start(
            *(*words, "--seed", rank, "--batch-size", 16 * (rank + 1), "--distributed"),
            *("--address", where, "--processes", 2, "--rank", rank),
            environment=environment,
        )
        for rank in range(2)
    ]
    for text, process in zip(finish(*processes), processes, strict=True):
        assert process.returncode == 2, text
        last = text.splitlines()[-1]
        assert last.startswith("error: the processes have different settings: ")
        assert "seed is 0 on rank 0, but 1 on rank 1" in last
        assert "batch_size is 16 on rank 0, but 32 on rank 1" in last
    assert not (tmp_path / "run").exists()


def test_signals_end_a_process_that_waits_and_one_that_has_joined(environment):
    code = """
import signal, sys, time
from fer_helpers.distributed import join_processes
where, processes, rank = sys.argv[1:]
with join_processes(where, int(processes), int(rank)):
    signal.raise_signal(signal.SIGTERM)  # which JAX takes for itself
    time.sleep(30)
"""
    pipes = {"env": environment, "stderr": subprocess.PIPE, "text": True}
    alone, waiting = (
        subprocess.Popen([sys.executable, "-c", code, address(), *numbers], **pipes)
        for numbers in ("10", "21")
    )
    try:
        assert "rank 1 waits for 2 processes" in waiting.stderr.readline()
        time.sleep(0.2)  # it now waits in C++
        waiting.send_signal(signal.SIGINT)
        for process, rank, status in ((waiting, 1, 130), (alone, 0, 143)):
            text = process.communicate(timeout=LONGEST)[1]
            assert process.returncode == status, text
            assert text.splitlines()[-1].startswith(f"rank {rank} was stopped. What was saved")
    finally:
        alone.kill()
        waiting.kill()


def run_code(code, **options):
    """Run code that needs a TensorFlow of its own, with two devices."""
    paths = os.pathsep.join([str(HERE), *sys.path])
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    assert result.returncode == 0, result.stderr[-2000:]


def test_masked_mean_is_over_all_replicas():
    code = """
import numpy as np
import tensorflow as tf
from fer_helpers.backend import keras
from fer_helpers.batches import batches_of
from fer_helpers.labels import encode_labels
from fer_helpers.training import compile_model
import tiny

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
X = np.random.default_rng(0).integers(0, 256, (48, 48, 48, 1), dtype=np.uint8)
# The first half of each batch, which one device gets, has labels; the other has none or one.
emotion = [i % 7 if i % 16 < 5 or i % 32 == 9 else -1 for i in range(48)]

def losses():
    keras.utils.set_random_seed(0)
    model = tiny.build(augment=False)
    for layer in model.layers:
        if isinstance(layer, (keras.layers.BatchNormalization, keras.layers.Dropout)):
            layer.trainable, layer.rate = False, 0.0  # they do differ by device
    compile_model(model, optimizer=keras.optimizers.SGD(0.01), tasks=("emotion",))
    batches = batches_of(X, encode_labels({"emotion": emotion}), 16)
    return model.fit(batches, epochs=2, verbose=0, shuffle=False).history["loss"]

one = losses()
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    two = losses()
np.testing.assert_allclose(two, one, rtol=1e-4)
"""
    run_code(code)


def test_train_uses_two_devices_and_goes_on_with_them(tmp_path):
    code = """
import shutil
from pathlib import Path
import numpy as np
import tensorflow as tf
from fer_helpers import model, training
from fer_helpers.backend import keras
from fer_helpers.labels import encode_labels
import tiny

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
X = np.random.default_rng(0).integers(0, 256, (64, 48, 48, 1), dtype=np.uint8)
y = encode_labels({"emotion": np.arange(64) % 7})
model.BACKBONES["compact"] = tiny.backbone
training.load_training_data = lambda *_, **__: ((X, y), (X[:17], y[:17]))
training.on_all_gpus = lambda: tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope()
models, fit = [], training.fit

def interrupted(epoch, logs):
    if epoch == 1 and not Path("parts").exists():
        shutil.copytree("whole", "parts")

def watched_fit(model, *rest, **options):
    models.append(model)
    watch = keras.callbacks.LambdaCallback(interrupted)
    return fit(model, *rest, **options, callbacks=[watch])

training.fit = watched_fit
whole = training.train("SAMPLE", 2, "whole", batch_size=16)
parts = training.train("SAMPLE", 2, "parts", batch_size=16)
assert models[1].optimizer.iterations.numpy() == 8  # four of them from the file
np.testing.assert_allclose(parts["loss"], whole["loss"], rtol=1e-5)
for model in models:
    # Adam's averages too, or each device would step in a direction of its own.
    for variable in model.trainable_variables + model.optimizer.variables:
        one, other = (value.numpy() for value in variable.value.values)
        np.testing.assert_array_equal(one, other)
"""
    run_code(code, cwd=tmp_path)


def test_settings_come_from_flags_or_the_environment(monkeypatch):
    for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID"):
        monkeypatch.delenv(f"KERAS_DISTRIBUTION_{name}", raising=False)
    assert read_settings("a:1", 2, 1) == ("a:1", 2, 1)
    with pytest.raises(ValueError, match=r"--address or \$KERAS_DISTRIBUTION_JOB_ADDRESSES"):
        read_settings(None, 2, 1)
    monkeypatch.setenv("KERAS_DISTRIBUTION_JOB_ADDRESSES", "b:1,c:1")
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    monkeypatch.setenv("KERAS_DISTRIBUTION_PROCESS_ID", "0")
    assert read_settings() == ("b:1", 2, 0)
    with pytest.raises(ValueError, match="rank must be from 0 to 1, not 2"):
        read_settings(rank=2)
    with pytest.raises(ValueError, match="HOST:PORT"):
        read_settings("b")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("b:1", 2, 2), "rank must be from 0 to 1, not 2"),
        (("b:1", 2, -1), "rank must be from 0 to 1, not -1"),
        (("b:1", "two", 0), "processes and rank must be whole numbers"),
        (("b", 2, 0), "HOST:PORT"),
        (("b:", 2, 0), "HOST:PORT"),
        (("1", 2, 0), "HOST:PORT"),
        ((":1", 2, 0), "HOST:PORT"),
        (("b:0", 2, 0), "HOST:PORT"),
        (("b:65536", 2, 0), "HOST:PORT"),
        (("b:²", 2, 0), "HOST:PORT"),
        (("b:port", 2, 0), "HOST:PORT"),
    ],
)
def test_impossible_settings_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        read_settings(*given)


def test_missing_settings_are_named(monkeypatch):
    for name in distributed.VARIABLES.values():
        monkeypatch.delenv(name, raising=False)
    for given, flag in (((None, 2, 1), "address"), (("a:1", None, 1), "processes"),
                        (("a:1", 2, None), "rank")):  # fmt: skip
        with pytest.raises(ValueError, match=rf"needs --{flag} or \${distributed.VARIABLES[flag]}"):
            read_settings(*given)


def test_what_is_built_inside_undistributed_is_not_shared():
    keras.distribution.set_distribution("all machines")
    try:
        with distributed.undistributed():
            assert keras.distribution.distribution() is None
            assert distributed.process_info() == (0, 1, 1)
        assert keras.distribution.distribution() == "all machines"
        with suppress(KeyError), distributed.undistributed():
            raise KeyError
        assert keras.distribution.distribution() == "all machines"
    finally:
        keras.distribution.set_distribution(None)


def test_a_sum_over_one_replica_is_the_number():
    assert distributed.sum_over_replicas(3.5) == 3.5


def test_a_port_in_use_is_named(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        message = f"port {port} of 127.0.0.1:{port} cannot be used .*: choose another port"
        with (
            pytest.raises(OSError, match=message),
            distributed.join_processes(f"127.0.0.1:{port}", 2, 0),
        ):
            pass


@pytest.mark.parametrize(("processes", "rate"), [(1, 2e-3), (2, 0.5)])
def test_an_error_in_one_process_assigns_nothing(tmp_path, monkeypatch, processes, rate):
    model = compile_model(tiny.build(augment=False))
    batches = batches_of(*tiny.faces(32), 16, False)
    monkeypatch.setattr(runs, "process_info", lambda: (0, processes, 1))

    def fail(epoch, logs):
        model.optimizer.learning_rate = 0.5
        raise OSError("no room")

    watch = keras.callbacks.LambdaCallback(on_epoch_begin=fail)
    with pytest.raises(OSError, match="no room"):
        runs.fit(model, batches, batches, 1, tmp_path, callbacks=[watch])
    assert float(model.optimizer.learning_rate) == pytest.approx(rate)


class Ended(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def ends(monkeypatch):
    """What would end the process raises `Ended`; the exit statuses and texts."""
    seen = []

    def end(status, text):
        seen.append((status, text))
        raise Ended

    monkeypatch.setattr(distributed, "_end", end)
    monkeypatch.setattr(distributed, "GRACE", 0)
    return seen


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (ValueError("no faces"), 2, "error: no faces"),
        (OSError(28, "No space left"), 2, "error: [Errno 28] No space left"),
        (TypeError("a bug"), 1, "TypeError: a bug\n"),
        (
            ValueError("UNKNOWN: Gloo failed\nmore"),
            1,
            "error: rank 0 lost another process (UNKNOWN",
        ),
        (JaxRuntimeError("ABORTED: gone"), 1, "error: rank 0 lost another process (ABORTED: gone)"),
        (JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GB"), 1, "jax.errors.JaxRuntimeError: RESOURCE_EX"),
    ],
)
def test_an_error_ends_the_process(ends, error, status, text):
    with pytest.raises(Ended):
        distributed._end_on_error(error, 0)
    assert ends[0][0] == status
    assert ends[0][1].startswith(text)


def test_a_process_waits_for_the_others_only_so_long(ends, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr(distributed, "PATIENCE", 0.01)
    monkeypatch.setattr(distributed, "_end_on_signals", lambda rank: None)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)  # `Ended`, in the timer's thread

    def initialize(*arguments, **options):
        until = time.monotonic() + 10
        while not ends and time.monotonic() < until:
            time.sleep(0.01)
        raise Ended

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(Ended), distributed.join_processes("127.0.0.1:1", 2, 1):
        pass
    [(status, text)] = ends
    assert status == 1
    assert text.startswith("error: the 2 processes did not meet at 127.0.0.1:1 within")


def agree(monkeypatch, *settings):
    """Compare settings as processes of their own would; return the message of each."""
    own, met = threading.local(), threading.Barrier(len(settings), timeout=30)
    shown = [None] * len(settings)

    def gather(array):
        shown[own.rank] = array
        met.wait()
        together = np.stack(shown)  # fails with shapes that differ, as the real one does
        met.wait()
        return together

    def compare(rank):
        own.rank = rank
        try:
            distributed.check_agreement(settings[rank])
        except ValueError as error:
            return str(error)
        return ""

    monkeypatch.setattr(multihost_utils, "process_allgather", gather)
    monkeypatch.setattr(distributed, "process_info", lambda: (0, len(settings), len(settings)))
    with ThreadPoolExecutor(len(settings)) as pool:
        return [*pool.map(compare, range(len(settings)))]


def test_processes_compare_their_settings(monkeypatch):
    one = {"seed": 0, "training": {"images": "uint8", "batch_size": 32}, "start": None}
    assert agree(monkeypatch, one, one.copy(), one.copy()) == ["", "", ""]
    assert agree(monkeypatch, {"rate": np.nan}, {"rate": np.nan}) == ["", ""]
    other = one | {"training": {"images": "uint8", "batch_size": 16}, "start": "größer"}
    for text in agree(monkeypatch, one, one, other):
        assert "training.batch_size is 32 on rank 0, but 16 on rank 2" in text
        assert 'start is null on rank 0, but "gr' in text
        assert "rank 1" not in text
        assert "seed" not in text
    for text in agree(monkeypatch, {}, dict.fromkeys("abcde", 1)):
        assert text.count("on rank 1") == 3
        assert "; and 2 more" in text


def test_several_machines_want_jax(capsys, monkeypatch):
    # The command sets it where it is not set, and later tests must not inherit that.
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    words = ["--address", "127.0.0.1:1", "--processes", "1", "--rank", "0"]
    assert main(["train", "--distributed", *words]) == 2
    assert "KERAS_BACKEND=jax" in capsys.readouterr().err
