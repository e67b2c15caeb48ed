"""SAMPLE: grey faces drawn by code, read like any other data set."""

import contextlib
import math
import os
import tempfile

import numpy as np

from fer_helpers.datasets.faces import Faces
from fer_helpers.datasets.sample.drawing import render
from fer_helpers.datasets.sample.easel import landmarks
from fer_helpers.datasets.sample.traits import (
    AGE_SPANS,
    BLOCK,
    EMOTION_UNITS,
    FREQUENCIES,
    SPLIT_SHARES,
    SPLITS,
    action_units,
    block_parameters,
    draw_parameters,
    plain_face,
    prototypes,
    whole_number,
)
from fer_helpers.datasets.source import in_parallel
from fer_helpers.labels import TASKS, encode_labels

__all__ = [
    "AGE_SPANS",
    "BLOCK",
    "EMOTION_UNITS",
    "FREQUENCIES",
    "SPLITS",
    "SPLIT_SHARES",
    "action_units",
    "draw_block",
    "draw_parameters",
    "landmarks",
    "plain_face",
    "prototypes",
    "read",
    "render",
]

NAME = "SAMPLE"
TERMS = "Drawn by this package's own code, under its licence (MIT); it shows no real person."
HOW_TO_GET = "Nothing to download: the faces are drawn when they are first needed."
IN_MEMORY = 1 << 30  # bytes of images; more than these are drawn into a file
SERIAL_BLOCKS = 24  # fewer are drawn in this process: workers take a second to start


def draw_block(index: int, image_size: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw one block of faces; `read` puts such blocks together.

    Parameters
    ----------
    index
        Number of the block, from 0: faces ``index * BLOCK`` to ``(index + 1) * BLOCK - 1``.
    image_size
        Side S of the square images in pixels, at least 8.
    seed
        A whole number from 0.

    Returns
    -------
    images, labels, splits
        uint8 (BLOCK, S, S, 1), float32 (BLOCK, 18) and str (BLOCK,).

    Raises
    ------
    ValueError
        A negative `index` or `seed`, or too small an `image_size`.
    """
    parameters = block_parameters(whole_number("index", index, 0), whole_number("seed", seed, 0))
    images = render(parameters, image_size)[..., None]
    labels = encode_labels({task: parameters[task] for task in TASKS})
    return images, labels, np.array(SPLITS)[parameters["split"]]


def read(image_size: int, n: int, seed: int) -> Faces:
    """Draw the SAMPLE data set, block by block.

    Parameters
    ----------
    image_size
        Side S of the square images in pixels, at least 8.
    n
        Number of faces. A larger n only adds faces: the first ones stay the same.
    seed
        A whole number from 0. The same seed gives the same bytes.

    Returns
    -------
    Faces
        uint8 (n, S, S, 1) images, every face with all four labels; about 70 % train, 15 %
        validation, 15 % test.

    Raises
    ------
    ValueError
        `n` is below 1, `seed` negative or `image_size` too small.
    """
    n = whole_number("n", n, 1)
    total = -(-n // BLOCK)
    jobs = ((block, image_size, seed) for block in range(total))
    images = _allocate((n, image_size, image_size, 1))
    labels, splits = [], []
    drawn = in_parallel(draw_block, jobs, total, NAME, SERIAL_BLOCKS)
    for start, block in zip(range(0, n, BLOCK), drawn, strict=True):
        images[start : start + BLOCK] = block[0][: n - start]
        labels.append(block[1])
        splits.append(block[2])
    return Faces(
        images=images,
        labels=np.concatenate(labels)[:n],
        paths=np.array([f"sample_{i:06d}.png" for i in range(n)]),
        splits=np.concatenate(splits)[:n],
    )


def _allocate(shape: tuple[int, ...]) -> np.ndarray:
    """Return an empty uint8 array, in a nameless file if it is too large for memory."""
    size = math.prod(shape)
    if size > IN_MEMORY:
        # On a full disk, or a system without this call, it is in memory after all.
        with contextlib.suppress(OSError, AttributeError), tempfile.TemporaryFile() as file:
            os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, np.uint8, "r+", shape=shape)
    return np.empty(shape, np.uint8)
