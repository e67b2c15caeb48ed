"""Bars: not red in a notebook, and beside the results in the shell."""

import io
import re
import sys
from pathlib import Path

from fer_helpers.progress import tqdm

PACKAGE = Path(__file__).parent.parent / "fer_helpers"


def test_bar_is_on_stdout_in_a_notebook_and_on_stderr_elsewhere(monkeypatch, capsys):
    list(tqdm([1, 2], desc="shell", disable=False))
    out, err = capsys.readouterr()
    assert "shell" in err
    assert not out
    kernels = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    monkeypatch.setattr(sys, "stdout", kernels)
    list(tqdm([1, 2], desc="notebook", disable=False))
    assert "notebook" in kernels.getvalue()
    assert not capsys.readouterr().err


def test_every_bar_of_the_package_is_one_of_these():
    modules = [path for path in PACKAGE.rglob("*.py") if path.name != "progress.py"]
    texts = "\n".join(path.read_text() for path in modules)
    assert "from fer_helpers.progress import tqdm" in texts
    assert not re.search(r"^\s*(from|import) tqdm", texts, re.M)
