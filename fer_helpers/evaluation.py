"""How good the predictions are: metrics with intervals, calibration, copies."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from fairlearn.metrics import MetricFrame, count
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from scipy.stats import bootstrap, t
from sklearn import metrics

from fer_helpers.labels import BLOCKS, TASKS, check_task


def labelled(y: np.ndarray, task: str) -> np.ndarray:
    """Bool (N,): which label rows are labelled for `task`, one of the four."""
    return np.asarray(y)[:, BLOCKS[check_task(task)]].any(axis=1)


def true_and_predicted(
    y: np.ndarray, probabilities: Mapping[str, np.ndarray], task: str
) -> tuple[np.ndarray, np.ndarray]:
    """Class indices, labelled and most probable, of the faces labelled for `task`."""
    if len(y) != len(probabilities[task]):
        raise ValueError(f"{len(y)} label rows but {len(probabilities[task])} predictions")
    rows = labelled(y, task)
    return y[rows, BLOCKS[task]].argmax(axis=1), probabilities[task][rows].argmax(axis=1)


def wilson_interval(successes: ArrayLike, n: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of a proportion, after Wilson (1927).

    Unlike the textbook normal interval it stays inside 0 to 1 and holds for small `n`.

    Parameters
    ----------
    successes, n
        Counts, or arrays of them.

    Returns
    -------
    low, high
        Of the shape of the counts; NaN for `n` = 0.
    """
    z = 1.96
    n = np.where(np.asarray(n) == 0, np.nan, n)
    p = successes / n
    centre = p + z * z / (2 * n)
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # Rounding can leave a rate of 0 or 1 outside of its interval.
    return np.clip((centre - half) / scale, 0, p), np.clip((centre + half) / scale, p, 1)


def _rate(hits: np.ndarray, name: str) -> dict[str, float]:
    """Size of a bool array, share of True under `name`, and the share's interval."""
    n, successes = len(hits), int(hits.sum())
    low, high = map(float, wilson_interval(successes, n))
    return {"n": n, name: successes / n if n else np.nan, "low": low, "high": high}


def accuracy_table(y: np.ndarray, probabilities: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """One row for each task that has labels.

    Parameters
    ----------
    y
        (N, 18) label rows.
    probabilities
        Task -> float (N, classes), as `fer_helpers.predict` gives them.

    Returns
    -------
    pandas.DataFrame
        Index task; columns ``n`` (labelled faces), ``accuracy``, ``low`` and ``high`` (95 %
        Wilson interval), ``majority`` (always saying the most frequent class of these
        faces), ``balanced_accuracy`` (mean recall over the classes present), and ``ece``.
    """
    rows = {}
    for task in TASKS:
        true, predicted = true_and_predicted(y, probabilities, task)
        if len(true) == 0:
            continue
        present = np.unique(true)
        rows[task] = _rate(true == predicted, "accuracy") | {
            "majority": np.bincount(true).max() / len(true),
            "balanced_accuracy": metrics.recall_score(
                true, predicted, labels=present, average="macro", zero_division=0
            ),
            "ece": expected_calibration_error(probabilities[task][labelled(y, task)], true),
        }
    columns = ["n", "accuracy", "low", "high", "majority", "balanced_accuracy", "ece"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("task")


def class_table(y: np.ndarray, probabilities: Mapping[str, np.ndarray], task: str) -> pd.DataFrame:
    """One row for each class of `task`: ``n``, ``recall`` with its interval, ``precision``."""
    true, predicted = true_and_predicted(y, probabilities, task)
    rows = {}
    for index, name in enumerate(TASKS[task]):
        said = true[predicted == index] == index
        rows[name] = _rate(predicted[true == index] == index, "recall") | {
            "precision": said.mean() if len(said) else np.nan
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(task)


def group_table(
    y: np.ndarray,
    probabilities: Mapping[str, np.ndarray],
    task: str,
    by: str | Sequence[str],
    smallest: int = 30,
) -> pd.DataFrame:
    """How well `task` is recognised in groups of faces.

    Parameters
    ----------
    y, probabilities
        As `accuracy_table` takes them. Only faces labelled for `task` and all of `by` count.
    task
        One of the four tasks.
    by
        The task whose classes are the groups, or several: then every combination of their
        classes is a group.
    smallest
        Groups with fewer faces are left out: their figures would be chance.

    Returns
    -------
    pandas.DataFrame
        Index the classes of `by`, in the order of `TASKS`; columns ``n``, ``accuracy``, ``low``
        and ``high`` (95 % Wilson interval), ``ece``, and ``gap``, how far the accuracy is below
        that of the best group, with ``gap_low`` and ``gap_high`` (Newcombe 1998). These hold
        in 95 % for two groups chosen beforehand; the best of five equal ones lies clearly ahead
        of some other by chance in a quarter of all tables.

    Raises
    ------
    ValueError
        A task that does not exist.
    """
    by = [by] if isinstance(by, str) else list(by)
    rows = np.logical_and.reduce([labelled(y, name) for name in (task, *by)])
    chances = np.asarray(probabilities[task])[rows]
    true, predicted = true_and_predicted(y[rows], {task: chances}, task)
    index = _groups(by)
    table = pd.DataFrame(columns=["n", "accuracy", "ece"], index=index[:0], dtype=float)
    if len(true):
        table = MetricFrame(
            metrics={"n": count, "accuracy": metrics.accuracy_score, "ece": _group_error},
            y_true=true,
            y_pred=predicted,
            sensitive_features=pd.DataFrame(
                {name: np.array(TASKS[name])[y[rows, BLOCKS[name]].argmax(axis=1)] for name in by}
            ),
            sample_params={"ece": {"confidence": chances.max(axis=1)}},
        ).by_group
        table = table.reindex(index).astype(float)
    table = table[table["n"] >= smallest].astype({"n": int})
    right = (table["accuracy"] * table["n"]).round()
    table["low"], table["high"] = wilson_interval(right, table["n"])
    return table.join(_gaps(table))[
        ["n", "accuracy", "low", "high", "ece", "gap", "gap_low", "gap_high"]
    ]


def _groups(by: Sequence[str]) -> pd.Index:
    if len(by) == 1:
        return pd.Index(TASKS[by[0]], name=by[0])
    return pd.MultiIndex.from_product([TASKS[name] for name in by], names=by)


def _group_error(true: np.ndarray, predicted: np.ndarray, confidence: np.ndarray) -> float:
    return _calibration_error(np.asarray(confidence), np.asarray(true) == np.asarray(predicted))


def _gaps(table: pd.DataFrame) -> pd.DataFrame:
    """Distances from the best group; intervals from those of the two rates (Newcombe 1998)."""
    accuracy, low, high = table["accuracy"], table["low"], table["high"]
    if table.empty:
        return pd.DataFrame(columns=["gap", "gap_low", "gap_high"], index=table.index, dtype=float)
    best = np.argmax(accuracy)
    gap = accuracy.iloc[best] - accuracy
    below = np.hypot(accuracy.iloc[best] - low.iloc[best], high - accuracy)
    above = np.hypot(high.iloc[best] - accuracy.iloc[best], accuracy - low)
    gaps = pd.DataFrame({"gap": gap, "gap_low": gap - below, "gap_high": gap + above})
    gaps.iloc[best] = 0.0
    return gaps


def audit(
    y: np.ndarray, probabilities: Mapping[str, np.ndarray], smallest: int = 30
) -> pd.DataFrame:
    """Every task in every group of gender, race and age, and of two of them crossed.

    Parameters
    ----------
    y, probabilities, smallest
        See `group_table`.

    Returns
    -------
    pandas.DataFrame
        One row a task and group: ``task``, ``by`` (such as ``gender`` or ``gender x age``),
        ``group`` (such as ``female`` or ``female, 0-3``), and the columns of `group_table`.
    """
    kinds = [
        ("gender",),
        ("race",),
        ("age",),
        ("gender", "race"),
        ("gender", "age"),
        ("race", "age"),
    ]
    parts = []
    for task in TASKS:
        for by in kinds:
            table = group_table(y, probabilities, task, by, smallest)
            names = [", ".join([name] if len(by) == 1 else name) for name in table.index]
            table = table.reset_index(drop=True)
            table.insert(0, "task", task)
            table.insert(1, "by", " x ".join(by))
            table.insert(2, "group", names)
            parts.append(table)
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def _pairs(ours: ArrayLike, theirs: ArrayLike) -> np.ndarray:
    """Ours minus theirs, pair by pair, float64."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape or ours.ndim != 1 or len(ours) == 0:
        raise ValueError(f"pairs wanted, not arrays of shapes {ours.shape} and {theirs.shape}")
    return ours - theirs


def paired_interval(ours: ArrayLike, theirs: ArrayLike) -> dict[str, float]:
    """Mean difference of paired figures, with the 95 % interval of the paired t-test.

    Right for a handful of pairs, where `paired_bootstrap` is too narrow, as long as their
    differences are about normally distributed.

    Parameters
    ----------
    ours, theirs
        (N,) figures that belong together pair by pair, such as accuracies of two arms with the
        same seed.

    Returns
    -------
    dict
        ``n``, ``difference`` (ours minus theirs), ``low``, ``high``; the last two NaN for a
        single pair.

    Raises
    ------
    ValueError
        Different lengths, or no pairs.
    """
    difference = _pairs(ours, theirs)
    n, mean = len(difference), difference.mean()
    half = t.ppf(0.975, n - 1) * difference.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
    return {"n": n, "difference": mean, "low": mean - half, "high": mean + half}


def paired_bootstrap(
    ours: ArrayLike, theirs: ArrayLike, draws: int = 10_000, seed: int = 0
) -> dict[str, float]:
    """Mean difference of paired figures, with a 95 % bootstrap interval (Efron 1979).

    Parameters
    ----------
    ours, theirs
        (N,) figures that belong together pair by pair: accuracies of two arms with the same
        seed, or whether two networks are right (bool) about the same face. Pairing takes out
        what both share, a lucky seed or a hard face.
    draws, seed
        Resamples of the pairs, and their seed.

    Returns
    -------
    dict
        ``n``, ``difference`` (ours minus theirs), ``low``, ``high``. With fewer than some ten
        pairs the interval is too narrow: `paired_interval`.

    Raises
    ------
    ValueError
        Different lengths, or no pairs.
    """
    difference = _pairs(ours, theirs)
    low = high = difference[0]  # of a single pair, which scipy refuses
    if len(difference) > 1:
        low, high = bootstrap(
            (difference,),
            np.mean,
            n_resamples=draws,
            batch=100,  # all draws of many thousand pairs would not fit into memory
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return {
        "n": len(difference),
        "difference": float(difference.mean()),
        "low": float(low),
        "high": float(high),
    }


def confusion(y: np.ndarray, probabilities: Mapping[str, np.ndarray], task: str) -> pd.DataFrame:
    """Counts, (classes, classes): labelled class in rows, predicted class in columns."""
    true, predicted = true_and_predicted(y, probabilities, task)
    names = list(TASKS[task])
    counts = metrics.confusion_matrix(true, predicted, labels=range(len(names)))
    return pd.DataFrame(counts, index=names, columns=names)


def reliability(probabilities: np.ndarray, true: np.ndarray, bins: int = 15) -> pd.DataFrame:
    """Confidence against accuracy, in equally wide bins of confidence.

    Parameters
    ----------
    probabilities
        float (N, classes).
    true
        int (N,) class indices.

    Returns
    -------
    pandas.DataFrame
        One row for each bin that is not empty: ``n``, ``confidence`` and ``accuracy`` (means).
    """
    return _bins(probabilities.max(axis=1), probabilities.argmax(axis=1) == true, bins)


def _bins(confidence: np.ndarray, hit: np.ndarray, bins: int) -> pd.DataFrame:
    # The last bin is closed: a confidence of exactly 1 belongs to it.
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    frame = pd.DataFrame({"bin": index, "confidence": confidence, "accuracy": hit})
    table = frame.groupby("bin").agg(
        n=("accuracy", "size"), confidence=("confidence", "mean"), accuracy=("accuracy", "mean")
    )
    return table.reset_index(drop=True)


def expected_calibration_error(
    probabilities: np.ndarray, true: np.ndarray, bins: int = 15
) -> float:
    """Mean gap between confidence and accuracy over the bins of `reliability`, 0 to 1.

    The measure of Guo et al. (2017), with their 15 bins; NaN for no faces.
    """
    hit = probabilities.argmax(axis=1) == true
    return _calibration_error(probabilities.max(axis=1), hit, bins)


def _calibration_error(confidence: np.ndarray, hit: np.ndarray, bins: int = 15) -> float:
    if len(hit) == 0:
        return np.nan
    table = _bins(confidence, hit, bins)
    return float(np.average((table.confidence - table.accuracy).abs(), weights=table.n))


def fit_temperature(probabilities: np.ndarray, true: np.ndarray) -> float:
    """The temperature that makes `probabilities` most likely (Guo et al. 2017).

    Parameters
    ----------
    probabilities
        float (N, classes), softmax at temperature 1.
    true
        int (N,) class indices.

    Returns
    -------
    float
        Between 0.05 and 20; above 1 if the network is overconfident.
    """
    # The logits but for a constant in each row, which a softmax does not see.
    logits = np.log(np.clip(probabilities.astype(np.float64), 1e-38, 1))

    def surprise(log_temperature: float) -> float:
        return metrics.log_loss(
            true,
            softmax(logits / np.exp(log_temperature), axis=1),
            labels=range(probabilities.shape[1]),
        )

    bounds = (np.log(0.05), np.log(20))
    return float(np.exp(minimize_scalar(surprise, bounds=bounds, method="bounded").x))


def find_copies(images: np.ndarray, among: np.ndarray | None = None) -> np.ndarray:
    """Which images are exact copies of another.

    Parameters
    ----------
    images
        uint8 (N, H, W, 1).
    among
        Images to look in, (M, H, W, 1). Without it, `images` itself: the first of several
        equal ones is then the original and the rest are copies.

    Returns
    -------
    numpy.ndarray
        bool (N,).
    """
    digests = _digests(images)
    if among is not None:
        return np.isin(digests, _digests(among))
    return pd.Series(digests).duplicated().to_numpy()


def _digests(images: np.ndarray) -> np.ndarray:
    return np.array(
        [
            hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).hexdigest()
            for image in images
        ]
    )
