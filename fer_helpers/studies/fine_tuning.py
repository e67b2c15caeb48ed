"""How should training go on from the shipped weights? The runs behind `train`'s defaults.

Each run draws a small set of faces, as somebody might bring it, and other faces of the same
source to score on. The shipped network has not trained on any of them: it knows FER2013's
Training and UTKFace's train, so the faces here come from PublicTest and validation, without
copies of training faces and of each other. PublicTest also chose the epoch that is shipped;
all arms that start from it share this.
"""

import functools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from fer_helpers.backend import choose_precision, dtype_policy, keras
from fer_helpers.batches import batches_of
from fer_helpers.checkpoints import replace_file
from fer_helpers.datasets import load_data, load_training_data
from fer_helpers.datasets.load import split_off_validation
from fer_helpers.evaluation import accuracy_table, paired_interval
from fer_helpers.images import find_copies
from fer_helpers.labels import BLOCKS, OUTPUTS, TASKS
from fer_helpers.model import get_model, load_model
from fer_helpers.prediction import predict
from fer_helpers.runs import fit, read_history
from fer_helpers.training import compile_model, labelled_tasks, monitored_metric

START = "FER"
# Name -> source, and how many of its faces are learnt from (a tenth of them validate).
SETS = {
    "FER2013, 100": ("FER", 100),
    "FER2013, 300": ("FER", 300),
    "FER2013, 1000": ("FER", 1000),
    "drawn, 300": ("SAMPLE", 300),
    "UTKFace, 300": ("UTKFACE", 300),
}
SCORED = 1500  # faces to score on, as far as there are as many

CANDIDATES = {
    "all, 5e-4": {"rate": 5e-4},
    "all, 1e-4": {"rate": 1e-4},
    "all, 1e-4, answers kept": {"rate": 1e-4, "keep": True},
    "all, 5e-4, answers kept": {"rate": 5e-4, "keep": True},
    "norms frozen, 1e-4, answers kept": {"rate": 1e-4, "keep": True, "frozen": "norm"},
    "heads, 1e-3": {"rate": 1e-3, "frozen": "trunk"},
}


def sources(data_dir=None) -> dict:
    found = {"SAMPLE": load_data("SAMPLE", "all", data_dir=data_dir)}
    for name in ("FER", "UTKFACE"):
        (X_train, _), (X, y) = load_training_data(name, data_dir)
        new = ~find_copies(X, X_train) & ~find_copies(X)
        found[name] = X[new], y[new]
    return found


def draw(found, source, faces, seed):
    X, y = found[source]
    order = np.random.default_rng([seed, faces]).permutation(len(X))
    learnt, scored = order[:faces], order[faces : faces + SCORED]
    tests = [(X[scored], y[scored])]
    if source != "SAMPLE":
        other = found["UTKFACE" if source == "FER" else "FER"]
        tests.append(tuple(array[:1000] for array in other))
    return (X[learnt], y[learnt]), tests


def score(model, tests) -> dict:
    row = {}
    for X, y in tests:
        table = accuracy_table(y, predict(model, X))
        row |= table.accuracy.to_dict()
    return row


def run_candidate(learnt, chosen, seed, epochs, folder, rate, keep=False, frozen=""):
    begin = load_model(START)
    keras.utils.set_random_seed(seed)
    with dtype_policy(choose_precision()):
        model = get_model(backbone=begin.name)
    model.set_weights(begin.get_weights())
    for layer in model.layers:
        if frozen == "norm" and isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
        if frozen == "trunk" and not layer.name.endswith("_logits"):
            layer.trainable = False
    X, y = learnt
    tasks = labelled_tasks(y)
    if keep:
        y = keep_answers(begin, X, y)
    compile_model(model, tasks=tasks, optimizer=keras.optimizers.Adam(rate))
    return fit(
        model,
        batches_of(X, y, 32, True, seed),
        batches_of(*chosen, 256),
        epochs,
        folder,
        monitored_metric(tasks),
        start=START,
    )


def keep_answers(begin, X, y):
    y = y.copy()
    probabilities = predict(begin, X)
    for task in set(TASKS) - set(labelled_tasks(y)):
        y[:, BLOCKS[task]] = probabilities[task]
    return y
