"""Images that a stranger may send: they claim billions of pixels, or unpack to far more bytes than they have."""

import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from hostile.bombs import bomb


def open_image(path: Path) -> object:
    from metarep.data.reading.decode import decode

    return decode(path, size=(32, 32), channels=3, name=path.name)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *more: bytes, bits: int = 8, kind: int = 2, pixels: bytes = b"") -> bytes:
    """A PNG that claims a size, with these chunks before its pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    end = chunk(b"IDAT", zlib.compress(pixels, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + end


def tiff(width: int, height: int, *, offset: int = 8) -> bytes:
    """An uncompressed TIFF without pixels; ``offset`` is where its list of tags begins."""
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, (width * height) % (1 << 32))]
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<I", offset) + struct.pack("<H", len(tags)) + body + struct.pack("<I", 8)


IMAGES: Mapping[str, Callable[[], bytes]] = {
    "a PNG of 2^31 x 2^31 pixels": lambda: png((1 << 31) - 1, (1 << 31) - 1),
    "a PNG of 100,000 x 100,000 pixels": lambda: png(100_000, 100_000),
    "a PNG of 63 megapixels without pixels": lambda: png(7900, 7900),
    "a PNG of a row of 64 million": lambda: png(64_000_000, 1),
    "a PNG whose text is a bomb": lambda: png(4, 4, chunk(b"zTXt", b"a\0\0\x78\x9c" + bomb(400))),
    "a PNG whose profile is a bomb": lambda: png(4, 4, chunk(b"iCCP", b"a\0\0\x78\x9c" + bomb(400))),
    "a PNG with a chunk of 2 GB": lambda: png(4, 4)[:33] + struct.pack(">I", (1 << 31) - 1) + b"IDAT",
    "a PNG of no pixels": lambda: png(0, 0),
    "a GIF of 65,535 x 65,535 pixels": lambda: b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
    + b",\0\0\0\0" + struct.pack("<HHB", 65535, 65535, 0) + b"\x02\x02L\x01\0;",
    "a BMP of 2^31 pixels a side": lambda: b"BM" + struct.pack("<IHHI", 54, 0, 0, 54)
    + struct.pack("<IiiHHIIiiII", 40, (1 << 31) - 1, (1 << 31) - 1, 1, 24, 0, 0, 0, 0, 0, 0),
    "a BMP below 0": lambda: b"BM" + struct.pack("<IHHI", 54, 0, 0, 54)
    + struct.pack("<IiiHHIIiiII", 40, -8, -(1 << 31), 1, 24, 0, 0, 0, 0, 0, 0),
    "a TIFF of 2^32 pixels a side": lambda: tiff((1 << 32) - 1, (1 << 32) - 1),
    "a TIFF of 63 megapixels without pixels": lambda: tiff(7900, 7900),
    "a TIFF whose tags are far away": lambda: tiff(8, 8, offset=(1 << 32) - 1),
    "a PPM of 10^18 pixels": lambda: b"P6 1000000000 1000000000 255\n",
    "a PPM of 63 megapixels without pixels": lambda: b"P6 7900 7900 255\n",
    "a PGM of endless digits": lambda: b"P2 " + b"9" * 1_000_000 + b" 1 255\n",
    "a JPEG of 65,500 pixels a side": lambda: b"\xff\xd8\xff\xc0\0\x11\x08" + struct.pack(">HH", 65500, 65500)
    + b"\x03\x01\x22\0\x02\x11\x01\x03\x11\x01\xff\xda\0\x0c\x03\x01\0\x02\x11\x03\x11\0\x3f\0",
    "a WebP of 16,383 pixels a side": lambda: b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8L" + struct.pack("<I", 10)
    + b"\x2f" + struct.pack("<I", 0x3FFF | 0x3FFF << 14) + bytes(5),
    "an EPS, which is a program": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n%%EOF\n",
    "a page": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "an AVIF of nothing": lambda: b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(64),
    "a HEIC of nothing": lambda: b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + bytes(64),
}  # fmt: skip
