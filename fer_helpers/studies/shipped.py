"""What the shipped weights score: the tables of their card, of the README and of notebook 09."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fer_helpers.datasets import load_training_data
from fer_helpers.evaluation import (
    accuracy_table,
    class_table,
    expected_calibration_error,
    fit_temperature,
    labelled,
    true_and_predicted,
)
from fer_helpers.groups import audit, group_table
from fer_helpers.images import find_copies
from fer_helpers.labels import OUTPUTS, TASKS
from fer_helpers.model import load_model
from fer_helpers.prediction import predict

ATTRIBUTES = ("gender", "race", "age")
GROUPS = "data/results/utkface_groups.csv"
# File -> its tables.
PLACES = {
    "fer_helpers/pretrained/README.md": (
        *("emotion", "FER heads", "FER classes"),
        *("UTKFACE heads", "UTKFACE classes", "groups"),
    ),
    "README.md": ("results",),
}


def write_figures(root: str | Path = ".", data_dir: str | Path | None = None) -> None:
    """Score the shipped weights for FER and UTKFACE, and write the figures where they are told.

    Tables between ``<!-- figures NAME -->`` and ``<!-- end -->`` are replaced in
    ``fer_helpers/pretrained/README.md`` and ``README.md``; ``data/results/utkface_groups.csv`` is
    the table of `audit`. On two processor cores it takes two minutes.

    Parameters
    ----------
    root
        The folder of the project.
    data_dir
        Folder that holds ``FER/`` and ``UTKFACE/``, see `load_data`.

    Raises
    ------
    FileNotFoundError
        A data set, or one of the files, is not there.
    ValueError
        A file has no place for one of its tables.
    """
    root, network = Path(root), load_model("FER")
    for file, names in PLACES.items():  # before the work
        _fill((root / file).read_text(encoding="utf-8"), dict.fromkeys(names, ""), file)
    temperatures = {
        task: float(network.get_layer(output).temperature) for task, output in OUTPUTS.items()
    }
    tables, results = {}, []
    for source in ("FER", "UTKFACE"):
        (X_train, y_train), (X, y) = load_training_data(source, data_dir)
        copies = find_copies(X, X_train)
        learnt = accuracy_table(y_train, predict(network, X_train))
        one = predict(network, X)
        if source == "FER":
            views = {1: one, 2: predict(network, X, views=2), 10: predict(network, X, views=10)}
            tables["emotion"] = views_table(y, views, copies)
        else:
            tables["groups"] = groups_table(y, one)
            audit(y, one).round(5).to_csv(root / GROUPS, index=False)
        tables[f"{source} heads"] = heads_table(y, one, copies, learnt, temperatures)
        tables[f"{source} classes"] = classes_table(y, one)
        results += result_rows(y, one, copies, source)
    columns = ("head", "data", "faces", "accuracy", "majority class")
    tables["results"] = markdown(columns, results)
    for file, names in PLACES.items():
        text = (root / file).read_text(encoding="utf-8")
        text = _fill(text, {name: tables[name] for name in names}, file)
        (root / file).write_text(text, encoding="utf-8")


def views_table(
    y: np.ndarray, probabilities: Mapping[int, Mapping[str, np.ndarray]], copies: np.ndarray
) -> str:
    """Return the accuracy of emotion by the number of views, with and without copies.

    Parameters
    ----------
    y
        (N, 18) label rows.
    probabilities
        Number of views -> task -> float (N, classes).
    copies
        bool (N,), which faces are copies of training faces.
    """
    rows = []
    for name, kept in (
        ("all", np.ones(len(y), bool)),
        (f"without the {copies.sum()} exact copies of training images", ~copies),
    ):
        cells = [
            _accuracy(accuracy_table(y[kept], _rows(answers, kept)).loc["emotion"])
            for answers in probabilities.values()
        ]
        rows.append((name, f"{kept.sum():,}", *cells))
    names = [f"{views} view{'s' * (views > 1)}" for views in probabilities]
    return markdown(("", "faces", *names), rows)


def heads_table(
    y: np.ndarray,
    probabilities: Mapping[str, np.ndarray],
    copies: np.ndarray,
    learnt: pd.DataFrame,
    temperatures: Mapping[str, float],
) -> str:
    """Return accuracy, baselines and calibration of each head that has labels.

    The calibration error stands there without a temperature, with it, and as faces see it that
    did not fit it: each half of them with the temperature of the other half.

    Parameters
    ----------
    y, probabilities, copies
        See `views_table`; the probabilities are those of one view.
    learnt
        `accuracy_table` of the training faces.
    temperatures
        Task -> temperature of the head.
    """
    rows = []
    unseen = accuracy_table(y[~copies], _rows(probabilities, ~copies))
    for task, row in accuracy_table(y, probabilities).iterrows():
        answers = probabilities[task][labelled(y, task)]
        true, _ = true_and_predicted(y, probabilities, task)
        raw = _sharpened(answers, temperatures[task])
        rows.append(
            (
                *(task, f"{row['n']:,.0f}", _accuracy(row), f"{unseen.loc[task, 'accuracy']:.3f}"),
                *(f"{row[name]:.3f}" for name in ("majority", "balanced_accuracy")),
                f"{expected_calibration_error(raw, true):.3f}",
                f"{row['ece']:.3f}",
                f"{_error_of_other_half(raw, true):.3f}",
                f"{learnt.loc[task, 'accuracy']:.3f}",
            )
        )
    columns = ("head", "faces", "accuracy", "without copies", "majority", "balanced", "ECE before")
    columns += ("ECE after", "ECE on the other half", "accuracy on training faces")
    return markdown(columns, rows)


def classes_table(y: np.ndarray, probabilities: Mapping[str, np.ndarray]) -> str:
    """Return recall and precision of each class that has faces, see `class_table`."""
    rows = []
    for task in TASKS:
        for name, row in class_table(y, probabilities, task).iterrows():
            if row["n"]:
                recall, low, high, precision = (f"{value:.3f}" for value in row[1:])
                rows.append((name, f"{row['n']:,.0f}", recall, f"{low}–{high}", precision))
    return markdown(("class", "faces", "recall", "interval", "precision"), rows)


def groups_table(y: np.ndarray, probabilities: Mapping[str, np.ndarray]) -> str:
    """Return the accuracy of each attribute in the groups of the two others."""
    rows = []
    for by in ATTRIBUTES:
        tables = {task: group_table(y, probabilities, task, by) for task in ATTRIBUTES}
        for name in TASKS[by]:
            if name in tables[by].index:
                cells = [
                    "" if task == by or name not in table.index else _accuracy(table.loc[name])
                    for task, table in tables.items()
                ]
                rows.append((name, f"{tables[by].loc[name, 'n']:,.0f}", *cells))
    return markdown(("group", "faces", *ATTRIBUTES), rows)


def result_rows(
    y: np.ndarray, probabilities: Mapping[str, np.ndarray], copies: np.ndarray, source: str
) -> list[tuple[str, ...]]:
    """Return the README's rows of a source: head, data, faces, accuracy, majority class."""
    rows = []
    for task, row in accuracy_table(y, probabilities).iterrows():
        data = "FER2013 PublicTest" if source == "FER" else "UTKFace, held out"
        classes = {"race": ", three classes", "age": ", five groups"}.get(task, "")
        rows.append(
            (task + classes, data, f"{row['n']:,.0f}", _accuracy(row), f"{row['majority']:.3f}")
        )
    if source == "FER":
        row = accuracy_table(y[~copies], _rows(probabilities, ~copies)).loc["emotion"]
        name = f"without its {copies.sum()} copies of training images"
        rows.append(("", name, f"{row['n']:,.0f}", _accuracy(row), ""))
    return rows


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _accuracy(row: Mapping[str, float]) -> str:
    return f"{row['accuracy']:.3f} ({row['low']:.3f}–{row['high']:.3f})"


def _rows(probabilities: Mapping[str, np.ndarray], kept: np.ndarray) -> dict[str, np.ndarray]:
    return {task: answers[kept] for task, answers in probabilities.items()}


def _sharpened(probabilities: np.ndarray, power: float) -> np.ndarray:
    """Raise probabilities to a power; that of a head's temperature undoes the temperature."""
    raised = np.float64(probabilities) ** power
    return raised / raised.sum(axis=1, keepdims=True)


def _error_of_other_half(raw: np.ndarray, true: np.ndarray) -> float:
    """Return the calibration error of two halves, each with the temperature of the other."""
    half = np.random.default_rng(0).permutation(len(raw)) % 2 == 0
    fitted = np.empty_like(raw)
    for part in (half, ~half):
        fitted[part] = _sharpened(raw[part], 1 / fit_temperature(raw[~part], true[~part]))
    return expected_calibration_error(fitted, true)


def _fill(text: str, tables: Mapping[str, str], file: str) -> str:
    """Replace the tables of a Markdown text between their marks."""
    for name, table in tables.items():
        begin, end = f"<!-- figures {name} -->\n", "\n<!-- end -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(
                f"{file} has no place for the table {name!r}: write {begin.strip()} and "
                f"{end.strip()} where it belongs, each on a line of its own"
            )
        text = before + begin + table + end + after
    return text
