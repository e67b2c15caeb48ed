"""The yardstick: it follows the paper's public code and is written from its description.

All images as float64 50 x 50 x 3 in memory, a Python generator that appends image by image,
the paper's CNN in float32, plain cross-entropy, batches of 32. Two things differ from that code:
Adam has Keras' own learning rate, not 3e-4 with decay, and the images are shuffled.
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


def read_zip(path: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the images of a split, such as "Training", from folders by class: see `fill`."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if Path(name).name.startswith(split)]
        files = ((name, archive.read(name)) for name in names)
        return fill(files, len(names))


def fill(files, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return float64 (N, 50, 50, 3), 0 to 1, and one-hot (N, 7), from (path, bytes) of N files."""
    # One array from the start: appending first and converting then would take twice the memory.
    images = np.empty((count, SIDE, SIDE, 3))
    labels = np.zeros((count, len(CLASSES)))
    for place, (name, data) in enumerate(files):
        picture = Image.open(io.BytesIO(data)).convert("RGB").resize((SIDE, SIDE))
        images[place] = np.asarray(picture, np.float64) / 255
        labels[place, CLASSES.index(Path(name).parent.name)] = 1
    return images, labels


def generate(images: np.ndarray, labels: np.ndarray, batch: int = BATCH):
    """Yield batches without end, shuffled anew in each epoch."""
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
    """Return the paper's CNN with its emotion head, compiled; FER2013 labels nothing else."""
    image = keras.Input((SIDE, SIDE, 3))
    features = BACKBONES["paper"](image)
    model = keras.Model(image, layers.Dense(len(CLASSES), activation="softmax")(features))
    # Without XLA: faster on a processor, and what TensorFlow did when that code was written.
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    return model
