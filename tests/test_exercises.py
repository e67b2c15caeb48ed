"""Every exercise has a right solution, and a wrong answer gets a hint that fits it."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pytest

import exercises
from exercises import CHECKS, OPEN, check, find_fault
from fer_helpers.labels import TASKS
from fer_helpers.training import compile_model

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("[0-9]*.ipynb"))


@pytest.fixture(autouse=True)
def _data(monkeypatch, sample_folder):
    monkeypatch.setenv("FER_DATA_DIR", str(sample_folder))


def exercise_cells(path):
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if "exercise" in cell.metadata.get("tags", ())]


def setup_cell(path):
    cells = nbformat.read(path, as_version=4).cells
    return next(cell for cell in cells if "exercises import check" in cell.source)


def test_every_exercise_has_a_check_and_every_check_an_exercise():
    asked = [
        number
        for path in NOTEBOOKS
        for cell in exercise_cells(path)
        for number in CHECKS
        if f'check("{number}", ' in cell.source and path.name.startswith(number[:2])
    ]
    assert asked == list(CHECKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_solutions_are_right_and_the_stored_cells_are_open(path, monkeypatch):
    judged = []
    monkeypatch.setattr(exercises, "find_fault", lambda *given: judged.append(find_fault(*given)))
    cells = exercise_cells(path)
    assert 2 <= len(cells) <= 4
    for cell in cells:
        # What a learner has at hand there: the imports, and what SAMPLE gives.
        names = {}
        exec(setup_cell(path).source, names)
        exec(cell.metadata["solution"], names)
        assert judged.pop() is None, cell.metadata["solution"]
        exec(cell.source, names)
        assert judged.pop() == OPEN, cell.source
    assert not judged


def test_solved_notebooks_find_what_they_import(tmp_path, monkeypatch):
    run = pytest.importorskip("run", reason="needs fer-helpers[lab]")
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    run.solve()
    cells = [cell for path in NOTEBOOKS for cell in nbformat.read(path, as_version=4).cells]
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    modules = {f"{name}.py" for name in re.findall(r"^(?:from|import) (\w+)", code, re.M)}
    beside = {path.name for path in NOTEBOOKS[0].parent.glob("*.py")} & modules
    assert beside == {path.name for path in (tmp_path / "solutions").glob("*.py")}


def bootstrap(differences, rng, percentile):
    means = rng.choice(differences, (2000, len(differences))).mean(axis=1)
    return np.percentile(means, [percentile, 100 - percentile])


def first_to_last(right, group, smallest):
    names = [name for name in np.unique(group) if (group == name).sum() >= smallest]
    return abs(right[group == names[0]].mean() - right[group == names[-1]].mean())


def weighted(network, *weights, by_name=True):
    """Compile with weights in the order of the tasks, in plain Keras if not by name."""
    if by_name:
        return compile_model(network, dict(zip(TASKS, weights, strict=True)))
    network.compile("adam", ["categorical_crossentropy"] * 4, loss_weights=list(weights))
    return network


@pytest.mark.parametrize(
    ("number", "answer", "hint"),
    [
        ("01.1", 2, "the height"),
        ("02.1", 0.76, "leave 200"),
        ("02.1", 340, "from 0 to 1"),
        ("03.3", lambda y, amount: y * (1 - amount) + amount / y.shape[1], "became a target"),
        ("03.3", lambda y, amount: y * (1 - amount), "sum to 1, not 0.8"),
        ("07.1", (300, 120, 120, 160), "the corner moves"),
        ("07.1", 0.5, "the shape is ()"),
        ("08.3", lambda d, rng: np.percentile(d, [2.5, 97.5]), "closer together"),
        ("08.3", lambda d, rng: (d.mean() - d.std(), d.mean() + 0.001), "with repeats"),
        ("01.2", -1, "not the number of faces"),
        ("01.3", lambda images: images + np.uint8(40), "wrapped around"),
        ("01.3", lambda images: images + 40.0, "images are uint8"),
        ("02.2", np.zeros(18), "one number should be 1"),
        ("02.2", np.eye(18)[8], "another block"),
        ("02.2", np.eye(18)[4], "that is sadness"),
        ("02.3", lambda y, task: len(y), "not a label"),
        ("03.1", 15, "left over"),
        ("03.1", 15.6, "whole number"),
        ("03.2", lambda losses, mask: (losses * mask).mean(), "by all rows"),
        ("03.2", lambda losses, mask: losses[mask > 0].sum() / max(mask.sum(), -1), "0 / 0"),
        ("04.1", 1600, "a bias"),
        ("04.2", sum, "overlap"),
        ("05.1", 4.6, "without the weights"),
        ("05.1", 3.6 * 2 + 0.6 * 0.1 + 1.0 * 1.5, "multiply each loss"),
        ("05.1", 9.96 / 4, "the sum, not the mean"),
        ("05.1", 2 * 1.2 + 0.1 * 1.8 + 1.5 * 0.6 + 4 * 1.0, "match them by name"),
        ("05.2", lambda y, p: -(y * np.log(p)).sum() / len(y), "where rows are empty"),
        ("05.2", lambda y, p: -(y * np.log(p)).sum(), "the mean was asked for"),
        ("05.2", lambda y, p: (y * np.log(p)).sum() / max(y.sum(), 1), "mind the sign"),
        ("05.2", lambda y, p: -(y * np.log(p)).mean(), "average over rows only"),
        ("05.2", lambda y, p: -(y * np.log(p)).sum() / 8 if y.any() else 0, "rows are empty"),
        ("05.2", lambda y, p: -(y * np.log(p)).sum() / y.sum(), "it should be 0"),
        ("05.3", {"gender": 4}, "should be a function"),
        ("05.3", lambda network: network, "compiled"),
        ("05.3", lambda network: [4, 1, 1, 1], "compiled"),
        ("05.3", lambda network: weighted(network, 1, 1, 1, 1, by_name=False), "by position"),
        ("05.3", lambda network: compile_model(network, {"gender": 1}), "above 0"),
        ("05.3", lambda network: weighted(network, 20, 1, 15, 40), "only the ratios"),
        ("05.3", lambda network: weighted(network, 4, 0.01, 1, 1), "smaller share"),
        ("05.3", lambda network: weighted(network, 2, 0.12, 1.5, 4), "less than ten points"),
        ("06.1", 0.76, "that is the accuracy"),
        ("06.2", lambda p, t: p / t, "normalise"),
        ("06.2", lambda p, t: p**t / (p**t).sum(), "less sure"),
        ("07.2", lambda boxes: 2, "how large"),
        ("07.3", lambda p, threshold: p.argmax(), "should be -1"),
        ("08.1", -0.02, "other way round"),
        ("08.2", lambda a, b: float(a @ b), "itself"),
        ("09.1", lambda right, group, smallest: 0.75, "one face only"),
        ("09.2", 5000, "fewer are enough"),
        ("09.2", 10, "wider than"),
        ("10.1", 3, "the longer of the two"),
        ("10.1", 0.002, "in seconds"),
        ("10.2", lambda means, counts: np.mean(means), "mean of the means"),
        ("10.2", lambda means, counts: np.dot(means, counts) / np.sum(counts), "should be 0"),
        ("02.2", np.r_[0, 0, 0, 2, -1, np.zeros(13)], "nothing in between"),
        ("02.2", ["x"] * 18, "should hold numbers"),
        ("02.3", lambda y, task: y[:, :7].any(axis=1), "should be a number"),
        ("02.3", lambda y, task: 3.9, "wrong for emotion"),
        ("03.1", float("inf"), "whole number"),
        ("03.2", lambda losses, mask: losses.sum() / mask.sum() if mask.any() else 0, "labelled"),
        ("03.3", lambda y, amount: np.where(y.any(1)[:, None], y * 0.8 + 0.05, 0), "0.1, 0.8"),
        ("06.2", lambda p, t: p if t == 1 else p**0.5 / (p**0.5).sum(), "log p"),
        ("07.1", [[1], [2, 3]], "the same length"),
        ("07.2", lambda boxes: max(range(4), key=lambda i: boxes[i][3]), "the tallest"),
        ("07.2", lambda boxes: max(range(4), key=lambda i: sum(boxes[i][2:])), "the widest"),
        ("07.3", lambda p, t: p.argmax() if p.max() >= t else -1, "not above"),
        ("07.3", lambda p, t: (p > t).argmax() if p.max() > t else -1, "most probable"),
        ("08.2", lambda a, b: b.any() and a @ b / np.sqrt(a @ a * (b @ b)), "the first or"),
        ("08.3", lambda d, rng: bootstrap(d, rng, 5), "percentiles 5 and 95"),
        ("08.3", lambda d, rng: bootstrap(d, rng, 1), "percentiles 1 and 99"),
        ("09.1", lambda right, group, smallest: first_to_last(right, group, smallest), "any of"),
        ("04.1", "many", "should be a number, not str"),
        ("04.2", 5, "should be a function"),
        ("04.2", lambda: 5, "your function raised TypeError"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_hint_says_what_is_wrong(number, answer, hint):
    assert hint in find_fault(number, answer)


def test_check_prints_one_line(capsys):
    check("03.1", ...)
    check("03.1", 16)
    assert capsys.readouterr().out == f"03.1: {OPEN}\n03.1: right!\n"
    with pytest.raises(ValueError, match=r"no exercise '99\.1'"):
        check("99.1", 1)
