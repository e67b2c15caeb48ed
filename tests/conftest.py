"""What several tests need: the package quiet, a small SAMPLE drawn once."""

import os

import pytest

os.environ["TQDM_DISABLE"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")

import fer_helpers


@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory):
    """A data folder, so that tests neither need nor touch the user's."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def sample_test(sample_folder):
    """(X, y) of the test part of SAMPLE, as everybody has it."""
    return fer_helpers.load_data("SAMPLE", "test", data_dir=sample_folder)


@pytest.fixture
def small_sample(monkeypatch, sample_folder):
    """A data folder in which SAMPLE has 512 faces."""
    from fer_helpers.datasets import load

    monkeypatch.setattr(load, "SAMPLE_SIZE", 512)
    return sample_folder
