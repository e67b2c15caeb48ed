"""Numbers in prose: what the check finds, and what it leaves alone."""

from pathlib import Path

import nbformat
import pytest

from prose import loose_numbers

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("0[0-6]_*.ipynb"))


def notebook(prose, printed="", source="print(result)"):
    output = {"output_type": "stream", "name": "stdout", "text": printed}
    return [
        {"cell_type": "code", "source": source, "outputs": [output]},
        {"cell_type": "markdown", "source": prose},
    ]


@pytest.mark.parametrize(
    ("prose", "printed", "number"),
    [
        ("The network is right for 83 % of them.", "", "83 %"),
        ("It got 0.76 right.", "0.83", "0.76"),
        ("It has 1.2 million weights.", "2,400,210", "1.2 million"),
        ("Age has 53% of the loss.", "0.35", "53%"),
        ("A gap of -0.12 remains.", "0.21", "0.12"),
        ("An error (0.015–0.040 is perfect) of 0.027.", "0.015 0.027", "0.040"),
        ("Printed far above: 0.76.\n\nOn SAMPLE it is 0.9.", "", "0.76"),
        ("First paragraph, [with a source](https://a.org): 5.8 %.\n\nSecond: 6.1 %.", "", "6.1 %"),
        ("- one: 0.1\n- two: 0.25", "0.1", "0.25"),
    ],
)
def test_planted_loose_number_is_found(prose, printed, number):
    (found,) = loose_numbers(notebook(prose, printed))
    assert found.startswith(f"{number} in: ")


@pytest.mark.parametrize(
    ("prose", "printed"),
    [
        ("The network is right for 76 % of them.", "accuracy 0.758"),
        ("The network is right for 76 % of them.", "right for 76%"),
        ("Right for 0.76 of them.", "emotion  703     0.758  0.725"),
        ("It has 1.2 million weights.", "1,233,846"),
        ("On SAMPLE the network gets 0.93.", ""),
        ("People agree on 65 % ([Goodfellow et al.](https://arxiv.org/abs/1307.0414)).", ""),
        ("The stored runs say 0.71 (`data/results/speed.csv`).", ""),
        ("**Exercise 05.1** – The losses are 1.8 and 0.6.", ""),
        ("Python 3.11, and `label_smoothing=0.1`, and 48 × 48 pixels in 28,709 faces.", ""),
        ("The paper, arXiv 2110.15028, Article 5(1)(f), notebook 03, cell 7.", ""),
        ("A 95 % interval, and $0.1 L_g$, see exercise 03.1.", ""),
        ("```\nloss: 0.123\n```\n\nWhole numbers, such as 12, are free.", ""),
    ],
)
def test_number_that_something_vouches_for_is_not_found(prose, printed):
    assert loose_numbers(notebook(prose, printed)) == []


def test_number_may_be_in_two_cells_before_and_in_one_after():
    code = [
        {"cell_type": "code", "source": f"rate = 0.{digit}5", "outputs": []} for digit in range(4)
    ]
    text = {"cell_type": "markdown", "source": "0.05, 0.15, 0.25 and 0.35"}
    (found,) = loose_numbers([*code[:3], text, code[3]])
    assert found.startswith("0.05 in: ")
    table = {"output_type": "execute_result", "data": {"text/plain": ["low  0.04", "9"]}}
    assert loose_numbers([{**code[0], "outputs": [table]}, {**text, "source": "0.04"}]) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_notebook_has_no_loose_number(path):
    assert loose_numbers(nbformat.read(path, as_version=4).cells) == []
