"""Files of tasks: a set of tasks as JSON, so that other libraries can be measured on the same ones."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarep.data.labels import Labels
from metarep.data.split import Split
from metarep.data.task_index import TaskIndex, digest_of
from metarep.errors import Advice, Call, DataError, MetarepError, Slot, TooLargeError
from metarep.machine.files import replacing
from metarep.machine.untrusted import parse_json

FORMAT = "metarep tasks 1"
MOST_BYTES = 1 << 30  # of a file; 100,000 5-way 5-shot tasks take 60 MB
MADE_BY = Advice("{made} writes such a file", made=Call("save_tasks", "evaluate", Slot("RUN"), save_tasks=Slot("FILE")))


def save_tasks(path: Path, split: Split | Labels, tasks: TaskIndex | Sequence[TaskIndex]) -> None:
    """Write a set of tasks as JSON. ``docs/protocol.md`` describes the format.

    Args:
        path: the file; its folder is made if it does not exist, and it is replaced if it does.
        split: the images and labels that the tasks were drawn from; or labels alone, as of features.
        tasks: from ``draw_tasks``; or several sets of different shapes.

    >>> import tempfile
    >>> from metarep import ImageBank, Labels, draw_tasks
    >>> bank = ImageBank(torch.zeros(8, 1, 4, 4, dtype=torch.uint8))
    >>> split = Split(bank, Labels.of(list("aabbccdd")), "letters/test")
    >>> g = torch.Generator().manual_seed(0)
    >>> tasks = draw_tasks(split.labels, 3, ways=2, shots=1, queries=1, generator=g)
    >>> file = Path(tempfile.mkdtemp(), "tasks.json")
    >>> save_tasks(file, split, tasks)
    >>> load_tasks(file, split)[0].digest == tasks.digest
    True
    """
    labels, name = _named(split)
    sets = [_by_class(each) for each in ([tasks] if isinstance(tasks, TaskIndex) else tasks)]
    data, _, part = name.rpartition("/")
    content = {
        "format": FORMAT,
        "data": data,
        "split": part,
        "digest": digest_of(sets),
        "images": len(labels),
        "classes": {
            name: rows.tolist()
            for name, rows in zip(labels.names, labels.rows.split(labels.counts.tolist()), strict=True)
        },
        "sets": [
            {"ways": each.ways, "shots": each.shots, "queries": each.queries, "tasks": _tasks(each, labels.names)}
            for each in sets
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def keep_tasks(path: Path, split: Split | Labels, tasks: Sequence[TaskIndex]) -> None:
    """Write a set of tasks, unless the file holds them already, as after a command that was interrupted.

    Args:
        path, split, tasks: see :func:`save_tasks`.

    Raises:
        MetarepError: the file holds something else, which is not replaced.
    """
    if not path.exists():
        save_tasks(path, split, tasks)
        return
    try:
        same = digest_of(load_tasks(path, split)) == digest_of([_by_class(each) for each in tasks])
    except MetarepError:
        same = False
    if not same:
        raise MetarepError(f"{path} is there already, and these tasks are not in it", advice="choose another name")


def load_tasks(path: Path, split: Split | Labels) -> list[TaskIndex]:
    """The tasks of a file that :func:`save_tasks` or another program has written.

    Args:
        path: the file. It may come from a stranger: everything in it is checked.
        split: the images and labels that the tasks are of; or labels alone, as of features, and then the name of the
            data is not compared.

    Returns:
        The sets of tasks, as ``evaluate`` takes them.

    Raises:
        TooLargeError: the file has more than 1 GiB.
        DataError: the tasks are of another data set, split or order of the images; an image number is beyond the data;
            an image or a class is twice in a task; or the digest is that of other tasks.
        MetarepError: it is not a file of tasks, or its tasks are ragged.

    >>> import tempfile
    >>> from metarep import ImageBank, Labels
    >>> split = Split(ImageBank(torch.zeros(4, 1, 4, 4, dtype=torch.uint8)), Labels.of(list("aabb")), "letters/test")
    >>> ways, file = torch.tensor([[0, 1]]), Path(tempfile.mkdtemp(), "tasks.json")
    >>> save_tasks(file, split, TaskIndex(torch.tensor([[0, 2]]), torch.tensor([[1, 3]]), ways, ways, ways, ways=2))
    >>> [tasks] = load_tasks(file, split)
    >>> tasks.support.tolist(), tasks.query.tolist()
    ([[0, 2]], [[1, 3]])
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise TooLargeError(
                f"{path} has {path.stat().st_size:,} bytes; files of tasks up to {MOST_BYTES:,} are read"
            )
        content = parse_json(path.read_bytes())
    except OSError as error:
        raise MetarepError(f"{path} cannot be read: {error.strerror}", advice=MADE_BY) from error
    except ValueError as error:
        if isinstance(error, MetarepError):
            raise
        raise MetarepError(f"{path} is not a file of tasks: {error}", advice=MADE_BY) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise MetarepError(f"{path} is not a file of tasks: its format must be {FORMAT!r}", advice=MADE_BY)
    labels, called = _named(split)
    own = dict(zip(("data", "split"), called.rpartition("/")[::2], strict=True)) if isinstance(split, Split) else {}
    for name, value in (own | {"images": len(labels)}).items():
        if content.get(name) != value:
            raise DataError(
                f"{path} has tasks of another data set: its {name} is {content.get(name)!r}, and that of {called} "
                f"is {value!r}"
            )
    if not isinstance(content.get("sets"), list) or not content["sets"]:
        raise MetarepError(f"{path} is not a file of tasks: it has no sets")
    sets = [_read(path, labels, called, number, each) for number, each in enumerate(content["sets"], 1)]
    if digest_of(sets) != content.get("digest"):
        raise DataError(
            f"{path} says that its digest is {content.get('digest')!r}, and its tasks have {digest_of(sets)!r}; they "
            "were changed"
        )
    return sets


def _tasks(tasks: TaskIndex, names: Sequence[str]) -> list[dict[str, Any]]:
    """Each task with its class names, and its images by class."""

    def lists(rows: list[int], classes: list[int]) -> list[list[int]]:
        by_class: list[list[int]] = [[] for _ in range(tasks.ways)]
        for row, way in zip(rows, classes, strict=True):
            by_class[way].append(row)
        return by_class

    columns = (tasks.classes, tasks.support, tasks.support_y, tasks.query, tasks.query_y)
    return [
        {"classes": [names[each] for each in own], "support": lists(support, support_y), "query": lists(query, query_y)}
        for own, support, support_y, query, query_y in zip(*(each.tolist() for each in columns), strict=True)
    ]


def _by_class(tasks: TaskIndex) -> TaskIndex:
    """The same tasks with their images in the order of their classes, as ``draw_tasks`` gives them."""
    support, query = (each.argsort(dim=1, stable=True) for each in (tasks.support_y, tasks.query_y))
    rows = tasks.support.gather(1, support), tasks.query.gather(1, query)
    labels = tasks.support_y.gather(1, support), tasks.query_y.gather(1, query)
    return TaskIndex(*rows, *labels, tasks.classes, tasks.ways)


def _named(split: Split | Labels) -> tuple[Labels, str]:
    """The labels, and what they are called in a file and in errors."""
    return (split.labels, split.name) if isinstance(split, Split) else (split, "the features")


def _read(path: Path, labels: Labels, called: str, number: int, content: Any) -> TaskIndex:  # noqa: ANN401 - anything
    """Check one set of tasks of a file, and return it."""
    where = f"{path}, set {number}"
    try:
        ways, shots, queries, tasks = (content[name] for name in ("ways", "shots", "queries", "tasks"))
        position = {name: i for i, name in enumerate(labels.names)}
        classes = _table([[position[name] for name in task["classes"]] for task in tasks], where)
        support = _table([[row for one in task["support"] for row in one] for task in tasks], where)
        query = _table([[row for one in task["query"] for row in one] for task in tasks], where)
        lengths = _table([[len(one) for one in task["support"]] for task in tasks], where)
        query_lengths = _table([[len(one) for one in task["query"]] for task in tasks], where)
    except KeyError as error:
        raise DataError(f"{where}: {error} is missing, or is no class of {called}") from error
    except TypeError as error:
        raise MetarepError(f"{where}: a task must have classes, support and query, by class") from error
    if not all(type(each) is int and 0 < each < 1_000_000 for each in (ways, shots, queries)):
        raise MetarepError(f"{where}: ways, shots and queries must be whole numbers above 0")
    n = len(classes)
    right = classes.shape == lengths.shape == query_lengths.shape == (n, ways) and bool((lengths == shots).all())
    if not right or query.shape != (n, ways * queries) or ways < 2:
        raise MetarepError(
            f"{where}: its tasks do not all have {ways!r} ways, {shots!r} shots and {queries!r} queries a class; put "
            "tasks of another shape into another set"
        )
    both = torch.cat([support, query], dim=1)
    if int(both.min()) < 0 or int(both.max()) >= len(labels):
        raise DataError(
            f"{where}: image {int(both.min()) if int(both.min()) < 0 else int(both.max())} is not one of the "
            f"{len(labels):,} images of {called}, which are numbered from 0"
        )
    support_y, query_y = (_spread(each) for each in (lengths, query_lengths))
    named = torch.cat([classes.gather(1, support_y), classes.gather(1, query_y)], dim=1)
    if bool((wrong := labels.classes.cpu()[both] != named).any()):
        row, said = int(both[wrong][0]), labels.names[int(named[wrong][0])]
        raise DataError(
            f"{where}: image {row} is of class {labels.names[int(labels.classes[row])]!r} in {called}, and the "
            f"file says {said!r}; its images are in another order"
        )
    for what, table in (("an image", both), ("a class", classes)):
        ordered = table.sort(1).values
        if bool((twice := (ordered.diff(dim=1) == 0).any(1)).any()):
            raise DataError(f"{where}: task {int(twice.nonzero()[0]) + 1} has {what} twice")
    groups = None if labels.groups is None else labels.groups.cpu()[both]
    return TaskIndex(support, query, support_y, query_y, classes, int(ways), groups)


def _table(lists: list[list[Any]], where: str) -> Tensor:
    """Whole numbers with as many columns in each row, one row a task."""
    try:
        table = np.array(lists)
    except ValueError:
        raise MetarepError(f"{where}: its tasks are ragged; put tasks of another shape into another set") from None
    if table.ndim != 2 or table.dtype.kind != "i" or not table.size:
        raise MetarepError(f"{where}: it has no tasks, or images that are not whole numbers")
    return torch.from_numpy(table.astype(np.int64))


def _spread(lengths: Tensor) -> Tensor:
    """The class of each image of each task, from the number of images of each class."""
    ways = torch.arange(lengths.shape[1]).expand_as(lengths)
    return ways.reshape(-1).repeat_interleave(lengths.reshape(-1)).view(len(lengths), -1)
