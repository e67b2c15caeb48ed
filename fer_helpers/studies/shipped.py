"""What the shipped weights score: the tables of their card, of the README and of notebook 09."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from fer_helpers.card import markdown_table
from fer_helpers.datasets import load_training_data
from fer_helpers.evaluation import accuracy_table, class_table, fit_temperature, labelled
from fer_helpers.groups import audit, group_table
from fer_helpers.images import find_copies
from fer_helpers.labels import BLOCKS, OUTPUTS, TASKS
from fer_helpers.model import load_model
from fer_helpers.prediction import predict

Answers = Mapping[str, np.ndarray]  # task -> probabilities (N, classes)

SOURCES = {"FER": "FER2013 PublicTest", "UTKFACE": "UTKFace, held out"}
ATTRIBUTES = ("gender", "race", "age")
GROUPS = "data/results/utkface_groups.csv"
# File -> its tables.
PLACES = {
    "fer_helpers/pretrained/README.md": (
        *("FER views", "FER heads", "FER classes"),
        *("UTKFACE views", "UTKFACE heads", "UTKFACE classes", "groups"),
    ),
    "README.md": ("results",),
}


def write_figures(root: str | Path = ".", data_dir: str | Path | None = None) -> None:
    """Score the shipped weights for FER and UTKFACE, and write the figures where they are told.

    Tables between ``<!-- figures NAME -->`` and ``<!-- end -->`` are replaced in
    ``fer_helpers/pretrained/README.md`` and ``README.md``; ``data/results/utkface_groups.csv`` is
    the table of `audit`. On two processor cores it takes one to three minutes.

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
    texts = {file: (root / file).read_text(encoding="utf-8") for file in PLACES}
    for file, names in PLACES.items():  # before the work
        _fill(texts[file], dict.fromkeys(names, ""), file)
    temperatures = {
        task: float(network.get_layer(output).temperature) for task, output in OUTPUTS.items()
    }
    tables, results = {}, []
    for source, name in SOURCES.items():
        (X_train, y_train), (X, y) = load_training_data(source, data_dir)
        copies = find_copies(X, X_train)
        learnt = accuracy_table(y_train, predict(network, X_train))
        views = {count: predict(network, X, views=count) for count in (1, 2, 10)}
        heads = heads_table(y, views[1], copies, learnt, temperatures)
        tables[f"{source} views"] = views_table(y, views, copies)
        tables[f"{source} heads"] = heads
        tables[f"{source} classes"] = classes_table(y, views[1])
        columns = ["faces", "accuracy", "majority", "without copies"]
        results.append(heads[columns].assign(data=name))
        groups = audit(y, views[1])
        if len(groups):  # emotion's source has none
            tables["groups"] = groups_table(y, views[1])
            groups.round(5).to_csv(root / GROUPS, index=False)
    tables["results"] = pd.concat(results)[["data", *columns]]
    for file, names in PLACES.items():
        filled = {name: markdown_table(tables[name]) for name in names}
        (root / file).write_text(_fill(texts[file], filled, file), encoding="utf-8")


def views_table(y: np.ndarray, views: Mapping[int, Answers], copies: np.ndarray) -> pd.DataFrame:
    """Return the accuracy of each head by the number of views, with and without copies.

    Parameters
    ----------
    y
        (N, 18) label rows.
    views
        Number of views -> task -> probabilities (N, classes).
    copies
        bool (N,), which faces are copies of training faces.
    """
    columns = {}
    for count, answers in views.items():
        table = pd.concat(
            [accuracy_table(y, answers), _without(copies, y, answers).rename(_unseen)]
        )
        columns |= {"faces": table["n"], f"{count} view{'s' * (count > 1)}": _intervals(table)}
    return pd.DataFrame(columns).rename_axis("head")


def heads_table(
    y: np.ndarray,
    answers: Answers,
    copies: np.ndarray,
    learnt: pd.DataFrame,
    temperatures: Mapping[str, float],
) -> pd.DataFrame:
    """Return accuracy, baselines and calibration of each head that has labels.

    The calibration error stands there without a temperature, with it, as faces see it that did
    not fit it (each half of them with the temperature of the other half), and without copies.

    Parameters
    ----------
    y, copies
        See `views_table`.
    answers
        Task -> probabilities (N, classes) of one view.
    learnt
        `accuracy_table` of the training faces.
    temperatures
        Task -> temperature of the head.
    """
    table = accuracy_table(y, answers)
    raw = {task: _raised(answers[task], temperatures[task]) for task in TASKS}
    crossed = {task: _with_other_temperature(y, raw[task], task) for task in table.index}
    columns = {
        "faces": table["n"],
        "accuracy": _intervals(table),
        "without copies": _intervals(_without(copies, y, answers)),
        "majority": table["majority"],
        "balanced": table["balanced_accuracy"],
        "ECE before": accuracy_table(y, raw)["ece"],
        "ECE after": table["ece"],
        "ECE on the other half": accuracy_table(y, {**raw, **crossed})["ece"],
        "ECE without copies": _without(copies, y, answers)["ece"],
        "accuracy on training faces": learnt["accuracy"],
    }
    return pd.DataFrame(columns).loc[table.index].rename_axis("head")


def classes_table(y: np.ndarray, answers: Answers) -> pd.DataFrame:
    """Return recall and precision of each class that has faces, see `class_table`."""
    table = pd.concat([class_table(y, answers, task) for task in TASKS])
    table = table[table["n"] > 0]
    columns = {"faces": table["n"], "recall": _intervals(table, "recall")}
    return pd.DataFrame(columns | {"precision": table["precision"]}).rename_axis("class")


def groups_table(y: np.ndarray, answers: Answers) -> pd.DataFrame:
    """Return the accuracy of each attribute in the groups of the two others."""
    parts = []
    for by in ATTRIBUTES:
        tables = {task: group_table(y, answers, task, by) for task in ATTRIBUTES}
        cells = {task: _intervals(table) for task, table in tables.items() if task != by}
        part = pd.DataFrame({"faces": tables[by]["n"]} | cells)
        parts.append(part.reindex(tables[by].index))
    return pd.concat(parts)[["faces", *ATTRIBUTES]].fillna("").rename_axis("group")


def _unseen(head: str) -> str:
    return f"{head}, without copies"


def _without(copies: np.ndarray, y: np.ndarray, answers: Answers) -> pd.DataFrame:
    return accuracy_table(y[~copies], {task: rows[~copies] for task, rows in answers.items()})


def _intervals(table: pd.DataFrame, rate: str = "accuracy") -> pd.Series:
    """Return a rate of each row with its interval, in words."""
    return pd.Series(
        [f"{row[rate]:.3f} ({row['low']:.3f}–{row['high']:.3f})" for _, row in table.iterrows()],
        table.index,
    )


def _raised(probabilities: np.ndarray, power: float) -> np.ndarray:
    """Raise probabilities to a power; that of a head's temperature undoes the temperature."""
    raised = np.float64(probabilities) ** power
    return raised / raised.sum(axis=1, keepdims=True)


def _with_other_temperature(y: np.ndarray, raw: np.ndarray, task: str) -> np.ndarray:
    """Return probabilities of two halves of the faces, each with the temperature of the other."""
    known, true = labelled(y, task), y[:, BLOCKS[task]].argmax(axis=1)
    half = np.random.default_rng(0).permutation(len(y)) % 2 == 0
    fitted = np.empty_like(raw)
    for part in (half, ~half):
        other = ~part & known
        fitted[part] = _raised(raw[part], 1 / fit_temperature(raw[other], true[other]))
    return fitted


def _fill(text: str, tables: Mapping[str, str], file: str) -> str:
    """Replace the tables of a Markdown text between their marks."""
    for name, table in tables.items():
        begin, end = f"<!-- figures {name} -->\n", "<!-- end -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(
                f"{file} has no place for the table {name!r}: write {begin.strip()} and {end} "
                "where it belongs, each on a line of its own"
            )
        text = before + begin + table + end + after
    return text
