"""Groups of faces: whom does a network serve worse?"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from fairlearn.metrics import MetricFrame, count
from sklearn import metrics

from fer_helpers.evaluation import (
    BINS,
    calibration_error,
    labelled,
    true_and_predicted,
    wilson_interval,
)
from fer_helpers.labels import BLOCKS, TASKS

COLUMNS = ("n", "accuracy", "low", "high", "ece", "chance_low", "chance_high")
COLUMNS += ("gap", "gap_low", "gap_high")
DRAWS = 400


def group_table(
    y: np.ndarray,
    probabilities: Mapping[str, np.ndarray],
    task: str,
    by: str | Sequence[str],
    smallest: int = 30,
) -> pd.DataFrame:
    """Score a task in groups of faces.

    Parameters
    ----------
    y
        (N, 18) label rows. Only faces labelled for `task` and all of `by` count.
    probabilities
        Task -> float (N, classes).
    task
        One of the four tasks.
    by
        The task whose classes are the groups, or several: then every combination of their
        classes is a group.
    smallest
        Groups with fewer faces are left out: their figures would be mostly noise.

    Returns
    -------
    pandas.DataFrame
        Index the classes of `by`, in the order of `TASKS`; columns ``n``, ``accuracy``, ``low``
        and ``high`` (95 % Wilson interval), ``ece`` beside ``chance_low`` to ``chance_high``,
        where it would be in 95 % of groups of this size if the confidence were perfectly
        calibrated (see `perfect_calibration`), and ``gap``, how far the accuracy is below
        that of the best group, with its interval ``gap_low`` to ``gap_high`` (Newcombe 1998).
        The interval has 95 % coverage for two groups chosen beforehand; of five equal groups
        the best is clearly ahead of another one by chance in a quarter of all tables.

    Raises
    ------
    ValueError
        A task that does not exist, different lengths, or probabilities that are NaN.
    """
    by = [by] if isinstance(by, str) else list(by)
    true, predicted = true_and_predicted(y, probabilities, task)
    known = labelled(y, task)
    in_groups = np.logical_and.reduce([labelled(y, name) for name in by])
    true, predicted = true[in_groups[known]], predicted[in_groups[known]]
    rows = known & in_groups
    index = _group_index(by)
    columns = ["n", "accuracy", "ece", "chance_low", "chance_high"]
    table = pd.DataFrame(columns=columns, index=index[:0], dtype=float)
    if len(true):
        confidence = {"confidence": np.asarray(probabilities[task])[rows].max(axis=1)}
        table = MetricFrame(
            metrics={
                "n": count,
                "accuracy": metrics.accuracy_score,
                "ece": _group_error,
                "chance_low": lambda true, said, confidence: perfect_calibration(confidence)[0],
                "chance_high": lambda true, said, confidence: perfect_calibration(confidence)[1],
            },
            y_true=true,
            y_pred=predicted,
            sensitive_features=pd.DataFrame(
                {name: np.array(TASKS[name])[y[rows, BLOCKS[name]].argmax(axis=1)] for name in by}
            ),
            sample_params=dict.fromkeys(columns[2:], confidence),
        ).by_group
        table = table.reindex(index).astype(float)
    table = table[table["n"] >= smallest].astype({"n": int})
    right = (table["accuracy"] * table["n"]).round()
    table["low"], table["high"] = wilson_interval(right, table["n"])
    return table.join(_gaps(table))[list(COLUMNS)]


def perfect_calibration(confidence: np.ndarray) -> tuple[float, float]:
    """Return the range of 95 % of the calibration errors that chance makes.

    Even if every confidence is exactly the probability of being right, the error is above 0,
    and the fewer faces there are, the further.

    Parameters
    ----------
    confidence
        (N,) of a group's predictions. It is decided by chance, 400 times, which of them are right.

    Returns
    -------
    tuple of float
        The lower and the upper end.
    """
    confidence = np.asarray(confidence, dtype=float)
    bins = np.eye(BINS)[np.minimum((confidence * BINS).astype(int), BINS - 1)]
    right = np.random.default_rng(0).random((DRAWS, len(confidence))) < confidence
    errors = np.abs((right - confidence) @ bins).sum(axis=1) / len(confidence)
    low, high = np.percentile(errors, [2.5, 97.5])
    return float(low), float(high)


def _group_index(by: Sequence[str]) -> pd.Index:
    if len(by) == 1:
        return pd.Index(TASKS[by[0]], name=by[0])
    return pd.MultiIndex.from_product([TASKS[name] for name in by], names=by)


def _group_error(true: np.ndarray, predicted: np.ndarray, confidence: np.ndarray) -> float:
    return calibration_error(np.asarray(confidence), np.asarray(true) == np.asarray(predicted))


def _gaps(table: pd.DataFrame) -> pd.DataFrame:
    """Return the distance from the best group and its interval (Newcombe 1998)."""
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
    """Score every task in every group of gender, race and age, and in two of them crossed.

    Parameters
    ----------
    y
        (N, 18) label rows.
    probabilities
        Task -> float (N, classes).
    smallest
        Groups with fewer faces are left out.

    Returns
    -------
    pandas.DataFrame
        One row per task and group: ``task``, ``by`` (such as ``gender`` or ``gender x age``),
        ``group`` (such as ``female`` or ``female, 0-3``), and the columns of `group_table`.
        Empty if no group is large enough.

    Raises
    ------
    ValueError
        Different lengths, or probabilities that are NaN.
    """
    kinds = [
        ("gender",),
        ("race",),
        ("age",),
        ("gender", "race"),
        ("gender", "age"),
        ("race", "age"),
    ]
    tables = []
    for task in TASKS:
        for by in kinds:
            table = group_table(y, probabilities, task, by, smallest)
            names = [", ".join([name] if len(by) == 1 else name) for name in table.index]
            table = table.reset_index(drop=True)
            table.insert(0, "task", task)
            table.insert(1, "by", " x ".join(by))
            table.insert(2, "group", names)
            tables.append(table)
    filled = [table for table in tables if len(table)]
    return pd.concat(filled or tables[:1], ignore_index=True)
