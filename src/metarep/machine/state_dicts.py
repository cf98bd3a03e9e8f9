"""State dicts from strangers: tensors by name from a safetensors file, or from what torch.save wrote, without code."""

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from metarep.errors import MetarepError, one_line
from metarep.machine.untrusted import FREE, MOST_TENSORS, open_tensors

DEEPEST = 4  # dictionaries in dictionaries, such as {"teacher": {"backbone": {...}}}
TIMES = 4  # tensors may share their numbers; together they may claim so many times the bytes of the file


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a ``.safetensors`` file, or of a ``.pth`` that ``torch.save`` wrote.

    Of a ``.pth`` only tensors are read, by torch's restricted unpickler, which runs no code. Dictionaries in it are
    joined by dots, as in ``teacher.backbone.norm.weight``; numbers and texts are left out. The bytes that it claims are
    compared with those of the file before anything is read.

    Args:
        path: the file.

    Returns:
        Floating-point tensors by name, on the CPU.

    Raises:
        MetarepError: the file is not there, is damaged, claims more than it has, or holds something else than tensors.
    """
    if not path.is_file():
        raise MetarepError(f"there is no file {path}; check the path")
    try:
        if path.suffix == ".safetensors":
            with open_tensors(path) as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        else:
            _check_zip(path)
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            tensors = dict(_tensors(content, "", DEEPEST))
            _check_claims(tensors, path.stat().st_size)
    except SafetensorError as error:
        raise MetarepError(f"{path} cannot be read as safetensors: {error}") from error
    except MetarepError as error:
        raise MetarepError(f"{path} cannot be read: {error.message}") from None
    except pickle.UnpicklingError as error:
        reason = "it holds Python objects besides tensors, which may run code; save its state_dict() alone"
        raise MetarepError(f"{path} cannot be read: {reason}") from error
    except Exception as error:  # torch raises errors of many kinds for damaged files
        reason = one_line(error)
        raise MetarepError(f"{path} cannot be read: {reason}") from error
    return {name: value for name, value in tensors.items() if value.is_floating_point()}


def _check_zip(path: Path) -> None:
    """Raise unless the file is a zip of ``torch.save`` whose entries are as large as they claim."""
    if not zipfile.is_zipfile(path):
        raise MetarepError("it is not a zip of torch.save (torch 1.6 or later); load it and save it anew")
    with zipfile.ZipFile(path) as file:
        entries = file.infolist()
    if any(Path(entry.filename).name == "constants.pkl" for entry in entries):
        raise MetarepError(
            "it is a TorchScript program, as OpenAI publishes CLIP; save the state_dict() of what torch.jit.load gives"
        )
    if len(entries) > MOST_TENSORS or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise MetarepError("its entries are compressed or too many, which torch.save does not do")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise MetarepError("its entries claim more bytes than the file has")
    if any(entry.file_size > FREE for entry in entries if entry.filename.endswith(".pkl")):
        raise MetarepError("its list of tensors is too long")


def _tensors(content: Any, prefix: str, deep: int) -> Iterator[tuple[str, Tensor]]:  # noqa: ANN401 - of any file
    """The tensors of a dictionary of dictionaries, by their names joined by dots."""
    if not isinstance(content, Mapping):
        raise MetarepError(f"it holds a {type(content).__name__} and not a dictionary of tensors")
    for count, (name, value) in enumerate(content.items()):
        if count >= MOST_TENSORS:
            raise MetarepError("it names too many tensors")
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, Mapping) and deep > 1:
            yield from _tensors(value, f"{prefix}{name}.", deep - 1)


def _check_claims(tensors: Mapping[str, Tensor], size: int) -> None:
    """Raise unless every tensor is a plain one whose numbers are all in the file."""
    for name, value in tensors.items():
        plain = type(value) in (Tensor, nn.Parameter) and value.layout is torch.strided and value.device.type == "cpu"
        if not plain or value.is_quantized or value.nbytes > value.untyped_storage().nbytes():
            raise MetarepError(f"{name} is not a plain tensor of numbers")
    if sum(value.nbytes for value in tensors.values()) > TIMES * size:
        raise MetarepError("its tensors claim more bytes than the file has")
