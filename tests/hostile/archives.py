"""Archives and pickles that a stranger may send: bombs, entries outside of the folder, programs."""

import gzip
import io
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hostile.bombs import bomb


def open_pickle(path: Path) -> object:
    from metarep.data.datasets.array_files import read_pickled

    return read_pickled(path)


def open_npz(path: Path) -> object:
    from metarep.data.datasets.array_files import read_npz

    return read_npz(path)


def open_entries(path: Path) -> object:
    from metarep.data.datasets.archives import open_zip, read_entry

    with open_zip(path) as archive:
        return [read_entry(archive, name) for name in archive.namelist()]


def open_tar(path: Path) -> object:
    from metarep.data.datasets.cifar import _read_archive

    return _read_archive(path)


class Shell:
    """What runs a command when it is unpickled by Python."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("hostile",)


PICKLES: Mapping[str, Callable[[], bytes]] = {
    "a call": lambda: pickle.dumps(Shell()),
    "a call inside": lambda: pickle.dumps({"image_data": Shell(), "class_dict": {}}),
    "bytes of 2^62": lambda: b"\x80\x05\x8e" + struct.pack("<Q", 1 << 62),
    "a text of 4 GB": lambda: b"\x80\x05X" + struct.pack("<I", (1 << 32) - 1),
    "a frame of 2^62": lambda: b"\x80\x05\x95" + struct.pack("<Q", 1 << 62) + b"N.",
    "a memo at 2^32": lambda: b"\x80\x04Nr\xff\xff\xff\xff.",
    "a list in lists": lambda: b"\x80\x04" + b"]" * 20_000 + b"a" * 19_999 + b".",
    "a list in itself": lambda: b"\x80\x04]\x94h\0a.",
    "lists that double": lambda: b"\x80\x04]\x94N" + b"a" + b"".join(
        b"]\x94(" + b"h" + bytes([i]) + b"h" + bytes([i]) + b"e" for i in range(60)) + b".",
    "a number of a million digits": lambda: b"I" + b"9" * 1_000_000 + b"\n.",
    "an array of 10^12": lambda: _array(pickle.dumps(10**12, protocol=2)[2:-1]),
    "an array of a shape below 0": lambda: _array(pickle.dumps(-7, protocol=2)[2:-1]),
    "an array of objects": lambda: pickle.dumps(np.array([Shell()], dtype=object), protocol=2),
    "an empty stack": lambda: b".",
    "extension codes": lambda: b"\x80\x02\x82\x01.",
    "a persistent id": lambda: b"Pos.system\n.",
}  # fmt: skip


def _array(size: bytes) -> bytes:
    """A pickled dict with an array of eight bytes, which claims another size; ``size`` is the pickled number."""
    honest = pickle.dumps({"image_data": np.zeros(8, np.uint8), "class_dict": {}}, protocol=2)
    at = honest.index(b"K\x08\x85")  # the shape (8,)
    return honest[:at] + size + honest[at + 2 :]


def npy(shape: str, descr: str = "'|u1'", content: bytes = b"\0") -> bytes:
    """A ``.npy`` file whose header claims a shape."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + content


def npz(images: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("images.npy", images)
        archive.writestr("labels.npy", npy("(1,)"))
    return file.getvalue()


NPZ: Mapping[str, Callable[[], bytes]] = {
    "images of 10^15 bytes": lambda: npz(
        npy("(10**3, 10**12, 3)".replace("10**3", "1000").replace("10**12", str(10**12)))
    ),
    "images of 8 GB that are not there": lambda: npz(npy(f"({1 << 33},)")),
    "a shape that overflows": lambda: npz(npy(f"({1 << 40}, {1 << 40}, {1 << 40})")),
    "a shape below 0": lambda: npz(npy("(-5, 4, 4, 3)")),
    "a shape that is a call": lambda: npz(npy("__import__('os').system('true')")),
    "a shape of deep tuples": lambda: npz(npy("(" * 3000 + ")" * 3000)),
    "objects": lambda: npz(npy("(1,)", "'|O'", pickle.dumps([Shell()]))),
    "images of texts": lambda: npz(npy("(1,)", "'<U1000000000'")),
    "no zip": lambda: b"PK\3\4" + bytes(100),
}


def zipped(name: str, content: bytes = b"", size: int = 0, *, method: int = 8, flag: int = 0, start: int = 0) -> bytes:
    """A zip of one entry, which claims to have ``size`` bytes; ``start`` is added to where its list begins."""
    raw, packed = name.encode(), len(content)
    fields = struct.pack("<HHHHIIIHH", flag, method, 0, 0, 0, packed, size, len(raw), 0)
    local = b"PK\3\4" + struct.pack("<H", 20) + fields + raw + content
    listed = b"PK\1\2" + struct.pack("<HH", 20, 20) + fields + struct.pack("<HHHII", 0, 0, 0, 0, 0) + raw
    return local + listed + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(listed), start + len(local), 0)


def npz_bomb() -> bytes:
    return zipped("images.npy", bomb(400), 400 << 20)


NPZ = {**NPZ, "a bomb": npz_bomb}
ZIPS: Mapping[str, Callable[[], bytes]] = {
    "an entry that leaves its folder": lambda: zipped("../../etc/cron.d/a"),
    "an entry with an absolute name": lambda: zipped("/etc/cron.d/a"),
    "an entry for Windows": lambda: zipped("C:\\a.png"),
    "an entry of 400 MB of zeros": lambda: zipped("images/a.png", bomb(400), 400 << 20),
    "an entry of more than it claims": lambda: zipped("images/a.png", bomb(400), 100),
    "an entry of less than it claims": lambda: zipped("images/a.png", bomb(1), 9 << 20),
    "an entry that claims 4 GB": lambda: zipped("images/a.png", b"", (1 << 32) - 2),
    "an entry that is packed by bzip2": lambda: zipped("images/a.png", b"BZh91", 100, method=12),
    "an entry of an unknown packing": lambda: zipped("images/a.png", b"1", 1, method=99),
    "a list of entries that is elsewhere": lambda: zipped("a.png", start=1 << 30),
    "a list of entries before the file": lambda: zipped("a.png", start=-5),
    "an encrypted entry": lambda: zipped("a.png", b"1", 1, method=0, flag=1),
}


def tarred(*entries: tuple[str, bytes, bytes], claim: int | None = None) -> bytes:
    """A packed tar of entries: name, type, content. Each claims ``claim`` bytes, if that is given."""
    content = b""
    for name, kind, inside in entries:
        entry = tarfile.TarInfo(name)
        entry.type, entry.size = kind, len(inside) if claim is None else claim
        entry.linkname = "/etc/passwd" if kind == tarfile.SYMTYPE else ""
        content += entry.tobuf(tarfile.GNU_FORMAT) + inside + bytes(-len(inside) % 512)
    packed = gzip.compress(content, 1)
    if claim is None:
        return packed
    head, block = packed[:10], zlib.compressobj(1, wbits=-15)
    return head + block.compress(content) + block.flush(zlib.Z_FULL_FLUSH) + bomb(400)


NAMES = ("train", "test", "meta")
FILE = tarfile.REGTYPE
TARS: Mapping[str, Callable[[], bytes]] = {
    "an entry that leaves its folder": lambda: tarred(("../train", FILE, b"N.")),
    "links": lambda: tarred(*((name, tarfile.SYMTYPE, b"") for name in NAMES)),
    "devices": lambda: tarred(*((name, tarfile.CHRTYPE, b"") for name in NAMES)),
    "calls": lambda: tarred(*((name, FILE, pickle.dumps(Shell())) for name in NAMES)),
    "an entry of 8 GB": lambda: tarred(("train", FILE, b""), claim=8 << 30),
    "a text of 400 MB": lambda: tarred(("train", FILE, b"X" + struct.pack("<I", 400 << 20)), claim=401 << 20),
    "a name of 400 MB": lambda: tarred(("././@LongLink", tarfile.GNUTYPE_LONGNAME, b""), claim=400 << 20),
    "a head of gzip that is cut off": lambda: gzip.compress(b"")[:3],
    "no tar": lambda: gzip.compress(bytes(100)),
    "no end": lambda: tarred(("train", FILE, b"N."))[:-10],
}
