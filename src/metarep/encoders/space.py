"""The space of an encoder: a digest that says whose vectors these are."""

import hashlib
import json
from dataclasses import asdict

import torch
from torch import Tensor

from metarep.encoders.encoder import Encoder


def space_of(encoder: Encoder) -> str:
    """Sixteen hexadecimal digits that name an encoder: its body, its weights, and how it wants images prepared.

    Two encoders of one name have one space, wherever their files lie; one more step of training makes another. The
    precision it computes in is no part of it: features of one image differ by a percent between float32 and bfloat16.
    """
    about = {"arch": encoder.arch, "preprocess": asdict(encoder.preprocess)}
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
    for name, value in sorted(encoder.body.state_dict().items()):
        if not isinstance(value, Tensor):  # what a module of somebody's own keeps besides
            digest.update(f"{name} {value!r}".encode())
            continue
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
