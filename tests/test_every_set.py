"""Notebooks 00 to 06 on every kind of data set, changed by their one cell only.

Each data set is a small tree in its owners' layout, with drawn faces. Every cell has to run, every
training to see more than one class, and every number in the prose to be one that a cell prints.
"""

import os
import shutil
from datetime import datetime
from pathlib import Path

import nbformat
import pytest

import trees
from prose import loose_numbers

pytest.importorskip("nbclient", reason="needs fer-helpers[lab]")
pytest.importorskip("skimage", reason="needs fer-helpers[lab]")

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("0[0-6]_*.ipynb"))
SETS = {
    "FER": trees.drawn_fer,
    "UTKFACE": trees.drawn_utkface,
    "RAFDB": trees.drawn_rafdb,
    "mine": trees.drawn_folder,
}

# Between two notebooks: nothing of the one before is left but what TensorFlow has loaded.
# Nobody looks at the figures: they are drawn once, small, and not a first time for their margins.
AGAIN = """%reset -f
%matplotlib inline
%config InlineBackend.print_figure_kwargs = {"bbox_inches": None, "dpi": 30}
import keras
keras.backend.clear_session()"""


@pytest.fixture(scope="module", params=SETS)
def executed(request, tmp_path_factory):
    """The executed notebooks of one data set: name -> cells, all run in one process."""
    root = tmp_path_factory.mktemp(request.param)
    # A copy: notebooks write their runs beside their folder.
    shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=lambda *_: ["site"])
    shutil.copytree(ROOT / "data" / "results", root / "data" / "results")
    shutil.copy(ROOT / "tests" / "watched_training.py", root / "notebooks")
    (root / "tests" / "benchmarks").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "benchmarks" / "results.json", root / "tests" / "benchmarks")
    trees.write(root / "data" / request.param, SETS[request.param]())
    name = request.param if request.param != "mine" else str(root / "data" / "mine")

    whole, places = (
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import watched_training")]),
        {},
    )
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        for cell in cells:
            if "parameters" in cell.metadata.get("tags", ()):
                cell.source += f"\nDATASET, EPOCHS = {name!r}, 1"
        whole.cells.append(nbformat.v4.new_code_cell(AGAIN))
        places[path.stem] = slice(len(whole.cells), len(whole.cells) + len(cells))
        whole.cells += cells
    for cell in whole.cells:
        cell.id = nbformat.v4.new_code_cell().id  # the same ids stand in several notebooks
    _run(whole, root)
    return {stem: whole.cells[place] for stem, place in places.items()}


def _run(notebook, root: Path) -> None:
    from nbclient import NotebookClient

    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        allow_errors=True,  # one notebook's error does not hide another's
        resources={"metadata": {"path": root / "notebooks"}},
    )
    environment = os.environ | {
        "FER_DATA_DIR": str(root / "data"),
        "TQDM_DISABLE": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    client.execute(env=environment)


def seconds(cells) -> float:
    """How long the cells of a notebook ran."""
    times = [cell.metadata["execution"] for cell in cells if "execution" in cell.metadata]
    first, last = times[0]["iopub.status.busy"], times[-1]["iopub.status.idle"]
    return (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()


@pytest.mark.parametrize("stem", [path.stem for path in NOTEBOOKS])
def test_notebook_is_true_on_this_set(executed, stem):
    cells = executed[stem]
    print(f"{seconds(cells):.0f} s")  # pytest -rP shows them
    errors = [
        f"{output.ename}: {output.evalue}\nin {cell.source}"
        for cell in cells
        for output in cell.get("outputs", ())
        if output.output_type == "error"
    ]
    assert not errors, "\n\n".join(errors[:3])
    assert loose_numbers(cells) == []
