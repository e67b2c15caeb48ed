"""Decoding, turning, cropping and comparing images."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageOps

import fer_helpers
from fer_helpers.datasets.source import FOR_NOW
from fer_helpers.images import (
    FORMATS,
    IMAGE_SUFFIXES,
    crop_and_resize,
    decode,
    eight_bit,
    find_copies,
    image_digests,
    may_be_image,
    open_image,
)
from trees import picture, png_claiming


def encoded(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(stream, kind, **options)
    return stream.getvalue()


def decoded(data: bytes, image_size: int = 48, box=None) -> np.ndarray | str:
    (result,) = decode([data], image_size, box)
    return result


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)


# ------------------------------------------------------------------------------------- 8 bits


@pytest.mark.parametrize(
    ("dtype", "level", "expected"),
    [
        (np.uint16, 65535, 255),
        (np.uint16, 257 * 100, 100),
        (np.uint16, 256, 0),
        (np.int32, 40_000, 155),
        (np.int32, 256, 0),
        (np.int32, 257, 1),
        (np.int32, 70_000, 255),
    ],
)
def test_grey_of_16_bits_is_scaled(dtype, level, expected):
    pixels = np.full((2, 3), level, dtype)
    out = eight_bit(Image.fromarray(pixels))
    assert out.mode == "L"
    assert np.asarray(out).tolist() == [[expected] * 3] * 2
    assert (decoded(encoded(pixels, "TIFF"), 4) == expected).all()


def test_negative_levels_are_black():
    out = eight_bit(Image.fromarray(np.array([[-5, 65535]], np.int32)))
    assert np.asarray(out).tolist() == [[0, 255]]


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.full((8, 8), 0.5, np.float32), "its pixels are floating-point numbers: save it with"),
        (np.full((8, 8), 255, np.int32), "it has 32 bits per pixel, but no level above 255"),
        (np.full((8, 8), -1, np.int32), "it has 32 bits per pixel, but no level above 255"),
        (np.full((8, 8), 255, np.uint16), "it has 16 bits per pixel, but no level above 255"),
        (np.eye(8, dtype=np.uint16), "it has 16 bits per pixel, but no level above 255"),
    ],
)
def test_pixels_of_unknown_range_are_refused(pixels, reason):
    with pytest.raises(ValueError, match=f"^{reason}"):
        eight_bit(Image.fromarray(pixels))
    for kind in ("TIFF", "PNG") if pixels.dtype == np.uint16 else ("TIFF",):
        assert decoded(encoded(pixels, kind)).startswith(reason)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_black_is_black_at_any_depth(dtype):
    assert not np.asarray(eight_bit(Image.fromarray(np.zeros((8, 8), dtype)))).any()
    assert not decoded(encoded(np.zeros((8, 8), dtype), "TIFF")).any()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_levels_up_to_255_in_16_bits_are_refused_in_colours_too(channels):
    dark = png_of_16_bits(np.full((4, 5, channels), 255))
    with pytest.raises(
        ValueError, match=r"16 bits per \w+, but no level above 255: save it with 8"
    ):
        open_image(dark)
    assert "no level above 255" in decoded(dark)
    with pytest.raises(ValueError, match="no level above 255"):
        open_image(Image.open(io.BytesIO(dark)))
    levels = np.full((4, 5, channels), 257 * 100)
    if channels in (2, 4):
        levels[..., -1] = 65535  # opaque
    assert np.asarray(open_image(png_of_16_bits(levels))).tolist() == [[[100] * 3] * 5] * 4


def png_of_16_bits(levels: np.ndarray) -> bytes:
    """A PNG of (H, W, channels); Pillow writes none of 16 bits in colour."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    height, width, channels = levels.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.tobytes() for row in levels.astype(">u2"))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "L"])
def test_what_is_transparent_becomes_white(mode):
    image = Image.new("LA", (4, 4), (60, 255))
    image.paste((60, 0), (0, 0, 2, 4))  # the left half is transparent
    if mode in ("RGBA", "LA", "PA"):
        image = image.convert("RGBA").convert(mode)
        out = eight_bit(image)
    else:  # one level of the palette, or of grey, is transparent
        image = Image.fromarray(np.array([[0, 0, 60, 60]] * 4, np.uint8)).convert(mode)
        out = eight_bit(Image.open(io.BytesIO(encoded(image, transparency=0))))
    assert out.mode == "RGB"
    expected = [[255, 255, 60, 60]] * 4
    assert np.asarray(out.convert("L")).tolist() == expected
    if mode != "PA":  # which PNG does not have
        kind = {} if mode in ("RGBA", "LA") else {"transparency": 0}
        assert decoded(encoded(image, **kind), 4)[..., 0].tolist() == expected


def test_other_images_stay_as_they_are():
    for mode in ("L", "RGB", "P", "1", "CMYK"):
        image = Image.new(mode, (4, 4))
        assert eight_bit(image) is image


# ------------------------------------------------------------------------------------ cropping


def test_a_grey_image_of_the_right_size_keeps_its_pixels():
    pixels = noise(48, 48)
    out = crop_and_resize(Image.fromarray(pixels), 48)
    assert (out.shape, out.dtype) == ((48, 48, 1), np.uint8)
    np.testing.assert_array_equal(out[..., 0], pixels)


def test_colours_become_the_brightness_of_the_eye():
    out = crop_and_resize(Image.new("RGB", (9, 9), (200, 100, 50)), 4)
    assert (out == 124).all()  # 0.299 R + 0.587 G + 0.114 B


def test_resizing_is_without_aliasing():
    stripes = np.tile(np.array([0, 0, 0, 255], np.uint8), (64, 16))
    assert np.ptp(crop_and_resize(Image.fromarray(stripes), 16)[2:-2, 2:-2]) < 4
    ramp = np.repeat(np.arange(0, 200, 100, dtype=np.uint8)[None], 2, axis=0)
    row = crop_and_resize(Image.fromarray(ramp), 4)[1, :, 0]
    assert row.tolist() == [0, 25, 75, 100]  # bilinear


def test_window_inside_the_picture():
    pixels = np.arange(100, dtype=np.uint8).reshape(10, 10)
    out = crop_and_resize(Image.fromarray(pixels), 5, (0.2, 0.4, 0.7, 0.9))[..., 0]
    np.testing.assert_array_equal(out, pixels[4:9, 2:7])


@pytest.mark.parametrize(
    "box",
    [(-0.2, 0, 0.8, 1), (0.2, 0, 1.2, 1), (0, -0.2, 1, 0.8), (0, 0.2, 1, 1.2), (-0.1, 0, 1.1, 1)],
)
def test_beyond_its_edge_an_image_continues_as_its_mirror_image(box):
    pixels = noise(20, 20)
    mirrored = np.pad(pixels, 20, mode="symmetric")
    left, top, right, bottom = (round(20 * edge) + 20 for edge in box)
    side = max(right - left, bottom - top)
    out = crop_and_resize(Image.fromarray(pixels), side, box)[..., 0]
    window = mirrored[top:bottom, left:right]
    if window.shape != (side, side):  # resized upwards, in one direction only
        window = crop_and_resize(Image.fromarray(np.ascontiguousarray(window)), side)[..., 0]
    np.testing.assert_array_equal(out, window)


def test_an_image_is_mirrored_only_as_far_as_the_box_needs_it():
    pixels = noise(20, 20)
    for box, pad, place in (
        ((-0.2, 0, 0.8, 1), ((0, 0), (4, 0)), (0, 0, 20, 20)),
        ((0, -0.2, 1, 0.8), ((4, 0), (0, 0)), (0, 0, 20, 20)),
        ((0.22, 0, 1.22, 1), ((0, 0), (0, 5)), (4.4, 0, 24.4, 20)),
        ((0, 0.22, 1, 1.22), ((0, 5), (0, 0)), (0, 4.4, 20, 24.4)),
    ):
        padded = Image.fromarray(np.pad(pixels, pad, mode="symmetric"))
        expected = padded.resize((5, 5), Image.Resampling.BILINEAR, box=place)
        out = crop_and_resize(Image.fromarray(pixels), 5, box)[..., 0]
        np.testing.assert_array_equal(out, np.asarray(expected))


def test_a_box_is_a_fraction_of_width_and_height():
    pixels = noise(10, 40)
    out = crop_and_resize(Image.fromarray(pixels), 5, (0.25, 0.5, 0.375, 1.0))[..., 0]
    np.testing.assert_array_equal(out, pixels[5:10, 10:15])
    out = crop_and_resize(Image.fromarray(pixels), 10, (-0.05, 0.0, 0.2, 1.0))[..., 0]
    expected = np.concatenate([pixels[:, 1::-1], pixels[:, :8]], axis=1)
    np.testing.assert_array_equal(out, expected)


# ------------------------------------------------------------------------------------ decoding


def test_each_file_gives_its_image_or_its_reason_in_order():
    first, second = noise(12, 12), 255 - noise(12, 12)
    results = decode([encoded(first), "a reason", b"", encoded(second), b"text"], 12)
    np.testing.assert_array_equal(results[0][..., 0], first)
    np.testing.assert_array_equal(results[3][..., 0], second)
    assert [results[1], results[2], results[4]] == ["a reason", "an empty file", "not an image"]


def test_a_box_is_cropped_while_decoding():
    pixels = noise(10, 10)
    out = decoded(encoded(pixels), 5, (0.5, 0.0, 1.0, 0.5))
    np.testing.assert_array_equal(out[..., 0], pixels[:5, 5:])


def test_a_colour_jpeg_gives_the_brightness_that_is_stored_in_it():
    image = Image.new("YCbCr", (16, 16), (200, 255, 255))  # no RGB image is of this colour
    assert np.abs(decoded(encoded(image, "JPEG", quality=100), 16).astype(int) - 200).max() <= 1


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, None),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_270),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_90),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_image_is_turned_as_its_exif_says(orientation, turn, kind):
    pixels = np.zeros((48, 48), np.uint8)
    pixels[:24, :24] = 200
    pixels[:24, 24:] = 100  # no turn or mirroring gives the same again
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x8298] = "Å"  # an entry like those that cameras write and Pillow does not
    expected = Image.fromarray(pixels)
    if turn is not None:
        expected = expected.transpose(turn)
    out = decoded(encoded(pixels, kind, exif=exif))[..., 0].astype(int)
    assert np.abs(out - np.asarray(expected)).max() <= 3


def test_exif_that_pillow_cannot_write_does_not_cost_the_image():
    turned = struct.pack("<HHI4s", 0x0112, 3, 1, b"\6\0\0\0")
    width = struct.pack("<HHI4s", 0x0100, 2, 2, b"x\0\0\0")  # a word, where a number belongs
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + turned + width + bytes(4)
    pixels = np.zeros((16, 16), np.uint8)
    pixels[:8] = 200
    data = encoded(pixels, "JPEG", exif=exif)
    with pytest.raises(struct.error):
        ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.abs(decoded(data, 16)[..., 0] - pixels.T[:, ::-1].astype(int)).max() <= 3


def test_damaged_exif_costs_neither_the_image_nor_a_warning():
    data = encoded(noise(16, 16), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01")
    with pytest.warns(UserWarning, match="Corrupt EXIF data"):
        Image.open(io.BytesIO(data)).getexif()
    assert decoded(data).shape == (48, 48, 1)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (picture(0)[:500], "truncated"),
        (png_claiming(60_000), "decompression bomb"),
        (png_claiming(10_000), "decompression bomb"),
        (picture(0, kind="PNG")[:60] + b"\0" * 900, ""),
    ],
)
@pytest.mark.filterwarnings("default")
def test_a_damaged_file_gives_a_reason(data, reason):
    result = decoded(data)
    assert isinstance(result, str)
    assert result
    assert reason in result


def test_other_warnings_are_no_reason(monkeypatch):
    def warn(*_):
        warnings.warn("something is odd", UserWarning, stacklevel=1)
        return "an image"

    monkeypatch.setattr("fer_helpers.images.crop_and_resize", warn)
    with pytest.warns(UserWarning, match="something is odd"):
        assert decoded(picture(0)) == "an image"


def test_an_error_without_words_is_named_by_its_kind(monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr("fer_helpers.images.crop_and_resize", fail)
    assert decoded(picture(0)) == "MemoryError"


# ------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize(
    ("kind", "endings"),
    [
        ("JPEG", ".jpg .jpeg .jpe .jfif"),
        ("PNG", ".png"),
        ("BMP", ".bmp"),
        ("WEBP", ".webp"),
        ("TIFF", ".tif .tiff"),
        ("GIF", ".gif"),
        ("AVIF", ".avif"),
        ("PPM", ".ppm .pgm .pnm"),
        ("JPEG2000", ".jp2"),
    ],
)
def test_formats_are_known_by_content_and_ending(kind, endings, tmp_path):
    if kind not in FORMATS:
        pytest.skip(f"this Pillow has no {kind}")
    data = encoded(np.full((20, 30), 120, np.uint8), kind)
    (tmp_path / "misnamed.txt").write_bytes(data)
    for image in (open_image(data), open_image(tmp_path / "misnamed.txt")):
        assert (image.mode, image.size) == ("RGB", (30, 20))
        assert np.abs(np.asarray(image).astype(int) - 120).max() <= 3
    assert np.abs(decoded(data).astype(int) - 120).max() <= 3
    assert set(endings.split()) <= set(IMAGE_SUFFIXES)
    assert all(may_be_image(f"a/B{ending.upper()}") for ending in endings.split())


def test_what_may_be_an_image_by_its_name():
    assert may_be_image("IMG_0001")
    assert may_be_image("x.y/photo")
    assert may_be_image("photo.HEIC")
    assert not may_be_image("photo.jpg.txt")
    assert not may_be_image("notes.pdf")


@pytest.mark.parametrize("kind", ["ICO", "TGA", "PCX", "EPS"])
def test_other_formats_are_not_opened(kind):
    data = encoded(np.full((32, 32, 3), 120, np.uint8), kind)
    assert decoded(data) == "not an image"
    with pytest.raises(ValueError, match="the file is not an image"):
        open_image(data)


def test_no_program_is_started_for_a_file_that_asks_for_one(tmp_path, monkeypatch):
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # where Pillow has found it before
    photo = tmp_path / "photo.jpg"
    photo.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(ValueError, match=r"photo\.jpg is not an image, whatever its name says"):
        open_image(photo)
    assert decoded(photo.read_bytes()) == "not an image"
    assert not (tmp_path / "started").exists()


def test_pillow_opens_files_only_in_formats_that_are_named():
    package = Path(fer_helpers.__file__).parent
    calls = [
        line.strip()
        for path in package.rglob("*.py")
        for line in path.read_text().splitlines()
        if "Image.open(" in line
    ]
    assert calls
    assert all("formats=" in call for call in calls)


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1", b"hevc"])
def test_heic_names_the_package_it_needs(brand, tmp_path, monkeypatch):
    known = tuple(name for name in FORMATS if name != "HEIF")
    monkeypatch.setattr("fer_helpers.images.FORMATS", known)
    photo = tmp_path / "photo.HEIC"
    photo.write_bytes(b"\0\0\0\x1cftyp" + brand + b"\0\0\0\0mif1heic" + bytes(200))
    with pytest.raises(ValueError, match=r"photo\.HEIC cannot be .*pip install pillow-heif"):
        open_image(photo)
    assert "pip install pillow-heif" in decoded(photo.read_bytes())
    # Once the package is there, such a file is read again.
    assert decoded(photo.read_bytes()).startswith(FOR_NOW)


# ------------------------------------------------------------------------------ pictures, arrays


def test_a_picture_is_turned_by_its_exif_and_stays_as_it_is():
    pixels = np.zeros((20, 40), np.uint8)
    pixels[:, 30:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held turned by a quarter
    picture = Image.open(io.BytesIO(encoded(pixels, exif=exif)))
    for _ in range(2):
        image = open_image(picture)
        np.testing.assert_array_equal(np.asarray(image)[..., 0], np.rot90(pixels, -1))
        assert picture.size == (40, 20)
        assert picture.getexif()[0x0112] == 6
    np.testing.assert_array_equal(decode([picture], 20, (0, 0, 1, 0.5))[0][..., 0], 0)


def test_arrays_are_grey_or_rgb_or_have_opacity():
    grey = noise(6, 5)
    for array in (grey, grey[..., None], grey.astype(float), (grey - 0.4).clip(0)):
        np.testing.assert_array_equal(np.asarray(open_image(array)), np.stack([grey] * 3, axis=2))
    colour = np.stack([grey, grey // 2, 255 - grey], axis=2)
    np.testing.assert_array_equal(np.asarray(open_image(colour)), colour)
    opacity = np.zeros((6, 5, 1), np.uint8)
    opacity[:3] = 255
    image = np.asarray(open_image(np.concatenate([colour, opacity], axis=2)))
    np.testing.assert_array_equal(image[:3], colour[:3])
    assert (image[3:] == 255).all()
    np.testing.assert_array_equal(decode([colour], 5)[0], crop_and_resize(open_image(colour), 5))


def test_pictures_and_arrays_of_too_many_pixels_are_refused_like_files(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    array = np.zeros((3, 7), np.uint8)
    for source in (array, Image.fromarray(array), encoded(array)):
        with pytest.raises(ValueError, match="has more than 0 million pixels"):
            open_image(source)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # no limit
    assert open_image(array).size == (7, 3)


# -------------------------------------------------------------------------------------- copies


@pytest.fixture
def images():
    images = np.random.default_rng(0).integers(0, 256, (5, 48, 48, 1), dtype=np.uint8)
    images[3] = images[1]
    return images


def test_copies_are_found_within_and_between(images):
    assert find_copies(images).tolist() == [False, False, False, True, False]
    assert find_copies(images, among=images[[1, 4]]).tolist() == [False, True, False, True, True]
    images[4] = images[1]
    assert find_copies(images).tolist() == [False, False, False, True, True]  # two copies of one
    images[4, 47, 47, 0] ^= 1
    assert find_copies(images).tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float16, np.float32, np.float64])
def test_copies_are_found_whatever_the_dtype(images, dtype):
    levels = images // 2  # int8 ends at 127
    others = levels.astype(dtype)
    assert find_copies(others).tolist() == [False, False, False, True, False]
    assert find_copies(others, among=levels[1:]).tolist() == [False, True, True, True, True]
    assert find_copies(levels, among=others[1:]).tolist() == [False, True, True, True, True]


def test_copies_are_found_whatever_the_memory_layout(images):
    others = np.asfortranarray(images)
    assert find_copies(others, among=images[:2]).tolist() == [True, True, False, True, False]
    turned = images.swapaxes(1, 2)
    assert not find_copies(turned, among=images).any()


def test_pixels_that_are_no_levels_are_compared_as_they_are(images):
    scaled = images / np.float32(255)
    assert find_copies(scaled).tolist() == [False, False, False, True, False]
    assert not find_copies(scaled, among=images).any()
    assert find_copies(images / 255.0, among=scaled).all()  # equal once rounded to float32
    assert not find_copies(scaled * np.float32(1e-9), among=scaled * np.float32(2e-9)).any()
    nearly = images.astype(float)
    nearly[1, 0, 0, 0] += 0.25
    assert find_copies(nearly).tolist() == [False] * 5
    for level in (-1, 256, np.nan, np.inf):  # as uint8 these might be 255 or 0
        odd = np.full((2, 4, 4, 1), float(level))
        assert find_copies(odd).tolist() == [False, True]
        odd[1, 3, 3] = 0.5
        assert not find_copies(odd).any()
        assert not find_copies(
            odd, among=np.array([[[[0]]], [[[255]]]]) * np.ones((1, 4, 4, 1))
        ).any()


def test_zero_equals_minus_zero():
    images = np.array([0.5, -0.5])[:, None, None, None] * np.array([0.0, 1.0])[:, None, None]
    assert np.signbit(images[1, 0]).all()
    images[1, 1] = 0.5
    assert find_copies(images).tolist() == [False, True]


def test_no_images_have_no_copies(images):
    assert find_copies(images[:0]).shape == (0,)
    assert find_copies(images[:0], among=images).shape == (0,)
    assert not find_copies(images, among=images[:0]).any()


def test_digests_are_one_string_per_image(images):
    digests = image_digests(images)
    assert digests.shape == (5,)
    assert len(set(digests)) == 4
    assert image_digests(images[:0]).dtype.kind == digests.dtype.kind == "U"
