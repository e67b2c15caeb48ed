"""Read face data sets: `load_data` picks a reader by the data set's name.

A path in place of a name is read by `folder`: a folder per class, or a table. Each other reader is
a module of this folder, listed in `fer_helpers.labels.DATASETS`, with the names

- ``NAME``: the data set's name, and that of its folder in the data folder;
- ``TERMS``: who may use the images, and for what;
- ``HOW_TO_GET``: where they come from;
- ``EXPECTED``: the files that the reader looks for;
- ``SPLITS``: the data set's own words for training, validation and test;
- ``INNER``: names of zips to open inside of other zips;
- ``read(source: Source, image_size: int) -> Faces``: read the files of a source into grey
  squares of `image_size` pixels a side. What cannot be used goes into ``Faces.skipped``, what
  is left out on purpose into ``Faces.ignored``. Raises ``FileNotFoundError`` if the source
  holds no such files (without a message: `load_data` then says what is expected, and where),
  and ``ValueError`` if they contradict the layout or not one of them can be used.

SAMPLE is drawn, not read: its ``read`` takes other arguments.
"""

from fer_helpers.datasets.faces import Faces
from fer_helpers.datasets.load import (
    find_datasets,
    load_data,
    load_training_data,
    read_dataset,
)
from fer_helpers.datasets.source import data_folder

__all__ = [
    "Faces",
    "data_folder",
    "find_datasets",
    "load_data",
    "load_training_data",
    "read_dataset",
]
