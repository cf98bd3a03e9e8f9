"""SavedStates: the last two states of a training on disk. Each has a digest, so that a damaged one is recognised."""

import errno
import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metarep.errors import Advised, MetarepError
from metarep.machine.files import read_tensors, write_tensors
from metarep.machine.flush import flush

STATE = "state.safetensors"
NEXT, PREVIOUS, DAMAGED = f"next-{STATE}", f"previous-{STATE}", f"damaged-{STATE}"
GO_ON = "make room on its disk or repair it; then the same training goes on from the last saved state"
DIGEST = "digest"  # the entry of the header
Saved = tuple[dict[str, Tensor], dict[str, Any]]


class DamagedStateWarning(Advised, UserWarning):
    """The newest saved state of a training is damaged, and the one before it is used."""

    loud = True  # the command line says it again at its end


class SavedStates:
    """The states of a training in its run folder.

    ``state.safetensors`` is the newest, ``previous-state.safetensors`` the one before it. A new state is complete and
    on the disk, as ``next-state.safetensors``, before these two are renamed. So the process may be killed at any
    moment: at least one complete state remains.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.newest, self.next, self.previous = folder / STATE, folder / NEXT, folder / PREVIOUS

    @property
    def files(self) -> list[Path]:
        """The files that exist, the newest state first."""
        return [path for path in (self.next, self.newest, self.previous) if path.exists()]

    def save(self, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        """Write a state; the newest one becomes the previous one.

        Args:
            tensors: the state, by name.
            header: values that JSON can hold; ``step`` is the number of steps done.

        Raises:
            MetarepError: the file could not be written. The states that were there are unchanged.
        """
        header = json.loads(json.dumps(header))
        with keeping_states():
            write_tensors(self.next, tensors, header | {DIGEST: _digest(tensors, header)})
        self._move_on()

    def load(self) -> Saved | None:
        """The newest state that is not damaged; None if no state was saved.

        A damaged file is renamed to ``damaged-state.safetensors``, and nothing reads it again.

        Raises:
            MetarepError: there are states, but all are damaged.

        Warns:
            DamagedStateWarning: the newest state is damaged, so an older one is returned.
        """
        damaged: list[str] = []
        files = self.files
        for path in files:
            try:
                saved = read_state(path)
            except (MetarepError, RuntimeError, OSError) as error:
                if isinstance(error, OSError) and error.errno != errno.EIO:
                    raise  # no permission, no memory: the file may be good
                damaged.append(str(error))
                continue
            if damaged:
                self._put_aside(files[: len(damaged)])
                text = (
                    f"{'; '.join(damaged)}. The training goes on from the state before it, of step {saved[1]['step']}"
                )
                warnings.warn(DamagedStateWarning(text), stacklevel=3)
            if self.next.exists():
                self._move_on()
            elif not self.newest.exists():
                self.previous.replace(self.newest)
            return saved
        if damaged:
            raise MetarepError(
                f"no saved state of the training in {self.folder} can be read: {'; '.join(damaged)}",
                advice=("copy one of these files from a backup", "delete them to train again from the first step"),
            )
        return None

    def _put_aside(self, files: list[Path]) -> None:
        for path in files:
            path.replace(self.folder / DAMAGED)

    def _move_on(self) -> None:
        """Rename the newest state to the previous one, and the next state to the newest."""
        if self.newest.exists():
            self.newest.replace(self.previous)
        self.next.replace(self.newest)
        flush(self.folder)


def read_state(path: Path) -> Saved:
    """Read the tensors and the header of a state, and compare them with its digest.

    Files of metarep 0.1.0 have no digest; they are read without this comparison.

    Args:
        path: a file that :meth:`SavedStates.save` wrote.

    Raises:
        MetarepError: the file is damaged. The message names it.
    """
    mapped, header = read_tensors(path)
    tensors = {name: value.clone() for name, value in mapped.items()}  # no longer memory of the file, which is renamed
    digest = header.pop(DIGEST, None)
    if digest is not None and digest != _digest(tensors, header):
        raise MetarepError(f"{path} is damaged: its content does not have the digest that was written with it")
    if "step" not in header:
        raise MetarepError(f"{path} is not the state of a training: its header has no step")
    return tensors, header


@contextmanager
def keeping_states() -> Iterator[None]:
    """A context for writing to a run folder: errors say that the saved states remain, and how to go on."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise MetarepError(
            f"the run folder cannot be written: {where}{error.strerror or error}", advice=GO_ON
        ) from error
    except MetarepError as error:
        raise MetarepError(error.message, advice=GO_ON) from error


def _digest(tensors: dict[str, Tensor], header: dict[str, Any]) -> str:
    """SHA-256 of a header and of the names, types, shapes and values of tensors, in hexadecimal digits."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
