"""Write a model card (Mitchell et al. 2019) from measured figures."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from fer_helpers.evaluation import accuracy_table, class_table
from fer_helpers.groups import audit
from fer_helpers.labels import TASKS

_HEAD = """---
library_name: keras
pipeline_tag: image-classification
tags: [facial-expression-recognition, multi-task-learning, keras]
metrics: [accuracy, recall]
---
# Model card: {weights}

- **What:** one network, four heads: emotion, gender, race, age; grey faces of 48 x 48 pixels.
- **Trained on:** {trained_on}
- **Scored on:** {dataset}, split {split}, {faces:,} faces. 95 % Wilson intervals.
- **What the labels are:** {labels}.
"""

# The sections of a card that no measurement can fill, and what belongs there.
TO_WRITE = {
    "Version and contact": "number and date of this version, and whom to tell about a fault",
    "Intended use": "what the network is for, for whom, and what it must not be used for; which "
    "laws and licences apply",
    "Factors": "groups, cameras, light and situations that may matter; which of them were "
    "measured below, and which were not",
    "Ethical considerations": "who can be harmed by which error, whether the people in the "
    "pictures agreed to this use, and what you have done about it",
    "Caveats and recommendations": "what the figures below do not show, and what somebody "
    "should check before using the network",
}

_PERCEIVED = (
    "expressions and coarse classes that annotators perceived in a picture, not what people felt, "
    "nor who they are"
)
_DRAWN = "settings of the program that draws the faces; they say nothing about people"


def model_card(
    y: np.ndarray,
    probabilities: Mapping[str, np.ndarray],
    weights: str,
    dataset: str,
    split: str,
    trained_on: str = "not stated",
    smallest: int = 30,
) -> str:
    """Write a model card in Markdown: all figures, and the headings for what you must judge.

    Parameters
    ----------
    y
        (N, 18) label rows.
    probabilities
        Task -> float (N, classes), see `predict`.
    weights
        Name of the weights.
    dataset, split
        What they were scored on.
    trained_on
        A line about the training data and their terms.
    smallest
        Groups with fewer faces are left out.

    Returns
    -------
    str
        The card, with the metadata that Hugging Face reads. Sections that need a judgement say
        "To be written by you". Tasks without labels are listed as not measured.

    Raises
    ------
    ValueError
        Different lengths, or probabilities that are NaN.
    """
    accuracy = accuracy_table(y, probabilities)
    names = {"weights": weights, "dataset": dataset, "split": split, "trained_on": trained_on}
    names["labels"] = _DRAWN if dataset == "SAMPLE" else _PERCEIVED
    sections = [_HEAD.format(faces=len(y), **names)]
    sections += [
        f"## {title}\n\nTo be written by you: {what}.\n" for title, what in TO_WRITE.items()
    ]
    sections += ["## Accuracy\n", markdown_table(accuracy)]
    for task in accuracy.index:
        sections += [
            f"## Each class of {task}\n",
            markdown_table(class_table(y, probabilities, task)),
        ]
    groups = audit(y, probabilities, smallest)
    if len(groups):
        sections += ["## Each labelled group\n", _gaps(groups), markdown_table(_single(groups))]
    missing = [task for task in TASKS if task not in accuracy.index]
    if missing:
        sections.append(
            f"## Not measured\n\nThese faces have no labels for {', '.join(missing)}: nothing is "
            f"known about these, neither as predictions nor as groups.\n"
        )
    return "\n".join(sections)


def _single(groups: pd.DataFrame) -> pd.DataFrame:
    alone = ~groups["by"].str.contains(" x ")
    other = groups["by"] != groups["task"]
    columns = ["task", "group", "n", "accuracy", "low", "high", "ece"]
    return groups.loc[alone & other, columns].set_index("task")


def _gaps(groups: pd.DataFrame) -> str:
    """Return the widest gap of each task, in words."""
    lines = []
    # A gap between the classes of the task itself would be a difference of recalls.
    others = groups[[t not in by for t, by in zip(groups["task"], groups["by"], strict=True)]]
    others = others[others.groupby(["task", "by"])["n"].transform("size") > 1]
    if others.empty:
        return "No two groups of one kind have enough faces to compare.\n"
    for task, rows in others.groupby("task", sort=False):
        worst = rows.loc[rows["gap"].idxmax()]
        same = rows[rows["by"] == worst["by"]]
        best = same.loc[same["accuracy"].idxmax()]
        lines.append(
            f"- {task}: {best['accuracy']:.3f} for {best['group']}, {worst['accuracy']:.3f} for "
            f"{worst['group']} (gap {worst['gap']:.3f}, {worst['gap_low']:.3f} to "
            f"{worst['gap_high']:.3f}; {worst['n']} faces)"
        )
    head = (
        "Widest gaps, also between two groupings crossed. They were selected for being wide, so "
        "part of it is chance: measure them again on other faces.\n"
    )
    return "\n".join([head, *lines, ""])


def markdown_table(table: pd.DataFrame) -> str:
    """Return a table in Markdown, its index first.

    Parameters
    ----------
    table
        Rates get three digits, counts commas between thousands; NaN is an empty cell.

    Returns
    -------
    str
        Lines that end with a line break.
    """
    table = table.reset_index()
    lines = ["| " + " | ".join(map(str, table.columns)) + " |", "|---" * table.shape[1] + "|"]
    for row in table.itertuples(index=False):
        lines.append("| " + " | ".join(map(_word, row)) + " |")
    return "\n".join([*lines, ""])


def _word(value) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int | np.integer) else str(value)
