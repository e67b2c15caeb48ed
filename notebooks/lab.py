"""How JupyterLab opens the course: `make lab`, or `jupyter lab --config notebooks/lab.py`."""

c = get_config()  # noqa: F821, from Jupyter

c.LabApp.default_url = "/lab/tree/notebooks/00_in_ten_minutes.ipynb"
# The file browser shows the course, not the scripts that run and publish it.
hidden = [
    "explorer.py",
    "lab.py",
    "photo_page.py",
    "planted.py",
    "publish.py",
    "run.py",
    "samples",
    "site",
]
c.ContentsManager.hide_globs = [*hidden, "__pycache__", "*.egg-info"]


def without_news(handler, page: dict) -> dict:
    """Leave out the question about news, which `news_url` does not."""
    news = "@jupyterlab/apputils-extension:announcements"
    return page | {"disabledExtensions": [*page["disabledExtensions"], news]}


c.ServerApp.tornado_settings = {
    # Photos travel by websocket: with the limit of 10 MB a larger one is lost silently.
    "websocket_max_message_size": 22 << 20,
    "page_config_hook": without_news,
}
