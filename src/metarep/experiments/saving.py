"""Saving: writes the state of a training to its run folder when it is due, and resumes from there."""

import json
from contextlib import suppress
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load, save
from torch import Tensor

from metarep.encoders.normalisation import running_tensors
from metarep.errors import MetarepError
from metarep.experiments.card import run_card
from metarep.experiments.run_folder import RunFolder
from metarep.experiments.training_state import TrainingState
from metarep.machine.files import typed
from metarep.machine.ranks import from_first, rank, ranks, stacked_over_ranks
from metarep.weights.card import write_card
from metarep.weights.settings import TrainSettings

RUNNING = "ranks.running"  # the name of a tensor in the state: the running statistics of each process


class Saving:
    """Saves and resumes a training in its run folder; without a folder it does nothing.

    Of several processes only the first has the folder. It sends what it reads to the others, so all resume alike. Each
    gets its own running statistics again, which agree only after a validation; or their mean, if the number of
    processes is another.

    Args:
        run: the run folder; None for no saving.
        state: the state of the training, which :meth:`resume` changes in place.
        settings: the number of steps, and how often to save.
    """

    def __init__(self, run: RunFolder | None, state: TrainingState, settings: TrainSettings) -> None:
        self.run, self.where = run if rank() == 0 else None, f" in {typed(run.path)}" if run else ""
        self.state, self.steps = state, settings.steps
        self.every = settings.save_every or settings.validate_every

    @property
    def due(self) -> bool:
        """Whether the state is to be saved after this step: every few steps, and after the last one."""
        return self.state.step == self.steps or self.state.step % self.every == 0

    def save(self) -> None:
        """Write the state of the training. All processes must call this method.

        Raises:
            MetarepError: the file could not be written, such as on a full disk. The states before it remain.
        """
        running = stacked_over_ranks(self._running()) if ranks() > 1 else None
        if self.run:
            tensors, header = self.state.pack()
            self.run.save_state(tensors if running is None else tensors | {RUNNING: running}, header)

    def save_model(self) -> None:
        """Write the model with the weights that the method has now.

        Raises:
            MetarepError: the file could not be written.
        """
        if self.run:
            self.run.save_model(self.state.method)

    def save_card(self) -> None:
        """Write the card of the run. A folder that cannot be written any more does not fail a training that is done."""
        if self.run:
            with suppress(MetarepError):
                write_card(self.run.path, run_card(self.run.path))

    def resume(self) -> None:
        """Restore the last state that was saved in the run folder, if there is one.

        Raises:
            MetarepError: no saved state can be read, or it is that of another network.
        """
        saved = self.run.load_state() if self.run else None
        if ranks() > 1:
            if rank() == 0:
                tensors, header = saved or self.state.pack()  # also of the first step: all start from equal weights
                saved = tensors, header
            saved = _share(saved)
        if saved is None:
            return
        try:
            self.state.unpack(*saved)
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise MetarepError(
                f"the saved state{self.where} is not that of this training: {reason}",
                advice="go on with the version of metarep that saved it, or choose another folder",
            ) from error
        if RUNNING in saved[0]:
            self._set_running(saved[0][RUNNING])

    @property
    def kept(self) -> str:
        """What was saved and how to go on, for the message of a training that is stopped."""
        step = f"step {self.state.step} of {self.steps}"
        return f"{step} is saved{self.where}; the same training, started again, goes on from it"

    def _running(self) -> Float[Tensor, " n"]:
        """The running statistics of this process in one row, in float64."""
        rows = [tensor.detach().double().flatten() for tensor in running_tensors(self.state.method)]
        return torch.cat([torch.zeros(0, dtype=torch.float64, device=self.state.method.learner.device), *rows])

    def _set_running(self, every: Float[Tensor, "rank n"]) -> None:
        row = every[rank()] if len(every) == ranks() else every.mean(0)
        tensors = running_tensors(self.state.method)
        for tensor, values in zip(tensors, row.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(values.view(tensor.shape))


def _share(saved: tuple[dict[str, Tensor], dict[str, Any]] | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the header of rank 0, on every rank."""
    content = header = None
    if saved is not None:
        content = save({name: tensor.detach().cpu().contiguous() for name, tensor in saved[0].items()})
        header = json.dumps(saved[1]).encode()
    return load(from_first(content)), json.loads(from_first(header))
