"""What the fuzz proofs share: mutated bytes, and a guard that turns a hang or a hunger for memory into a failure."""

import copy
import faulthandler
import re
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

WORDS = (b"\x00", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x80\x00\x00\x00", b"\x00\x00\x00\x00", b"9" * 9)


class TooLongError(BaseException):
    """Not an ``Exception``, so that no handler of the code under test can swallow it."""


def mutated(content: bytes, generator: np.random.Generator) -> bytes:
    """The content after one to four changes: bytes flipped, overwritten, cut, put in, moved, or the rest cut off."""
    data = bytearray(content)
    for _ in range(int(generator.integers(1, 5))):
        # Headers are where files say how large they are, so half of all changes go there.
        end = min(len(data), 64) if generator.random() < 0.5 else len(data)
        place = int(generator.integers(max(1, end)))
        length = int(generator.integers(1, 17))
        match int(generator.integers(7)):
            case 0:
                data[place : place + 1] = bytes([int(generator.integers(256))])
            case 1:
                data[place : place + length] = generator.bytes(length)
            case 2:
                word = WORDS[int(generator.integers(len(WORDS)))]
                data[place : place + len(word)] = word
            case 3:
                del data[place : place + length]
            case 4:
                data[place:place] = generator.bytes(length)
            case 5:
                data[place:place] = data[int(generator.integers(max(1, len(data)))) :][: 4 * length]
            case 6 if generator.random() < 0.5:
                del data[int(generator.integers(max(1, len(data)))) :]
    return bytes(data)


@contextmanager
def guarded(seconds: int = 20, memory: int = 2 << 30) -> Iterator[None]:
    """No more than ``seconds`` of processor time, and no more than ``memory`` bytes above what is mapped now.

    Python is stopped by a signal. Code below Python, or what waits for ever, cannot be: after ten minutes the whole
    process ends with a traceback.
    """

    def stop(*_: object) -> None:
        raise TooLongError(f"took longer than {seconds} s")

    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGPROF, stop)
    resource.setrlimit(resource.RLIMIT_AS, (mapped() + memory, before[1]))
    faulthandler.dump_traceback_later(600, exit=True, file=sys.__stderr__)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
        faulthandler.cancel_dump_traceback_later()
        resource.setrlimit(resource.RLIMIT_AS, before)


def mapped() -> int:
    """Bytes of this process's address space."""
    found = re.search(r"VmSize:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) << 10


VALUES = (0, 1, -1, 3, 2**20, 2**40, 1e300, -0.5, True, None, "", "x", [], [1, 2, 3], {}, {"a": 1}, "nan", "resnet12")


def spoil(tree: Any, generator: np.random.Generator) -> None:
    """One value somewhere in a tree of JSON becomes another, or goes."""
    places = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    if not places:
        return
    place = places[int(generator.integers(len(places)))]
    if isinstance(tree[place], dict | list) and tree[place] and generator.random() < 0.8:
        spoil(tree[place], generator)
    elif generator.random() < 0.1:
        del tree[place]
    else:
        tree[place] = copy.deepcopy(VALUES[int(generator.integers(len(VALUES)))])
