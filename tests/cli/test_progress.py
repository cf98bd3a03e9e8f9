"""What a person sees: lines where standard error is no terminal."""

import os
import re
import subprocess
import sys
from contextlib import suppress

import pytest
import torch
from torch import nn

from metarep import GradientDescent, ImageBank, Labels, Prototypes, draw_tasks
from metarep.cli.progress import counting, measuring, progress
from metarep.data.split import Split
from metarep.encoders import Encoder, Preprocess
from metarep.experiments.measurement.evaluation import evaluate
from metarep.experiments.measurement.measure import Setting, measure_all
from metarep.experiments.reproduce import measuring_by


def told(capsys, records, **settings) -> list[str]:
    with progress(**settings) as watch:
        for record in records:
            watch(record)
    return capsys.readouterr().err.splitlines()


def test_a_validation_is_told_once_and_not_again_with_later_steps(capsys):
    records = [
        {"step": 100, "steps": 1000, "loss": 2.0},
        {"step": 100, "steps": 1000, "accuracy": 61.5, "ci95": 0.4},
        {"step": 200, "steps": 1000, "loss": 1.5, "images_per_second": 10.0, "seconds_left": 80.0},
    ]
    first, validated, later = told(capsys, records)
    assert first == "step   100 of 1000  loss 2.0000"
    assert validated == "step   100 of 1000  validation 61.50 ± 0.40 %"
    assert later == "step   200 of 1000  loss 1.5000  10 images/s  80 s left"


def test_a_long_training_is_never_silent_for_more_than_a_minute(capsys, monkeypatch):
    clock = iter([0.0, 1.0, 30.0, 61.5, 62.0])
    now = [next(clock)]
    monkeypatch.setattr("metarep.cli.progress.time.monotonic", lambda: now[0])
    with progress() as watch:
        for step, now[0] in enumerate(clock, 1):  # seconds
            watch({"step": step, "steps": 1000, "loss": 2.0})
    lines = [line.split()[1] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["1", "3"], "the first one, and the one after a minute"


def test_a_measurement_says_what_was_measured_and_how_it_came_out(capsys):
    record = {"phase": "measuring", "step": 9, "steps": 20, "measured": "anil, 5-way 1-shot", "accuracy": 70, "ci95": 1}
    assert told(capsys, [record]) == ["measuring     9 of 20  anil, 5-way 1-shot 70.00 ± 1.00 %"]


def test_what_has_no_figures_is_told_now_and_then(capsys):
    heard = []
    with measuring_by(heard.append)("trained, 5-way 1-shot") as tell:
        tell(0.25)
        tell(0.5)
    assert [record["step"] for record in heard] == [25, 50]
    assert told(capsys, heard) == []  # within the first seconds
    first, _ = told(capsys, heard, every=0)
    assert first.startswith("measuring trained, 5-way 1-shot    25 of 100  ")
    assert first.endswith(" s left")


@pytest.mark.parametrize(("quiet", "lines"), [(False, 2), (True, 0)])
def test_a_measurement_says_how_far_it_is(capsys, quiet, lines):
    with measuring("trained, 5-way 1-shot", quiet=quiet, every=0) as tell:
        for share in (0.0, 0.25, 0.75, 1.0):
            tell(share)
    found = capsys.readouterr().err.splitlines()
    assert len(found) == lines
    assert all(line.startswith("trained, 5-way 1-shot: ") and line.endswith(" s left") for line in found)


def test_a_count_says_how_many_and_how_fast(capsys):
    with counting("image", every=0) as tell:
        tell(1, 1200)
        tell(900, 1200, 0)
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"1 of 1,200 images  \d+ a second, \d+ s left", first)
    assert second == "900 of 1,200 images  0 a second", "known images take no time, and say nothing of what is left"


def test_answers_go_into_a_file_while_a_bar_is_on_the_terminal():
    pty = pytest.importorskip("pty", reason="needs a terminal of its own")
    code = "from metarep.cli.progress import counter\nwith counter(2, 'image') as tell: print('an answer'); tell(1)"
    ours, theirs = pty.openpty()
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=theirs, check=True)
    os.close(theirs)
    assert done.stdout == b"an answer\n"
    said = b""
    with suppress(OSError):  # the end of a terminal that nobody writes to any more
        while part := os.read(ours, 4000):  # which may come in pieces
            said += part
    os.close(ours)
    assert b"1 of 2 images" in said


def test_a_short_measurement_says_nothing(capsys):
    with measuring("trained") as tell:
        tell(0.5)
    with progress(quiet=True) as watch:
        watch({"step": 1, "steps": 1, "loss": 1.0})
    assert capsys.readouterr().err == ""


def test_where_images_are_kept_is_said_at_once(capsys):
    with progress() as watch:
        watch({"step": 0, "steps": 100, "images": "15.36 GB of images in 235 shards"})
    assert capsys.readouterr().err == "step     0 of 100  15.36 GB of images in 235 shards\n"


@pytest.mark.parametrize("scope", ["all", "head"])
def test_shares_follow_the_work(scope):
    """Where the body is adapted nothing is prepared, and all of the time goes into the tasks."""
    bank = ImageBank.from_arrays(torch.randint(256, (40, 3, 32, 32), dtype=torch.uint8))
    labels = Labels.of([i // 8 for i in range(40)])
    body = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    encoder = Encoder(body, Preprocess((32, 32), 3, (0.5,) * 3, (0.3,) * 3))
    learner = GradientDescent(encoder, ways=2, head="rows", scope=scope, steps=1)
    tasks = draw_tasks(labels, 4, ways=2, shots=1, queries=2, generator=torch.Generator().manual_seed(0))
    shares = []
    evaluate(learner, bank, [tasks[:2], tasks[2:]], on_progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert shares[0] == (0 if scope == "all" else 0.8)


def test_every_measurement_is_watched():
    names = []

    def watching(what):
        names.append(what)
        return measuring(what, quiet=True)

    bank = ImageBank.from_arrays(torch.randint(256, (40, 1, 8, 8), dtype=torch.uint8))
    split = Split(bank, Labels.of([i // 8 for i in range(40)]), "toy/test")
    learner = Prototypes(Encoder(nn.Flatten(), Preprocess((8, 8), 1, (0.0,), (1.0,))))
    settings = [Setting(range(2, 3), range(1, 4), tasks=2, queries=2)]
    assert len(list(measure_all(learner, split, settings, references=False, watching=watching))) == 1
    assert names == ["trained, 2-way 1-3-shot"]
