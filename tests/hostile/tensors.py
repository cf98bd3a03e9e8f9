"""Safetensors files that a stranger may send, and the functions that make them of honest ones."""

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

Change = Callable[[Any], Any]
HUGE = 10**9
DEEP = "[" * 200_000 + "]" * 200_000


def parts(path: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON header of a safetensors file and the bytes of its tensors."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def put(path: Path, header: str | bytes, tensors: bytes = b"", length: int | None = None) -> None:
    """Write a safetensors file of this header, which may claim another ``length``."""
    text = header.encode() if isinstance(header, str) else header
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + tensors)


def retold(path: Path, change: Change) -> None:
    """Change the metadata that metarep wrote into a safetensors file; ``change`` edits it, or returns other text."""
    outer, tensors = parts(path)
    about = json.loads(outer["__metadata__"]["metarep"])
    text = change(about)
    outer["__metadata__"]["metarep"] = text if isinstance(text, str) else json.dumps(about)
    put(path, json.dumps(outer), tensors)


def retensored(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors of a safetensors file; its metadata stay."""
    from metarep.machine.files import read_tensors, write_tensors

    tensors, header = read_tensors(path)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    change(tensors)
    write_tensors(path, tensors, header)


def setting(*keys: Any, to: Any) -> Change:
    """The change that sets one value in a tree."""

    def change(tree: Any) -> None:
        for key in keys[:-1]:
            tree = tree[key]
        tree[keys[-1]] = to

    return change


def without(*keys: Any) -> Change:
    """The change that removes one value from a tree."""

    def change(tree: Any) -> None:
        for key in keys[:-1]:
            tree = tree[key]
        del tree[keys[-1]]

    return change


def about(change: Change) -> Callable[[Path], object]:
    return lambda path: retold(path, change)


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    return lambda path: retensored(path, change)


def _claim(name: str = "a", kind: str = "F32", shape: Any = (4,), ends: Any = (0, 16), more: str = "") -> str:
    tensor = json.dumps({"dtype": kind, "shape": shape, "data_offsets": ends})
    return f'{{"__metadata__":{{"metarep":"{{}}"}},{json.dumps(name)}:{tensor}{more}}}'


SAFETENSORS: Mapping[str, Callable[[Path], object]] = {
    "nothing in it": lambda path: path.write_bytes(b""),
    "a header without end": lambda path: put(path, "{}", length=(1 << 64) - 1),
    "a header of 90 MB that is not there": lambda path: put(path, "{}", length=90_000_000),
    "a tensor of 4 TB": lambda path: put(path, _claim(shape=(1 << 40,), ends=(0, 1 << 42)), bytes(16)),
    "a shape of more bytes than there are": lambda path: put(path, _claim(shape=(1 << 40,)), bytes(16)),
    "a shape that overflows": lambda path: put(path, _claim(shape=(1 << 32, 1 << 32, 1 << 32)), bytes(16)),
    "a shape with a negative side": lambda path: put(path, _claim(shape=(-4,)), bytes(16)),
    "an unknown dtype": lambda path: put(path, _claim(kind="PICKLE"), bytes(16)),
    "a dtype of other bytes": lambda path: put(path, _claim(kind="F64"), bytes(16)),
    "offsets backwards": lambda path: put(path, _claim(ends=(16, 0)), bytes(16)),
    "tensors that overlap": lambda path: put(
        path, _claim(more=',"b":{"dtype":"F32","shape":[4],"data_offsets":[8,24]}'), bytes(24)
    ),
    "two tensors of one name": lambda path: put(
        path, _claim(more=',"a":{"dtype":"F32","shape":[4],"data_offsets":[16,32]}'), bytes(32)
    ),
    "bytes after the tensors": lambda path: put(path, _claim(), bytes(16) + b"#!/bin/sh"),
    "JSON that is deep": lambda path: put(path, DEEP),
    "JSON that is cut off": lambda path: put(path, '{"a":{'),
    "no UTF-8": lambda path: put(path, b'{"\xff\xfe":1}'),
    "300,000 tensors": lambda path: put(
        path,
        "{" + ",".join(f'"{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' for i in range(200_000)) + "}",
    ),
    "metadata that are deep": about(lambda _: DEEP),
    "metadata of 8 million lists": lambda path: put(
        path, '{"__metadata__":{"metarep":"[' + "[]," * 8_000_000 + '[]]"}}'
    ),
    "metadata that are a list": about(lambda _: "[1, 2]"),
    "metadata with a number of 5,000 digits": about(lambda _: '{"format": ' + "9" * 5000 + "}"),
    "metadata of lone surrogates": about(lambda _: '{"format": "\\ud800"}'),
    "no metadata": lambda path: put(path, '{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}', bytes(16)),
}

CHECKPOINT: Mapping[str, Change] = {
    "a width of a billion": setting("encoder", "width", to=HUGE),
    "a width of 10^30": setting("encoder", "width", to=10**30),
    "a width that is a text": setting("encoder", "width", to="8"),
    "a width that is not whole": setting("encoder", "width", to=8.5),
    "a width that is another": setting("encoder", "width", to=16),
    "images of a billion pixels a side": setting("preprocess", "size", to=[HUGE, HUGE]),
    "a billion channels": setting("preprocess", "channels", to=HUGE),
    "a mean that is infinite": lambda about: json.dumps(about).replace('"mean": [0.5', '"mean": [Infinity'),
    "an unknown preprocessing": setting("preprocess", "shell", to="rm"),
    "an encoder that is a list": setting("encoder", to=["conv4"]),
    "an encoder that is unknown": setting("encoder", "name", to="os.system"),
    "an encoder whose name is a list": setting("encoder", "name", to=["conv4"]),
    "an encoder of the hub": setting("encoder", to={"name": "timm", "model": "hf-hub:a/b", "pretrained": True}),
    "a graph of 10^12 bytes": setting("encoder", to={"name": "onnx", "size": 10**12}),
    "no preprocessing": without("preprocess"),
    "channels_last": setting("preprocess", "size", to=[20]),
}
RUNS: Mapping[str, Change] = {
    "a learner that is unknown": setting("learner", "name", to="eval"),
    "a learner of unknown settings": setting("learner", "__class__", to=1),
    "a temperature that is a list": setting("learner", "temperature", to=[1]),
    "a seen that is a text": setting("seen", to="0123456789ab"),
    "a seen of numbers": setting("seen", to=[1, 2]),
    "a method that is a list": setting("method", to=[]),
    "settings that are a text": setting("settings", to="turns"),
    "a training that is a list": setting("train", to=[1]),
    "steps that are a text": setting("train", "steps", to="many"),
    "data that are a list": setting("data", to=[]),
    "a depth of texts": setting("data", "depth", to={"16-bit": ["a", "b"]}),
    "frozen weights that are not there": setting("frozen", to=["__class__"]),
    "frozen weights that are numbers": setting("frozen", to=[1]),
    "frozen weights that are a number": setting("frozen", to=1),
}
DESCENT: Mapping[str, Change] = {
    "a billion classes": setting("learner", "ways", to=HUGE),
    "a billion steps, each with a rate": setting("learner", "steps", to=HUGE),
    "steps that are not whole": setting("learner", "steps", to=2.5),
    "a rate of infinity": lambda about: json.dumps(about).replace('"inner_lr": ', '"inner_lr": 1e999, "x": '),
}
