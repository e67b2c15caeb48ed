"""What the processes of test_distributed.py and kill_training.py run: a small network.

``python tests/distributed_worker.py steps FILE OWN ADDRESS PROCESSES RANK`` takes 20 steps
together with the other processes, then by itself, and writes losses and weights of both;
``... train ARGUMENT...`` is ``python -m fer_helpers train ARGUMENT...`` with that network.
"""

import sys

import numpy as np

import tiny
from fer_helpers import cli, model
from fer_helpers.backend import keras
from fer_helpers.batches import batches_of
from fer_helpers.distributed import join_processes, process_info, read_settings, undistributed
from fer_helpers.labels import encode_labels
from fer_helpers.training import compile_model

STEPS, BATCH = 20, 16


def faces() -> tuple[np.ndarray, np.ndarray]:
    """Return noise, with few ages known, so that a share of a batch often has none."""
    generator = np.random.default_rng(0)
    X = generator.integers(0, 256, (STEPS * BATCH, 48, 48, 1), dtype=np.uint8)
    ages = np.where(generator.random(len(X)) < 0.1, generator.integers(0, 5, len(X)), -1)
    return X, encode_labels({"emotion": generator.integers(0, 7, len(X)), "age": ages})


def take_steps(file: str) -> None:
    keras.utils.set_random_seed(0)
    # Small steps: rounding, which sums of two halves do differently, must not be blown up.
    network = compile_model(
        model.get_model(), {"emotion": 1, "age": 1}, optimizer=keras.optimizers.SGD(1e-3)
    )
    losses = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: losses.append(float(logs["loss"]))
    )
    batches = batches_of(*faces(), BATCH, True)
    network.fit(batches, epochs=1, verbose=0, shuffle=False, callbacks=[watch])
    np.savez(file, losses, *network.get_weights())


if __name__ == "__main__":
    model.BACKBONES["compact"] = tiny.backbone
    if sys.argv[1] == "train":
        sys.exit(cli.main(sys.argv[1:]))
    settings = read_settings(*sys.argv[4:])
    with join_processes(*settings):
        if process_info() != (settings[2], 2, 2):
            raise ValueError(f"two processes should have joined: {process_info()}")
        take_steps(sys.argv[2])
        with undistributed():
            if process_info() != (0, 1, 1):
                raise ValueError(f"this process should be by itself: {process_info()}")
            take_steps(sys.argv[3])
