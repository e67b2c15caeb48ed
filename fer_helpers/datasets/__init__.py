"""One reader per data set, and load_data, which picks one."""

from fer_helpers.datasets.files import Faces, data_folder
from fer_helpers.datasets.load import find_datasets, load_data, read_dataset

__all__ = ["Faces", "data_folder", "find_datasets", "load_data", "read_dataset"]
