"""Quickstart: everything it writes, on a data set so small that it takes seconds."""

import dataclasses
import json
import re

import pytest
import torch
from blobs import CLASSES, HOSTILE, tiny_data
from pages import Page

from metarep.data import datasets
from metarep.data.labels import Labels
from metarep.errors import DataError, LeakageError
from metarep.experiments.measurement.measure import Setting, measure
from metarep.experiments.quickstart import PLAN, Entry, Plan, quickstart
from metarep.experiments.quickstart.job import kinds
from metarep.methods import METHODS
from metarep.weights.seen import key_digest
from metarep.weights.shipped import open_run

TRAIN = {"steps": 3, "validate_every": 2, "validation_tasks": 10, "validation_ways": 3, "ways": 4}
TINY = Plan(
    entries=(
        Entry("protonet", {}, {**TRAIN, "queries": 2}),
        Entry("siamese", {}, {**TRAIN, "shots": 2}),
        Entry("triplet", {"mining": "batch-hard"}, {**TRAIN, "shots": 2}),
    ),
    shots=(1, 2, 50),
    tasks=40,
    examples=2,
    map_classes=4,
)


@pytest.fixture(scope="module")
def tiny():
    with tiny_data():
        yield


@pytest.fixture(scope="module")
def done(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("quickstart")
    seen = []
    content = quickstart(
        out, data="tiny", device="cpu", precision="float32", plan=TINY, watch=lambda *what: seen.append(what)
    )
    return out, content, seen


def test_a_row_for_every_learner_and_shape(done):
    out, content, _ = done
    saved = json.loads((out / "results.json").read_text())
    assert saved == json.loads(json.dumps(content))
    # 20 ways become the 6 classes there are; 50 shots are more than a class has
    shapes = {("5", "1"), ("5", "5"), ("6", "1"), ("6", "5"), ("6", "2")}
    learners = {"protonet", "siamese", "triplet", "untrained encoder", "raw pixels"}
    assert {(row["method"], row["ways"], row["shots"]) for row in saved["rows"]} == {
        (m, *s) for m in learners for s in shapes
    }
    assert len(saved["rows"]) == len(learners) * len(shapes)
    for row in saved["rows"]:
        assert row["tasks"] == 40
        assert row["queries"] == (10 if row["shots"] != "5" else 5)
        assert 0 <= row["accuracy"] <= 100
        assert row["ci95"] > 0
        assert row["protocol"] == "inductive"
    assert len({(row["ways"], row["shots"], row["digest"]) for row in saved["rows"]}) == len(shapes)
    assert saved["best"] == max(saved["trainings"], key=lambda each: each["validation_accuracy"])["method"]


def test_runs_can_be_evaluated_and_give_the_same_number(done, tiny):
    out, content, _ = done
    split = datasets.load_dataset("tiny", "test")
    run = open_run(out / "siamese")
    assert run.record.data.name == "tiny"
    assert run.record.data.split == "train"
    assert run.record.train.steps == 1  # 3 steps, and float32 on a processor takes 0.4 of them
    row = next(row for row in content["rows"] if (row["method"], row["ways"], row["shots"]) == ("siamese", "5", "1"))
    report = measure(run.learner, split, Setting(range(5, 6), range(1, 2), row["queries"], row["tasks"], PLAN.seed))
    assert (report.accuracy, report.digest) == (row["accuracy"], row["digest"])
    for part in ("train", "val"):
        touched = datasets.load_dataset("tiny", part)
        assert {key_digest(key) for key in touched.labels.keys} <= run.seen
        with pytest.raises(LeakageError):
            run.refuse_seen(touched.labels, part)


def test_the_page_needs_nothing_beside_itself(done):
    out = done[0]
    text = (out / "report.html").read_text()
    page = Page(text)
    assert page.addresses
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    style = text[text.index("<style>") : text.index("</style>")]
    assert not re.search(r"url\(|@import|@font-face", style)
    assert style.count("{") == style.count("}")
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base"}
    assert all("alt" in attrs for tag, attrs in page.tags if tag == "img")
    assert sum(tag == "title" for tag, _ in page.tags) > 10  # values on hovering
    pictures = [attrs for tag, attrs in page.tags if tag == "image"]
    assert len(pictures) == 2 * TINY.map_classes
    assert not re.search(r"\$\w|\{\w+\}|\bNone\b|\bnan\b", "".join(page.text))


def test_the_page_says_what_was_found(done):
    out, content, _ = done
    text = (out / "report.html").read_text()
    assert HOSTILE not in text
    assert "&lt;script&gt;" in text
    best = next(
        row for row in content["rows"] if (row["method"], row["ways"], row["shots"]) == (content["best"], "5", "1")
    )
    assert f"{best['accuracy']:.1f}\u00a0±\u00a0{best['ci95']:.1f}" in text[text.index("<h1>") : text.index("</h1>")]
    for row in content["rows"]:
        assert row["digest"] in text
        assert f"{row['accuracy']:.1f} " in text
    assert f"metarep evaluate {out}/protonet" in text


def test_kinds_are_words_as_people_write_them():
    assert kinds(Labels.of(["Burmese_(Myanmar)/a", "N_Ko/a", "N_Ko/b"])) == ["N Ko", "Burmese (Myanmar)"]
    assert kinds(Labels.of(["no_kind", "a/b"])) == []


def test_watch_hears_of_every_phase(done):
    phases = [phase for phase, _ in done[2]]
    assert list(dict.fromkeys(phases)) == ["protonet", "siamese", "triplet", "measuring"]
    assert all(0 < record["step"] <= record["steps"] for _, record in done[2])


@pytest.mark.slow
def test_again_in_the_same_folder_trains_nothing(done, tiny):
    out, content, _ = done
    heard = []
    again = quickstart(
        out, data="tiny", device="cpu", precision="float32", plan=TINY, watch=lambda phase, _: heard.append(phase)
    )
    assert set(heard) == {"measuring"}
    assert [row["accuracy"] for row in again["rows"]] == [row["accuracy"] for row in content["rows"]]


def test_too_few_classes_are_refused_before_training(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(CLASSES, "test", 6)
    plan = dataclasses.replace(TINY, table=((5, 12),))
    with pytest.raises(DataError, match="5-way 12-shot"):
        quickstart(tmp_path / "run", data="tiny", device="cpu", plan=plan)
    assert not (tmp_path / "run").exists()


def test_every_default_training_exists():
    assert {METHODS[entry.method].family for entry in PLAN.entries} == {method.family for method in METHODS.values()}
    bfloat16 = PLAN.entries[0].train_settings(7, torch.device("cpu"), "bfloat16")
    assert bfloat16["seed"] == 7
    assert PLAN.entries[0].train_settings(7, torch.device("cpu"), "float32")["steps"] < bfloat16["steps"]
    assert PLAN.entries[0].train_settings(7, torch.device("cuda"), "float32")["steps"] == bfloat16["steps"]
