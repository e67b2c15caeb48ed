"""Bars for what takes longer than a moment."""

import sys

import tqdm as library


def tqdm(*args, **options) -> library.tqdm:
    """Return a bar of tqdm: on stderr, or on stdout in a notebook, which shows stderr in red.

    A bar of `tqdm.auto` would be a widget, which stays behind as an empty line when it ends.
    """
    # Only a notebook's kernel replaces stdout by a stream of its own.
    file = sys.stdout if type(sys.stdout).__module__.startswith("ipykernel") else sys.stderr
    return library.tqdm(*args, file=file, **options)
