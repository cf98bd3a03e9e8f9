"""Shards of a measurement merge to the digits of a single one."""

import json
from pathlib import Path

import pytest
import torch
from torch import Generator

from metarep.data.split import Split
from metarep.data.tasks import draw_tasks
from metarep.encoders import Encoder, Preprocess
from metarep.errors import MetarepError
from metarep.experiments.measurement.evaluation import Report, evaluate
from metarep.experiments.measurement.shards import Shard, merge_shards, write_shard
from metarep.learners.prototypes import Prototypes

N = 3


def measured(split: Split, shard: Shard | None = None) -> Report:
    pixels = Prototypes(Encoder(torch.nn.Flatten(), Preprocess(split.bank.size, 1, (0.0,), (1.0,))))
    tasks = draw_tasks(split.labels, 500, ways=5, shots=1, queries=3, generator=Generator().manual_seed(0))
    return evaluate(pixels, split.bank, tasks, shard=shard)


@pytest.fixture
def files(drawings: tuple[Split, Split], tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "parts" / f"{number}.json" for number in range(1, N + 1)]
    for number, path in enumerate(paths, 1):
        report = measured(drawings[1], Shard(number, N))
        write_shard(path, Shard(number, N), [(report.as_dict(), report.per_task, None)])
    return paths


def test_shards_merge_to_the_digits_of_one_measurement(drawings: tuple[Split, Split], files: list[Path]) -> None:
    whole, (merged,) = measured(drawings[1]), merge_shards(files[::-1])
    same = ("accuracy", "ci95", "tasks", "digest", "ways", "learner")
    assert {name: merged[name] for name in same} == {name: whole.as_dict()[name] for name in same}


def test_shards_that_are_no_whole_are_refused(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(MetarepError, match=r"3 shards are needed, each once, and these are 1/3, 3/3"):
        merge_shards([files[0], files[2]])
    content = json.loads(files[1].read_text())
    content["rows"][0]["digest"] = "another"
    files[1].write_text(json.dumps(content))
    with pytest.raises(MetarepError, match=r"different measurements: digest is .* and 'another' in another"):
        merge_shards(files)
    for text in ("", "[1]", '{"format": "metarep shard 1", "shard": [2, 1], "rows": [{}]}', "[" * 100_000):
        (tmp_path / "bad").write_text(text)
        with pytest.raises(MetarepError, match="is not a shard"):
            merge_shards([tmp_path / "bad"])
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(MetarepError, match=r"cannot be read \(.*\); evaluate writes one"):
            merge_shards([path])


def test_more_shards_than_chunks_are_refused(drawings: tuple[Split, Split]) -> None:
    with pytest.raises(MetarepError, match=r"500 tasks make 4 shards at most, not 5; ask for more tasks or fewer"):
        measured(drawings[1], Shard(1, 5))
