"""Augmentation as a layer of the network: it runs on the device, and only in training."""

import math

from fer_helpers.backend import keras

ops = keras.ops

# Random numbers per image.
_DRAWS = 13


@keras.saving.register_keras_serializable("fer_helpers")
class RandomFace(keras.layers.Layer):
    """Turn, zoom, shift, mirror, relight and partly cover faces at random, while training.

    Takes images (N, H, W, 1) of any number type with values 0 to 255, and returns images of
    the same shape and range in the layer's compute dtype. Half of them are mirrored. Outside of
    training it returns images as they are. What it draws follows from the state of its
    `seed_generator` alone.

    Parameters
    ----------
    rotation
        Greatest angle, in degrees, to either side.
    zoom
        Greatest change of size: 0.15 means 15 % larger or smaller.
    shift
        Greatest shift, as a share of the side, before the face is turned and zoomed. What
        comes in from outside is black.
    contrast
        Greatest change of contrast: 0.2 means 20 % more or less.
    brightness
        Greatest change of brightness, as a share of the grey range 0 to 255.
    erase
        Share (0 to 1) of the images in which a rectangle of random size, place and grey is
        painted over (Zhong et al. 2020). Its sides are at most four tenths of the image's.
    """

    # pragma: no mutate start (Keras reads the signature, which mutants lack)
    def __init__(
        self,
        rotation: float = 10.0,
        zoom: float = 0.15,
        shift: float = 0.08,
        contrast: float = 0.2,
        brightness: float = 0.1,
        erase: float = 0.25,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.settings = {
            "rotation": rotation,
            "zoom": zoom,
            "shift": shift,
            "contrast": contrast,
            "brightness": brightness,
            "erase": erase,
        }
        self.seed_generator = keras.random.SeedGenerator()
        # TensorFlow's XLA has no kernel for the affine transform.
        self.supports_jit = keras.backend.backend() != "tensorflow"

    # pragma: no mutate end
    def call(self, images, training=False):
        if not training:
            return images
        settings = self.settings
        draws = keras.random.uniform((ops.shape(images)[0], _DRAWS), seed=self.seed_generator)
        place, light, cover = draws[:, :5], draws[:, 5:7], draws[:, 7:]
        moved = _move(
            ops.cast(images, "float32"),
            place,
            math.radians(settings["rotation"]),
            settings["zoom"],
            settings["shift"],
        )
        lit = _relight(moved, light[:, :, None, None], settings["contrast"], settings["brightness"])
        covered = _cover(lit, cover[:, :, None, None], settings["erase"])
        return ops.cast(covered, self.compute_dtype)

    def get_config(self):
        return super().get_config() | self.settings


def _signed(draw):
    return 2.0 * draw - 1.0


def _move(images, draws, rotation, zoom, shift):
    _, height, width, _ = images.shape
    x_centre, y_centre = (width - 1) / 2, (height - 1) / 2
    angle = _signed(draws[:, 0]) * rotation
    scale = 1.0 / (1.0 + _signed(draws[:, 1]) * zoom)
    mirror = ops.where(draws[:, 2] < 0.5, -1.0, 1.0)
    cos, sin = ops.cos(angle) * scale, ops.sin(angle) * scale
    # The transform maps a pixel of the result to its place in the image.
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
    rows = ops.reshape((ops.arange(height, dtype="float32") + 0.5) / height, (1, height, 1, 1))
    columns = ops.reshape((ops.arange(width, dtype="float32") + 0.5) / width, (1, 1, width, 1))
    y, tall, x, wide, drawn, grey = (draws[:, i : i + 1] for i in range(6))
    # Half a side: sides are from one tenth to four tenths of the image's.
    inside_rows = ops.abs(rows - y) < 0.05 + 0.15 * tall
    inside_columns = ops.abs(columns - x) < 0.05 + 0.15 * wide
    covered = ops.logical_and(ops.logical_and(inside_rows, inside_columns), drawn < share)
    return ops.where(covered, 255.0 * grey, images)
