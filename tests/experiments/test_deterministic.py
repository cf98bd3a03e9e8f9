"""With ``deterministic`` a training ends in the same bits on one thread and on two."""

from typing import Any

import pytest
import torch

from metarep.experiments.training import train
from metarep.machine.deterministic import deterministic, task_threads
from metarep.methods import METHODS
from metarep.weights.settings import TrainSettings

BATCHES = {"steps": 3, "shots": 2, "queries": 5, "images": 64, "tasks": 2}


@pytest.fixture
def two_threads() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "ways", "augment"), [("protonet", 20, "none"), ("maml", 5, "none"), ("simclr", 5, "views-drawings")]
)
def test_weights_are_equal_on_one_and_on_two_threads(
    name: str, ways: int, augment: str, drawings: Any, small_encoder: Any, two_threads: None
) -> None:
    ends = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            method = METHODS[name](small_encoder())
        given = {**METHODS[name].defaults, **BATCHES, "ways": ways, "augment": augment, "deterministic": True}
        train(method, drawings[0], TrainSettings(**given))
        assert torch.get_num_threads() == threads, "it is restored"
        ends.append(method.state_dict())
    assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())


def test_tasks_keep_their_threads(two_threads: None) -> None:
    with deterministic(True, torch.device("cpu")), deterministic(True, torch.device("cpu")):
        assert (torch.get_num_threads(), task_threads()) == (1, 2)
    with pytest.raises(KeyError), deterministic(True, torch.device("cpu")):
        raise KeyError
    assert (torch.get_num_threads(), task_threads()) == (2, 2)
    with deterministic(False, torch.device("cpu")):
        assert torch.get_num_threads() == 2
