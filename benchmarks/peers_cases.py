"""The cases of benchmarks/peers.py: the same work by metarep and by its rivals, as functions that do it once.

A rival is imported when its function is first called, so that a missing one is left out by itself.
"""

import functools
import random
from collections.abc import Callable
from functools import partial
from itertools import product

import torch
from inner_loop_rivals import RIVALS, images_of
from peers_networks import Run, Shape, by_metarep, reptile_by_metarep, reptile_by_torch, with_head
from torch import Generator, Tensor, nn
from torch.nn import functional

from metarep import Encoder, Labels, Preprocess, Prototypes, draw_tasks
from metarep.experiments.kmeans import kmeans
from metarep.learners import LEARNERS
from metarep.methods.contrastive import KeyQueue, info_nce, negative_cosine, nt_xent
from metarep.methods.losses import pair_loss, triplet_loss

KEPT: list[object] = []  # what must not be freed
WHY = {
    ("tasks-one-by-one", "easyfsl"): "a call of draw_tasks makes tensors and checks; take many tasks and .chunks(1)",
    ("tasks-one-by-one", "learn2learn"): "as easyfsl; and it gives a list of numbers, no tensors",
    ("kmeans-34000-rows", "faiss"): "it starts from random rows, ours by k-means++ (a tenth of the time)",
}
for each in product(("resnet12", "group-norm", "vit"), (1, 2), ("higher", "torchopt")):
    case, rival = "inner-{}-order-{}-1-steps".format(*each), each[2]
    WHY[case, rival] = "both run the same layers of torch, which is nearly all of the time"
    WHY[case, f"{rival}, bfloat16"] = "its support is in bfloat16 too"
SHAPE = {"ways": 5, "shots": 1, "queries": 15}


def rows_of(classes: int, each: int, dim: int) -> tuple[Tensor, Labels]:
    """Features about class means, and their labels."""
    g = Generator().manual_seed(0)
    y = torch.arange(classes).repeat_interleave(each)
    rows = torch.randn(classes, dim, generator=g)[y] + 3 * torch.randn(len(y), dim, generator=g)
    return rows, Labels.of(y.tolist())


def lazily(make: Callable[[], Run]) -> Run:
    """A run that is made at its first call."""
    made: list[Run] = []

    def run() -> object:
        if not made:
            made.append(make())
        return made[0]()

    return run


# few-shot tasks


class Features:
    """Features and labels as easyfsl's samplers and learn2learn's MetaDataset take them."""

    def __init__(self, rows: Tensor, labels: Labels) -> None:
        self.rows, self.labels = rows, labels.classes.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self.rows[row], self.labels[row]

    def get_labels(self) -> list[int]:
        return self.labels


def easyfsl_sampler(data: Features, n: int):
    from easyfsl.samplers import TaskSampler
    from torch.utils.data import Sampler

    if Sampler.__init__ is object.__init__:  # torch's takes no argument any more, and easyfsl passes one
        Sampler.__init__ = lambda self, data_source=None: None  # noqa: ARG005
    return TaskSampler(data, SHAPE["ways"], SHAPE["shots"], SHAPE["queries"], n)


def evaluation(n: int) -> dict[str, Run]:
    """Prototypes on n tasks of cached features: draw them, answer, and take the mean accuracy."""
    rows, labels = rows_of(100, 100, 64)
    found: dict[str, list[float]] = {"metarep": [], "easyfsl": []}

    def ours() -> None:
        learner = Prototypes(Encoder(nn.Flatten(), Preprocess((1, 64), 1, (0.0,), (1.0,))), "euclidean").eval()
        right = []
        with torch.no_grad():
            for part in draw_tasks(labels, n, **SHAPE, generator=Generator().manual_seed(0)).chunks(128):
                support, support_y, query, query_y, ways = part.of(rows)
                logits = learner.logits(learner.adapt(support, support_y, ways), query)
                right.append((logits.argmax(-1) == query_y).float().mean(1))
        found["metarep"].append(float(torch.cat(right).mean()))

    def theirs() -> None:
        from easyfsl.methods import PrototypicalNetworks
        from easyfsl.utils import evaluate
        from torch.utils.data import DataLoader

        random.seed(0)
        data = Features(rows, labels)
        sampler = easyfsl_sampler(data, n)
        loader = DataLoader(data, batch_sampler=sampler, collate_fn=sampler.episodic_collate_fn)  # pyright: ignore[reportArgumentType]
        found["easyfsl"].append(
            evaluate(PrototypicalNetworks(nn.Identity()).eval(), loader, device="cpu", use_tqdm=False)
        )
        assert abs(found["easyfsl"][-1] - found["metarep"][-1]) < 1 / n**0.5, "the accuracies differ"

    return {"metarep": ours, "easyfsl": theirs}


def one_by_one() -> dict[str, Run]:
    """200 tasks, each drawn alone; and the way that the docs advise."""
    rows, labels = rows_of(423, 20, 1)
    generator = Generator().manual_seed(0)
    data = Features(rows, labels)

    def learn2learn() -> Run:
        import learn2learn as l2l

        class Data(Features, torch.utils.data.Dataset):
            pass

        known = l2l.data.MetaDataset(Data(rows, labels))
        images = SHAPE["shots"] + SHAPE["queries"]
        transforms = [l2l.data.transforms.FusedNWaysKShots(known, n=SHAPE["ways"], k=images)]
        tasks = l2l.data.TaskDataset(known, transforms, num_tasks=-1)
        return lambda: [tasks.sample_task_description() for _ in range(200)]

    return {
        "metarep": lambda: [draw_tasks(labels, 1, **SHAPE, generator=generator) for _ in range(200)],
        "metarep, .chunks(1)": lambda: list(draw_tasks(labels, 200, **SHAPE, generator=generator).chunks(1)),
        "easyfsl": lazily(lambda: partial(list, easyfsl_sampler(data, 200))),
        "learn2learn": lazily(learn2learn),
    }


def linear_heads() -> dict[str, Run]:
    """Logistic regression on 100 5-way 5-shot tasks of 64 features, and the answers to 15 queries a class."""
    rows, labels = rows_of(100, 40, 64)
    tasks = draw_tasks(labels, 100, ways=5, shots=5, queries=15, generator=Generator().manual_seed(0)).of(rows)
    learner = LEARNERS["linear"](Encoder(nn.Flatten(), Preprocess((1, 64), 1, (0.0,), (1.0,)))).eval()

    def ours() -> Tensor:
        with torch.no_grad():
            return learner.logits(learner.adapt(tasks.support, tasks.support_y, tasks.ways), tasks.query).argmax(-1)

    def theirs() -> list[object]:
        from sklearn.linear_model import LogisticRegression

        four = zip(*(part.numpy() for part in (tasks.support, tasks.support_y, tasks.query)), strict=True)
        return [LogisticRegression(max_iter=1000).fit(x, y).predict(query) for x, y, query in four]

    return {"metarep": ours, "scikit-learn, a task at a time": theirs}


# losses: value and gradient


def loss(ours: Callable, rivals: dict[str, Callable[[], Callable]], n: int, dim: int = 128) -> dict[str, Run]:
    """Losses of features and labels, four images a class."""
    x = torch.randn(n, dim, generator=Generator().manual_seed(0)).requires_grad_()
    y = torch.arange(n) // 4

    def of(function: Callable) -> Run:
        return lambda: torch.autograd.grad(function(functional.normalize(x), y), x)

    runs = {"metarep": of(ours)}
    return runs | {name: lazily(lambda make=make: of(make())) for name, make in rivals.items()}


def metric_learning(name: str, miner: str | None = None, **settings: object) -> Callable:
    from pytorch_metric_learning import losses, miners

    function = getattr(losses, name)(**settings)
    if miner is None:
        return function
    mine = getattr(miners, miner)(**({"margin": 0.2} if miner == "TripletMarginMiner" else {}))
    return lambda x, y: function(x, y, mine(x, y))


def triplets(n: int, mining: str) -> dict[str, Run]:
    miner = {"batch-all": None, "batch-hard": "BatchHardMiner"}[mining]
    theirs = partial(metric_learning, "TripletMarginLoss", miner, margin=0.2)
    ours = functools.partial(triplet_loss, margin=0.2, mining=mining, squared=False)
    return loss(lambda x, y: ours(x, y)[0], {"pytorch-metric-learning": theirs}, n)


def pairs(n: int) -> dict[str, Run]:
    theirs = partial(metric_learning, "ContrastiveLoss", pos_margin=0.0, neg_margin=1.0)
    return loss(lambda x, y: pair_loss(x, y, 1.0, "active")[0], {"pytorch-metric-learning": theirs}, n)


def lightly(name: str, **settings: object) -> Callable:
    import lightly.loss

    return getattr(lightly.loss, name)(**settings)


def halves(function: Callable) -> Callable:
    return lambda x, _: function(*x.chunk(2))


def views(n: int) -> dict[str, Run]:
    theirs = lambda: halves(lightly("NTXentLoss", temperature=0.1))  # noqa: E731
    return loss(lambda x, _: nt_xent(*x.chunk(2), 0.1), {"lightly": theirs}, 2 * n)


def cosines(n: int) -> dict[str, Run]:
    return loss(halves(negative_cosine), {"lightly": lambda: halves(lightly("NegativeCosineSimilarity"))}, 2 * n, 256)


def queue(size: int) -> dict[str, Run]:
    """InfoNCE of 256 queries against a queue, and the keys put into it."""
    own = KeyQueue(size, 128)
    for _ in range(size // 256):
        own.enqueue(functional.normalize(torch.randn(256, 128)))

    def ours(x: Tensor, _: Tensor) -> Tensor:
        query, key = x.chunk(2)
        value = info_nce(query, key.detach(), own.keys, 0.1, own.valid)
        KEPT[:] = [*KEPT[:1], key.detach()]
        return value

    def theirs() -> Callable:
        function = lightly("NTXentLoss", temperature=0.1, memory_bank_size=(size, 128))
        return lambda x, _: function(x[:256], x[256:].detach())

    runs = loss(ours, {"lightly": theirs}, 512)
    first = runs["metarep"]

    def with_queue() -> None:
        first()
        own.enqueue(KEPT[-1])  # pyright: ignore[reportArgumentType]

    return runs | {"metarep": with_queue}


def clusters() -> dict[str, Run]:
    """k-means of 34,000 rows of 64 numbers, 500 clusters, 20 rounds."""
    rows = functional.normalize(rows_of(500, 68, 64)[0])

    def theirs() -> Tensor:
        import faiss

        faiss.omp_set_num_threads(1)
        found = faiss.Kmeans(64, 500, niter=20, seed=0, min_points_per_centroid=1)
        found.train(rows.numpy())
        return found.index.search(rows.numpy(), 1)[1]

    return {"metarep": lambda: kmeans(rows, 500, Generator().manual_seed(0)), "faiss": theirs}


# inner loops


def inner(shape: Shape) -> dict[str, Run]:
    images = images_of(shape.case)
    runs = {"metarep": by_metarep(shape, images), "metarep, bfloat16": by_metarep(shape, images, "bfloat16")}
    for name, mixed in product(("higher", "torchopt"), (False, True)):
        make = partial(RIVALS[name], shape.case, images, mixed=mixed)
        runs[name + ", bfloat16" * mixed] = lazily(lambda make=make: make(net=with_head(shape.body, 5)))
    return runs


def reptile() -> dict[str, Run]:
    case = Shape("group-norm", 1, 5).case
    images = images_of(case)
    return {"metarep": reptile_by_metarep(images, case), "learn2learn's example": reptile_by_torch(images, case)}


SHAPES = [Shape(body, order, 1) for body in ("resnet12", "group-norm", "vit") for order in (1, 2)]
CASES: dict[str, Callable[[], dict[str, Run]]] = {
    "evaluation-1000-tasks": partial(evaluation, 1000),
    "evaluation-10000-tasks": partial(evaluation, 10_000),
    "tasks-one-by-one": one_by_one,
    "linear-heads-100-tasks": linear_heads,
    **{
        f"triplets-{mining}-{n}": partial(triplets, n, mining)
        for mining in ("batch-all", "batch-hard")
        for n in (512, 1024, 2048)
    },
    **{f"pairs-{n}": partial(pairs, n) for n in (512, 1024, 2048)},
    **{f"nt-xent-{n}-pairs": partial(views, n) for n in (256, 1024)},
    "negative-cosine-512-pairs": partial(cosines, 512),
    **{f"info-nce-{size}-keys": partial(queue, size) for size in (4096, 16384, 65536)},
    "kmeans-34000-rows": clusters,
    **{shape.case.name: partial(inner, shape) for shape in SHAPES},
    "reptile-conv4-5-steps": reptile,
}
