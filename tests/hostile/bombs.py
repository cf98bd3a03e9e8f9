"""Bombs: a few bytes that unpack to many."""

import zlib


def bomb(megabytes: int) -> bytes:
    """Deflated zeros, without the head and the sum of zlib: one block again and again."""
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * megabytes + zlib.compressobj(wbits=-15).flush()
