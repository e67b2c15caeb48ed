"""The web site, made by Sphinx from the notebooks as they are stored: `make site`."""

project = "Multi-task facial expression recognition"
extensions = ["myst_nb", "sphinx-mathjax-offline"]
exclude_patterns = ["demo.ipynb", "site", ".ipynb_checkpoints"]
myst_enable_extensions = ["dollarmath"]
html_theme = "sphinx_book_theme"
html_title = project
html_show_copyright = False
html_theme_options = {"show_toc_level": 2}

nb_execution_mode = "off"
# Widgets need a running notebook, and their scripts another server; the page says so instead.
nb_ipywidgets_js = {}
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
