"""Does training on a few faces of one's own help? The runs behind the defaults of `train`.

Each run draws a small set of faces, as somebody might bring it, and other faces of the same
source to score on. The shipped network has trained on none of them: it knows FER2013's Training
and UTKFace's train, so the faces here come from PublicTest and validation, without copies of
training faces and of each other. The shipped epoch was chosen on PublicTest; every arm that
starts from it shares this.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fer_helpers.backend import choose_precision, dtype_policy, keras
from fer_helpers.batches import batches_of
from fer_helpers.checkpoints import fill_table, read_runs
from fer_helpers.datasets import load_data, load_training_data
from fer_helpers.datasets.splits import choose_tenths
from fer_helpers.evaluation import accuracy_table, paired_interval
from fer_helpers.images import find_copies
from fer_helpers.labels import BLOCKS, LABEL_WIDTH, TASKS
from fer_helpers.model import get_model, load_model
from fer_helpers.prediction import predict
from fer_helpers.runs import fit
from fer_helpers.training import (
    FINE_TUNING_EPOCHS,
    compile_model,
    labelled_tasks,
    monitored_metric,
    train_faces,
)

Faces = tuple[np.ndarray, np.ndarray]  # images uint8 (N, 48, 48, 1), label rows (N, 18)

START = "FER"
UNTOUCHED, DEFAULT, SCRATCH = "untouched", "default", "from scratch"

# Name -> where its faces come from, and how many there are; a tenth of them validate.
SETS = {
    "FER2013, 100": ("FER", 100),
    "FER2013, 300": ("FER", 300),
    "FER2013, 1000": ("FER", 1000),
    "drawn, 300": ("SAMPLE", 300),
    "drawn, 300, emotion alone": ("EMOTIONS", 300),
    "UTKFace, 300": ("UTKFACE", 300),
}
SCORED = 1500  # faces of the same source to score on, as far as there are as many
OTHERS = 500  # faces of the other source, for the tasks that the small set has no labels for

# What `train` might do by default; see `train_candidate`.
CANDIDATES = {
    "all layers, 5e-4": {"rate": 5e-4},
    "all layers, 1e-4": {"rate": 1e-4},
    "all layers, 1e-4, answers kept": {"rate": 1e-4, "keep": True},
    "norms frozen, 1e-4, answers kept": {"rate": 1e-4, "keep": True, "frozen": "norms"},
    "heads alone, 1e-3": {"rate": 1e-3, "frozen": "trunk"},
}
ARMS = (UNTOUCHED, DEFAULT, SCRATCH, *CANDIDATES)


def new_faces(data_dir: str | Path | None = None) -> dict[str, Faces]:
    """Return faces that the shipped network has not trained on, by source, none of them twice.

    Parameters
    ----------
    data_dir
        Folder that holds ``FER/`` and ``UTKFACE/``, see `load_data`.

    Returns
    -------
    dict
        ``"SAMPLE"``: all drawn faces; ``"EMOTIONS"``: the same, labelled for emotion alone;
        ``"FER"``: PublicTest; ``"UTKFACE"``: the validation split. Each ``(X, y)``, images uint8
        (N, 48, 48, 1), label rows float32 (N, 18).

    Raises
    ------
    FileNotFoundError
        A data set is not there.
    """
    X, y = load_data("SAMPLE", data_dir=data_dir)
    is_emotion = np.arange(LABEL_WIDTH) < BLOCKS["emotion"].stop
    sources = {"SAMPLE": (X, y), "EMOTIONS": (X, y * is_emotion)}
    for name in ("FER", "UTKFACE"):
        (known, _), (X, y) = load_training_data(name, data_dir)
        new = ~find_copies(X, known) & ~find_copies(X)
        sources[name] = X[new], y[new]
    return sources


def draw(sources: dict[str, Faces], name: str, seed: int) -> tuple[Faces, list[Faces]]:
    """Draw a small set, and faces to score on.

    Parameters
    ----------
    sources
        From `new_faces`.
    name
        A key of `SETS`.
    seed
        Which faces, at least 0.

    Returns
    -------
    faces
        ``(X, y)`` of the small set.
    tests
        Faces to score on: others of the same source, and faces with labels for the other
        tasks if this source has labels for some only.
    """
    source, count = SETS[name]
    X, y = sources[source]
    order = np.random.default_rng([seed, count]).permutation(len(X))
    learnt, scored = order[:count], order[count : count + SCORED]
    tests = [(X[scored], y[scored])]
    if source != "SAMPLE":
        X_other, y_other = sources["FER" if source == "UTKFACE" else "UTKFACE"]
        tests.append((X_other[:OTHERS], y_other[:OTHERS]))
    return (X[learnt], y[learnt]), tests


def train_candidate(
    learnt: Faces,
    chosen: Faces,
    epochs: int,
    out_dir: str | Path,
    seed: int,
    rate: float,
    keep: bool = False,
    frozen: str | None = None,
) -> pd.DataFrame:
    """Train from the shipped weights in a way that could be the default.

    Parameters
    ----------
    learnt, chosen
        Faces to learn from, and to choose the best epoch by.
    epochs, out_dir, seed
        See `train`.
    rate
        Learning rate of Adam.
    keep
        Tasks without labels learn what the shipped network predicts (Li & Hoiem 2016).
    frozen
        What is not trained: ``"norms"``, batch normalisation with its averages; ``"trunk"``,
        all but the last layer of each head; None, nothing.

    Returns
    -------
    pandas.DataFrame
        The history, see `read_history`.
    """
    begin = load_model(START)
    keras.utils.set_random_seed(seed)
    with dtype_policy(choose_precision()):
        model = get_model(backbone=begin.name)
    model.set_weights(begin.get_weights())
    for layer in model.layers:
        is_norm = isinstance(layer, keras.layers.BatchNormalization)
        is_head = layer.name.endswith("_logits")
        layer.trainable = not (frozen == "norms" and is_norm) and (frozen != "trunk" or is_head)
    X, y = learnt
    tasks = labelled_tasks(y)
    if keep:
        y, answers = y.copy(), predict(begin, X)
        for task in TASKS.keys() - tasks:
            y[:, BLOCKS[task]] = answers[task]
    compile_model(model, tasks=tasks, optimizer=keras.optimizers.Adam(rate))
    return fit(
        model,
        batches_of(X, y, 32, True, seed),
        batches_of(*chosen, 256),
        epochs,
        out_dir,
        monitored_metric(tasks),
        start=START,
    )


def run_arm(arm: str, faces: Faces, seed: int, out_dir: str | Path) -> pd.DataFrame | None:
    """Train one arm on a small set; ``model.keras`` is then in `out_dir`.

    Parameters
    ----------
    arm
        One of `ARMS`.
    faces
        The small set, of which a tenth validates, see `choose_tenths`.
    seed
        Of everything random.
    out_dir
        Folder of the run.

    Returns
    -------
    pandas.DataFrame
        The history; None for the untouched weights.
    """
    if arm == UNTOUCHED:
        return None
    (validates,) = choose_tenths(*faces)
    learnt, chosen = (tuple(array[rows] for array in faces) for rows in (~validates, validates))
    given = learnt, chosen, FINE_TUNING_EPOCHS, out_dir
    if arm == DEFAULT:
        return train_faces(*given, seed=seed, start=START)
    if arm == SCRATCH:
        return train_faces(*given, seed=seed)
    return train_candidate(*given, seed, **CANDIDATES[arm])


def score(model: keras.Model, tests: Sequence[Faces]) -> dict[str, float]:
    """Return the accuracy by task, each on those of the `tests` that have labels for it."""
    accuracies = {}
    for X, y in tests:
        accuracies |= accuracy_table(y, predict(model, X))["accuracy"].to_dict()
    return accuracies


def study(
    csv: str | Path = "data/results/fine_tuning.csv",
    sets: Sequence[str] = tuple(SETS),
    arms: Sequence[str] = (UNTOUCHED, DEFAULT, SCRATCH),
    seeds: Sequence[int] = range(5),
    data_dir: str | Path | None = None,
) -> pd.DataFrame:
    """Train every arm on every small set with every seed, except for the runs in the table.

    Parameters
    ----------
    csv
        The table, a row per run; written after each run.
    sets, arms, seeds
        Which runs: keys of `SETS`, and some of `ARMS`. All of a seed come before the next seed,
        so that an interrupted study is balanced.
    data_dir
        Folder that holds ``FER/`` and ``UTKFACE/``, see `load_data`.

    Returns
    -------
    pandas.DataFrame
        All runs of the table. Columns ``set``, ``arm``, ``seed``, ``epochs`` (trained until it
        stopped) and the accuracies ``emotion``, ``gender``, ``race`` and ``age`` of the epoch
        that was kept.

    Raises
    ------
    ValueError
        A set or an arm that does not exist, or `csv` is another table.
    FileNotFoundError
        A data set is not there.
    """
    for name, known in [(name, SETS) for name in sets] + [(arm, ARMS) for arm in arms]:
        if name not in known:
            raise ValueError(f"unknown {name!r}: choose from {'; '.join(known)}")
    csv = Path(csv)
    read_runs(csv, ("set", "arm", "seed"))  # before the faces are loaded
    sources = new_faces(data_dir)
    wanted = [
        {"set": name, "arm": arm, "seed": seed} for seed in seeds for name in sets for arm in arms
    ]

    def train(run) -> dict[str, float]:
        faces, tests = draw(sources, run["set"], run["seed"])
        return _run(run["arm"], faces, tests, run["seed"])

    return fill_table(csv, wanted, train)


def _run(arm: str, faces: Faces, tests: Sequence[Faces], seed: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        history = run_arm(arm, faces, seed, folder)
        model = load_model(START if history is None else Path(folder) / "model.keras")
    epochs = 0 if history is None else int(history["epoch"].max())
    return {"epochs": epochs} | score(model, tests)


def compare(runs: pd.DataFrame) -> pd.DataFrame:
    """Compare each arm with the untouched weights, seed by seed.

    Parameters
    ----------
    runs
        A table of `study`.

    Returns
    -------
    pandas.DataFrame
        A row per set, arm and task. Columns ``n`` (seeds that both have), ``accuracy`` (mean of
        the arm), ``difference`` (from the untouched weights), ``low`` and ``high`` (its 95 %
        interval, see `paired_interval`). An arm without a seed that was scored untouched is
        left out.
    """
    rows = []
    for (name, arm), some in runs.groupby(["set", "arm"], sort=False):
        begun = runs[(runs["set"] == name) & (runs["arm"] == UNTOUCHED)]
        both = some.merge(begun, on="seed", suffixes=("", "_before"))
        for task in TASKS if len(both) else ():
            compared = paired_interval(both[task], both[f"{task}_before"])
            row = {"set": name, "arm": arm, "task": task, "accuracy": both[task].mean()}
            rows.append(row | compared)
    columns = ["set", "arm", "task", "n", "accuracy", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=columns)
