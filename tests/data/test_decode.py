"""Decoding what people bring: every kind of file to the right pixels, every bad one to a clear error."""

import io
import itertools
import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from PIL import Image, ImageFile

from metarep.data.reading import decode as module
from metarep.data.reading.decode import decode, decode_all
from metarep.data.reading.formats import EXTENSIONS, READ, phone_kind
from metarep.errors import DataError

# A gradient in green (down) and blue (across), smooth enough for JPEG to keep.
RAMP = np.stack(
    [np.full((48, 64), 40), *np.meshgrid(np.linspace(0, 255, 48), np.linspace(0, 255, 64), indexing="ij")], axis=-1
)
PHOTO = Image.fromarray(RAMP.round().astype(np.uint8))


def saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


FILES = {
    "jpeg": saved(PHOTO, "JPEG", quality=95),
    "progressive": saved(PHOTO, "JPEG", quality=95, progressive=True),
    "png": saved(PHOTO, "PNG"),
    "webp": saved(PHOTO, "WEBP", quality=95),
    "bmp": saved(PHOTO, "BMP"),
    "tiff": saved(PHOTO, "TIFF"),
    "tiff-lzw": saved(PHOTO, "TIFF", compression="tiff_lzw"),
    "gif": saved(PHOTO, "GIF"),
    "animated gif": saved(PHOTO, "GIF", save_all=True, append_images=[Image.new("RGB", PHOTO.size, "red")]),
    "animated webp": saved(PHOTO, "WEBP", save_all=True, append_images=[Image.new("RGB", PHOTO.size, "red")]),
    "palette": saved(PHOTO.quantize(), "PNG"),
    "opaque alpha": saved(PHOTO.convert("RGBA"), "PNG"),
}


def pixels(content: bytes | Path, size: tuple[int, int] | None = None, channels: int = 3) -> np.ndarray:
    return decode(content, size=size, channels=channels, name="it.png")


@pytest.mark.parametrize("kind", FILES)
def test_every_format_gives_the_picture(kind):
    found = pixels(FILES[kind])
    assert found.shape == (3, 48, 64)
    assert found.dtype == np.uint8
    error = np.abs(found.astype(int) - np.moveaxis(np.asarray(PHOTO), -1, 0))
    assert error.mean() < (12 if "gif" in kind or "palette" in kind or "webp" in kind else 2)


@pytest.mark.parametrize("kind", FILES)
def test_truncated_files_are_refused(kind):
    cut = FILES[kind][: len(FILES[kind]) // 3]
    with pytest.raises(
        DataError, match=r"it\.png .*damaged.*; replace or remove it, or leave such files out with skip_bad=True$"
    ):
        pixels(cut)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_brings_the_picture_upright(kind, orientation):
    upright = Image.fromarray(np.kron(np.array([[0, 90], [170, 250]], np.uint8), np.ones((24, 32), np.uint8)))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # orientation -> Pillow's inverse operation
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = pixels(saved(stored.convert("RGB"), kind, exif=exif), channels=1)[0]
    assert found.shape == (48, 64)
    assert np.abs(found.astype(int) - np.asarray(upright)).mean() < 3


def test_damaged_exif_spoils_no_picture():
    content = saved(PHOTO, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert pixels(content).shape == (3, 48, 64)


def test_transparency_is_laid_on_white():
    rgba = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    rgba.putpixel((0, 0), (0, 0, 0, 255))
    rgba.putpixel((1, 0), (0, 0, 0, 128))
    grey = Image.new("LA", (4, 4), (0, 0))
    palette = rgba.quantize()
    keyed = Image.new("L", (4, 4), 7)
    keyed.putpixel((0, 0), 0)
    bilevel = Image.new("1", (4, 4), 0)
    found = pixels(saved(rgba, "PNG"))
    assert found[:, 0, 0].tolist() == [0, 0, 0]
    assert abs(int(found[0, 0, 1]) - 127) <= 1
    assert (found[:, 1:] == 255).all()
    assert (pixels(saved(grey, "PNG")) == 255).all()
    assert (pixels(saved(palette, "PNG"))[:, 3] == 255).all()
    assert (pixels(saved(rgba, "GIF"))[:, 3] == 255).all()
    assert pixels(saved(keyed, "PNG", transparency=7))[0, 0].tolist() == [0, 255, 255, 255]
    assert (pixels(saved(bilevel, "PNG", transparency=0)) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(kind):
    values = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    found = pixels(saved(Image.fromarray(values), kind), channels=1)
    assert found.ravel().tolist() == list(range(256))


def test_sixteen_bit_big_endian_tiff():
    values = np.array([[0, 385, 386, 65535]], ">u2")  # 385 / 257 rounds down, 386 / 257 up
    found = pixels(saved(Image.frombytes("I;16B", (4, 1), values.tobytes()), "TIFF"), channels=1)
    assert found.ravel().tolist() == [0, 1, 2, 255]


def test_cmyk_bilevel_and_grey():
    cmyk = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    for kind in ("JPEG", "TIFF"):
        red, green, blue = pixels(saved(cmyk, kind))[:, 2, 2].tolist()
        assert red > 250
        assert max(green, blue) < 5
    bits = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert("1")
    for kind in ("PNG", "TIFF", "BMP", "GIF"):
        assert pixels(saved(bits, kind), channels=1).tolist() == [[[0, 255], [255, 0]]]
    grey = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4))
    one, three = pixels(saved(grey, "PNG"), channels=1), pixels(saved(grey, "PNG"))
    assert (one == np.asarray(grey)).all()
    assert (three == one).all()


def test_colours_that_are_not_read_are_named():
    lab = Image.frombytes("LAB", (2, 2), bytes(12))
    with pytest.raises(DataError, match=r"it\.png has its colours as CIELAB, which is not read \(save it as RGB\)"):
        pixels(saved(lab, "TIFF"))


def test_a_jpeg_of_several_pictures_gives_the_first():
    found = pixels(saved(PHOTO, "MPO", save_all=True, append_images=[Image.new("RGB", PHOTO.size, "red")]))
    assert np.abs(found.astype(int) - np.moveaxis(np.asarray(PHOTO), -1, 0)).mean() < 4


def phone_picture(kind: str, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    if kind == "AVIF":
        if "AVIF" not in READ:
            pytest.skip("this Pillow has no AVIF")
        return saved(PHOTO, "AVIF", quality=95, exif=exif)
    file = io.BytesIO()
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif (the extra heic) is not installed")
    heif.from_pillow(PHOTO).save(file, quality=95, exif=exif.tobytes())
    return file.getvalue()


@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
def test_pictures_of_phones_are_read_upright(kind):
    before = dict(Image.EXTENSION)
    upright = np.moveaxis(np.asarray(PHOTO), -1, 0)
    content = phone_picture(kind)
    assert phone_kind(content) == kind
    assert np.abs(pixels(content).astype(int) - upright).mean() < 4
    turned = pixels(phone_picture(kind, orientation=6))  # a quarter, clockwise
    assert turned.shape == (3, 64, 48)
    assert np.abs(turned.astype(int) - np.rot90(upright, -1, axes=(1, 2))).mean() < 4
    assert pixels(content, (28, 28), 1).shape == (1, 28, 28)
    assert f".{kind.lower()}" in EXTENSIONS
    with pytest.raises(DataError, match=r"it\.png .*damaged"):
        pixels(content[: len(content) // 2])
    with pytest.raises(DataError, match="too large"):
        decode(content, size=None, channels=3, name="it.png", most_pixels=100)
    assert before == dict(Image.EXTENSION), "Pillow is the whole program's, and is left as it was"


@pytest.mark.parametrize(
    ("brand", "kind", "hint"),
    [(b"heic", "HEIC", r"pip install 'metarep\[heic\]' reads them"), (b"avif", "AVIF", "pip install 'pillow>=11.3'")],
)
def test_pictures_of_phones_say_what_reads_them(brand, kind, hint, monkeypatch):
    monkeypatch.setattr(module, "READ", ("JPEG", "PNG"))
    with pytest.raises(DataError, match=rf"it\.png is {kind}, as phones save pictures: {hint}.*; replace or remove it"):
        pixels(b"\0\0\0\x1cftyp" + brand + b"\0\0\0\0mif1miaf" + bytes(100))
    assert phone_kind(b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif") == "AVIF"
    assert phone_kind(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic") == "HEIC"
    assert phone_kind(b"\0\0\0\x18ftypisom\0\0\0\0isommp41") is None, "a film"


def test_resize_keeps_the_shorter_side_and_the_centre():
    wide = np.zeros((30, 90), np.uint8)
    wide[:, 30:60] = 200  # the centre square
    for image in (wide, wide.T):
        found = pixels(saved(Image.fromarray(image), "PNG"), (10, 10), 1)
        assert found.shape == (1, 10, 10)
        assert (found[:, 1:-1, 1:-1] == 200).all()
        assert found.min() > 150  # the filter reaches half a pixel past the cut, as it should
    assert pixels(saved(Image.fromarray(wide), "PNG"), (10, 30), 1).shape == (1, 10, 30)
    assert pixels(saved(Image.fromarray(wide), "PNG"), (60, 20), 1)[0, 30].min() == 200


def test_resize_is_antialiased():
    stripes = np.zeros((400, 400), np.uint8)
    stripes[::2] = 255  # every second line: picking lines instead of averaging them would give black or white
    for kind in ("PNG", "JPEG"):
        found = pixels(saved(Image.fromarray(stripes), kind), (40, 40), 1)
        assert np.abs(found.astype(int) - 127).max() < 8


def test_a_jpeg_is_not_decoded_coarser_than_asked():
    checks = Image.fromarray((np.indices((256, 256)).sum(0) // 6 % 2 * 255).astype(np.uint8))
    exact, found = (pixels(saved(checks, kind), (128, 128), 1).astype(int) for kind in ("PNG", "JPEG"))
    assert np.abs(found - exact).mean() < 8


def test_the_content_decides_not_the_name(tmp_path):
    (tmp_path / "cat.jpg").write_bytes(FILES["png"])
    assert (pixels(tmp_path / "cat.jpg") == pixels(FILES["png"])).all()
    (tmp_path / "page.png").write_text("<html>404</html>")
    with pytest.raises(DataError, match=r"page\.png is not an image of a known kind"):
        decode(tmp_path / "page.png", size=None, channels=3, name="page.png")
    with pytest.raises(DataError, match="is not an image of a known kind"):  # Pillow would call Ghostscript
        pixels(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")


def png_header(width: int, height: int) -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


@pytest.mark.parametrize("pillows_limit", [None, 1000, Image.MAX_IMAGE_PIXELS])
@pytest.mark.parametrize("side", [8001, 12_000, 60_000])
def test_decompression_bombs_are_refused_from_the_header(side, pillows_limit, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows_limit)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    data = b"IDAT" + zlib.compress(b"\0" * 100)
    bomb = png_header(side, side) + struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    with pytest.raises(DataError, match=r"it\.png is too large.*64 megapixels"):
        pixels(bomb)


def test_other_bad_files(tmp_path, monkeypatch):
    (tmp_path / "empty.png").touch()
    with pytest.raises(DataError, match=r"it\.png is an empty file"):
        pixels(tmp_path / "empty.png")
    with pytest.raises(DataError, match=r"it\.png cannot be read \(No such file"):
        pixels(tmp_path / "gone.png")
    with pytest.raises(DataError, match="is not a file"):
        pixels(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(DataError, match="is not a file"):
            pixels(tmp_path / "pipe.png")
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    (tmp_path / "big.png").write_bytes(b"0" * 11)
    with pytest.raises(DataError, match="too large: 11 bytes"):
        pixels(tmp_path / "big.png")


def test_flipped_bytes_give_a_picture_or_a_data_error():
    generator = np.random.default_rng(0)
    refused = 0
    for kind in sorted(FILES.keys() - {"tiff-lzw"}):  # libtiff writes its complaints to the terminal
        for _ in range(60):
            content = bytearray(FILES[kind])
            for place in generator.integers(0, min(len(content), 400), size=4):
                content[place] = generator.integers(256)
            try:
                assert pixels(bytes(content), (28, 28)).shape == (3, 28, 28)
            except DataError:
                refused += 1
    assert refused > 50


def test_nothing_global_is_changed_and_no_warning_leaks():
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)
    odd = Image.new("P", (8, 8))
    odd.info["transparency"] = bytes(range(256))  # Pillow warns when this is converted to RGB
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        pixels(saved(odd, "PNG"))
        list(decode_all([(saved(odd, "PNG"), "a")] * 8, size=(4, 4), channels=3))
    assert seen == []
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before


def test_an_iterator_left_open_undoes_no_filter():
    good = FILES["png"]
    answers = decode_all([(good, "a")] * 40, size=(8, 8), channels=3, threads=1)
    next(answers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        before = list(warnings.filters)
        answers.close()  # as the garbage collector does, at any time
        assert list(warnings.filters) == before


def test_an_iterator_may_be_collected_in_a_thread_of_its_own(monkeypatch):
    suspended, closed = Event(), Event()

    def slow(source, **_):
        if source == b"1":
            suspended.wait(10)
            answers.close()
            closed.set()
        return np.zeros(1)

    monkeypatch.setattr(module, "decode", slow)
    answers = decode_all([(b"%d" % i, str(i)) for i in range(9)], size=None, channels=3, threads=2)
    next(answers)
    suspended.set()
    assert closed.wait(10)


@pytest.mark.slow
def test_a_warning_of_pillow_is_no_damage_in_any_thread():
    odd = Image.new("P", (8, 8))
    odd.info["transparency"] = bytes(range(256))
    with ThreadPoolExecutor(4) as pool:
        sources = [(saved(odd, "PNG"), str(i)) for i in range(200)]
        answers = pool.map(lambda source: list(decode_all([source] * 4, size=None, channels=3)), sources)
        assert all(isinstance(answer, np.ndarray) for answer in itertools.chain(*answers))


def test_decode_all_keeps_order_and_hands_errors_back():
    sources = [(saved(Image.new("L", (9, 9), i % 256), "PNG") if i % 7 else b"no", f"{i}.png") for i in range(600)]
    found = list(decode_all(sources, size=(4, 4), channels=1))
    assert [i for i, item in enumerate(found) if isinstance(item, DataError)] == list(range(0, 600, 7))
    assert all(int(item[0, 0, 0]) == i % 256 for i, item in enumerate(found) if not isinstance(item, DataError))
    assert "7.png" in str(found[7])
