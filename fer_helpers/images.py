"""Turn image files into small grey arrays, and find images that are copies of each other."""

import hashlib
import io
import os
import warnings

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

Box = tuple[float, float, float, float]  # left, top, right, bottom, as fractions of the image


def may_be_image(name: str) -> bool:
    """Return whether a file's name has the ending of an image, or none at all."""
    ending = os.path.splitext(name)[1].lower()
    return ending in IMAGE_SUFFIXES or not ending


def eight_bit(image: Image.Image) -> Image.Image:
    """Return an image with at most 8 bits per channel and nothing transparent.

    Parameters
    ----------
    image
        An image of any mode.

    Returns
    -------
    PIL.Image.Image
        Mode ``L`` for grey of 16 bits, scaled to 0 to 255; mode ``RGB`` for an image with
        transparent pixels, laid on white; any other image as it is.

    Raises
    ------
    ValueError
        The range of the pixels is unknown: they are floating-point numbers, or have 32 bits
        and none is above 255.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers: save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        pixels = np.asarray(image)
        if image.mode == "I" and pixels.max() <= 255:
            raise ValueError("it has 32 bits per pixel, but none above 255: save it with 8 bits")
        # Pillow's own conversion cuts off everything above 255.
        return Image.fromarray((pixels.clip(0, 65535) // 257).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image


def upright(image: Image.Image) -> None:
    """Turn or mirror an image, in place, as its EXIF orientation says.

    Parameters
    ----------
    image
        An image as `PIL.Image.open` returns it; one without an orientation stays as it is.
    """
    image.getexif()  # read before the raw bytes go:
    image.info.pop("exif", None)  # Pillow fails to write back some cameras' entries
    ImageOps.exif_transpose(image, in_place=True)


def crop_and_resize(image: Image.Image, image_size: int, box: Box | None = None) -> np.ndarray:
    """Return an image in grey, cropped and resized with antialiasing.

    Parameters
    ----------
    image
        An image of any mode that `eight_bit` accepts.
    image_size
        Side S of the square that comes out, in pixels.
    box
        What to crop: left, top, right and bottom as fractions of the image. Outside of 0 to
        1 the image continues as its mirror image. Without a box, the whole image.

    Returns
    -------
    numpy.ndarray
        uint8 (S, S, 1), 0 black to 255 white.

    Raises
    ------
    ValueError
        The range of the pixels is unknown, see `eight_bit`.
    """
    image = eight_bit(image).convert("L")
    width, height = image.size
    if box:
        left, top, right, bottom = np.array(box) * (width, height, width, height)
        over = np.ceil(np.maximum(0, (-left, -top, right - width, bottom - height))).astype(int)
        if over.any():
            pad = ((over[1], over[3]), (over[0], over[2]))
            image = Image.fromarray(np.pad(np.asarray(image), pad, mode="symmetric"))
        box = (left + over[0], top + over[1], right + over[0], bottom + over[1])
    side = (image_size, image_size)
    return np.asarray(image.resize(side, Image.Resampling.BILINEAR, box=box))[..., None]


def decode(
    batch: list[bytes | str], image_size: int, box: Box | None = None
) -> list[np.ndarray | str]:
    """Decode image files, each into a grey square or into the reason why that failed.

    Parameters
    ----------
    batch
        The bytes of each file; a string, for a file that could not be read, is passed on.
    image_size
        Side S of the squares, in pixels.
    box
        What to crop, as fractions of the upright image, see `crop_and_resize`.

    Returns
    -------
    list
        For each file uint8 (S, S, 1), upright and 0 black to 255 white, or a reason.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", "Corrupt EXIF data")
        return [
            _decode_file(data, image_size, box) if isinstance(data, bytes) else data
            for data in batch
        ]


def _decode_file(data: bytes, image_size: int, box: Box | None) -> np.ndarray | str:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.draft("L", None)  # a JPEG's brightness, without decoding its colours
            upright(image)
            return crop_and_resize(image, image_size, box)
    except Image.UnidentifiedImageError:
        return "not an image" if data else "an empty file"
    except Exception as error:  # Pillow raises many kinds, and one bad file is no reason to stop
        return str(error) or type(error).__name__


def find_copies(images: np.ndarray, among: np.ndarray | None = None) -> np.ndarray:
    """Find the images that are exact copies of another, pixel by pixel.

    Parameters
    ----------
    images
        (N, H, W, 1), of any dtype and range; pixels are compared as float32, so that 7 and 7.0
        are equal.
    among
        Images to look in, (M, H, W, 1), in the same range. Without it, `images` itself: the
        first of several equal ones then counts as the original, the others as copies.

    Returns
    -------
    numpy.ndarray
        bool (N,).
    """
    digests = image_digests(images)
    if among is not None:
        return np.isin(digests, image_digests(among))
    return pd.Series(digests).duplicated().to_numpy()


def image_digests(images: np.ndarray) -> np.ndarray:
    """Return a fingerprint of each image: two are equal if, and only if, all pixels are.

    Parameters
    ----------
    images
        (N, H, W, 1), of any dtype and range; pixels are compared as float32.

    Returns
    -------
    numpy.ndarray
        str (N,).
    """

    pixels = (image.astype(np.float32) + 0.0 for image in images)  # -0.0 becomes 0.0
    digests = [hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() for image in pixels]
    return np.array(digests, dtype=str)
