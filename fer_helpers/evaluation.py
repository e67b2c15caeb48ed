"""How good the predictions are: metrics with intervals, and calibration."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from scipy.stats import bootstrap, t
from sklearn import metrics

from fer_helpers.labels import BLOCKS, TASKS, check_task

BINS = 15  # of confidence, for the ECE, as Guo et al. (2017)


def labelled(y: np.ndarray, task: str) -> np.ndarray:
    """Return which label rows (N, 18) are labelled for `task`: bool (N,).

    Raises ValueError for a task that does not exist.
    """
    return np.asarray(y)[:, BLOCKS[check_task(task)]].any(axis=1)


def true_and_predicted(
    y: np.ndarray, probabilities: Mapping[str, np.ndarray], task: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return labelled and predicted class of each face that is labelled for `task`.

    Parameters
    ----------
    y
        (N, 18) label rows.
    probabilities
        Task -> float (N, classes).
    task
        One of the four tasks.

    Returns
    -------
    true, predicted
        int64 (M,) class indices of the M labelled faces.

    Raises
    ------
    ValueError
        Different lengths, a task that does not exist, or probabilities that are NaN.
    """
    rows = labelled(y, task)
    if len(y) != len(probabilities[task]):
        raise ValueError(f"{len(y)} label rows but {len(probabilities[task])} predictions")
    of_task = np.asarray(probabilities[task])[rows]
    if np.isnan(of_task).any():
        raise ValueError(
            f"the probabilities of {task} contain NaN: check the network's weights and its input"
        )
    return y[rows, BLOCKS[task]].argmax(axis=1), of_task.argmax(axis=1)


def wilson_interval(successes: ArrayLike, n: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95 % interval of a proportion (Wilson 1927).

    Unlike the textbook normal interval it stays inside 0 to 1 and holds for small `n`.

    Parameters
    ----------
    successes, n
        Counts, or arrays of counts of one shape.

    Returns
    -------
    low, high
        float, of the shape of the counts, 0 to 1; NaN for `n` = 0.
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
    """Return the size of a bool array, its share of True under `name`, and the interval."""
    n, successes = len(hits), int(hits.sum())
    low, high = map(float, wilson_interval(successes, n))
    return {"n": n, name: successes / n if n else np.nan, "low": low, "high": high}


def accuracy_table(y: np.ndarray, probabilities: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Score each task that has labels.

    Parameters
    ----------
    y
        (N, 18) label rows.
    probabilities
        Task -> float (N, classes), each row summing to 1, see `fer_helpers.predict`.

    Returns
    -------
    pandas.DataFrame
        Index task; columns ``n`` (labelled faces), ``accuracy``, ``low`` and ``high`` (95 %
        Wilson interval), ``majority`` (accuracy of always predicting the most frequent class
        of these faces), ``balanced_accuracy`` (mean recall over the classes present), and
        ``ece`` (`expected_calibration_error`).

    Raises
    ------
    ValueError
        Different lengths, or probabilities that are NaN.
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
                true, predicted, labels=present, average="macro"
            ),
            "ece": expected_calibration_error(probabilities[task][labelled(y, task)], true),
        }
    columns = ["n", "accuracy", "low", "high", "majority", "balanced_accuracy", "ece"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("task")


def class_table(y: np.ndarray, probabilities: Mapping[str, np.ndarray], task: str) -> pd.DataFrame:
    """Score each class of a task.

    Parameters
    ----------
    y
        (N, 18) label rows.
    probabilities
        Task -> float (N, classes).
    task
        One of the four tasks.

    Returns
    -------
    pandas.DataFrame
        Index the classes of `task`; columns ``n`` (faces labelled so), ``recall``, ``low`` and
        ``high`` (its 95 % Wilson interval), and ``precision``; NaN where there are no faces.

    Raises
    ------
    ValueError
        Different lengths, a task that does not exist, or probabilities that are NaN.
    """
    true, predicted = true_and_predicted(y, probabilities, task)
    rows = {}
    for index, name in enumerate(TASKS[task]):
        right = true[predicted == index] == index
        rows[name] = _rate(predicted[true == index] == index, "recall") | {
            "precision": right.mean() if len(right) else np.nan
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(task)


def _pairs(ours: ArrayLike, theirs: ArrayLike) -> np.ndarray:
    """Return ours minus theirs, pair by pair, float64 (N,)."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    if ours.shape != theirs.shape or ours.ndim != 1 or len(ours) == 0:
        raise ValueError(
            f"figures must come in pairs, two arrays (N,) with N at least 1, not {ours.shape} and "
            f"{theirs.shape}"
        )
    return np.subtract(ours, theirs, dtype=np.float64)  # whatever they are, also bool


def paired_interval(ours: ArrayLike, theirs: ArrayLike) -> dict[str, float]:
    """Return the mean difference of paired figures, with the interval of the paired t-test.

    It suits a handful of pairs, where `paired_bootstrap` is too narrow, as long as their
    differences are roughly normally distributed.

    Parameters
    ----------
    ours, theirs
        (N,) figures that belong together pair by pair, such as accuracies of two arms with the
        same seed.

    Returns
    -------
    dict
        ``n``, ``difference`` (ours minus theirs), ``low`` and ``high`` (95 % interval; NaN for
        a single pair).

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
    """Return the mean difference of paired figures, with a bootstrap interval (Efron 1979).

    Parameters
    ----------
    ours, theirs
        (N,) figures that belong together pair by pair: accuracies of two arms with the same
        seed, or whether two networks are right (bool) about the same face. Pairing takes out
        what both share, such as a lucky seed or a hard face.
    draws, seed
        Resamples of the pairs, and their seed.

    Returns
    -------
    dict
        ``n``, ``difference`` (ours minus theirs), ``low`` and ``high`` (95 % interval; NaN for
        a single pair). With fewer than ten pairs or so it is too narrow: see `paired_interval`.

    Raises
    ------
    ValueError
        Different lengths, or no pairs.
    """
    difference = _pairs(ours, theirs)
    low = high = np.nan  # one pair says nothing about the spread
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
    """Count labelled against predicted classes.

    Parameters
    ----------
    y
        (N, 18) label rows.
    probabilities
        Task -> float (N, classes).
    task
        One of the four tasks.

    Returns
    -------
    pandas.DataFrame
        int (classes, classes): labelled class in rows, predicted class in columns.

    Raises
    ------
    ValueError
        Different lengths, a task that does not exist, or probabilities that are NaN.
    """
    true, predicted = true_and_predicted(y, probabilities, task)
    names = list(TASKS[task])
    counts = metrics.confusion_matrix(true, predicted, labels=range(len(names)))
    return pd.DataFrame(counts, index=names, columns=names)


def reliability(probabilities: np.ndarray, true: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """Compare confidence with accuracy, in equally wide bins of confidence.

    Parameters
    ----------
    probabilities
        float (N, classes), each row summing to 1.
    true
        int (N,) class indices.
    bins
        Number of bins between 0 and 1.

    Returns
    -------
    pandas.DataFrame
        One row for each bin that is not empty: ``n``, and the means ``confidence`` and
        ``accuracy``, 0 to 1.
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
    probabilities: np.ndarray, true: np.ndarray, bins: int = BINS
) -> float:
    """Return the mean gap between confidence and accuracy (ECE; Guo et al. 2017).

    Parameters
    ----------
    probabilities
        float (N, classes), each row summing to 1.
    true
        int (N,) class indices.
    bins
        Number of equally wide bins of confidence; 15 in the paper.

    Returns
    -------
    float
        0 to 1, the average over the bins, weighted by their faces; NaN for no faces.
    """
    hit = probabilities.argmax(axis=1) == true
    return calibration_error(probabilities.max(axis=1), hit, bins)


def calibration_error(confidence: np.ndarray, hit: np.ndarray, bins: int = BINS) -> float:
    """Return the ECE of confidences (N,) and hits, bool (N,); see `expected_calibration_error`."""
    if len(hit) == 0:
        return np.nan
    table = _bins(confidence, hit, bins)
    return float(np.average((table.confidence - table.accuracy).abs(), weights=table.n))


def fit_temperature(probabilities: np.ndarray, true: np.ndarray) -> float:
    """Return the temperature that makes the labels most likely (Guo et al. 2017).

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
    # These are the logits up to a constant per row, which a softmax ignores.
    logits = np.log(np.clip(probabilities.astype(np.float64), 1e-38, 1))

    def log_loss(log_temperature: float) -> float:
        return metrics.log_loss(
            true,
            softmax(logits / np.exp(log_temperature), axis=1),
            labels=range(probabilities.shape[1]),
        )

    bounds = (np.log(0.05), np.log(20))
    return float(np.exp(minimize_scalar(log_loss, bounds=bounds, method="bounded").x))
