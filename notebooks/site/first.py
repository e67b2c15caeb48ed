"""Fill the first page: what it says comes from the notebooks, the README and the results."""

import base64
import io
import re
from html import escape
from pathlib import Path

import nbformat
import pandas as pd
from PIL import Image

import publish
from fer_helpers.evaluation import wilson_interval
from fer_helpers.labels import TASKS
from fer_helpers.training import PAPER_LOSS_WEIGHTS

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def summary(path: Path) -> str:
    """Return what one does in a notebook, from its row in the README's table."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    words = re.search(rf"^\|[^|]*{path.stem}[^|]*\|([^|]*)\|", text, re.M)[1].strip()
    return words[0].upper() + words[1:] + "."


def first_figure(path: Path) -> tuple[bytes, str]:
    """Return the first figure that is stored in a notebook, PNG, and its alternative text."""
    for cell in nbformat.read(path, 4).cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
                return base64.b64decode(output["data"]["image/png"]), alt
    raise ValueError(f"{path.name} has no stored figure: run python notebooks/run.py --store")


def card(path: Path, folder: Path) -> str:
    """Write a notebook's picture into a folder, and return its card."""
    content, alt = first_figure(path)
    with Image.open(io.BytesIO(content)) as image:
        image = image.convert("RGB")
        image.thumbnail((560, 400))
        image.save(folder / f"{path.stem}.webp", quality=80)
    return (
        f'<a href="{path.stem}.html"><img src="_static/{path.stem}.webp" alt="{escape(alt)}" '
        f'width="{image.width}" height="{image.height}"><h3>{escape(publish.title(path))}</h3>'
        f"<p>{escape(summary(path))}</p><p class='small'>"
        f"{publish.minutes(nbformat.read(path, 4).cells)} min to read</p></a>"
    )


def heads() -> str:
    """Return the four heads of the picture of the network, with their losses' weights."""
    parts = []
    for place, (task, classes) in enumerate(TASKS.items()):
        y = 45 + 70 * place
        parts.append(
            f'<path class="line" d="M441 150L510 {y}M670 {y}H790"/>'
            f'<rect x="510" y="{y - 24}" width="160" height="48"/>'
            f'<text x="590" y="{y + 6}">{task}: {len(classes)}</text>'
            f'<text x="730" y="{y - 8}">× {PAPER_LOSS_WEIGHTS[task]:g}</text>'
        )
    return "".join(parts)


def scores() -> pd.DataFrame:
    """Return what the shipped network scores: name, accuracy, low, high, majority class."""
    table = pd.read_csv(ROOT / "data" / "results" / "utkface_groups.csv")
    table = table[table["task"] == "gender"]
    sexes = table[table["by"] == "gender"]
    n, hits = sexes["n"].sum(), (sexes["n"] * sexes["accuracy"]).sum()
    low, high = wilson_interval(hits, n)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"PublicTest \|.*?([\d.]+) \(([\d.]+)–([\d.]+)\) \| ([\d.]+)", readme)
    rows = [
        ("Emotion", *map(float, found.groups())),
        ("Gender, all ages", hits / n, low, high, sexes["n"].max() / n),
    ]
    for group in table[table["by"] == "age"].itertuples():
        parts = table[table["group"].str.fullmatch(rf"(fe)?male, {re.escape(group.group)}")]
        most = parts["n"].max() / group.n
        rows.append(
            (f"ages {group.group.replace('-', '–')}", group.accuracy, group.low, group.high, most)
        )
    return pd.DataFrame(rows, columns=["name", "accuracy", "low", "high", "majority"])


def figure(table: pd.DataFrame) -> str:
    """Draw the scores as dots with intervals, an SVG in the page's own colours."""

    def x(share: float) -> float:
        return 270 + 540 * share

    parts = []
    for place, row in enumerate(table.itertuples()):
        y = 20 + 30 * place
        parts.append(
            f'<text x="255" y="{y + 5}" class="name">{row.name}</text>'
            f'<path class="grid" d="M{x(0)} {y}H{x(1)}"/>'
            f'<path class="line" d="M{x(row.low):.0f} {y}H{x(row.high):.0f}"/>'
            f'<path class="mark" d="M{x(row.majority):.0f} {y - 7}v14"/>'
            f'<circle cx="{x(row.accuracy):.0f}" cy="{y}" r="6"/>'
            f'<text x="825" y="{y + 5}">{row.accuracy:.2f}</text>'
        )
    end = 20 + 30 * len(table)
    scale = "".join(
        f'<text x="{x(share):.0f}" y="{end + 8}" class="scale">{share:g}</text>'
        for share in (0, 0.25, 0.5, 0.75, 1)
    )
    said = "; ".join(f"{row.name} {row.accuracy:.2f}" for row in table.itertuples())
    return (
        f'<svg class="scores" viewBox="0 0 895 {end + 14}" role="img" '
        f'aria-label="Accuracy of the shipped network. {said}.">{"".join(parts)}{scale}</svg>'
    )


def fill(folder: Path) -> str:
    """Write the pictures of the cards into a folder, and return the page's HTML."""
    paths, table = publish.notebooks(ROOT / "notebooks"), scores()
    cells = [nbformat.read(path, 4).cells for path in paths]
    url = publish.address(ROOT / "pyproject.toml")
    colab = (
        "<code>make colab</code> packs the course into one zip. Upload it to the Files pane of a "
        "notebook on Colab; the first cell unpacks it."
    )
    repository = "The repository is the folder from which <code>make site</code> built these pages."
    if url:
        link = re.search(r"\((.+)\)", publish.colab_link(url, paths[0]))[1]
        colab = f'<a href="{link}">Open notebook 00 in Colab.</a>'
        repository = f'The repository: <a href="{url}">{url.removeprefix("https://")}</a>.'
    place = table.set_index("name")["accuracy"]
    bars = "".join(f"<tr><th scope=row>{name}<td><td>" for name in TASKS["emotion"])
    words = {
        "bars": bars,
        "heads": heads(),
        "cards": "".join(card(path, folder) for path in paths),
        "emotion": f"{place.iloc[0]:.3f}",
        "gender": f"{place.iloc[1]:.2f}",
        "children": f"{place['ages 0–3']:.2f}",
        "figure": figure(table),
        "colab": colab,
        "hours": f"{sum(map(publish.minutes, cells)) / 60:.1f}".removesuffix(".0"),
        "minutes": f"{sum(publish.SECONDS.values()) / 60:.0f}",
        "exercises": sum("exercise" in cell.metadata.get("tags", []) for c in cells for cell in c),
        "repository": repository,
    }
    page = (HERE / "first.html").read_text(encoding="utf-8")
    return re.sub(r"\{(\w+)\}", lambda name: str(words[name[1]]), page)
