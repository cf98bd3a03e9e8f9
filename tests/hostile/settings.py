"""Settings that a stranger may send: recipes in TOML, and the JSON files of runs and indexes."""

from collections.abc import Mapping
from pathlib import Path

DEEP = "[" * 200_000


def open_config(path: Path) -> object:
    from metarep.cli.config import read_config

    return read_config(path, "protonet")


def open_depth(path: Path) -> object:
    from metarep.data.reading.depth import read_depth

    return read_depth(path)


def open_record(path: Path) -> object:
    from metarep.experiments.run_folder import read_record

    return read_record(path)


TOMLS: Mapping[str, bytes] = {
    "deep lists": b"a = " + DEEP.encode(),
    "deep tables": b"a = " + b"{a=" * 100_000,
    "a deep key": b".".join([b"a"] * 100_000) + b" = 1",
    "a number of 5,000 digits": b"steps = " + b"9" * 5000,
    "steps of 10^30": b"[train]\nsteps = 1" + b"0" * 30,
    "a rate that is infinite": b"[train]\nlr = inf",
    "a width of 10^30": b"[encoder]\nname = 'conv4'\nwidth = 1" + b"0" * 30,
    "images of a billion pixels": b"size = 1000000000",
    "no UTF-8": b"\xff\xfe",
    "UTF-16": "[train]\nsteps = 5\n".encode("utf-16"),
    "a NUL": b"data = '\0'",
    "keys twice": b"[train]\nsteps = 1\nsteps = 2",
    "a method that is a list": b"method = ['protonet']",
    "a method that is a table": b"[method]\na = 1",
    "an encoder that is a list": b"encoder = ['conv4']",
    "an encoder whose name is a list": b"encoder = {name = ['conv4']}",
    "an encoder whose name is a table": b"encoder = {name = {a = 1}}",
    "settings that are a text": b"settings = 'turns'",
    "data that are a date": b"data = 1979-05-27",
    "a key of 1 MB": b"a" * 1_000_000 + b" = 1",
    "a list of a million": b"a = [" + b"1," * 1_000_000 + b"]",
}


JSONS: Mapping[str, bytes] = {
    "deep": DEEP.encode(),
    "a list": b"[1]",
    "no UTF-8": b"\xff",
    "a number of 5,000 digits": b'{"16-bit": ' + b"9" * 5000 + b"}",
    "texts": b'{"16-bit": ["a", "b"]}',
    "infinity": b'{"16-bit": [0, 1e999]}',
    "lists": b'{"16-bit": [[], []]}',
    "long": b'{"16-bit": [' + b"1," * 3000 + b"1]}",
}
RECORDS: Mapping[str, bytes] = {
    "a method that is a list": b'{"method": [], "settings": {}}',
    "settings that are a list": b'{"method": "protonet", "settings": [1]}',
    "a training that is a list": b'{"method": "protonet", "settings": {}, "train": []}',
    "data of texts": b'{"method": "protonet", "settings": {}, "data": "glyphs"}',
}
