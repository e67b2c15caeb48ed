"""Loose numbers: figures in a notebook's prose that no cell beside it has printed."""

import re

# What is no finding: code, a formula, the name of an interval, of a paper, of a version.
NO_FINDING = re.compile(
    r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$\n]*\$|\b95 ?% (?:confidence )?(?:interval|band)"
    r"|\barXiv:? ?\d{4}\.\d{4,5}|\b(?:[Ee]xercise|[Ss]olution) \d\d\.\d"
    r"|\b(?:Python|Keras|TensorFlow|Matplotlib|CUDA) \d[\d.]*",
    re.DOTALL,
)
# A decimal number or a percentage; 1,234 is a whole number.
FINDING = re.compile(r"(?<![\w.,/])\d[\d,]*(?:\.\d+(?:\s?%| million)?|\s?%)(?![\w.]*\d)")
# What vouches for a paragraph: a link, a stored file, or that it speaks of SAMPLE alone.
SOURCE = re.compile(r"SAMPLE|\]\(|\*\*Exercise |`[\w./]+\.(?:md|csv|json)`")
NUMBER = re.compile(r"\d[\d,]*\.?\d*(?:e[+-]?\d+)?", re.IGNORECASE)


def loose_numbers(cells: list) -> list[str]:
    """Return the percentages and decimal numbers of the prose that nothing vouches for.

    A number may stand in the output or in the source of the two code cells before its cell or
    of the one after it, as it is or rounded; 76 % and 0.758 are the same. In a paragraph that
    speaks of SAMPLE, links a source or names a stored file any number may stand, and so may
    those that an exercise gives.

    Parameters
    ----------
    cells
        The cells of an executed notebook.

    Returns
    -------
    list of str
        The number, and the paragraph that it is in.
    """
    loose = []
    for place, cell in enumerate(cells):
        if cell["cell_type"] != "markdown":
            continue
        before = [other for other in cells[:place] if other["cell_type"] == "code"][-2:]
        after = [other for other in cells[place:] if other["cell_type"] == "code"][:1]
        printed = [value for other in before + after for value in _numbers(_shown(other))]
        for paragraph in re.split(r"\n\s*\n", cell["source"]):
            if SOURCE.search(paragraph):
                continue
            for found in FINDING.findall(NO_FINDING.sub(" ", paragraph)):
                if not any(_is_rounded(found, value) for value in printed):
                    loose.append(f"{found.strip()} in: {paragraph.strip()[:300]}")
    return loose


def _shown(cell) -> str:
    """Return a code cell and what it printed."""
    words = [cell["source"]]
    for output in cell.get("outputs", ()):
        text = output.get("text", output.get("data", {}).get("text/plain", ""))
        words += text if isinstance(text, list) else [text]
    return "\n".join(words)


def _numbers(text: str) -> list[float]:
    return [float(word.replace(",", "")) for word in NUMBER.findall(text.replace("_", ""))]


def _is_rounded(found: str, value: float) -> bool:
    """Return whether a number of the prose is this value, or this value rounded."""
    word = re.match(r"([\d,]+)(?:\.(\d+))?", found)
    number = float(f"{word[1].replace(',', '')}.{word[2] or 0}")
    unit = 0.5 * 10.0 ** -len(word[2] or "") + 1e-9
    scales = (1, 100) if "%" in found else (1e-6,) if "million" in found else (1,)
    return any(abs(value * scale - number) <= unit for scale in scales)
