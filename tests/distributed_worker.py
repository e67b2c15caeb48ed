"""What each process of test_distributed.py runs: a small network on JAX.

``python tests/distributed_worker.py steps FILE`` takes 20 steps and writes losses and weights;
``... train ARGUMENT...`` is ``python -m fer_helpers train ARGUMENT...`` with that network.
"""

import functools
import sys

import numpy as np

from fer_helpers import cli, model
from fer_helpers.backend import keras
from fer_helpers.batches import batches_of
from fer_helpers.distributed import joined, read_settings
from fer_helpers.labels import encode_labels
from fer_helpers.training import compile_model

STEPS, BATCH = 20, 16


def faces() -> tuple[np.ndarray, np.ndarray]:
    """Noise, with few ages known, so that a share of a batch often has none."""
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
    model.BACKBONES["compact"] = functools.partial(model._compact, widths=(4, 4, 8, 8))
    if sys.argv[1] == "train":
        sys.exit(cli.main(sys.argv[1:]))
    elif len(sys.argv) == 3:
        take_steps(sys.argv[2])
    else:
        with joined(*read_settings(*sys.argv[3:])):
            take_steps(sys.argv[2])
