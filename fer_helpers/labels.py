"""The four tasks, their classes in RAF-DB's order, the words for them, and the label rows.

A label row is a float32 vector of 18 numbers: four one-hot blocks side by side,
``emotion 7 | gender 3 | race 3 | age 5``. A block of zeros means: not labelled.
The classes and their order are those of RAF-DB (Li, Deng & Du, CVPR 2017).
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

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


# Other words that people use for a class, in their folders and tables.
_WORDS: dict[str, dict[str, str]] = {
    "emotion": {
        "surprise": "surprised astonished amazed",
        "fear": "fearful afraid scared frightened",
        "disgust": "disgusted",
        "happiness": "happy joy joyful smile smiling",
        "sadness": "sad unhappy",
        "anger": "angry mad",
        "neutral": "calm",
    },
    "gender": {"male": "man men m boy", "female": "woman women f girl", "unsure": "unclear"},
    "race": {"Caucasian": "white", "African-American": "black african", "Asian": "eastasian"},
    "age": {},
}


def _letters(word: str) -> str:
    """Return the letters of a word in lower case: "0_Angry" and "angry" are one."""
    return re.sub(r"[\W\d_]+", "", word.casefold())


VOCABULARY: dict[str, dict[str, int]] = {
    task: {
        _letters(word): index
        for index, name in enumerate(names)
        for word in (name, *_WORDS[task].get(name, "").split())
    }
    for task, names in TASKS.items()
    if task != "age"
}


def check_dataset(name: str | Path) -> str:
    """Return the name or path of a data set as text.

    Parameters
    ----------
    name
        One of `DATASETS`, or the path of a folder, a zip or a table of faces.

    Raises
    ------
    ValueError
        It is neither; lists the known data sets.
    """
    if str(name) in DATASETS or Path(os.path.expanduser(name)).exists():
        return str(name)
    raise ValueError(
        f"unknown dataset {str(name)!r}: there is no such folder or file, and the names are "
        f"{', '.join(DATASETS)}"
    )


def short_name(dataset: str | Path) -> str:
    """Return a data set's name, of a path the last part without its ending: a name for files."""
    if str(dataset) in DATASETS:
        return str(dataset)
    path = Path(os.path.expanduser(dataset)).resolve()
    return path.stem if path.suffix.lower() in (".zip", ".csv") else path.name


def visible(text: str) -> str:
    r"""Return text for a terminal: control characters as ``\x1b``, except for line ends.

    The name of a file may hold sequences that a terminal obeys.
    """
    return re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", lambda found: f"\\x{ord(found[0]):02x}", text)


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


def class_index(task: str, word: str) -> int:
    """Return the class that a word means.

    Parameters
    ----------
    task
        One of the four tasks.
    word
        A class of `TASKS` or a common word for it, in any case, with or without a number
        before it: ``"Happy"``, ``"3_joy"``, ``"African American"``. For age a class, years
        (``"25"``, ``"25.5"``), or a range of years within a class (``"20-29"``).

    Returns
    -------
    int
        Index of the class in ``TASKS[task]``; -1 for an empty word, "nan" and "none": not labelled.

    Raises
    ------
    ValueError
        The word is unknown; lists the known ones.
    """
    check_task(task)
    word = str(word).strip()
    if word.casefold() in ("", "nan", "none"):
        return -1
    index = _age_index(word) if task == "age" else VOCABULARY[task].get(_letters(word))
    if index is not None:
        return index
    known = ", ".join(TASKS["age"]) + ", or years" if task == "age" else ", ".join(VOCABULARY[task])
    number = "a number does not say which class it is; " if word.isdecimal() else ""
    raise ValueError(f"unknown {task} {word[:40]!r}: {number}the known words are {known}")


def is_class(task: str, word: str) -> bool:
    """Return whether `class_index` knows a word."""
    try:
        return class_index(task, word) >= 0
    except ValueError:
        return False


def same_word(word: str, others: Sequence[str]) -> bool:
    """Return whether a word is one of others, in any case and with any number before it."""
    return bool(_letters(word)) and _letters(word) in map(_letters, others)


def _age_index(word: str) -> int | None:
    """Return the age group that years, or a range of years, lie in; None if there is none."""
    years = re.fullmatch(r"(\d+(?:\.\d+)?)(?:\s*(?:-|–|to|_)\s*(\d+)|\s*\+)?", word)
    if not years or (word.endswith("+") and float(years[1]) < _AGE_STARTS[-1]):
        return None  # 60+ may also be 70 and above
    first, last = (int(age_class([float(end)])[0]) for end in (years[1], years[2] or years[1]))
    return first if first == last else None


def encode_labels(classes: Mapping[str, np.ndarray | Sequence[int | str]]) -> np.ndarray:
    """Turn classes into label rows.

    Parameters
    ----------
    classes
        For some or all of the tasks, N class indices in the order of `TASKS`, whole numbers,
        -1 where a face is not labelled; or N words, see `class_index`, empty where it is not.
        A task that is left out is not labelled for any face.

    Returns
    -------
    numpy.ndarray
        float32 (N, 18), ones and zeros: the blocks emotion 7 | gender 3 | race 3 | age 5.

    Raises
    ------
    ValueError
        No task or an unknown one, an unknown word, indices that are out of range or not of a
        whole-number dtype, or arrays of different length.
    """
    for task in classes:
        check_task(task)
    if not classes:
        raise ValueError(f"no labels: give at least one of {', '.join(TASKS)}")
    lengths = {task: len(labels) for task, labels in classes.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"labels of different length: {lengths}")
    y = np.zeros((next(iter(lengths.values())), LABEL_WIDTH), dtype=np.float32)
    for task, labels in classes.items():
        index = _class_indices(task, np.asarray(labels))
        rows = np.flatnonzero(index >= 0)
        y[rows, BLOCKS[task].start + index[rows]] = 1
    return y


def _class_indices(task: str, labels: np.ndarray) -> np.ndarray:
    """Return class indices and words as int64 indices (N,), after checking them."""
    if labels.dtype.kind in "OU":
        words, places = np.unique(labels.astype(str), return_inverse=True)
        return np.array([class_index(task, word) for word in words], np.int64)[places]
    if len(labels) and labels.dtype.kind not in "iub":
        raise ValueError(f"{task} labels must be whole numbers, not {labels.dtype}")
    index = labels.astype(np.int64)
    wrong = (index < -1) | (index >= len(TASKS[task]))
    if wrong.any():
        raise ValueError(
            f"{task} label {index[wrong][0]} is out of range: "
            f"0 to {len(TASKS[task]) - 1}, or -1 for not labelled"
        )
    return index


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
    y: np.ndarray, dataset_name: str | Path = "SAMPLE"
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Split label rows into the four tasks' one-hot blocks.

    Parameters
    ----------
    y
        (N, 18) label rows.
    dataset_name
        Name or path of the data set they come from. All data sets share one layout, so it is
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
