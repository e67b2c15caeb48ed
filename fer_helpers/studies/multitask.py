"""Does multi-task learning help emotion recognition? The runs behind notebook 08.

For the same seed every arm trains the same network from the same initial weights, with the same
number of steps and of emotion faces. The arms differ only in their losses, except that
"emotion alone" has no faces of UTKFace in its batches.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fer_helpers.backend import keras
from fer_helpers.batches import batches_of, mixed_batches
from fer_helpers.checkpoints import fill_table, read_runs
from fer_helpers.datasets import load_training_data
from fer_helpers.evaluation import accuracy_table, paired_interval
from fer_helpers.labels import OUTPUTS, TASKS
from fer_helpers.losses import MaskedCrossentropy, weigh_by_uncertainty
from fer_helpers.model import build_model
from fer_helpers.prediction import predict
from fer_helpers.training import (
    LEARNING_RATE,
    PAPER_LOSS_WEIGHTS,
    compile_model,
    labelled_tasks,
)

EQUAL = dict.fromkeys(TASKS, 1.0)

ALONE = "emotion alone"  # what the other arms are compared with

# Arm -> weights of the losses; None: learned, see `weigh_by_uncertainty`.
ARMS = {
    ALONE: {"emotion": 1.0},
    "paper's weights": PAPER_LOSS_WEIGHTS,
    "equal weights": EQUAL,
    "emotion first": {"emotion": 1.0, "gender": 0.2, "race": 0.2, "age": 0.3},
    "learned weights": None,
    "equal, unmasked": EQUAL,
}
SHARES = (96, 32)  # faces of FER2013 and of UTKFace per batch
FACES = 14_000  # of FER2013's 28,709: two processor cores train on these many times in a night
EPOCHS = 6

# Narrow, for the same reason; the paper's CNN has only one size.
_OPTIONS = {"compact": {"widths": (16, 32, 64, 128)}}


def train_arm(
    arm: str,
    seed: int,
    train: Sequence[tuple[np.ndarray, np.ndarray]],
    epochs: int = EPOCHS,
    backbone: str = "compact",
    options: dict | None = None,
) -> keras.Model:
    """Train one arm.

    The optimizer is Adam: its steps do not depend on the scale of the loss, so arms with larger
    weights do not learn faster. The learning rate falls along a cosine to zero. The last epoch
    is kept; no best one is chosen.

    Parameters
    ----------
    arm
        A key of `ARMS`.
    seed
        Of the initial weights, the shuffling, the augmentation and the dropout.
    train
        ``(X, y)`` of a data set with emotions, and of one with the other labels: uint8
        (N, 48, 48, 1) and float32 (N, 18).
    epochs
        Passes through the first of the two.
    backbone
        See `build_model`.
    options
        Of the backbone, see `build_model`; those of the study if None.

    Returns
    -------
    keras.Model
        The trained network.
    """
    keras.utils.set_random_seed(seed)
    model = build_model(backbone, **(_OPTIONS.get(backbone, {}) if options is None else options))
    weights = ARMS[arm]
    alone = weights is not None and set(weights) == {"emotion"}
    sources = 1 if alone else len(train)
    batches = mixed_batches(train[:sources], SHARES[:sources], seed)
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, epochs * len(batches))
    optimizer = keras.optimizers.Adam(rate)
    if weights is None:
        weigh_by_uncertainty(model, optimizer).fit(batches, epochs=epochs, verbose=0)
        return model
    plain = "categorical_crossentropy"
    model.compile(
        optimizer,
        loss={o: plain if "unmasked" in arm else MaskedCrossentropy() for o in OUTPUTS.values()},
        loss_weights={OUTPUTS[task]: float(weights.get(task, 0)) for task in TASKS},
    )
    model.fit(batches, epochs=epochs, verbose=0)
    return model


# The columns that say which run a row is of.
RUN = ("arm", "backbone", "seed", "epochs", "faces")


def study(
    csv: str | Path = "data/results/multitask_runs.csv",
    arms: Sequence[str] = tuple(ARMS),
    seeds: Sequence[int] = range(5),
    epochs: int = EPOCHS,
    faces: int = FACES,
    backbone: str = "compact",
    data_dir: str | Path | None = None,
) -> pd.DataFrame:
    """Train every arm with every seed, except for the runs that are in the table already.

    A run is identified by its arm, backbone, seed, epochs and number of faces.

    Parameters
    ----------
    csv
        The table, a row per run; written after each run.
    arms, seeds
        Which runs. All arms of a seed come before the next seed, so that an interrupted study
        is balanced.
    epochs
        Passes through the faces of FER2013.
    faces
        How many of FER2013's training split, the same ones for every seed.
    backbone
        See `build_model`.
    data_dir
        Folder that holds ``FER/`` and ``UTKFACE/``, see `load_data`.

    Returns
    -------
    pandas.DataFrame
        All runs of the table with this backbone and these numbers of epochs and faces, of any
        arm and seed. Columns ``arm``, ``backbone``, ``seed``, ``epochs``, ``faces``,
        ``public_emotion_accuracy`` and ``public_emotion_ece`` (FER2013's PublicTest),
        ``gender_accuracy``, ``race_accuracy``, ``age_accuracy`` (UTKFace's validation split).

    Raises
    ------
    ValueError
        An arm that does not exist, or `csv` is another table.
    FileNotFoundError
        A data set is not there.
    OSError
        Another process is writing to `csv`, or there is no room.
    """
    for arm in arms:
        if arm not in ARMS:
            raise ValueError(f"unknown arm {arm!r}: choose from {', '.join(ARMS)}")
    csv = Path(csv)
    read_runs(csv, RUN)  # before the faces are loaded
    splits = [load_training_data(name, data_dir) for name in ("FER", "UTKFACE")]
    train = [split for split, _ in splits]
    X, y = (np.concatenate(arrays) for arrays in zip(*[v for _, v in splits], strict=True))
    chosen = np.sort(np.random.default_rng(0).permutation(len(train[0][0]))[:faces])
    train[0] = tuple(array[chosen] for array in train[0])
    size = {"epochs": epochs, "faces": len(train[0][0])}
    wanted = [
        {"arm": arm, "backbone": backbone, "seed": seed} | size for seed in seeds for arm in arms
    ]

    def score(run) -> dict[str, float]:
        model = train_arm(run["arm"], run["seed"], train, epochs, backbone)
        scores = accuracy_table(y, predict(model, X))
        return {
            "public_emotion_accuracy": scores.accuracy["emotion"],
            "public_emotion_ece": scores.ece["emotion"],
        } | {f"{task}_accuracy": scores.accuracy[task] for task in ("gender", "race", "age")}

    table = fill_table(csv, wanted, score)
    same = pd.Series({"backbone": backbone} | size)
    return table[(table[list(same.index)] == same).all(axis=1)]


def compare(runs: pd.DataFrame, column: str = "public_emotion_accuracy") -> pd.DataFrame:
    """Compare each arm with the emotion head alone, seed by seed.

    Parameters
    ----------
    runs
        A table of `study`: one backbone, one number of epochs and one of faces.
    column
        Its column that is compared.

    Returns
    -------
    pandas.DataFrame
        A row for each arm that has a seed in common with `ALONE`, index ``arm``. Columns
        ``n`` (seeds in common), ``mean`` (of the arm over these), ``difference`` (the arm
        minus `ALONE`), ``low`` and ``high`` (its 95 % interval, see `paired_interval`).

    Raises
    ------
    ValueError
        `runs` has no run of `ALONE`.
    """
    if ALONE not in set(runs["arm"]):
        raise ValueError(f"the table has no run of {ALONE!r} to compare with: train that arm, too")
    table = runs.pivot(index="seed", columns="arm", values=column)
    rows = {}
    for arm in [arm for arm in ARMS if arm in table]:
        both = table[arm].notna() & table[ALONE].notna()
        if not both.any():
            continue
        values = table.loc[both, arm]
        rows[arm] = paired_interval(values, table.loc[both, ALONE]) | {"mean": values.mean()}
    columns = ["n", "mean", "difference", "low", "high"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("arm")


def gradient_conflict(
    model: keras.Model, X: np.ndarray, y: np.ndarray, batch_size: int = 128
) -> pd.DataFrame:
    """Measure whether the tasks pull the shared layers the same way (Yu et al. 2020).

    For each batch and task, take the gradient of the task's masked loss with respect to all
    weights before the heads. Compare two tasks by the cosine of the angle between their
    gradients, averaged over the batches.

    Parameters
    ----------
    model
        A network of `get_model`. Compiled here; its weights stay as they are.
    X
        uint8 (N, 48, 48, 1) faces, labelled for all the tasks that are to be compared.
    y
        float32 (N, 18), their label rows.
    batch_size
        Faces per gradient.

    Returns
    -------
    pandas.DataFrame
        Cosines, (tasks, tasks), of the tasks that `y` has labels for: 1 is the same direction,
        0 unrelated, below 0 against each other.
    """
    # A step of plain gradient descent with a learning rate of 1 subtracts the gradient, on any
    # backend.
    trunk = [v for v in model.trainable_variables if "_logits" not in v.path]
    state = [keras.ops.convert_to_numpy(variable) for variable in model.variables]
    start = np.concatenate([keras.ops.convert_to_numpy(v).ravel() for v in trunk])
    batches = batches_of(X, y, batch_size)
    tasks = labelled_tasks(y)
    gradients = np.empty((len(tasks), len(batches), len(start)), np.float32)
    compile_model(model, EQUAL, tasks=(), optimizer=keras.optimizers.SGD(1.0))
    for row, task in zip(gradients, tasks, strict=True):
        for index in range(len(batches)):
            images, targets = batches[index]
            # Without labels, the masked losses of the other tasks have no gradient.
            only = {
                name: target if name == OUTPUTS[task] else np.zeros_like(target)
                for name, target in targets.items()
            }
            model.train_on_batch(images, only)
            row[index] = start - np.concatenate(
                [keras.ops.convert_to_numpy(v).ravel() for v in trunk]
            )
            for variable, value in zip(model.variables, state, strict=True):
                variable.assign(value)
    gradients /= np.maximum(np.linalg.norm(gradients, axis=-1, keepdims=True), 1e-12)
    cosines = np.einsum("abw,cbw->ac", gradients, gradients, optimize=True) / len(batches)
    return pd.DataFrame(cosines, index=tasks, columns=tasks)
