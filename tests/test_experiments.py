"""Runs that begin again: only the seed decides, nothing is left of the run before."""

import numpy as np

import tiny
from experiments import restart
from fer_helpers.batches import batches_of
from fer_helpers.training import compile_model


def losses(model, seed):
    restart(model, seed)
    return model.fit(batches_of(*tiny.faces(), 32, True, 0), epochs=2, verbose=0).history["loss"]


def test_only_the_seed_decides():
    model = compile_model(tiny.build())
    first, other, again = (losses(model, seed) for seed in (1, 2, 1))
    assert again == first
    assert not np.allclose(first, other)
    assert losses(compile_model(tiny.build()), 1) == first, "a new network, the same run"
    assert float(model.optimizer.learning_rate) == np.float32(2e-3)
