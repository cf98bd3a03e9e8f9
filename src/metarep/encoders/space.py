"""The feature space of an encoder: a digest that says which encoder made a vector."""

import hashlib
import json
from dataclasses import asdict

import torch
from torch import Tensor

from metarep.encoders.encoder import Encoder


def space_of(encoder: Encoder) -> str:
    """A digest of an encoder's architecture, weights and preprocessing, as sixteen hexadecimal digits.

    Vectors may be compared if their encoders have the same digest. It does not depend on the file the encoder came
    from, and one more step of training changes it. The precision of the computation is not part of it: features of one
    image differ by about one percent between float32 and bfloat16.

    >>> from metarep.encoders.preprocess import Preprocess
    >>> space_of(Encoder(torch.nn.Flatten(), Preprocess((1, 1), 1, (0.0,), (1.0,))))
    '72a856f91af805bd'
    """
    about = {"arch": encoder.arch, "preprocess": asdict(encoder.preprocess)}
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
    for name, value in sorted(encoder.body.state_dict().items()):
        if not isinstance(value, Tensor):  # the extra state of a third-party module
            digest.update(f"{name} {value!r}".encode())
            continue
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
