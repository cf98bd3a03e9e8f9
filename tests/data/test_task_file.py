"""Files of tasks: the same tasks again, and files from strangers that end in one plain line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator

from metarep.data.split import Split
from metarep.data.task_file import load_tasks, save_tasks
from metarep.data.task_index import digest_of
from metarep.data.tasks import draw_tasks, draw_varied_tasks
from metarep.errors import MetarepError

Content = dict[str, Any]


@pytest.fixture
def file(drawings: tuple[Split, Split], tmp_path: Path) -> Path:
    tasks = draw_tasks(drawings[1].labels, 6, ways=3, shots=2, queries=4, generator=Generator().manual_seed(0))
    save_tasks(tmp_path / "new" / "tasks.json", drawings[1], tasks)
    return tmp_path / "new" / "tasks.json"


def test_tasks_come_back_with_their_digest(drawings: tuple[Split, Split], tmp_path: Path) -> None:
    split, path = drawings[1], tmp_path / "tasks.json"
    g = Generator().manual_seed(0)
    sets = draw_varied_tasks(split.labels, 20, ways=range(2, 5), shots=range(1, 3), queries=3, generator=g)
    save_tasks(path, split, sets)
    again = load_tasks(path, split)
    assert digest_of(again) == digest_of(sets)
    for one, other in zip(sets, again, strict=True):
        for name in ("support", "query", "support_y", "query_y", "classes"):
            assert torch.equal(getattr(one, name), getattr(other, name))
    content = json.loads(path.read_text())
    task, names = content["sets"][0]["tasks"][0], content["classes"]
    assert all(row in names[name] for name, rows in zip(task["classes"], task["support"], strict=True) for row in rows)


def test_queries_need_not_be_balanced(drawings: tuple[Split, Split], file: Path) -> None:
    content = json.loads(file.read_text())
    for task in content["sets"][0]["tasks"]:
        moved = task["query"][0].pop()
        rows = content["classes"][task["classes"][1]]
        task["query"][1].append(next(row for row in rows if row not in task["query"][1] + task["support"][1]))
        assert moved not in task["query"][0]
    content["digest"] = "?"
    file.write_text(json.dumps(content))
    with pytest.raises(MetarepError, match=r"its tasks have '(\w+)'") as error:
        load_tasks(file, drawings[1])
    content["digest"] = str(error.value).rpartition("tasks have '")[2][:12]
    file.write_text(json.dumps(content))
    assert load_tasks(file, drawings[1])[0].query_y.eq(1).sum(1).tolist() == [5] * 6


def put(*keys: str | int) -> Callable[[Any], Callable[[Content], None]]:
    """A change that sets a value deep in a file."""

    def of(value: Any) -> Callable[[Content], None]:
        def change(content: Any) -> None:
            for key in keys[:-1]:
                content = content[key]
            content[keys[-1]] = value

        return change

    return of


SET = ("sets", 0)
TASK = ("sets", 0, "tasks", 0)
WRONG = [
    (put("format")("metarep tasks 9"), "its format must be 'metarep tasks 1'"),
    (put("data")("omniglot"), "another data set: its data is 'omniglot', and that of drawings/test is 'drawings'"),
    (put("split")("val"), "its split is 'val'"),
    (put("images")(801), "its images is 801"),
    (put("sets")([]), "it has no sets"),
    (put("sets")([3]), "must have classes, support and query"),
    (put(*SET, "tasks")([]), "it has no tasks"),
    (put(*SET, "tasks")({"a": 1}), "must have classes"),
    (put(*SET, "ways")(4), "do not all have 4 ways"),
    (put(*SET, "queries")("x"), "must be whole numbers above 0"),
    (put(*SET, "shots")(None), "must be whole numbers above 0"),
    (put(*SET, "ways")(True), "must be whole numbers above 0"),
    (put(*TASK, "support", 0)([1]), "ragged"),
    (put(*TASK, "query")([[1]]), "ragged"),
    (put(*TASK, "support", 0, 0)(800), "image 800 is not one of the 800 images of drawings/test"),
    (put(*TASK, "support", 0, 0)(-1), "image -1 is not one of"),
    (put(*TASK, "support", 0, 0)(1.5), "not whole numbers"),
    (put(*TASK, "support", 0, 0)(10**30), "not whole numbers"),
    (put(*TASK, "support", 0, 0)("7"), "not whole numbers"),
    (put(*TASK, "support", 0, 0)([7]), "ragged|not whole numbers"),
    (put(*TASK, "classes", 0)("moth"), "'moth' is missing, or is no class of drawings/test"),
    (put("digest")("000000000000"), "its digest is '000000000000', and its tasks have"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_a_wrong_file_ends_in_one_plain_line(
    drawings: tuple[Split, Split], file: Path, change: Callable[[Content], None], message: str
) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(MetarepError, match=message) as error:
        load_tasks(file, drawings[1])
    assert "\n" not in str(error.value)


def test_an_image_of_another_class_or_twice_is_refused(drawings: tuple[Split, Split], file: Path) -> None:
    text = file.read_text()
    for key, place, message in (("query", 1, "images are in another order"), ("query", 0, "task 1 has an image twice")):
        content = json.loads(text)
        task = content["sets"][0]["tasks"][0]
        task[key][place][0] = task["support"][0][0]
        file.write_text(json.dumps(content))
        with pytest.raises(MetarepError, match=message):
            load_tasks(file, drawings[1])
    for bad in ("", "[" * 100_000, "[]", '{"format": '):
        file.write_text(bad)
        with pytest.raises(MetarepError, match="is not a file of tasks"):
            load_tasks(file, drawings[1])
    with pytest.raises(MetarepError, match=r"cannot be read: .*; save_tasks writes such a file"):
        load_tasks(file.with_name("none.json"), drawings[1])
