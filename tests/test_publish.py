"""What a script writes into the notebooks is there, and is right."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "notebooks" / "publish.py"


@pytest.fixture
def copy(tmp_path):
    ignored = shutil.ignore_patterns(".ipynb_checkpoints")  # JupyterLab's, whose names end alike
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def publish(root, *words):
    script = root / "notebooks" / "publish.py"
    return subprocess.run(
        [sys.executable, script, *words], capture_output=True, text=True, check=False
    )


def test_bars_are_those_that_the_script_writes(copy):
    assert publish(copy, "bars").returncode == 0
    written = sorted((copy / "notebooks").glob("[0-9i]*.*"))
    assert len(written) > 9
    for path in written:
        assert path.read_text() == (ROOT / "notebooks" / path.name).read_text(), (
            f"run python notebooks/publish.py bars: {path.name}"
        )
    assert (copy / "README.md").read_text() == (ROOT / "README.md").read_text()


def test_links_of_the_bars_lead_to_the_neighbours():
    paths = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    for before, path, after in zip([None, *paths], paths, [*paths[1:], None], strict=False):
        cells = nbformat.read(path, 4).cells
        for cell in (cells[1], cells[-1]):
            assert ("←" in cell.source) == (before is not None)
            assert ("→" in cell.source) == (after is not None)
            assert before is None or f"]({before.name})" in cell.source
            assert after is None or f"]({after.name})" in cell.source


def test_an_address_is_written_everywhere_and_replaced(copy):
    for name in ("first/one", "second/two"):
        assert publish(copy, "address", name).returncode == 0
    assert "first/one" not in "".join(path.read_text() for path in copy.rglob("*.[mti][dop]*"))
    assert (copy / "pyproject.toml").read_text().count("https://github.com/second/two") == 1
    assert "<https://github.com/second/two>" in (copy / "README.md").read_text()
    for path in (copy / "notebooks").glob("[0-9]*.ipynb"):
        cells = nbformat.read(path, 4).cells
        assert f"github/second/two/blob/main/notebooks/{path.name}" in cells[1].source
        assert "git clone --quiet --depth 1 https://github.com/second/two" in cells[2].source
    refused = publish(copy, "address", "no address")
    assert refused.returncode == 1
    assert "OWNER/NAME" in refused.stderr


def test_contents_begin_with_notebook_00_and_have_glossary_and_reading_list():
    text = (ROOT / "notebooks" / "index.md").read_text()
    links = re.findall(r"\]\(([\w.]+\.(?:ipynb|md))\)", text)
    assert links[0].startswith("00_")
    assert links[-2:] == ["glossary.md", "reading.md"]
    tree = text.split(":hidden:")[1].split()
    assert tree[:-1] == [Path(link).stem for link in links]


def test_nothing_points_to_an_address_before_it_is_given():
    texts = [path.read_text() for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")]
    assert "Repository" not in (ROOT / "pyproject.toml").read_text()
    # Repositories of others are sources; that of the course is not known.
    named = {name for text in texts for name in re.findall(r"github\.com/([\w.-]+/[\w.-]+)", text)}
    assert named == {"microsoft/FERPlus"}
    assert not any("colab.research.google.com" in text for text in texts)


def test_zip_for_colab_has_package_notebooks_weights_and_results(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # a downloaded folder has none
    result = publish(ROOT, "colab")
    assert result.returncode == 0, result.stderr
    names = zipfile.ZipFile(result.stdout.strip()).namelist()
    with zipfile.ZipFile(result.stdout.strip()) as course:
        course.extractall(tmp_path)
    (wheel,) = (tmp_path / "course").glob("fer_helpers-*.whl")
    packed = zipfile.ZipFile(wheel).namelist()
    assert "fer_helpers/pretrained/sample.weights.h5" in packed
    here = {str(path.relative_to(ROOT)) for path in (ROOT / "fer_helpers").rglob("*.py")}
    assert {name for name in packed if name.endswith(".py")} == here
    # Everything that the notebooks import or read, and nothing else.
    notebooks = {f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    results = {f"data/results/{path.name}" for path in (ROOT / "data" / "results").iterdir()}
    files = {name.removeprefix("course/") for name in names if not name.endswith("/")}
    assert files == {
        *(notebooks | results),
        *(
            "notebooks/exercises.py",
            "notebooks/experiments.py",
            "notebooks/explorer.py",
            "notebooks/planted.py",
            "tests/benchmarks/results.json",
        ),
        *("notebooks/index.md", "notebooks/glossary.md", "notebooks/reading.md"),
        *("notebooks/sample.png", "data/README.md", "README.md", "LICENSE"),
        wheel.name,
    }
    folder = tmp_path / "course" / "notebooks"
    code = "\n".join(
        cell.source
        for name in sorted(notebooks)
        for cell in nbformat.read(ROOT / name, 4).cells
        if cell.cell_type == "code"
    )
    for module in set(re.findall(r"^(?:from|import) (\w+)", code, re.M)):
        # What lies beside the notebooks of the project has to lie beside those of the zip.
        assert (folder / f"{module}.py").is_file() == (ROOT / f"notebooks/{module}.py").is_file()
    for name in re.findall(r'"\.\./((?:data|tests)/[\w./]+)"', code):
        assert (tmp_path / "course" / name).is_file(), name
