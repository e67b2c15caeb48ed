"""What every reader returns: faces with their labels, and messages about them."""

import functools
import sys
from dataclasses import dataclass, field, replace

import numpy as np

from fer_helpers.labels import visible

Skipped = list[tuple[str, str]]
ARRAYS = ("images", "labels", "paths", "splits", "persons")


@dataclass
class Faces:
    """Faces of one data set, with their labels.

    Attributes
    ----------
    images
        uint8 (N, S, S, 1), 0 black to 255 white; may be a read-only memory map.
    labels
        float32 (N, 18), the label rows of `fer_helpers.labels`.
    paths
        str (N,), the name of each face inside its source.
    splits
        str (N,), the data set's own word for the split that each face belongs to.
    skipped
        Pairs (path, reason), one for each file or row that could not be used.
    notes
        Sentences about the data set as a whole.
    ignored
        Pairs (path, reason), one for each file that is no face of the data set, or was left
        out on purpose: copies, pages of text, classes that were to be ignored.
    persons
        str (N,), who is in the picture, "" where nobody is named, which is everywhere if None
        is given. Faces of one person stay together when splits are made.

    Raises
    ------
    ValueError
        Arrays of different length.
    """

    images: np.ndarray
    labels: np.ndarray
    paths: np.ndarray
    splits: np.ndarray
    skipped: Skipped = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ignored: Skipped = field(default_factory=list)
    persons: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.persons is None:
            self.persons = np.full(len(self.images), "", dtype=str)
        lengths = {name: len(getattr(self, name)) for name in ARRAYS}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"a data set's arrays differ in length: {lengths}")

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: np.ndarray | slice) -> "Faces":
        """Return some of the faces: those at `index`, in its order."""
        return replace(self, **{name: getattr(self, name)[index] for name in ARRAYS})


@functools.cache
def note(text: str) -> None:
    """Print a message on stderr, once per session."""
    print(visible(text), file=sys.stderr, flush=True)
