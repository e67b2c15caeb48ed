"""The web site, made by Sphinx from the notebooks as they are stored: `make site`."""

import json
import re
import sys
from html import escape
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import first  # noqa: E402
import play  # noqa: E402

import publish  # noqa: E402

project = "Multi-task facial expression recognition"
author = "the fer_helpers authors"
extensions = ["myst_nb", "sphinx-mathjax-offline"]
exclude_patterns = ["site", ".ipynb_checkpoints"]
myst_enable_extensions = ["dollarmath"]
myst_html_meta = {
    "description": "A notebook course: one network that reads emotion, gender, race and age in a "
    "face, built with Keras on a laptop, and what it must not be used for."
}
html_theme = "sphinx_book_theme"
html_title = project
html_favicon = "static/favicon.svg"
html_show_copyright = False
DRAWN = HERE.parent.parent / "results" / "first_page"  # kept: drawing takes half a minute
html_static_path = ["static", str(DRAWN)]
html_css_files = ["site.css", "first.css"]
# Search stands in the side bar: a second one across the top says nothing more.
html_theme_options = {"show_toc_level": 2, "navbar_persistent": []}
if address := publish.address(HERE.parent.parent / "pyproject.toml"):
    html_theme_options |= {"repository_url": address, "use_repository_button": True}

nb_execution_mode = "off"
nb_merge_streams = True  # lines that were printed one by one stand together
nb_render_markdown_format = "myst"  # with tables, which model cards have
nb_ipywidgets_js = {}  # the scripts of widgets would come from another server

WIDGET = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"


def still(state: dict, name: str, alt: str) -> str:
    """Return what a stored widget looks like, as HTML that cannot be operated."""
    name = name.removeprefix("IPY_MODEL_")
    if name not in state:
        return ""
    kind, widget = state[name]["model_name"], state[name]["state"]
    layout = state.get(widget.get("layout", "").removeprefix("IPY_MODEL_"), {}).get("state", {})
    if layout.get("display") == "none" or layout.get("visibility") == "hidden":
        return ""
    if "children" in widget:
        return "".join(still(state, child, alt) for child in widget["children"])
    words = escape(widget.get("description") or "")
    if kind.endswith("SliderModel"):
        limits = " ".join(f'{key}="{widget[key]}"' for key in ("min", "max", "step", "value"))
        return f"<label>{words} <input type=range {limits} disabled> {widget['value']}</label>"
    if kind == "DropdownModel":
        chosen = widget["_options_labels"][widget["index"]] if widget["index"] is not None else ""
        return f"<label>{words} <select disabled><option>{escape(chosen)}</select></label>"
    if kind in ("ButtonModel", "FileUploadModel"):
        return f"<button disabled>{words}</button>"
    if kind == "FloatProgressModel":
        return f"<progress max={widget['max']} value={widget['value']}></progress>"
    if kind == "LabelModel":
        return f"<span>{escape(widget['value'])}</span>"
    if kind == "HTMLModel":
        return f"<span>{widget['value']}</span>"
    images = [output.get("data", {}).get("image/png") for output in widget.get("outputs", [])]
    if kind == "ImageModel":
        images = [buffer["data"] for buffer in state[name].get("buffers", [])]
    return "".join(
        f'<img src="data:image/png;base64,{"".join(image)}" alt="{escape(alt)}">'
        for image in images
        if image
    )


def replace_widgets(notebook: dict) -> None:
    """Show widgets, which need a running notebook, as they looked when they were stored."""
    state = notebook["metadata"].get("widgets", {}).get(STATE, {}).get("state", {})
    for cell in notebook["cells"]:
        outputs = cell.get("outputs", [])
        kept = [output for output in outputs if WIDGET not in output.get("data", {})]
        if len(kept) == len(outputs):
            continue
        alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt")
        names = [output["data"][WIDGET]["model_id"] for output in outputs if output not in kept]
        parts = [still(state, name, alt or "What the widget shows at first.") for name in names]
        note = "<p>This is a picture. Open the notebook to use what it shows.</p>"
        html = f'<div class="still">{"".join(parts)}{note}</div>'
        picture = {"output_type": "display_data", "metadata": {}, "data": {"text/html": html}}
        cell["outputs"] = [*kept, picture]


def prepare(app, name, source):
    """Fill the first page; in notebooks, show widgets, fold the set-up and drop the bars."""
    if name == "index":
        title, rest = source[0].split("\n", 1)
        tree = re.search(r"^```\{toctree\}.*", rest, re.M | re.S)[0]
        source[0] = f"{title}\n\n````{{raw}} html\n{first.fill(DRAWN)}\n````\n\n{tree}"
    if not name[0].isdigit():
        return
    notebook = json.loads(source[0])
    description = first.summary(HERE.parent / name)
    notebook["metadata"]["myst"] = {"html_meta": {"description": f"{name[:2]}: {description}"}}
    replace_widgets(notebook)
    cells = {cell.get("id"): cell for cell in notebook["cells"]}
    # The theme has its own links to the page before, the page after, and the contents.
    top = "".join(cells["shared-top"]["source"])
    cells["shared-top"]["source"] = top.split("\n\n", 1)[1]
    notebook["cells"].remove(cells["shared-end"])
    setup = cells["shared-first"]["metadata"]
    setup["tags"] = [*setup.get("tags", []), "hide-cell"]
    setup["mystnb"] = {"code_prompt_show": "Set-up, also for Colab"}
    source[0] = json.dumps(notebook)


def entitle(app, name, template, context, tree):
    """Give the first page a title of its own; the theme adds the project's name."""
    if name == "index":
        context["title"] = "A notebook course"


def setup(app):
    play.write_if_needed(DRAWN)
    app.connect("source-read", prepare)
    app.connect("html-page-context", entitle)
    # Sphinx does not know what the first page is made of.
    app.connect("env-get-outdated", lambda *_: ["index"])
