"""Do the attribute heads help emotion? The runs that data/results/PROTOCOL.md lays down."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fer_helpers.backend import choose_precision, dtype_policy, keras
from fer_helpers.batches import mixed_batches
from fer_helpers.checkpoints import fill_table, read_runs, replace_file
from fer_helpers.datasets import load_training_data
from fer_helpers.evaluation import accuracy_table, true_and_predicted
from fer_helpers.images import find_copies
from fer_helpers.labels import OUTPUTS, TASKS
from fer_helpers.losses import weigh_by_uncertainty
from fer_helpers.model import build_model
from fer_helpers.prediction import predict
from fer_helpers.training import LEARNING_RATE, PAPER_LOSS_WEIGHTS, compile_model

ATTRIBUTES = tuple(TASKS)[1:]


def _weighted(weight: float) -> dict[str, float]:
    return {"emotion": 1.0} | dict.fromkeys(ATTRIBUTES, weight)


ALONE, BASE, UNMASKED = "alone", "0", "unmasked"
# Arm -> weights of the losses; None: learned, see `weigh_by_uncertainty`.
ARMS: dict[str, Mapping[str, float] | None] = {
    ALONE: {"emotion": 1.0},
    **{f"{weight:g}": _weighted(weight) for weight in (0, 0.03, 0.1, 0.3, 1)},
    "paper": PAPER_LOSS_WEIGHTS,
    "learned": None,
    UNMASKED: _weighted(1),
    **{task: {task: 1.0} for task in ATTRIBUTES},
}
# Backbone -> faces of FER2013 and of UTKFace per batch, and epochs: on a processor, on a GPU.
SIZES = {"compact": ((96, 32), 16), "deep": ((768, 256), 60), "paper": ((768, 256), 60)}
# Columns that identify a run.
RUN = ("arm", "backbone", "seed", "fraction", "epochs")

Labelled = tuple[np.ndarray, np.ndarray]


def drawn(faces: Labelled, share: float, seed: int) -> Labelled:
    """Return a share of the faces, drawn at random without replacement, in their order."""
    count = round(share * len(faces[0]))
    rows = np.sort(np.random.default_rng(seed).permutation(len(faces[0]))[:count])
    return faces[0][rows], faces[1][rows]


def train_arm(
    arm: str,
    seed: int,
    train: Sequence[Labelled],
    fraction: float = 1.0,
    backbone: str = "compact",
    epochs: int | None = None,
) -> keras.Model:
    """Train one arm with one seed.

    Parameters
    ----------
    arm
        A key of `ARMS`.
    seed
        Of the faces that are drawn, the initial weights, the shuffling, the augmentation and
        the dropout.
    train
        ``(X, y)`` of a data set with emotions, and of one with the other labels: uint8
        (N, 48, 48, 1) and float32 (N, 18). Nine tenths of each are drawn.
    fraction
        Share of the drawn emotion faces to train on, above 0, at most 1. The number of steps
        stays the same.
    backbone
        A key of `SIZES`.
    epochs
        Passes through the emotion faces at a fraction of 1; those of `SIZES` if None.

    Returns
    -------
    keras.Model
        The trained network, after its last epoch.
    """
    shares, usual = SIZES[backbone]
    emotions, others = (drawn(faces, 0.9, seed) for faces in train)
    steps = (epochs or usual) * max(len(emotions[0]) // shares[0], 1)
    sources = [drawn(emotions, fraction, seed), others][: 1 if arm == ALONE else 2]
    batches = mixed_batches(sources, shares[: len(sources)], seed)
    keras.utils.set_random_seed(seed)
    with dtype_policy(choose_precision()):
        model = build_model(backbone)
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps))
    weights = ARMS[arm]
    trained = model
    if weights is None:
        trained = weigh_by_uncertainty(model, optimizer)
    elif arm == UNMASKED:
        losses = dict.fromkeys(OUTPUTS.values(), "categorical_crossentropy")
        model.compile(
            optimizer, losses, loss_weights={OUTPUTS[task]: weights[task] for task in TASKS}
        )
    else:
        compile_model(model, weights, tasks=(), optimizer=optimizer)
    # A smaller fraction has shorter epochs, and more of them.
    trained.fit(batches, epochs=round(steps / len(batches)), verbose=0)
    return model


def without_copies(train: Sequence[Labelled], scored: np.ndarray) -> list[Labelled]:
    """Return the training faces, each picture once, without those of `scored` (M, 48, 48, 1)."""
    kept = [~find_copies(X) & ~find_copies(X, among=scored) for X, _ in train]
    return [(X[rows], y[rows]) for (X, y), rows in zip(train, kept, strict=True)]


def study(
    csv: str | Path = "data/results/attribute_runs.csv",
    arms: Sequence[str] = tuple(ARMS),
    seeds: Sequence[int] = range(5),
    fraction: float = 1.0,
    backbone: str = "compact",
    epochs: int | None = None,
    data_dir: str | Path | None = None,
) -> pd.DataFrame:
    """Train every arm with every seed, except for the runs that are in the table already.

    Parameters
    ----------
    csv
        The table, a row per run; written after each run. Beside it, ``<name>_answers.npz``
        holds what each run named each face of PublicTest, see `read_right`.
    arms, seeds
        Which runs. All arms of a seed come before the next seed, so that an interrupted study
        is balanced.
    fraction, backbone, epochs
        See `train_arm`.
    data_dir
        Folder that holds ``FER/`` and ``UTKFACE/``, see `load_data`.

    Returns
    -------
    pandas.DataFrame
        The whole table: the columns of `RUN`, ``emotion`` (accuracy on FER2013's PublicTest),
        ``emotion_clean`` (without the faces that FER2013's Training split repeats),
        ``emotion_balanced``, ``emotion_ece``, ``gender``, ``race``, ``age`` (accuracy on
        UTKFace's validation split), ``seconds`` (of training).

    Raises
    ------
    ValueError
        An arm or backbone that does not exist, or `csv` is another table.
    FileNotFoundError
        A data set is not there.
    OSError
        Another process is writing to `csv`, or there is no room.
    """
    if unknown := [arm for arm in arms if arm not in ARMS]:
        raise ValueError(f"unknown arm {unknown[0]!r}: choose from {', '.join(ARMS)}")
    if backbone not in SIZES:
        raise ValueError(f"backbone {backbone!r} is not in the study: choose {', '.join(SIZES)}")
    csv = Path(csv)
    read_runs(csv, RUN)  # before the faces are loaded
    splits = [load_training_data(name, data_dir) for name in ("FER", "UTKFACE")]
    (public, y_public), (X, y) = splits[0][1], splits[1][1]
    repeated = find_copies(public, among=splits[0][0][0])
    train = without_copies([faces for faces, _ in splits], public)
    size = {"fraction": float(fraction), "epochs": epochs or SIZES[backbone][1]}
    wanted = [
        {"arm": arm, "backbone": backbone, "seed": seed} | size for seed in seeds for arm in arms
    ]
    answers_file = _answers_of(csv)

    def score(run) -> dict[str, float]:
        start = time.monotonic()
        model = train_arm(run["arm"], run["seed"], train, fraction, backbone, epochs)
        seconds = time.monotonic() - start
        probabilities = predict(model, public)
        true, named = true_and_predicted(y_public, probabilities, "emotion")
        emotion = accuracy_table(y_public, probabilities).loc["emotion"]
        others = accuracy_table(y, predict(model, X))["accuracy"]
        # Before the row: a row stands for a run that is stored whole.
        answers = dict(np.load(answers_file)) if answers_file.is_file() else {}
        answers |= {"true": true.astype(np.uint8), "repeated": repeated}
        answers[_key(run)] = named.astype(np.uint8)
        replace_file(answers_file, lambda path: np.savez_compressed(path, **answers))
        return {
            "emotion": emotion["accuracy"],
            "emotion_clean": (named == true)[~repeated].mean(),
            "emotion_balanced": emotion["balanced_accuracy"],
            "emotion_ece": emotion["ece"],
            **{task: others[task] for task in ATTRIBUTES},
            "seconds": seconds,
        }

    return fill_table(csv, wanted, score)


def _answers_of(csv: Path) -> Path:
    return csv.with_name(f"{csv.stem}_answers.npz")


def _key(run: Mapping) -> str:
    return "|".join(str(run[name]) for name in RUN)


def read_right(csv: str | Path) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Read the runs of the study, and which face of PublicTest each of them got right.

    Parameters
    ----------
    csv
        The table of `study`. The file beside it, ``<name>_answers.npz``, holds the class of
        emotion that each run named: uint8 (3589,), under the values of `RUN`, joined by ``|``;
        ``true``, that of the label; and ``repeated``, bool: FER2013's Training split has this
        picture, too.

    Returns
    -------
    runs
        The table of `study`.
    right
        bool (runs, 3589), a row per run.
    repeated
        bool (3589,).

    Raises
    ------
    ValueError
        The table is another one.
    FileNotFoundError
        The answers are not there.
    KeyError
        The answers lack a run of the table.
    """
    csv = Path(csv)
    runs = read_runs(csv, RUN)
    with np.load(_answers_of(csv)) as answers:
        right = [answers[_key(run)] == answers["true"] for run in runs.to_dict("records")]
        return runs, np.array(right), answers["repeated"]


def compare(runs: pd.DataFrame, right: np.ndarray, draws: int = 10_000) -> pd.DataFrame:
    """Compare the arms with arm `BASE`, with intervals over seeds and faces.

    The intervals are percentiles of a two-way bootstrap: seeds and faces are both drawn with
    replacement, the same ones for both arms.

    Parameters
    ----------
    runs, right
        Of `read_right`: rows of one network, one number of epochs and one fraction. Fewer faces
        may be given, `right[:, chosen]`.
    draws
        Of the bootstrap.

    Returns
    -------
    pandas.DataFrame
        A row per arm, in the order of `ARMS`, with the columns ``n`` (seeds), ``mean``
        (accuracy), ``difference`` (from `BASE`, over the seeds that both have), ``low`` and
        ``high`` (its 95 % interval), ``low_90`` and ``high_90``, ``p`` (two-sided, at least
        ``1 / draws``) and ``p_holm`` (corrected for the number of arms, Holm 1979). Empty if
        nothing can be compared.
    """
    place = runs.assign(row=range(len(runs))).pivot(index="seed", columns="arm", values="row")
    differences, rows = {}, {}
    for arm in [arm for arm in ARMS if {arm, BASE} <= set(place) and arm != BASE]:
        both = place[[arm, BASE]].dropna().astype(int)
        if len(both):
            ours, theirs = (right[both[name]] for name in (arm, BASE))
            differences[arm] = ours.astype(np.float32) - theirs
            rows[arm] = {"n": len(both), "mean": ours.mean()}
    generator = np.random.default_rng(0)

    def shares(count: int, size: int) -> np.ndarray:
        return (generator.multinomial(count, np.full(count, 1 / count), size) / count).astype("f4")

    drawn = {arm: [] for arm in rows}
    for size in [draws // 20] * 20:  # all at once would take 300 MB
        of_faces = shares(right.shape[1], size)
        for arm, difference in differences.items():
            of_seeds = shares(len(difference), size)
            drawn[arm] = np.append(drawn[arm], (of_seeds * (of_faces @ difference.T)).sum(axis=1))
    if not rows:
        return pd.DataFrame()
    for arm, means in drawn.items():
        ends = np.percentile(means, [2.5, 97.5, 5, 95])
        smaller = min((means <= 0).mean(), (means >= 0).mean())
        rows[arm] |= {"difference": differences[arm].mean()}
        rows[arm] |= dict(zip(("low", "high", "low_90", "high_90"), ends, strict=True))
        rows[arm] |= {"p": float(np.clip(2 * smaller, 1 / draws, 1))}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("arm")
    ordered = table["p"].sort_values()
    corrected = (ordered * np.arange(len(ordered), 0, -1)).cummax().clip(upper=1)
    return table.assign(p_holm=corrected)
