"""The yardstick: the way of the paper's public code, written from its description.

All images as float64 50 x 50 x 3 in memory, a Python generator that appends image by image,
the paper's CNN in float32, plain cross-entropy, batches of 32.
"""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from fer_helpers.backend import keras
from fer_helpers.model import BACKBONES

SIDE, BATCH = 50, 32
CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
layers = keras.layers


def read_zip(path: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images of a part, such as "Training", and their one-hot labels, from folders by class."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if Path(name).name.startswith(part)]
        files = ((name, archive.read(name)) for name in names)
        return fill(files, len(names))


def fill(files, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Arrays from pairs (path, bytes of a picture)."""
    # One array from the start: to append first and convert then would need twice the memory.
    images = np.empty((count, SIDE, SIDE, 3))
    labels = np.zeros((count, len(CLASSES)))
    for place, (name, data) in enumerate(files):
        picture = Image.open(io.BytesIO(data)).convert("RGB").resize((SIDE, SIDE))
        images[place] = np.asarray(picture, np.float64) / 255
        labels[place, CLASSES.index(Path(name).parent.name)] = 1
    return images, labels


def generate(images: np.ndarray, labels: np.ndarray, batch: int = BATCH):
    """Batches without end, shuffled anew each time round."""
    generator = np.random.default_rng(0)
    while True:
        order = generator.permutation(len(images))
        for start in range(0, len(order) - batch + 1, batch):
            batch_images, batch_labels = [], []
            for place in order[start : start + batch]:
                batch_images.append(images[place])
                batch_labels.append(labels[place])
            yield np.array(batch_images), np.array(batch_labels)


def build() -> keras.Model:
    """The paper's CNN with its emotion head, compiled; FER2013 labels nothing else."""
    image = keras.Input((SIDE, SIDE, 3))
    features = BACKBONES["paper"](image)
    model = keras.Model(image, layers.Dense(len(CLASSES), activation="softmax")(features))
    # The faster way on a processor, and what TensorFlow did when that code was written.
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    return model
