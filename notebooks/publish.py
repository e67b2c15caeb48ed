"""Write what the notebooks share, pack the course for Colab, publish its address.

    python notebooks/publish.py bars              bars, first cells, contents, minutes
    python notebooks/publish.py colab             build/fer-course.zip, to upload to Colab
    python notebooks/publish.py address OWNER/NAME   where the course is published, then bars
    python notebooks/publish.py picture           the pictures of README and index.md

The next call overwrites what is written here, and nothing else.
"""

import argparse
import io
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell
from PIL import Image

HERE = Path(__file__).resolve().parent
WORDS_PER_MINUTE = 130  # of prose that takes some thought

# Seconds that a run takes on two processor cores, including the start of the kernel.
SECONDS = {
    "00": 55,
    "01": 10,
    "02": 55,
    "03": 70,
    "04": 40,
    "05": 210,
    "06": 20,
    "07": 15,
    "08": 95,
    "09": 35,
    "10": 40,
}

# What is in the zip for Colab, beside the package.
PACKED = (
    *("notebooks/[0-9]*.ipynb", "notebooks/ex*.py", "notebooks/planted.py"),
    *("notebooks/*.md", "notebooks/sample.png", "LICENSE"),
    *("data/README.md", "data/results/[!.]*"),  # beside them may lie data sets
    "README.md",  # beside data/, it marks the project's folder for the package
    "tests/benchmarks/results.json",  # notebook 10 shows it
)

FIRST = """import sys

if "google.colab" in sys.modules:
    {get}
    %cd /content/course/notebooks
    # Within Colab's own versions, none of which is changed.
    !pip list --format=freeze > /content/versions.txt
    !pip install --quiet --constraint /content/versions.txt {package}
from fer_helpers import check_environment

check_environment()"""

UNPACK = """from os.path import exists

    assert exists("/content/fer-course.zip"), (
        "Click the folder at the left and upload fer-course.zip (`make colab`)"
    )
    !unzip -qo /content/fer-course.zip -d /content"""


def notebooks(folder: Path) -> list[Path]:
    """Return the numbered notebooks, in their order."""
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))


def title(path: Path) -> str:
    """Return the notebook's H1, such as ``01 – Load data``."""
    return re.search(r"^# (.+)$", nbformat.read(path, 4).cells[0].source, re.M)[1]


def address(pyproject: Path) -> str | None:
    """Return ``https://github.com/OWNER/NAME``, None while the course has no public address."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository")


def minutes(cells: list) -> int:
    """Return the minutes to read a notebook, without what this script writes."""
    prose = (cell for cell in own(cells) if cell.cell_type == "markdown")
    return max(round(sum(len(cell.source.split()) for cell in prose) / WORDS_PER_MINUTE), 1)


def own(cells: list) -> list:
    """Return the cells that this script did not write."""
    return [cell for cell in cells if not cell.get("id", "").startswith("shared-")]


def bar(path: Path, paths: list[Path]) -> str:
    """Return links to the previous notebook, the contents and the next notebook."""
    place = paths.index(path)
    words = ["[Contents](index.md)", "[Glossary](glossary.md)"]
    if place > 0:
        words.insert(0, f"[← {title(paths[place - 1])}]({paths[place - 1].name})")
    if place + 1 < len(paths):
        words.append(f"[{title(paths[place + 1])} →]({paths[place + 1].name})")
    return " | ".join(words)


def times(path: Path, cells: list) -> str:
    """Return a sentence on how long the notebook takes."""
    seconds = SECONDS[path.name[:2]]
    run = f"about {seconds / 60:.0f} minutes"
    if seconds < 90:
        run = "under a minute" if seconds < 55 else "about a minute"
    return f"About {minutes(cells)} minutes to read, {run} to run on two processor cores."


def first_cell(url: str | None) -> str:
    """Return the first code cell, which installs on Colab and says whether there is a GPU."""
    if url is None:
        return FIRST.format(get=UNPACK, package="../fer_helpers-*.whl")
    get = f"!git clone --quiet --depth 1 {url} /content/course"
    return FIRST.format(get=get, package="/content/course")


def colab_link(url: str | None, path: Path) -> str:
    if url is None:
        return "On Colab: upload `fer-course.zip` (`make colab`) to the Files pane first."
    place = url.removeprefix("https://github.com/")
    link = f"https://colab.research.google.com/github/{place}/blob/main/notebooks/{path.name}"
    return f"[Open in Colab]({link})"


def write_bars(folder: Path) -> None:
    """Write the shared cells of every notebook, ``index.md``, and the minutes in the README."""
    paths = notebooks(folder)
    url = address(folder.parent / "pyproject.toml")
    for path in paths:
        content = nbformat.read(path, 4)
        cells = own(content.cells)
        old = {cell["id"]: cell for cell in content.cells if cell not in cells}
        words = [bar(path, paths), times(path, cells), colab_link(url, path)]
        top = new_markdown_cell("\n\n".join(words), id="shared-top")
        first = new_code_cell(first_cell(url), id="shared-first")
        first.metadata["tags"] = ["nbval-ignore-output"]
        if "shared-first" in old:  # its stored outputs stay
            first.update({key: old["shared-first"][key] for key in ("outputs", "execution_count")})
        end = new_markdown_cell(bar(path, paths), id="shared-end")
        content.cells = [cells[0], top, first, *cells[1:], end]
        nbformat.write(content, path)
    rows = "\n".join(f"| [{title(path)}]({path.name}) | {row_end(path)}" for path in paths)
    names = "\n".join(path.stem for path in paths)
    (folder / "index.md").write_text(INDEX.format(rows=rows, names=names), encoding="utf-8")
    readme = folder.parent / "README.md"
    text = readme.read_text(encoding="utf-8")
    for path in paths:
        # | [01 – Load data](notebooks/01_load_data.ipynb) | what it is about | 12 min | 15 s |
        row = rf"^\| \[[^]\n]*\]\(notebooks/{path.name}\) (\|[^|\n]*\|)[^\n]*$"
        link = f"[{title(path)}](notebooks/{path.name})"
        text = re.sub(row, rf"| {link} \1 {row_end(path)}", text, flags=re.M)
    readme.write_text(text, encoding="utf-8")


def row_end(path: Path) -> str:
    """Return how long a notebook takes, as the end of its row in a table."""
    space = "\N{NO-BREAK SPACE}"  # a narrow column would break "13 min" in two
    read = minutes(nbformat.read(path, 4).cells)
    return f"{read}{space}min | {SECONDS[path.name[:2]]}{space}s |"


INDEX = """# Multi-task facial expression recognition

One CNN with four heads (emotion, gender, race, age), trained with weighted losses, in Keras 3.

![Seven drawn faces; above each what was drawn, and what the network reads in it](sample.png)

Begin with the first notebook: it trains a network, and shows five faults that a good accuracy can
hide. The later ones explain and repair them.

| notebook | to read | to run |
|---|---|---|
{rows}

The [glossary](glossary.md) explains the terms of the field; the [reading list](reading.md) has the
papers and the documentation.

The times to run are for two processor cores without a GPU.

No notebook needs a data set: the faces are drawn by code. `make lab` opens them all in JupyterLab.
What the network predicts is the expression that people would *perceive* in a picture, not what
somebody feels.

```{{toctree}}
:hidden:

{names}
glossary
reading
```
"""


def draw_pictures(folder: Path) -> None:
    """Draw the pictures of README and index.md: drawn faces and their predictions."""
    from fer_helpers import load_data, load_model, plots, predict
    from fer_helpers.labels import TASKS

    model = load_model("SAMPLE")
    draw_moving_face(model, folder / "samples" / "face.webp")
    X, y = load_data("SAMPLE", "test")
    probabilities = predict(model, X)
    plots.save_prediction_samples(X, y, probabilities, folder / "samples")
    (folder / "samples" / "disgust.png").unlink()  # the README shows six
    typical = plots.typical_faces(y, probabilities)
    names, rows = TASKS["emotion"], list(typical.values())
    words = [
        f"{name} →\n{names[row.argmax()]} {row.max():.0%}"
        for name, row in zip(typical, probabilities["emotion"][rows], strict=True)
    ]
    title = "A typical face of each: what was drawn → what is read in it"
    figure = plots.faces(X[rows], words, columns=7, title=title)
    plots.save(figure, folder / "sample.png")


def draw_moving_face(model, target: Path) -> None:
    """Draw a face that moves from one emotion to the next, beside what the network reads in it."""
    import numpy as np

    from fer_helpers import plots, predict
    from fer_helpers.datasets.sample import EMOTION_UNITS, plain_face, render

    strengths = (0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 0.9, 0.9, 0.9, 0.6, 0.3)
    frames = []
    for emotion in ("happiness", "surprise", "sadness", "anger"):
        for strength in strengths:
            face = plain_face(**{f"AU{unit}": strength for unit in EMOTION_UNITS[emotion]})
            chances = predict(model, render(face)[..., np.newaxis])["emotion"][0]
            frame = io.BytesIO()
            plots.save(plots.prediction(render(face, 200), chances), frame)
            frames.append(Image.open(frame).convert("RGB"))
    options = {"save_all": True, "append_images": frames[1:], "duration": 120, "loop": 0}
    frames[0].save(target, quality=75, **options)


def pack(root: Path) -> Path:
    """Pack the package as a wheel, the notebooks and what they read into one zip."""
    course = root / "build" / "course"
    for old in (course, root / "build" / "lib"):  # the wheel would keep modules removed since
        shutil.rmtree(old, ignore_errors=True)
    for path in (path for pattern in PACKED for path in root.glob(pattern)):
        target = course / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    words = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(course)]
    subprocess.run([sys.executable, "-m", *words, str(root)], check=True)
    return Path(shutil.make_archive(root / "build" / "fer-course", "zip", course.parent, "course"))


def publish(root: Path, repository: str) -> None:
    """Write the public address into the project, the notebooks and the README."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise SystemExit(f"error: the address is OWNER/NAME, not {repository!r}")
    url = f"https://github.com/{repository}"
    pyproject, readme = root / "pyproject.toml", root / "README.md"
    text = pyproject.read_text(encoding="utf-8")
    text = re.sub(r"\n\[project\.urls\]\nRepository = .*\n", "", text)
    entry = f'\n[project.urls]\nRepository = "{url}"\n'
    pyproject.write_text(
        text.replace("\n[project.optional", entry + "\n[project.optional", 1), encoding="utf-8"
    )
    text = re.sub(r"\n\*\*Published at\*\* .*\n", "", readme.read_text(encoding="utf-8"))
    before, after = text.split("\n## Start", 1)
    readme.write_text(f"{before}\n**Published at** <{url}>\n\n## Start{after}", encoding="utf-8")
    write_bars(root / "notebooks")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("bars", "colab", "address", "picture"))
    parser.add_argument("repository", nargs="?", metavar="OWNER/NAME")
    args = parser.parse_args()
    if args.what == "bars":
        write_bars(HERE)
    elif args.what == "colab":
        print(pack(HERE.parent))
    elif args.what == "picture":
        draw_pictures(HERE)
    else:
        publish(HERE.parent, args.repository or "")


if __name__ == "__main__":
    main()
