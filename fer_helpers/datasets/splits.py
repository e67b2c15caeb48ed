"""Splits: the words that people use for them, and a fair one for faces that come without."""

import re

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fer_helpers.datasets.faces import Faces
from fer_helpers.images import image_digests
from fer_helpers.labels import BLOCKS

SPLITS = ("train", "validation", "test")
_WORDS = {
    "train": "training",
    "validation": "valid val dev publictest",
    "test": "testing privatetest",
}
VOCABULARY = {word: split for split, words in _WORDS.items() for word in (split, *words.split())}


def split_word(word: str) -> str | None:
    """Return the split that a word means, "train", "validation" or "test"; None if it is none.

    Known are also valid, val, dev, training, testing, PublicTest (validation) and PrivateTest
    (test), in any case, with any punctuation.
    """
    return VOCABULARY.get(re.sub(r"[\W_]+", "", word).casefold())


def add_missing_splits(faces: Faces, own: dict[str, str], official: bool = False) -> Faces:
    """Take a validation and a test split out of training where a data set lacks them.

    Each gets a tenth of the training faces, see `choose_tenths`.

    Parameters
    ----------
    faces
        All faces of a data set.
    own
        The data set's own word for each of `SPLITS`.
    official
        Whether training is a split that others report results on. Then it gives up as little
        as can be: no test split where there is a validation split.

    Returns
    -------
    Faces
        In the order of the splits; the new ones are called "validation" and "test". With too
        few groups of training faces none is taken.
    """
    missing = [split for split in SPLITS[1:] if own[split] not in faces.splits]
    if official and missing == ["test"]:
        missing = []
    training = np.flatnonzero(faces.splits == own["train"])
    splits = faces.splits.astype(object)
    if missing and len(training):
        learnt = faces.take(training)
        tenths = choose_tenths(learnt.images, learnt.labels, learnt.persons, len(missing))
        for split, chosen in zip(missing, tenths, strict=False):
            splits[training[chosen]] = split
            faces.notes.append(
                f"no {split} split: a tenth of each class, {chosen.sum()} of {len(training)} "
                "training faces, is set aside for it, the same faces each time"
            )
    faces.splits = splits.astype(str)
    places = {word: place for names in (SPLITS, own.values()) for place, word in enumerate(names)}
    rank = [places[split] for split in faces.splits]
    if sorted(rank) == rank:
        return faces
    return faces.take(np.argsort(rank, kind="stable"))


def choose_tenths(
    images: np.ndarray, y: np.ndarray, persons: np.ndarray | None = None, count: int = 1
) -> list[np.ndarray]:
    """Choose tenths of the faces that share no picture and no person with the rest.

    Each is every tenth group, see `find_groups`. The groups are in the order of the classes of
    the first task that is labelled, so each class gives a tenth of its groups, rounded up or
    down. Otherwise the pixels alone decide: the same faces are chosen wherever they lie.

    Parameters
    ----------
    images
        (N, H, W, 1) of any dtype.
    y
        (N, 18) label rows.
    persons
        str (N,), "" where nobody is named, which is everywhere if None.
    count
        How many tenths, 1 to 9.

    Returns
    -------
    list of numpy.ndarray
        For each tenth bool (N,). None at all if there are not more groups than `count`.
    """
    groups = find_groups(images, np.full(len(images), "") if persons is None else persons)
    names, first = np.unique(groups, return_index=True)
    if len(names) <= count:
        return []
    task = next((task for task, block in BLOCKS.items() if y[:, block].any()), "emotion")
    block = y[first, BLOCKS[task]]
    classes = np.where(block.any(axis=1), block.argmax(axis=1), -1)
    names = names[np.argsort(classes, kind="stable")]
    return [np.isin(groups, names[number::10]) for number in range(count)]


def find_groups(images: np.ndarray, persons: np.ndarray) -> np.ndarray:
    """Return the group of each face: copies of a picture, and a person's pictures, are one.

    Parameters
    ----------
    images
        (N, H, W, 1) of any dtype.
    persons
        str (N,), "" where nobody is named.

    Returns
    -------
    numpy.ndarray
        str (N,), the least fingerprint of the pictures in the group.
    """
    digests, picture = np.unique(image_digests(images), return_inverse=True)
    names, person = np.unique(persons, return_inverse=True)
    named = persons != ""
    edges = picture[named], len(digests) + person[named]
    size = len(digests) + len(names)
    graph = coo_array((np.ones(named.sum()), edges), shape=(size, size))
    _, component = connected_components(graph, directed=False)
    # Fingerprints are sorted, so the first picture of a component has its least one.
    _, first = np.unique(component[: len(digests)], return_index=True)
    least = dict(zip(component[first], digests[first], strict=True))
    return np.array([least[component[place]] for place in picture], dtype=str)
