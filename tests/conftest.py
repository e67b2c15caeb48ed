"""What several tests need: the package quiet, a small SAMPLE drawn once."""

import os
import shutil
from pathlib import Path

import matplotlib
import pytest

os.environ["TQDM_DISABLE"] = "1"
matplotlib.use("Agg")  # not by the environment, which the kernels of notebooks would inherit

import fer_helpers
from fer_helpers.backend import keras
from fer_helpers.datasets.faces import note

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(autouse=True)
def seed():
    """The same initial weights in every run, and when a test runs alone."""
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def messages():
    """Messages that are printed once per session: every test gets them all."""
    note.cache_clear()


@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory):
    """A data folder, so that tests neither need nor touch the user's."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def sample_test(sample_folder):
    """(X, y) of the test split of SAMPLE, as everybody has it."""
    return fer_helpers.load_data("SAMPLE", "test", data_dir=sample_folder)


@pytest.fixture
def screenshots(request):
    """A folder for pictures to look at: results/screenshots/<name of the test>."""
    folder = Path(__file__).parent.parent / "results" / "screenshots" / request.node.name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def small_sample(monkeypatch, sample_folder):
    """A data folder in which SAMPLE has 512 faces."""
    from fer_helpers.datasets import load

    monkeypatch.setattr(load, "SAMPLE_SIZE", 512)
    return sample_folder


@pytest.fixture
def page():
    """A page of a browser as wide as a desk's, with a camera."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--use-fake-device-for-media-stream"],
        )
        context = browser.new_context(
            viewport={"width": 1280, "height": 1000}, permissions=["camera"]
        )
        yield context.new_page()
        browser.close()
