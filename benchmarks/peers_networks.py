"""Networks other than Conv4 for benchmarks/peers.py, and one meta-iteration of each by metarep and by its rivals.

Every implementation has the same layers, tasks, inner step and clock. Batch norms use the statistics of their own batch
in all of them, as the rivals do. The code of the rivals is that of their own documentation.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from inner_loop import step_of
from inner_loop_rivals import Case, Images
from torch import Tensor, nn
from torch.nn import functional

from metarep.encoders import Encoder, Preprocess, build_encoder
from metarep.machine.device import Precision
from metarep.methods import MAML, Reptile

Run = Callable[[], object]
SIDE = 32


class Attention(nn.Module):
    """A transformer block, of operations that have second derivatives."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.first, self.second = heads, nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.first(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        shares = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        x = x + self.out((shares @ v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.second(x))


class SmallViT(nn.Module):
    """Patches of 4 pixels, four blocks of four heads, the mean of the tokens."""

    def __init__(self, dim: int = 96) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, 4, 4)
        self.places = nn.Parameter(torch.zeros(1, (SIDE // 4) ** 2, dim))
        self.blocks = nn.Sequential(*(Attention(dim, 4) for _ in range(4)), nn.LayerNorm(dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.patches(x).flatten(2).mT + self.places).mean(1)


def group_norm_net() -> nn.Module:
    blocks: list[nn.Module] = []
    for i in range(4):
        blocks += [nn.Conv2d(64 if i else 3, 64, 3, padding=1), nn.GroupNorm(8, 64), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*blocks, nn.Flatten())


def resnet12() -> nn.Module:
    return build_encoder("resnet12", _plain(), width=32, drop=0.0).body


BODIES: dict[str, Callable[[], nn.Module]] = {"resnet12": resnet12, "group-norm": group_norm_net, "vit": SmallViT}


class Shape(NamedTuple):
    """An inner loop to measure: the network, the order and the number of steps and of tasks."""

    body: str
    order: int
    steps: int
    tasks: int = 2

    @property
    def case(self) -> Case:
        name = f"inner-{self.body}-order-{self.order}-{self.steps}-steps"
        return Case(name, 5, 1, 15, self.tasks, self.steps, self.order, SIDE, 3, lr=0.01)


def by_metarep(shape: Shape, images: Images, precision: Precision = "float32") -> Run:
    return step_of(maml_of(shape, precision), shape.case, images)


def maml_of(shape: Shape, precision: Precision) -> MAML:
    case, encoder = shape.case, Encoder(BODIES[shape.body](), _plain())
    encoder.precision = precision
    settings = {"inner_steps": case.steps, "order": case.order, "inner_lr": case.lr, "normalisation": "transductive"}
    return MAML(encoder, ways=case.ways, **settings).train()


def reptile_by_metarep(images: Images, case: Case) -> Run:
    method = Reptile(build_encoder("conv4", _plain()), ways=case.ways, inner_steps=case.steps, minibatch=0).train()
    return step_of(method, case, images)


def reptile_by_torch(images: Images, case: Case) -> Run:
    """Reptile as in learn2learn's example: a copy of the network a task, Adam without first moment, their mean."""
    net = with_head("conv4", case.ways)
    x, y = torch.cat([images.support, images.query], 1), torch.cat([images.support_y, images.query_y], 1)

    def run() -> None:
        sums = [torch.zeros_like(each) for each in net.parameters()]
        for task_x, task_y in zip(x, y, strict=True):
            learner = copy.deepcopy(net)
            optimizer = torch.optim.Adam(learner.parameters(), lr=1e-3, betas=(0.0, 0.999))
            for _ in range(case.steps):
                optimizer.zero_grad(set_to_none=True)
                functional.cross_entropy(learner(task_x), task_y).backward()
                optimizer.step()
            with torch.no_grad():
                torch._foreach_add_(sums, list(learner.parameters()))

    return run


def with_head(name: str, ways: int) -> nn.Module:
    """The network as the rivals need it: with a linear layer, and without running statistics."""
    body = build_encoder("conv4", _plain()).body if name == "conv4" else BODIES[name]()
    with torch.no_grad():
        dim = body.eval()(torch.zeros(1, 3, SIDE, SIDE)).shape[1]
    for layer in body.train().modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.track_running_stats, layer.running_mean, layer.running_var = False, None, None
            layer.num_batches_tracked = None
    return nn.Sequential(body, nn.Linear(dim, ways))


def _plain() -> Preprocess:
    return Preprocess((SIDE, SIDE), 3, (0.0,) * 3, (1.0,) * 3)
