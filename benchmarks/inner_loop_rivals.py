"""One meta-iteration as other libraries write it; each is a function from (network, tasks, settings) to a gradient.

All use the query batch's own statistics, one gradient over all tasks and plain SGD inside. metarep uses none of it, and
none of it uses metarep: learn2learn runs in a process without (inner_loop_worker.py).
"""

import ctypes
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call
from torch.nn import functional

Run = Callable[[], None]


@dataclass(frozen=True)
class Case:
    """One case of the benchmark: the network, the shape of the tasks and the settings."""

    name: str
    ways: int
    shots: int
    queries: int
    tasks: int
    steps: int
    order: int
    side: int = 28
    channels: int = 1
    width: int = 64
    lr: float = 0.4
    device: str = "cpu"


@dataclass(frozen=True)
class Images:
    """The preprocessed tasks of a case, which are the same for all implementations."""

    support: Tensor
    support_y: Tensor
    query: Tensor
    query_y: Tensor


def prepare(*, one_thread: bool) -> None:
    """Apply the settings that all implementations share."""
    warnings.simplefilter("ignore")
    if one_thread:
        torch.set_num_threads(1)


def keep_freed_memory() -> None:
    """Do what :func:`metarep.machine.device.keep_freed_memory` does, in a process without metarep."""
    libc = ctypes.CDLL(None)
    libc.mallopt(-3, 1 << 30)
    libc.mallopt(-1, (1 << 31) - 1)


def timed(run: Run, one_thread: bool, device: str = "cpu") -> float:
    """Milliseconds of one iteration until its device has finished: elapsed time, or CPU time on one thread."""
    clock = time.process_time if one_thread else time.perf_counter
    finish = torch.cuda.synchronize if device == "cuda" else int
    finish()
    before = clock()
    run()
    finish()
    return (clock() - before) * 1e3


def peak_of(run: Run, device: str) -> int:
    """Peak memory of one iteration in MiB, beyond what the process (or its tensors on the GPU) holds at its start."""
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) >> 20
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
    before = _peak_kib()
    run()
    return (_peak_kib() - before) // 1024


def _peak_kib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def images_of(case: Case) -> Images:
    g = Generator().manual_seed(0)

    def some(each: int) -> tuple[Tensor, Tensor]:
        y = torch.arange(case.ways).repeat_interleave(each).expand(case.tasks, -1)
        x = torch.rand(case.tasks, case.ways * each, case.channels, case.side, case.side, generator=g)
        return x.to(case.device), y.to(case.device)

    return Images(*some(case.shots), *some(case.queries))


def network(case: Case) -> nn.Module:
    """Conv4 with a linear layer; no running statistics, as these libraries need it."""
    blocks: list[nn.Module] = []
    channels = case.channels
    for _ in range(4):
        convolution = nn.Conv2d(channels, case.width, 3, padding=1, bias=False)
        norm = nn.BatchNorm2d(case.width, track_running_stats=False)
        blocks.append(nn.Sequential(convolution, norm, nn.MaxPool2d(2), nn.ReLU()))
        channels = case.width
    net = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(case.width * (case.side // 16) ** 2, case.ways))
    return net.to(case.device)


def floor(case: Case, images: Images) -> Run:
    """Forward and backward of the queries once and of the support once a step, in the best format and batch."""
    net = network(case).to(memory_format=torch.channels_last)
    x = torch.cat([*[images.support] * case.steps, images.query], 1).flatten(0, 1)
    y = torch.cat([*[images.support_y] * case.steps, images.query_y], 1).flatten()
    a_task = len(y) // case.tasks

    def at(batch: int) -> Run:
        parts = [
            (rows.contiguous(memory_format=torch.channels_last), labels)
            for rows, labels in zip(x.split(batch), y.split(batch), strict=True)
        ]

        def run() -> None:
            net.zero_grad(set_to_none=True)
            for rows, labels in parts:
                with torch.autocast(case.device, torch.bfloat16):
                    logits = net(rows)
                functional.cross_entropy(logits.float(), labels).backward()

        return run

    def seconds(run: Run) -> float:
        run()
        return timed(run, one_thread=False, device=case.device)

    return min((at(a_task * n) for n in (1, 4, case.tasks)), key=seconds)


def by_higher(case: Case, images: Images, *, mixed: bool, net: nn.Module | None = None) -> Run:
    import higher

    net = net or network(case)
    inner = torch.optim.SGD(net.parameters(), lr=case.lr)

    def run() -> None:
        net.zero_grad(set_to_none=True)
        for sx, sy, qx, qy in _tasks(images):
            with (
                higher.innerloop_ctx(net, inner, copy_initial_weights=False, track_higher_grads=case.order == 2) as (
                    f,
                    o,
                ),
                torch.autocast(case.device, torch.bfloat16, enabled=mixed),
            ):
                for _ in range(case.steps):
                    o.step(functional.cross_entropy(f(sx).float(), sy))
                loss = functional.cross_entropy(f(qx).float(), qy) / case.tasks
                if case.order == 2:
                    loss.backward()
                else:  # what is printed for first order: the gradient at the adapted weights
                    torch.autograd.grad(loss, list(f.parameters()))

    return run


def by_torchopt(case: Case, images: Images, *, mixed: bool, net: nn.Module | None = None) -> Run:
    import torchopt

    net = net or network(case)
    inner = torchopt.MetaSGD(net, lr=case.lr)

    def run() -> None:
        net.zero_grad(set_to_none=True)
        start, state = torchopt.extract_state_dict(net, by="reference"), torchopt.extract_state_dict(inner)
        for sx, sy, qx, qy in _tasks(images):
            with torch.autocast(case.device, torch.bfloat16, enabled=mixed):
                for _ in range(case.steps):
                    inner.step(functional.cross_entropy(net(sx).float(), sy))
                loss = functional.cross_entropy(net(qx).float(), qy) / case.tasks
            loss.backward()
            torchopt.recover_state_dict(net, start)
            torchopt.recover_state_dict(inner, state)

    return run


def by_learn2learn(case: Case, images: Images, *, mixed: bool, net: nn.Module | None = None) -> Run:
    import learn2learn

    maml = learn2learn.algorithms.MAML(net or network(case), lr=case.lr, first_order=case.order == 1)

    def run() -> None:
        maml.zero_grad(set_to_none=True)
        for sx, sy, qx, qy in _tasks(images):
            learner = maml.clone()
            with torch.autocast(case.device, torch.bfloat16, enabled=mixed):
                for _ in range(case.steps):
                    learner.adapt(functional.cross_entropy(learner(sx).float(), sy))
                loss = functional.cross_entropy(learner(qx).float(), qy) / case.tasks
            loss.backward()

    return run


def by_metalearn(case: Case, images: Images, *, mixed: bool) -> Run:
    """parallel-metalearn, by the faster of its two ways, vmap and a loop; its outer optimiser steps by zero."""
    from metalearn.algorithms import MAML
    from metalearn.inner_optimizers import InnerSGD
    from metalearn.loss import CategoricalAccuracy, CrossEntropy
    from metalearn.model_wrappers.MAMLWrapper import MAML_Model

    *body, linear = network(case)
    model = MAML_Model(_Deaf(nn.Sequential(*body)), _Deaf(linear))
    tasks = images.support, {"labels": images.support_y}, images.query, {"labels": images.query_y}

    def by(backend: str) -> Run:
        settings = {"first_order": case.order == 1, "inner_lr": case.lr, "max_inner_steps": case.steps}
        maml = MAML(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
            inner_optimizer=InnerSGD(model.get_fast_weights(), learn_lr=False, **settings),
            support_loss_fn=CrossEntropy(CategoricalAccuracy()),  # its default is the class, which fails
            inner_steps=case.steps,
            backend=backend,
            chunk_size=8,
            device=torch.device(case.device),
        )

        def run() -> None:
            with torch.autocast(case.device, torch.bfloat16, enabled=mixed):
                maml.step(iter([tasks]))

        return run

    def seconds(run: Run) -> float:
        try:
            run()
        except RuntimeError:
            return float("inf")
        return timed(run, one_thread=False, device=case.device)

    return min((by("vmap"), by("sequential")), key=seconds)


class _Deaf(nn.Module):
    """A module whose forward ignores additional arguments."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, **_: object) -> Tensor:
        return self.inner(x)


def by_functional_loop(case: Case, images: Images, *, mixed: bool) -> Run:
    net = network(case)

    def run() -> None:
        net.zero_grad(set_to_none=True)
        for sx, sy, qx, qy in _tasks(images):
            weights = dict(net.named_parameters())
            with torch.autocast(case.device, torch.bfloat16, enabled=mixed):
                for _ in range(case.steps):
                    inner = functional.cross_entropy(functional_call(net, weights, (sx,)).float(), sy)
                    slopes = torch.autograd.grad(inner, list(weights.values()), create_graph=case.order == 2)
                    weights = {n: w - case.lr * g for (n, w), g in zip(weights.items(), slopes, strict=True)}
                (functional.cross_entropy(functional_call(net, weights, (qx,)).float(), qy) / case.tasks).backward()

    return run


def by_vmap(case: Case, images: Images, *, mixed: bool) -> Run:
    net = network(case)

    def one(weights: dict[str, Tensor], sx: Tensor, sy: Tensor, qx: Tensor, qy: Tensor) -> Tensor:
        for _ in range(case.steps):
            slopes = torch.func.grad(lambda w: functional.cross_entropy(functional_call(net, w, (sx,)).float(), sy))(
                weights
            )
            weights = {
                n: w - case.lr * (slopes[n] if case.order == 2 else slopes[n].detach()) for n, w in weights.items()
            }
        return functional.cross_entropy(functional_call(net, weights, (qx,)).float(), qy)

    def run() -> None:
        net.zero_grad(set_to_none=True)
        with torch.autocast(case.device, torch.bfloat16, enabled=mixed):
            batched = torch.func.vmap(one, in_dims=(None, 0, 0, 0, 0))
            parts = (images.support, images.support_y, images.query, images.query_y)
            batched(dict(net.named_parameters()), *parts).mean().backward()

    return run


RIVALS: dict[str, Callable[..., Run]] = {
    "higher": by_higher,
    "torchopt": by_torchopt,
    "parallel-metalearn": by_metalearn,
    "functional loop": by_functional_loop,
    "vmap": by_vmap,
}


def _tasks(images: Images) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    return list(zip(images.support, images.support_y, images.query, images.query_y, strict=True))
