"""The four tasks, their classes in RAF-DB's order, and the label rows that hold them.

A label row is a float32 vector of 18 numbers: four one-hot blocks side by side,
``emotion 7 | gender 3 | race 3 | age 5``. A block of zeros means: not labelled.
The classes and their order are those of RAF-DB (Li, Deng & Du, CVPR 2017).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

TASKS: dict[str, tuple[str, ...]] = {
    "emotion": ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"),
    "gender": ("male", "female", "unsure"),
    "race": ("Caucasian", "African-American", "Asian"),
    "age": ("0-3", "4-19", "20-39", "40-69", "70+"),
}
# Each data set, and the module of fer_helpers.datasets that reads it.
DATASETS: dict[str, str] = {
    "SAMPLE": "sample",
    "FER": "fer2013",
    "RAFDB": "rafdb",
    "UTKFACE": "utkface",
}
OUTPUTS: dict[str, str] = {task: f"{task}_output" for task in TASKS}

_ENDS = np.cumsum([len(classes) for classes in TASKS.values()])
BLOCKS: dict[str, slice] = {
    task: slice(int(end) - len(classes), int(end))
    for (task, classes), end in zip(TASKS.items(), _ENDS, strict=True)
}
LABEL_WIDTH = int(_ENDS[-1])

_AGE_STARTS = np.array([4, 20, 40, 70])  # years at which classes 1 to 4 begin


def check_dataset(name: str) -> str:
    """Return `name`, or raise a ValueError that lists the known data sets."""
    if name not in DATASETS:
        raise ValueError(f"unknown dataset {name!r}: choose one of {', '.join(DATASETS)}")
    return name


def check_task(name: str) -> str:
    """Return `name`, or raise a ValueError that lists the four tasks."""
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}: choose from {', '.join(TASKS)}")
    return name


def age_class(years: np.ndarray | Sequence[float]) -> np.ndarray:
    """Return the age group of each age.

    Parameters
    ----------
    years
        (N,) ages in years.

    Returns
    -------
    numpy.ndarray
        int64 (N,), index of the class in ``TASKS["age"]``, 0 to 4; -1 for ages below 0 and
        for NaN.
    """
    years = np.asarray(years)
    return np.where(years >= 0, np.searchsorted(_AGE_STARTS, years, side="right"), -1)


def encode_labels(classes: Mapping[str, np.ndarray | Sequence[int]]) -> np.ndarray:
    """Turn class indices into label rows.

    Parameters
    ----------
    classes
        For some or all of the tasks, (N,) class indices in the order of `TASKS`, whole
        numbers; -1 where a face is not labelled. A task that is left out is not labelled
        for any face.

    Returns
    -------
    numpy.ndarray
        float32 (N, 18), ones and zeros: the blocks emotion 7 | gender 3 | race 3 | age 5.

    Raises
    ------
    ValueError
        No task or an unknown one, indices that are out of range or not of a whole-number
        dtype, or arrays of different length.
    """
    for task in classes:
        check_task(task)
    if not classes:
        raise ValueError(f"no labels: give at least one of {', '.join(TASKS)}")
    lengths = {task: len(index) for task, index in classes.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"labels of different length: {lengths}")
    y = np.zeros((next(iter(lengths.values())), LABEL_WIDTH), dtype=np.float32)
    for task, index in classes.items():
        index = np.asarray(index)
        if len(index) and index.dtype.kind not in "iub":
            raise ValueError(f"{task} labels must be whole numbers, not {index.dtype}")
        index = index.astype(np.int64)
        wrong = (index < -1) | (index >= len(TASKS[task]))
        if wrong.any():
            raise ValueError(
                f"{task} label {index[wrong][0]} is out of range: "
                f"0 to {len(TASKS[task]) - 1}, or -1 for not labelled"
            )
        rows = np.flatnonzero(index >= 0)
        y[rows, BLOCKS[task].start + index[rows]] = 1
    return y


def decode_labels(y: np.ndarray) -> pd.DataFrame:
    """Turn label rows into class names.

    Parameters
    ----------
    y
        (N, 18) label rows, or probabilities in their layout, of which the highest counts.

    Returns
    -------
    pandas.DataFrame
        N rows, a categorical column per task, its categories in the order of `TASKS`;
        missing where a face is not labelled.

    Raises
    ------
    ValueError
        `y` is not (N, 18).
    """
    y = _check_rows(y)
    frame = {}
    for task, names in TASKS.items():
        block = y[:, BLOCKS[task]]
        codes = np.where(block.any(axis=1), block.argmax(axis=1), -1)
        frame[task] = pd.Categorical.from_codes(codes, categories=list(names))
    return pd.DataFrame(frame)


def separate_category(
    y: np.ndarray, dataset_name: str = "SAMPLE"
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Split label rows into the four tasks' one-hot blocks.

    Parameters
    ----------
    y
        (N, 18) label rows.
    dataset_name
        Name of the data set they come from. All data sets share one layout, so the name is
        only checked; the paper's code has this argument.

    Returns
    -------
    ages, emotions, genders, races
        Views of `y`: (N, 5), (N, 7), (N, 3), (N, 3). **This order**, the paper's,
        is not the order of the model's outputs (emotion, gender, race, age).

    Raises
    ------
    ValueError
        `y` is not (N, 18), or the data set is unknown.
    """
    check_dataset(dataset_name)
    y = _check_rows(y)
    return (
        y[:, BLOCKS["age"]],
        y[:, BLOCKS["emotion"]],
        y[:, BLOCKS["gender"]],
        y[:, BLOCKS["race"]],
    )


def _check_rows(y: np.ndarray) -> np.ndarray:
    y = np.asarray(y)
    if y.ndim != 2 or y.shape[1] != LABEL_WIDTH:
        raise ValueError(f"label rows must have shape (N, {LABEL_WIDTH}), not {y.shape}")
    return y


seperate_category = separate_category  # the paper's spelling
