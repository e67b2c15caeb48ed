"""Turn files, pictures and arrays into upright images, and find images that are copies."""

import contextlib
import hashlib
import io
import math
import os
import stat
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

with contextlib.suppress(ImportError):
    import pillow_heif

    pillow_heif.register_heif_opener()

# The only formats that Pillow may open here: for EPS, say, it would start a program.
Image.init()
FORMATS = tuple(
    name
    for name in (
        *("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000"),
        *("AVIF", "HEIF"),  # in this order: pillow-heif also tries AVIF, and fails
    )
    if name in Image.OPEN
)
HEIC_SUFFIXES = (".heic", ".heif", ".hif")  # without pillow-heif, the error says what is missing
IMAGE_SUFFIXES = tuple(
    sorted({*HEIC_SUFFIXES, *(end for end, name in Image.EXTENSION.items() if name in FORMATS)})
)
# Begins like other reasons that may be temporary, see `FOR_NOW` in `datasets.source`.
NEEDS_PILLOW_HEIF = (
    "cannot be read now: it is HEIC, which needs the package pillow-heif (pip install pillow-heif)"
)
MAX_FILE = 300 << 20  # bytes: the most pixels in three channels, not compressed
TOO_DARK = "it has {}, but no level above 255: save it with 8 bits"

FilePath = str | os.PathLike
Content = bytes | bytearray | memoryview
ImageSource = FilePath | Content | Image.Image | np.ndarray  # of one image
Box = tuple[float, float, float, float]  # left, top, right, bottom, as fractions of the image


def may_be_image(name: FilePath) -> bool:
    """Return whether a file may be an image by its name: it has a known ending, or none.

    Parameters
    ----------
    name
        Name or path of a file, which is not opened.
    """
    ending = Path(name).suffix.lower()
    return not ending or ending in IMAGE_SUFFIXES


def check_values(images: np.ndarray) -> None:
    """Raise ValueError unless all values of `images` are levels from 0 to 255.

    Values from 0 to 1 are refused, too, unless all are 0 or of dtype uint8: the network would
    scale them again.

    Parameters
    ----------
    images
        Of any shape and dtype.
    """
    if images.dtype == np.uint8 or images.size == 0:
        return
    if not np.can_cast(images.dtype, float, "same_kind"):
        raise ValueError(f"pixel values must be numbers from 0 to 255, not {images.dtype}")
    if not np.isfinite(images).all() or images.min() < 0 or images.max() > 255:
        raise ValueError(
            f"pixel values must be finite and from 0 to 255, found {images.min()} to {images.max()}"
        )
    if 0 < images.max() <= 1:
        raise ValueError("pixel values end at 1: multiply by 255, the network scales them itself")


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
        The range of the pixels is unknown: they are floating-point numbers, or have 16 or 32
        bits, but none is above 255 and not all are 0.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers: save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        pixels = np.asarray(image)
        if pixels.any() and pixels.max() <= 255:
            raise ValueError(TOO_DARK.format(f"{32 if image.mode == 'I' else 16} bits per pixel"))
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


def check_file(path: FilePath) -> None:
    """Raise ValueError or OSError unless a path is that of a file which can be read to its end.

    Parameters
    ----------
    path
        Of a regular file of at most `MAX_FILE` bytes, or a link to one.
    """
    state = os.stat(path)
    if stat.S_ISDIR(state.st_mode):
        raise ValueError("it is a folder: give one file, or the folder to predict_photos")
    if not stat.S_ISREG(state.st_mode):
        raise ValueError("it is not a regular file")
    if state.st_size > MAX_FILE:
        raise ValueError(f"{state.st_size} bytes is larger than any photo")


def open_image(source: ImageSource) -> Image.Image:
    """Open an image the right way up, in RGB; of an animation, its first frame.

    Parameters
    ----------
    source
        - The path of a file or its content: JPEG, PNG, WebP, GIF, TIFF, BMP, PPM, JPEG 2000,
          AVIF, or HEIC if the package pillow-heif is installed.
        - A PIL picture of any mode, which stays as it is.
        - An array (H, W) or (H, W, 1), grey; (H, W, 3), RGB; or (H, W, 4), RGB and opacity; of
          any numeric dtype, values 0 to 255.

    Returns
    -------
    PIL.Image.Image
        Of mode RGB, turned as its EXIF orientation says; what is transparent is white.

    Raises
    ------
    ValueError
        `source` is of another type, or a folder; a file is missing, empty, damaged, not a
        regular file, larger than 300 MB, or not an image; the image has more than
        `PIL.Image.MAX_IMAGE_PIXELS` (some 90 million), or 16 bits per pixel and no level above
        255; the pixels are floating-point numbers; an array has another shape, or values that
        `check_values` refuses.
    """
    if isinstance(source, FilePath):
        name = os.fspath(source)
    else:
        kinds = {Content: "the file", np.ndarray: "the array", Image.Image: "the picture"}
        names = [name for kind, name in kinds.items() if isinstance(source, kind)]
        name = names[0] if names else f"a value of type {type(source).__name__}"
    try:
        with _expected_warnings():
            return _open(source).convert("RGB")
    except Image.UnidentifiedImageError:
        why = _why_unidentified(source)
        why = why if why == NEEDS_PILLOW_HEIF else f"is {why}, whatever its name says"
        raise ValueError(f"{name} {why}") from None
    except Image.DecompressionBombError:
        limit = Image.MAX_IMAGE_PIXELS / 1e6
        raise ValueError(f"{name} has more than {limit:.0f} million pixels") from None
    except Exception as error:  # Pillow raises errors of many kinds on damaged files
        raise ValueError(f"{name} cannot be read as an image ({_words(error)})") from error


def decode(
    batch: Iterable[ImageSource], image_size: int, box: Box | None = None
) -> list[np.ndarray | str]:
    """Turn images into grey squares, or into the reasons why that failed.

    Parameters
    ----------
    batch
        For each image the content of its file as bytes, a PIL picture, or an array, see
        `open_image`. A string, the reason why a file could not be read, is passed on.
    image_size
        Side S of the squares, in pixels.
    box
        What to crop, as fractions of the upright image, see `crop_and_resize`.

    Returns
    -------
    list
        For each image uint8 (S, S, 1), upright and 0 black to 255 white, or a reason.
    """
    with _expected_warnings():
        return [
            source if isinstance(source, str) else _decode(source, image_size, box)
            for source in batch
        ]


def _decode(source: ImageSource, image_size: int, box: Box | None) -> np.ndarray | str:
    try:
        return crop_and_resize(_open(source, grey=True), image_size, box)
    except Image.UnidentifiedImageError:
        return _why_unidentified(source)
    except Exception as error:  # Pillow raises many kinds, and one bad file is no reason to stop
        return _words(error)


@contextlib.contextmanager
def _expected_warnings() -> Iterator[None]:
    """Keep Pillow quiet about what is an error here, or no harm."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", module="PIL")  # damaged metadata
        yield


def _open(source: ImageSource, grey: bool = False) -> Image.Image:
    """Return an image upright and as `eight_bit` returns it; raises whatever Pillow raises.

    With `grey`, only the brightness of a JPEG is decoded, not its colours.
    """
    if isinstance(source, np.ndarray):
        return _prepare(Image.fromarray(_eight_bit_array(source)), ())
    if isinstance(source, Image.Image):
        tiles = getattr(source, "tile", ())  # the copy has none
        return _prepare(source.copy(), tiles)
    if not isinstance(source, FilePath | Content):
        raise ValueError("give a path, bytes, a PIL picture or an array")
    if isinstance(source, FilePath):
        check_file(source)
    file = io.BytesIO(source) if isinstance(source, Content) else source
    with Image.open(file, formats=FORMATS) as picture:
        if grey:
            picture.draft("L", None)
        return _prepare(picture, picture.tile)


def _prepare(picture: Image.Image, tiles: Sequence) -> Image.Image:
    """Check a picture, and turn it in place; `tiles` are what Pillow knew before it decoded it."""
    if picture.width * picture.height > (Image.MAX_IMAGE_PIXELS or math.inf):
        raise Image.DecompressionBombError("so many pixels: perhaps a decompression bomb")
    upright(picture)
    # Pillow keeps the upper 8 of 16 bits per channel, except for grey, which `eight_bit` checks.
    halved = ";16" in str(tiles) and not picture.mode.startswith("I")
    if halved and not np.any(picture.convert("RGB").getextrema()):
        raise ValueError(TOO_DARK.format("16 bits per channel"))
    return eight_bit(picture)


def _eight_bit_array(array: np.ndarray) -> np.ndarray:
    """Return an array that `open_image` accepts as uint8 (H, W), (H, W, 3) or (H, W, 4)."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ValueError(f"it must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not {array.shape}")
    check_values(array)
    return np.rint(array).astype(np.uint8)


def _why_unidentified(source: ImageSource) -> str:
    """Return the reason why Pillow knows no format for a file, given by its path or content."""
    if isinstance(source, Content):
        head = source[:12]
    else:
        with open(source, "rb") as file:
            head = file.read(12)
    if not head:
        return "an empty file"
    is_heic = head[4:8] == b"ftyp" and head[8:11] in (b"hei", b"hev", b"mif", b"msf")
    return NEEDS_PILLOW_HEIF if is_heic and "HEIF" not in FORMATS else "not an image"


def _words(error: Exception) -> str:
    """Return what an error says, without the number and path that the system adds."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


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
