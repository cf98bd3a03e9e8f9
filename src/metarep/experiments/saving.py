"""Saving: writes the state of a training to its run folder, and resumes from there."""

from metarep.experiments.run_folder import RunFolder
from metarep.experiments.training_state import TrainingState


class Saving:
    """Saves and resumes a training in its run folder; without a folder it does nothing.

    Args:
        run: the run folder; None for no saving.
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
            self.run.save_model(self.state.method)

    def resume(self) -> None:
        """Restore the last state that was saved in the run folder, if there is one."""
        saved = self.run.load_state() if self.run else None
        if saved is not None:
            self.state.unpack(*saved)
