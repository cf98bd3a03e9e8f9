"""Saving: writes the state of a training to its run folder, and resumes from there."""

import json
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from metarep.experiments.run_folder import RunFolder
from metarep.experiments.training_state import TrainingState
from metarep.machine.ranks import from_first, rank, ranks


class Saving:
    """Saves and resumes a training in its run folder; without a folder it does nothing.

    Of several processes only the first has the folder. It sends what it reads to the others, so all resume alike.

    Args:
        run: the run folder; None for no saving, and on the other processes.
        state: the state of the training, which :meth:`resume` changes in place.
    """

    def __init__(self, run: RunFolder | None, state: TrainingState) -> None:
        self.run, self.state = run, state

    def save(self, *, model: bool) -> None:
        """Write the state of the training.

        Args:
            model: also write the model with the weights of this step.
        """
        if not self.run:
            return
        self.run.save_state(*self.state.pack())
        if model:
            self.save_model()

    def save_model(self) -> None:
        """Write the model with the weights that the method has now."""
        if self.run:
            self.run.save_model(self.state.method)

    def resume(self) -> None:
        """Restore the last state that was saved in the run folder, if there is one."""
        saved = self.run.load_state() if self.run else None
        if ranks() > 1:
            if rank() == 0:
                tensors, header = saved or self.state.pack()  # also of the first step: all start from equal weights
                saved = tensors, header
            saved = _share(saved)
        if saved is not None:
            self.state.unpack(*saved)


def _share(saved: tuple[dict[str, Tensor], dict[str, Any]] | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the header of rank 0, on every rank."""
    content = header = None
    if saved is not None:
        content = save({name: tensor.detach().cpu().contiguous() for name, tensor in saved[0].items()})
        header = json.dumps(saved[1]).encode()
    return load(from_first(content)), json.loads(from_first(header))
