"""Augmentation in keras.ops: turn, zoom, shift, mirror, relight and cover faces, on the device."""

import math

import keras
from keras import ops

# Random numbers that one image needs.
_DRAWS = 13


def augment_images(
    images,
    seed: int,
    *,
    rotation: float = 10.0,
    zoom: float = 0.2,
    shift: float = 0.1,
    contrast: float = 0.2,
    brightness: float = 0.1,
    erase: float = 0.25,
):
    """Change each image of a batch at random, without changing what it shows.

    A pure function: the same images and seed give the same result, on every call. That
    is what lets an interrupted training run go on as if nothing had happened.

    Parameters
    ----------
    images
        (N, H, W, 1), values 0 to 255.
    seed
        Integer; another one for each batch.
    rotation
        Greatest angle, in degrees.
    zoom, shift
        Greatest change of size, and of place as a share of the side.
    contrast, brightness
        Greatest change, as a share of the contrast and of the range of grey.
    erase
        Share of the images of which a rectangle is painted over (Zhong et al. 2020).
        Half of all images are mirrored.

    Returns
    -------
    tensor
        float32 (N, H, W, 1), values 0 to 255, of Keras' backend.
    """
    draws = keras.random.uniform((images.shape[0], _DRAWS), seed=seed)
    place, light, cover = draws[:, :5], draws[:, 5:7], draws[:, 7:]
    images = ops.cast(images, "float32")
    images = _move(images, place, math.radians(rotation), zoom, shift)
    images = _relight(images, light[:, :, None, None], contrast, brightness)
    return _cover(images, cover[:, :, None, None], erase)


def _signed(draw):
    return 2.0 * draw - 1.0


def _move(images, draws, rotation, zoom, shift):
    _, height, width, _ = images.shape
    x_centre, y_centre = (width - 1) / 2, (height - 1) / 2
    angle = _signed(draws[:, 0]) * rotation
    scale = 1.0 / (1.0 + _signed(draws[:, 1]) * zoom)
    mirror = ops.where(draws[:, 2] < 0.5, -1.0, 1.0)
    cos, sin = ops.cos(angle) * scale, ops.sin(angle) * scale
    # The transform takes a pixel of the result to where it is found in the image.
    a0, a1, b0, b1 = cos * mirror, -sin, sin * mirror, cos
    a2 = x_centre + _signed(draws[:, 3]) * shift * width - a0 * x_centre - a1 * y_centre
    b2 = y_centre + _signed(draws[:, 4]) * shift * height - b0 * x_centre - b1 * y_centre
    none = ops.zeros_like(a0)
    return ops.image.affine_transform(
        images,
        ops.stack([a0, a1, a2, b0, b1, b2, none, none], axis=1),
        interpolation="bilinear",
        fill_mode="constant",
        fill_value=0.0,
        data_format="channels_last",
    )


def _relight(images, draws, contrast, brightness):
    gain = 1.0 + _signed(draws[:, 0:1]) * contrast
    lift = _signed(draws[:, 1:2]) * brightness * 255.0
    return ops.clip((images - 127.5) * gain + 127.5 + lift, 0.0, 255.0)


def _cover(images, draws, share):
    _, height, width, _ = images.shape
    rows = ops.reshape(ops.arange(height, dtype="float32") / height, (1, height, 1, 1))
    columns = ops.reshape(ops.arange(width, dtype="float32") / width, (1, 1, width, 1))
    y, tall, x, wide, chance, grey = (draws[:, i : i + 1] for i in range(6))
    # Sides of a tenth to four tenths of the image.
    inside_rows = ops.abs(rows - y) < 0.05 + 0.15 * tall
    inside_columns = ops.abs(columns - x) < 0.05 + 0.15 * wide
    covered = ops.logical_and(ops.logical_and(inside_rows, inside_columns), chance < share)
    return ops.where(covered, 255.0 * grey, images)
