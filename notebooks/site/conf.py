"""The web site, made by Sphinx from the notebooks as they are stored: `make site`."""

import json

project = "Multi-task facial expression recognition"
author = "the fer_helpers authors"
extensions = ["myst_nb", "sphinx-mathjax-offline"]
exclude_patterns = ["site", ".ipynb_checkpoints"]
myst_enable_extensions = ["dollarmath"]
html_theme = "sphinx_book_theme"
html_title = project
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["site.css"]
# Search stands in the side bar: a second one across the top says nothing more.
html_theme_options = {"show_toc_level": 2, "navbar_persistent": []}

nb_execution_mode = "off"
nb_merge_streams = True  # lines that were printed one by one stand together
nb_render_markdown_format = "myst"  # with tables, which model cards have
nb_ipywidgets_js = {}  # the scripts of widgets would come from another server

WIDGET = "application/vnd.jupyter.widget-view+json"
INSTEAD = "*Something to click on stands here: open the notebook to use it.*"


def replace_widgets(app, name, source):
    """A widget needs a running notebook; here a sentence stands in its place."""
    if WIDGET not in source[0]:
        return
    notebook = json.loads(source[0])
    sentence = {"output_type": "display_data", "metadata": {}, "data": {"text/markdown": INSTEAD}}
    for cell in notebook["cells"]:
        outputs = cell.get("outputs", [])
        kept = [output for output in outputs if WIDGET not in output.get("data", {})]
        if len(kept) < len(outputs):
            cell["outputs"] = [*kept, sentence]
    source[0] = json.dumps(notebook)


def setup(app):
    app.connect("source-read", replace_widgets)
