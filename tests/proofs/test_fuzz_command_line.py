"""Random command lines: each works, or says in one line what is wrong and exits with 2; none shows a traceback."""

import io
import json
import random
import urllib.error
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from fuzzing import TooLongError, guarded
from PIL import Image

pytestmark = pytest.mark.proof

SEED = 20260729
NUMBER = 200  # command lines, of each command
HUGE = ("100000", "1000000", "99999999999999999999")
WORDS = ("0", "1", "2", "3", "5", "-1", "0.5", "1e-3", "-0.0", "nan", "inf", "1e400", "0x10", "1_0", "٣", "", " ", "x")
WORDS = (*WORDS, "none", "None", "true", "5-2", "2-4", "1,2", "5,", "-", "--", "=", "*", "$HOME", "a b", "ä", "\udcff")
WORDS = (*WORDS, "auto", "cpu", "cuda", "cuda:99", "mps", "meta", "float32", "bfloat16", "test", "val", "train", "all")
WORDS = (*WORDS, "glyphs", "glyphs:x", "omniglot", "omniglot:lake", "omniglot-runs", "cifar-fs", "miniimagenet")
WORDS = (*WORDS, "folder", "folder:", "folder:photos", "folder:no-such", "folder:photos/kind 0", "miniimagenet:photos")
WORDS = (*WORDS, "a-file", "a-file/inside", "photos", "a-run", "/dev/null", "/dev/full", "/proc/version", "x" * 300)
WORDS = (*WORDS, *HUGE)
QUICK = ("--steps", "1", "--ways", "2", "--shots", "2", "--queries", "1", "--tasks", "1", "--width", "4")
QUICK = (*QUICK, "--validation-tasks", "2", "--validation-ways", "2")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a run, some photographs and a file; no network, no archives, a cache of its own."""
    from metarep.cli import main
    from metarep.experiments import recipes
    from metarep.experiments.quickstart import Entry, Plan, job

    def refuse(*_, **__):
        raise urllib.error.URLError("there is no network here")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setenv("METAREP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("METAREP_DATA", raising=False)
    generator = np.random.default_rng(SEED)
    for row in range(12):
        (tmp_path / "photos" / f"kind {row}").mkdir(parents=True)
        for i in range(20):
            pixels = generator.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / f"kind {row}" / f"{i}.png")
    (tmp_path / "a-file").write_text("not a folder")
    short = {"steps": 1, "ways": 2, "shots": 2, "queries": 1, "validation_tasks": 2, "validation_ways": 2}
    plan = Plan(entries=(Entry("protonet", {}, short),), shots=(1,), table=((2, 1),), tasks=2, map_classes=2)
    monkeypatch.setitem(job.quickstart.__kwdefaults__, "plan", plan)
    whole = recipes.load_recipe

    def shortened(name):
        recipe = whole(name)
        recipe.job.update(train=short, data="folder:photos", size=16, encoder={"name": "conv4", "width": 4})
        return replace(recipe, measure=({"ways": 2, "shots": 1, "published": 50.0}, {"ways": 2, "shots": 3}))

    for module in ("recipes", "reproduce", "cli.train"):
        monkeypatch.setattr(import_module(f"metarep.{module}"), "load_recipe", shortened)
    assert main(["train", "protonet", *QUICK, "--size", "16", "--data", "folder:photos", "--out", "a-run"]) == 0
    assert main(["index", "build", "an.index", "photos/kind 0", "--encoder", "a-run"]) == 0
    return tmp_path


def flags(command: str, method: str) -> list[str]:
    from metarep.cli import parser_of

    names = [command, method] if command == "train" else [command]
    return sorted({flag for action in parser_of(*names)._actions for flag in action.option_strings})


def drawn(command: str, dice: random.Random) -> list[str]:
    """A command line: things that belong there, then some that may not, and now and then no sense at all."""
    from metarep.experiments.recipes import recipe_names
    from metarep.methods import METHODS

    method = dice.choice(list(METHODS))
    first = {
        "train": [method],
        "evaluate": [dice.choice(["a-run", "a-run", "omniglot-protonet", "a-run/model.safetensors"])],
        "data": [dice.choice(["list", "prepare", "verify", "show"]), dice.choice(["folder:photos", "glyphs"])],
        "index": [
            dice.choice(["build", "add", "remove", "search", "stats", "duplicates"]),
            dice.choice(["an.index", "an.index", "new.index"]),
            dice.choice(["photos/kind 0", "photos/kind 1/3.png", "photos"]),
            *dice.choice([[], ["--encoder", "a-run"], ["--index", "faiss", "--encoder", "a-run"]]),
        ],
        "search": ["an.index", "photos/kind 1/3.png"],
        "reproduce": [dice.choice(recipe_names()), "--tasks", "20"],
    }.get(command, [])
    line = [command, *first]
    if command == "train":
        line += [*QUICK, "--size", "16", "--data", "folder:photos"]
    if command == "evaluate":
        line += ["--tasks", "3", "--ways", "2", "--queries", "1", "--size", "16"]
        line += ["--data", "folder:photos"] if dice.random() < 0.5 else []
    known = flags(command, method)
    for _ in range(dice.choice([0, 1, 1, 2, 3])):
        flag = dice.choice(known)
        word = dice.choice([word for word in WORDS if flag not in ("--steps", "--seeds") or word not in HUGE])
        line += dice.choice([[flag, word], [f"{flag}={word}"], [flag], [word], [flag[:-1], word]])
    if dice.random() < 0.05:
        dice.shuffle(line)
    return line


@pytest.mark.parametrize(
    "command", ["quickstart", "data", "methods", "train", "evaluate", "reproduce", "index", "search"]
)
def test_command_lines(command, place):
    from metarep.cli import main

    dice = random.Random(f"{SEED} {command}")
    seen = Counter()
    for _ in range(NUMBER):
        line = drawn(command, dice)
        out, err = io.StringIO(), io.StringIO()
        try:
            with guarded(60, 6 << 30), redirect_stdout(out), redirect_stderr(err):
                status = main(line)
        except SystemExit as left:
            status = left.code
        except TooLongError:
            assert any(word in argument for argument in line for word in HUGE), f"{line} does not end"
            status = "long"
        except BaseException as error:
            if "--debug" in line and type(error).__module__.startswith("metarep"):
                continue  # which asks for the traceback
            raise AssertionError(f"{line} raised {type(error).__name__}: {error}") from error
        seen[status] += 1
        said = err.getvalue()
        assert status in (0, 2, "long"), (line, status, said)
        assert "Traceback" not in said
        if status == 2:
            errors = [text for text in said.splitlines() if not text.startswith("metarep: note:")]
            errors = [text for text in errors if text.startswith("metarep: ")]
            assert len(errors) == 1, (line, said)
        if status == 0 and "--json" in line and not {"--help", "-h"} & set(line):
            json.loads(out.getvalue())
    assert seen[0] > NUMBER / 20, seen
    assert seen[2] > NUMBER / 20, seen
    assert not list(Path().glob("**/*.part")), "something half-written was left behind"
