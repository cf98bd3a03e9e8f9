"""Several processes train as one does: all methods, on two processes joined by gloo."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from torch import Generator, Tensor

from metarep.data.augment import preset
from metarep.data.batch import Batch, BatchShape, ViewBatch, Views
from metarep.data.batches import draw_batch
from metarep.data.images import ImageBank
from metarep.data.labels import Labels
from metarep.data.reading.depth import Depth
from metarep.data.split import Split
from metarep.encoders import Preprocess, build_encoder
from metarep.encoders.normalisation import synchronised
from metarep.errors import DataError
from metarep.experiments.reproduce import _each_seed
from metarep.experiments.training import train
from metarep.machine.randomness import hand_over
from metarep.machine.ranks import Part, average_gradients, rank, ranks
from metarep.methods import METHODS, Method, build_method
from metarep.methods.contrastive import encode_blocks
from metarep.methods.student import Student
from metarep.search.sharing import dismiss, embed_together, help_embed
from metarep.weights.settings import TrainSettings

pytestmark = pytest.mark.slow  # processes that import torch take seconds to start
RANKS = 2
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}  # absolute, or of the largest gradient if that is above 1
DROPPING = ("protonet", "simclr", "supcon")  # with DropBlock; tasks and groups of a process draw numbers of their own
SHAPE = BatchShape(ways=5, shots=2, queries=2, tasks=3, images=32)  # three tasks: the parts are unequal


def images() -> Split:
    generator = Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (120, 1, 16, 16), dtype=torch.uint8, generator=generator)
    return Split(ImageBank(pixels), Labels.of([i // 10 for i in range(120)]), "noise")


def build(name: str, encoder: str, dtype: torch.dtype, ways: int = 5) -> Method:
    torch.manual_seed(0)
    own = {"classes": 12} if name == "baseline" else {"ways": ways} if name in ("maml", "anil", "reptile") else {}
    width = 32 if encoder == "conv4" and dtype == torch.float32 else 8  # the C code takes 32 channels at a time
    body = build_encoder(encoder, Preprocess((16, 16), 1, (0.5,), (0.25,)), width=width)
    return build_method(name, body, own).to(dtype)


def exact(batch: Batch, dtype: torch.dtype) -> Any:
    """The batch with images of this dtype."""

    def pixels(x: Tensor) -> Tensor:
        return x.to(dtype) / 255 if x.dtype == torch.uint8 else x.to(dtype)

    second = {"second": pixels(batch.second)} if isinstance(batch, Views) else {}
    return replace(batch, images=pixels(batch.images), **second)


def gradients(
    name: str, encoder: str, dtype: torch.dtype, tasks: int = SHAPE.tasks, taught: bool = False
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Gradients and running statistics after one step, and this process's share of the loss."""
    method, split, generator = build(name, encoder, dtype).train(), images(), Generator().manual_seed(1)
    if taught:
        assert isinstance(method, Student)
        teacher = build(name, encoder, dtype)
        with torch.no_grad():
            for parameter in teacher.parameters():  # else it would agree with its student
                parameter.mul_(1.5)
        method.learn_from(teacher)
    augment = preset("views-drawings") if issubclass(method.eats, Views) else None
    spans = method.spans_batch
    batch = draw_batch(
        method.eats, split.bank, split.labels, replace(SHAPE, tasks=tasks), augment, generator, spans=spans
    )
    batch = exact(batch, dtype)
    hand_over(generator, method, (batch.own, len(batch.rows)) if spans else None)
    with synchronised():
        step = method.step(batch, progress=0.0, generator=generator)
    loss = step.loss * batch.weight
    loss.backward()
    average_gradients(method)
    method.after_step(step.carry, 0.0)
    statistics = [value for key, value in method.named_buffers() if "running" in key or "second" in key]
    return [p.grad for p in method.parameters() if p.grad is not None], statistics, loss.detach()


def all_gradients() -> dict[tuple[Any, ...], Any]:
    cases: list[tuple[Any, ...]] = [(name, "conv4", dtype) for name in METHODS for dtype in TOLERANCE]
    cases += [(name, "resnet12", torch.float64) for name in DROPPING]
    cases += [(name, "conv4", torch.float64, 1) for name in ("protonet", "anil")]  # one task, which is split
    cases += [(name, "conv4", torch.float64, tasks, True) for name, tasks in (("protonet", 1), ("baseline", 3))]
    return {case: gradients(*case) for case in cases}


@pytest.fixture(scope="module")
def together() -> list[dict[str, Any]]:
    """What each of the processes gives; they are started once, because that takes seconds."""
    return run_ranks(RANKS, everything)


def everything() -> dict[str, Any]:
    return {
        "gradients": all_gradients(),
        "features": own_features(1),
        "refusals": refusals(),
        "embedded": embedded(),
        "seeds": _each_seed(lambda seed: [{"seed": seed, "rank": dist.get_rank(), "ranks": ranks()}] * 2, 3),
    }


def test_gradients_are_those_of_one_process(together: list[dict[str, Any]]) -> None:
    alone = all_gradients()
    assert {case[0] for case in alone} == set(METHODS)
    for case, (expected, statistics, loss) in alone.items():
        scale = max(1.0, *(float(gradient.abs().max()) for gradient in expected))
        for one in together:
            got, kept, _ = one["gradients"][case]
            off = max(float((a - b).abs().max()) for a, b in zip(expected, got, strict=True))
            assert off <= TOLERANCE[case[2]] * scale, (case, off, scale)
            if case[0] != "moco":  # its groups of queries move the running statistics of their own process
                close = [torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(statistics, kept, strict=True)]
                assert all(close), case
        if case[0] != "reptile":  # its loss is not a mean over tasks, but its gradient is
            shares = torch.stack([one["gradients"][case][2] for one in together])
            assert torch.isclose(loss, shares.mean(), rtol=1e-5), case


def ten_steps(name: str, split: Split | None = None, **given: Any) -> list[Tensor]:
    """The weights and buffers after ten steps in float64, where rounding cannot turn the sign of a step of Adam."""
    method = build(name, "conv4", torch.float64, given.get("ways", 5))
    step = method.step
    method.step = lambda batch, **more: step(exact(batch, torch.float64), **more)  # type: ignore[method-assign]
    more: dict[str, Any] = {"augment": "views-drawings"} if issubclass(method.eats, Views) else {}
    own = {key: value for key, value in method.defaults.items() if key in ("lr", "schedule")}
    shape: dict[str, Any] = {"steps": 10, "ways": 5, "shots": 2, "queries": 2, "tasks": 3, "images": 32}
    settings = TrainSettings(**(shape | own | more | given))
    train(method, split or images(), settings)
    return [tensor.detach() for tensor in (*method.parameters(), *method.buffers())]


def all_trainings() -> dict[str, list[Tensor]]:
    return {name: ten_steps(name) for name in METHODS}


def test_ten_steps_end_in_the_weights_of_one_process() -> None:
    alone, together = all_trainings(), run_ranks(RANKS, all_trainings)
    for name in METHODS:
        assert all(torch.equal(a, b) for a, b in zip(*(one[name] for one in together), strict=True)), name
        kept = len(list(build(name, "conv4", torch.float64).parameters())) if name == "moco" else None  # as above
        for expected, got in zip(alone[name][:kept], together[0][name][:kept], strict=True):
            assert torch.allclose(expected, got, rtol=1e-6, atol=1e-6), name


def own_features(groups: int) -> Tensor:
    """Features of this process's images in training, with per-process statistics or in groups."""
    encoder, split = build("baseline", "conv4", torch.float64).train().learner.encoder, images()
    own = split.bank.images[Part.own(120).slice].double() / 255
    with synchronised(False):
        return encode_blocks(encoder, own, groups).detach()


def test_statistics_of_each_process_are_those_of_sub_batches(together: list[dict[str, Any]]) -> None:
    joined = torch.cat([one["features"] for one in together])
    assert torch.allclose(joined, own_features(RANKS), rtol=1e-12, atol=1e-12)


def embedded() -> Any:
    """The vectors and errors of seven files, of which one cannot be read; the second process helps the first."""

    def embed(files: Sequence[Path], depth: Depth) -> tuple[Tensor, list[DataError | None]]:
        errors = [DataError(f"{file} is bad") if file.name == "4" else None for file in files]
        return torch.tensor([[float(file.name)] for file in files if file.name != "4"]).view(-1, 1), errors

    if rank():
        return help_embed(embed)
    rows, errors = embed_together(embed, [Path(str(i)) for i in range(7)], Depth(), batch=2)
    dismiss()
    return rows.flatten().tolist(), [error and error.message for error in errors]


def test_an_index_is_filled_together_in_order(together: list[dict[str, Any]]) -> None:
    assert together[0]["embedded"] == ([0, 1, 2, 3, 5, 6], [None, None, None, None, "4 is bad", None, None])


def test_each_process_takes_whole_seeds(together: list[dict[str, Any]]) -> None:
    rows = [{"seed": seed, "rank": seed % RANKS, "ranks": 1} for seed in range(3) for _ in range(2)]
    assert [each["seeds"] for each in together] == [rows, rows]


def refusals() -> list[str]:
    split, generator, said = images(), Generator().manual_seed(0), []
    for eats, shape in ((METHODS["maml"].eats, replace(SHAPE, tasks=1)), (ViewBatch, replace(SHAPE, images=1))):
        try:
            draw_batch(eats, split.bank, split.labels, shape, preset("views-drawings"), generator, spans=False)
        except Exception as error:
            said.append(str(error))
    return said


def test_a_batch_that_is_too_small_is_refused(together: list[dict[str, Any]]) -> None:
    assert together[1]["refusals"] == [
        "a batch of 1 tasks cannot be split over 2 processes; take more tasks, or start fewer processes",
        "a batch of 1 images cannot be split over 2 processes; take more images, or start fewer processes",
    ]
