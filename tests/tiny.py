"""A network and faces that are learnt in seconds, for tests of all that is around them."""

from unittest import mock

import numpy as np

from fer_helpers import model
from fer_helpers.backend import keras
from fer_helpers.labels import encode_labels


def backbone(x):
    """All kinds of layers that training treats differently, one each."""
    x = keras.layers.Conv2D(4, 5, 4, activation="relu", name="cam")(x)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    return keras.layers.Dropout(0.2)(keras.layers.Flatten()(x))


def build(augment: bool = True, backbone=backbone) -> keras.Model:
    """Return a network with the heads of the others."""
    with mock.patch.dict(model.BACKBONES, tiny=backbone):
        return model.build_model("tiny", augment)


def faces(count: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Return faces whose emotion is plain to see: bright above or bright below."""
    generator = np.random.default_rng(0)
    emotion = np.arange(count) % 2
    X = generator.integers(0, 60, (count, 48, 48, 1), dtype=np.uint8)
    X[emotion == 0, :24] += 150
    X[emotion == 1, 24:] += 150
    return X, encode_labels({"emotion": emotion})
