"""Every odd kind of image file, with exact pixels where the format keeps them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from hvae.data.decode import Header, decode, read_header
from hvae.data.resize import fit
from hvae.errors import UserError


def decoded(path) -> np.ndarray:
    """The file's uint8 pixels at its own size and channels."""
    planes = decode(path)
    return fit(planes, planes.shape)


def png(
    width: int, height: int, depth: int, colour_type: int, rows: bytes, extra: bytes = b""
) -> bytes:
    """A PNG file, byte by byte, for kinds that Pillow cannot write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_grey_stays_one_channel(tmp_path):
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(decoded(tmp_path / "a.png"), pixels[None])
    assert read_header(tmp_path / "a.png") == Header(3, 4, 1)


@pytest.mark.parametrize(
    ("suffix", "options"), [("png", {}), ("webp", {"lossless": True}), ("bmp", {})]
)
def test_lossless_rgb_is_exact(tmp_path, suffix, options):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path, **options)
    np.testing.assert_array_equal(decoded(path), pixels.transpose(2, 0, 1))
    assert read_header(path) == Header(5, 7, 3)


def test_black_and_white_becomes_0_and_255(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
    assert decoded(tmp_path / "a.png").tolist() == [[[255, 0]]]


def test_alpha_is_laid_on_white_and_hides_colour(tmp_path):
    pixels = np.array([[[200, 0, 50, 255], [200, 0, 50, 0], [200, 0, 50, 51]]], dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    # 51 / 255 is 0.2: 40 + 204, 0 + 204, 10 + 204.
    assert decoded(tmp_path / "a.png")[:, 0].T.tolist() == [
        [200, 0, 50],
        [255, 255, 255],
        [244, 204, 214],
    ]
    assert decode(tmp_path / "a.png").dtype == np.float32


def test_grey_with_alpha_stays_grey(tmp_path):
    Image.fromarray(np.array([[[100, 255], [100, 0], [100, 51]]], dtype=np.uint8)).save(
        tmp_path / "a.png"
    )
    assert decoded(tmp_path / "a.png").tolist() == [[[100, 255, 224]]]
    assert read_header(tmp_path / "a.png").channels == 1


def test_transparency_is_composited_before_resizing(tmp_path):
    """Hidden red below full transparency must not bleed into the resized image."""
    pixels = np.zeros((8, 8, 4), dtype=np.uint8)
    pixels[:, :4] = (255, 0, 0, 0)
    pixels[:, 4:] = (0, 0, 0, 255)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    small = fit(decode(tmp_path / "a.png"), (3, 4, 4))
    np.testing.assert_array_equal(small[0], small[1])
    np.testing.assert_array_equal(small[0, 0, [0, 3]], [255, 0])


def test_palette_with_transparency(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    image.save(tmp_path / "a.png", transparency=1)
    image.save(tmp_path / "opaque.png")
    assert decoded(tmp_path / "a.png")[:, 0].T.tolist() == [
        [10, 20, 30],
        [255, 255, 255],
        [70, 80, 90],
    ]
    assert decoded(tmp_path / "opaque.png")[:, 0, 1].tolist() == [40, 50, 60]
    assert read_header(tmp_path / "a.png").channels == 3


def test_transparent_colour_of_rgb(tmp_path):
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8))
    image.save(tmp_path / "a.png", transparency=(1, 2, 3))
    assert decoded(tmp_path / "a.png")[:, 0].T.tolist() == [[255, 255, 255], [4, 5, 6]]


def test_sixteen_bit_grey_is_rounded(tmp_path):
    values = np.array([[0, 128, 129, 385, 386, 257 * 200, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert decoded(tmp_path / "a.png").tolist() == [[[0, 0, 1, 1, 2, 200, 255]]]
    assert read_header(tmp_path / "a.png") == Header(1, 7, 1)


def test_sixteen_bit_colour_made_from_eight_is_exact(tmp_path):
    values = np.array([[7, 128, 255]], dtype=np.uint16) * 257
    (tmp_path / "a.png").write_bytes(png(1, 1, 16, 2, b"\0" + values.astype(">u2").tobytes()))
    assert decoded(tmp_path / "a.png").ravel().tolist() == [7, 128, 255]


def test_cmyk_jpeg_becomes_rgb(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    pixels = decoded(tmp_path / "a.jpg")
    assert pixels.shape == (3, 16, 16)
    np.testing.assert_allclose(pixels[:, 8, 8], [255, 0, 0], atol=3)
    assert read_header(tmp_path / "a.jpg").channels == 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path, orientation):
    """Inverse of what each orientation stands for, on an image whose four corners differ."""
    upright = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.uint8)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(decoded(tmp_path / "a.png")[0], upright)
    assert read_header(tmp_path / "a.png") == Header(2, 3, 1)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_the_first_frame_of_an_animation_is_read(tmp_path, suffix):
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("#ff0000", "#0000ff")]
    options = {"lossless": True} if suffix == "webp" else {}
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    with Image.open(path) as image:
        assert image.n_frames == 2
    assert decoded(path)[:, 0, 0].tolist() == [255, 0, 0]


def test_the_first_picture_of_a_multi_picture_jpeg_is_read(tmp_path):
    """Phones write these, named .jpg."""
    frames = [Image.new("L", (16, 16), value) for value in (10, 200)]
    frames[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=frames[1:])
    assert decoded(tmp_path / "a.jpg")[0, 8, 8] == 10


def truncated_jpeg() -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()[:2000]


HOSTILE = {
    "truncated.jpg": truncated_jpeg(),
    "empty.png": b"",
    "text.png": b"not pixels at all\n",
    "header-only.png": png(4, 4, 8, 0, b"")[:33],
    "short-rows.png": png(4, 4, 8, 0, b"\0ab"),
    "bad-checksum.png": png(1, 1, 8, 0, b"\0a").replace(b"IDAT", b"IDAX"),
    "bad-kind.png": png(1, 1, 8, 9, b"\0a"),
    "zero-size.png": png(0, 1, 8, 0, b"\0"),
    "riff.webp": b"RIFF\x10\0\0\0WEBPVP8L\0\0\0\0",
    "half.gif": b"GIF89a\x02\0",
    # Pillow reads PostScript by running Ghostscript; the name must not open that door.
    "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "bitmap.png": b"P5 2 1 255 ab",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_named(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(HOSTILE[name])
    with pytest.raises(UserError, match=f"cannot read the image .*{name}: .") as caught:
        decode(path)
    assert "\n" not in str(caught.value)


def test_missing_files_folders_and_circular_links_are_named(tmp_path):
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("gone.png", "loop.png", "folder.png"):
        with pytest.raises(UserError, match=name):
            decode(tmp_path / name)


@pytest.mark.parametrize("limit", [99, 40])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bombs_are_refused_where_pillow_only_warns(tmp_path, monkeypatch, limit):
    """Pillow raises beyond twice its limit (40) and warns between (99): both are errors here."""
    Image.new("L", (10, 10)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    for read in (decode, read_header):
        with pytest.raises(UserError, match=r"bomb\.png"):
            read(tmp_path / "bomb.png")


def test_a_crafted_header_allocates_nothing(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png(100_000, 100_000, 8, 2, b""))
    with pytest.raises(UserError, match=r"bomb\.png.*10000000000 pixels"):
        decode(tmp_path / "bomb.png")
