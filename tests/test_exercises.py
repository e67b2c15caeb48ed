"""Every exercise can be solved, its solution stands beside it, and wrong answers are told apart."""

from pathlib import Path

import nbformat
import numpy as np
import pytest

from fer_helpers import exercises
from fer_helpers.exercises import CHECKS, OPEN, check, find_fault

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("[0-9]*.ipynb"))


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
        ("08.3", lambda d, rng: np.percentile(d, [2.5, 97.5]), "lie closer"),
        ("08.3", lambda d, rng: (d.mean() - d.std(), d.mean() + 0.001), "with repeats"),
        ("01.2", -1, "not the number of faces"),
        ("01.3", lambda images: images + np.uint8(40), "wrapped around"),
        ("01.3", lambda images: images + 40.0, "images are uint8"),
        ("02.2", np.zeros(18), "one number is 1"),
        ("02.2", np.eye(18)[8], "another block"),
        ("02.2", np.eye(18)[4], "that is sadness"),
        ("02.3", lambda y, task: len(y), "no label"),
        ("03.1", 15, "left over"),
        ("03.1", 15.6, "whole number"),
        ("03.2", lambda losses, mask: (losses * mask).mean(), "by all rows"),
        ("03.2", lambda losses, mask: losses[mask > 0].sum() / max(mask.sum(), -1), "0 / 0"),
        ("04.1", 1600, "a bias"),
        ("04.2", sum, "overlap"),
        ("05.1", 4.6, "without the weights"),
        ("05.2", lambda y, p: -(y * np.log(p)).sum() / len(y), "where rows are empty"),
        ("06.1", 0.76, "that is the accuracy"),
        ("06.2", lambda p, t: p / t, "normalise"),
        ("06.2", lambda p, t: p**t / (p**t).sum(), "less sure"),
        ("07.2", lambda boxes: 2, "how large"),
        ("07.3", lambda p, threshold: p.argmax(), "-1 is wanted"),
        ("08.1", -0.02, "other way round"),
        ("08.2", lambda a, b: float(a @ b), "itself"),
        ("09.1", lambda right, group, smallest: 0.75, "one face only"),
        ("09.2", 5000, "fewer are enough"),
        ("09.2", 10, "wider than"),
        ("10.1", 3, "the longer of the two"),
        ("10.1", 0.002, "in seconds"),
        ("10.2", lambda means, counts: np.mean(means), "mean of the means"),
        ("10.2", lambda means, counts: np.dot(means, counts) / np.sum(counts), "should be 0"),
        ("04.1", "many", "a number is wanted, not str"),
        ("04.2", 5, "a function is wanted"),
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
