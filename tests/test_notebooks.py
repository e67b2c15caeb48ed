"""The notebooks as a learner meets them: their form, their words, their figures."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
main_job = pytest.mark.parametrize("path", NOTEBOOKS[:7], ids=lambda path: path.stem)

EXERCISES = (
    "Put your answer in place of the three dots and run the cell: it says whether it is right or, "
    'if not, what is wrong. Stuck? `solution("{number}.1")` shows one way.'
)


def read(path):
    """All cells, those of code, and the text of the others."""
    cells = nbformat.read(path, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    return cells, code, [cell.source for cell in cells if cell.cell_type == "markdown"]


def figures(code):
    return [cell for cell in code if any("image/png" in o.get("data", {}) for o in cell.outputs)]


@every_notebook
def test_form(path):
    cells, code, text = read(path)
    titles = [line for source in text for line in re.findall(r"^# .+", source, re.M)]
    assert len(titles) == 1
    assert titles[0].startswith(f"# {path.name[:2]} – ")
    assert "In this notebook you will" in text[0]
    assert "**You need:**" in text[0]
    assert re.search(r"minutes to read, .+ to run", text[1])
    assert any(source.startswith("## Set-up") for source in text)
    assert any(source.startswith("## Exercises") for source in text)
    assert text[-2].startswith("## What you learnt")
    if int(path.name[:2]) > 1:
        assert re.match(r"In (the previous notebook|notebook \d\d)", text[2]), "recap comes first"
    assert 25 <= len(cells) <= 60
    assert 0.5 <= len(text) / len(cells) <= 0.65
    longest = max(code, key=lambda cell: len(cell.source.splitlines()))
    assert len(longest.source.splitlines()) <= 25, longest.source
    assert path.stat().st_size < 500_000


@main_job
def test_form_of_the_main_job(path):
    """The failure, the repair, real faces, the failure and its repair side by side."""
    _, code, text = read(path)
    number = path.name[:2]
    headings = re.findall(r"^## (.+)$", "\n".join(text), re.M)
    wanted = ["Set-up", "What goes wrong", "On real faces", "Before and after", "Exercises"]
    wanted = [name for name in wanted if number != "00" or name != "Before and after"]
    places = [headings.index(name) if name in headings else name for name in wanted]
    assert all(isinstance(place, int) for place in places), f"headings are missing: {places}"
    assert places == sorted(places), f"in another order: {headings}"
    (intro,) = (source for source in text if source.startswith("## Exercises"))
    assert EXERCISES.format(number=number) in intro
    setup = next(cell.source for cell in code if "from exercises import" in cell.source)
    assert "from exercises import check, solution" in setup
    solutions = [cell.metadata.get("solution", "") for cell in code]
    trains = r"\b(build_model|get_model|compile_model|fit|Dense|Conv2D|Sequential|train\w*)\("
    assert any(re.search(trains, words) for words in solutions), "no exercise has a network in it"
    for cell in code:
        for line in [*cell.source.splitlines(), *cell.metadata.get("solution", "").splitlines()]:
            assert len(line) <= 84, f"cut off on the site: {line}"
    lines = sorted(len(cell.source.splitlines()) for cell in code)
    assert lines[len(lines) // 2] <= 6, f"lines of the cells: {lines}"


@every_notebook
def test_no_import_is_unused(path):
    """Ruff cannot look: `solution` is there for the learner, and solutions use some, too."""
    _, code, _ = read(path)
    words = "\n".join(cell.source + "\n" + cell.metadata.get("solution", "") for cell in code)
    tree = ast.parse(re.sub(r"^(\s*)[!%].*$", r"\1pass", words, flags=re.M))
    imported = {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert imported - used <= {"solution"}


def glossary():
    """Each term of the glossary, and the notebook that it is explained in."""
    text = (NOTEBOOKS[0].parent / "glossary.md").read_text()
    return re.findall(r"^\| ([^|]+?) \| [^|]+ \| \[(\d\d)\]\(\2_\w+\.ipynb\) \|$", text, re.M)


def test_glossary_is_sound():
    text = (NOTEBOOKS[0].parent / "glossary.md").read_text()
    rows = [line for line in text.splitlines() if re.match(r"\| (?!term|-)", line)]
    terms = glossary()
    assert len(terms) == len(rows) > 50, "a row that is not | term | meaning | [NN](notebook) |"
    assert len({term for term, _ in terms}) == len(terms)
    for link in re.findall(r"\]\(([\w.]+)\)", text):
        assert (NOTEBOOKS[0].parent / link).is_file(), link


@pytest.mark.parametrize(("term", "number"), glossary())
def test_term_of_the_glossary_is_bold_where_it_is_explained(term, number):
    (path,) = (path for path in NOTEBOOKS if path.name.startswith(number))
    bold = " | ".join(re.findall(r"\*\*(.+?)\*\*", " ".join(read(path)[2]).replace("\n", " ")))
    assert term.lower() in bold.lower().replace("`", ""), f"**{term}** is missing in {path.name}"


@every_notebook
def test_one_cell_to_edit(path):
    _, code, _ = read(path)
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", ())]
    names = [line.split(" = ")[0] for cell in tagged for line in cell.source.splitlines()]
    number = int(path.name[:2])
    wanted = ["DATASET", "EPOCHS", "DATA_DIR"] if number <= 6 else []  # the main job
    assert names == (["DATASET", "DATA_DIR"] if number == 9 else wanted)


@every_notebook
def test_code_hides_no_error_and_names_no_machine(path):
    _, code, text = read(path)
    for cell in code:
        assert not re.search(r"except\s*:", cell.source), cell.source
    # A path of somebody's machine, in a cell or in what it printed.
    assert not re.search(r"/(home|root|Users|work|tmp)/", json.dumps([*code, *text]))


@every_notebook
def test_stored_from_one_clean_run(path):
    _, code, _ = read(path)
    code = [cell for cell in code if cell.source.strip()]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", f"{cell.source}\n{output.get('text')}"
            words = output.get("data", {}).get("text/plain", "")
            assert "<Functional" not in words, f"a network is no result to read:\n{cell.source}"


@every_notebook
def test_stored_widgets_are_those_that_are_shown(path):
    book = nbformat.read(path, as_version=4)
    shown = "widget-view+json" in json.dumps([cell.get("outputs", ()) for cell in book.cells])
    assert shown == bool(book.metadata.get("widgets"))


@every_notebook
def test_every_figure_has_a_title_and_names_on_its_axes(path):
    """What a cell draws by itself; the figures of fer_helpers.plots are in test_plots.py."""
    _, code, _ = read(path)
    everything = "\n".join(cell.source for cell in code)
    for cell in figures(code):
        drawn = cell.source
        # A function of the notebook's own, defined in another cell.
        for name in re.findall(r"^(\w+)\(", drawn, re.M):
            drawn += "".join(re.findall(rf"^def {name}\(.*?(?=^\S)", everything, re.M | re.S))
        if "plots.faces(" in drawn:
            assert re.search(r"plots\.faces\([^\n]*title", drawn), cell.source
        if not re.search(r"subplots\(|plot\.bar\(", drawn):
            continue  # drawn by fer_helpers.plots
        assert re.search(r"title", drawn), f"a title is missing:\n{cell.source}"
        named = re.search(r"label=|set_[xy]label|set_[xy]ticks|xticks|set_axis_off|ax=axes", drawn)
        assert named, f"names of the axes are missing:\n{cell.source}"


@every_notebook
def test_every_figure_has_a_text_for_those_who_do_not_see_it(path):
    _, code, _ = read(path)
    for cell in figures(code):
        text = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        assert 30 <= len(text) <= 200, (
            "say in the cell's metadata what the figure shows, a sentence, as "
            f'"mystnb": {{"image": {{"alt": "..."}}}}, not {text!r}:\n{cell.source}'
        )


@every_notebook
def test_spelling(path):
    """The words alone: codespell would find words in the base64 of the figures, too."""
    cells, _, _ = read(path)
    words = "\n".join([cell.source + cell.metadata.get("solution", "") for cell in cells])
    line = [sys.executable, "-m", "codespell_lib", "-"]
    result = subprocess.run(line, input=words, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_solved_notebooks_are_the_notebooks_with_their_solutions(tmp_path, monkeypatch):
    pytest.importorskip("papermill", reason="needs fer-helpers[lab]")
    monkeypatch.syspath_prepend(NOTEBOOKS[0].parent)
    import run

    monkeypatch.setattr(run, "SOLUTIONS", tmp_path / "solutions")
    run.solve()
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        solved = nbformat.read(tmp_path / "solutions" / path.name, as_version=4).cells
        assert [cell.metadata.get("solution", cell.source) for cell in cells] == [
            cell.source for cell in solved
        ]
        assert not any("exercise" in cell.metadata.get("tags", ()) for cell in solved)


def test_copies_of_notebooks_can_be_run_where_they_lie(tmp_path, monkeypatch):
    """Executed and solved ones: what they import is beside them, and ../data is where it was."""
    pytest.importorskip("papermill", reason="needs fer-helpers[lab]")
    monkeypatch.syspath_prepend(NOTEBOOKS[0].parent)
    import run

    assert run.RESULTS.parent == run.SOLUTIONS.parent == run.HERE.parent
    monkeypatch.setattr(run, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(run, "SOLUTIONS", tmp_path / "solutions")
    monkeypatch.setattr(run, "run", lambda notebook, target, _: shutil.copy(notebook, target))
    run.course("SAMPLE", None)
    run.solve()
    for folder, count in (("results", 7), ("solutions", len(NOTEBOOKS))):
        copies = sorted((tmp_path / folder).glob("*.ipynb"))
        assert len(copies) == count
        for path in copies:
            words = "\n".join(cell.source for cell in read(path)[1])
            for module in re.findall(r"^(?:from|import) (\w+)", words, re.M):
                here = (NOTEBOOKS[0].parent / f"{module}.py").is_file()
                assert here == path.with_name(f"{module}.py").is_file(), f"{path}: {module}"
