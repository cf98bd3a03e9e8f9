"""How a command line is read: sub-parsers, flags in any order, files of one's own, and help."""

import argparse
import errno
import io
import re
import sys
from importlib.resources import files

import pytest

from metarep.cli import COMMANDS, main, parser_of, top_parser
from metarep.cli.config import read_config
from metarep.cli.train import read_job
from metarep.data.datasets import DATASETS
from metarep.errors import MetarepError
from metarep.experiments.recipes import load_recipe, recipe_names
from metarep.methods import METHODS
from metarep.weights.shipped import zoo_names

CONFIG = (
    'data = "glyphs"\nsize = 16\nencoder = { name = "conv4", width = 8 }\n[settings]\nturns = 3\n[train]\nsteps = 40\n'
)


def read(line: str) -> argparse.Namespace:
    args = argparse.Namespace()
    top_parser().read(line.split(), args)
    return args


@pytest.mark.parametrize(
    "line",
    [
        "train protonet --data glyphs --turns 3",
        "train --data glyphs protonet --turns 3",
        "train --turns 3 protonet --data glyphs",
        "train --turns=3 --data=glyphs protonet",
        "train --turns 3 --data glyphs -- protonet",
        "train --turns 2 --data omniglot protonet --data glyphs --turns 3",
    ],
)
def test_flags_of_a_method_stand_anywhere(line):
    args = read(line)
    assert (args.command, args.method, args.data, args.turns, args.json) == ("train", "protonet", "glyphs", 3, False)


@pytest.mark.parametrize(
    "line",
    [
        "index build X Y Z --index faiss --kind ivf --json",
        "index build X Y Z --index=faiss --kind ivf --json",
        "index build X --kind ivf Y --index faiss --json Z",
        "index build --kind=ivf --json --index faiss X Y Z",
        "index --index faiss --json --kind ivf build X Y Z",
        "index --json build --index faiss --kind ivf -- X Y Z",
    ],
)
def test_flags_of_a_backend_stand_anywhere(line):
    args = read(line)
    assert (args.action, str(args.index), [*map(str, args.paths)]) == ("build", "X", ["Y", "Z"])
    assert (args.backend, args.kind, args.json) == ("faiss", "ivf", True)
    assert args.own == ["kind", "links", "build_width", "search_width", "probes"]


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("index --threshold 0.9 duplicates X", "threshold", 0.9),
        ("index search -k 5 X Y", "hits", 5),
        ("index -k5 search X Y", "hits", 5),
        ("train --no-stop-on-collapse simclr", "stop_on_collapse", False),
        ("train --lr -1 protonet", "lr", -1.0),
        ("data --size 12 prepare glyphs", "size", 12),
        ("predict m a.png --csv b.png", "images", ["a.png", "b.png"]),
        ("predict m --csv -- -a.png --json", "images", ["-a.png", "--json"]),
        ("predict -- m -a.png", "images", ["-a.png"]),
        ("index build X Y --url here --index qdrant", "url", "here"),
    ],
)
def test_a_value_arrives(line, name, value):
    assert getattr(read(line), name) == value


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train --margn 0.2 triplet", "there is no flag --margn (did you mean --margin?). Try: metarep train --help"),
        ("train --margin 0.2 protonet", "there is no flag --margin (it is one of siamese, triplet)"),
        (
            "train protonet --margin 0.2",
            "there is no flag --margin (it is one of siamese, triplet). Try: metarep train p",
        ),
        ("train --turns", "--turns needs a value. Try: metarep train --help"),
        ("train --turns x protonet", "--turns must be a whole number, not 'x'. Try: metarep train protonet --help"),
        ("train", "METHOD is missing: protonet, siamese, triplet"),
        ("train --data protonet", "METHOD is missing"),
        ("train protonet anil", "'anil' is one argument too many"),
        (
            "train --metric cosin protonet",
            "--metric: 'cosin' is not one of euclidean, cosine (did you mean cosine?)",
        ),
        ("train protonet --step 5", "there is no flag --step (did you mean --steps?)"),
        ("train --out=-- protonet", "--out needs a value, not --"),
        ("index", "ACTION is missing: build, add, remove, search, stats, duplicates"),
        ("index serch X", "unknown action 'serch'; did you mean 'search'?"),
        ("index build X Y --kind ivf", "there is no flag --kind (it is one of faiss)"),
        ("index build X Y --index fais", "unknown index 'fais'; did you mean 'faiss'?"),
        ("index stats X --skip-bad", "there is no flag --skip-bad (it is one of build, add)"),
        ("--json train protonet", "there is no flag --json"),
        ("train --", "METHOD is missing"),
        ("train protonet -- --steps 0", "'--steps' is one argument too many"),
        ("train --turns=-- protonet", "--turns needs a value, not --. Try: metarep train --help"),
        ("methods protonet", "'protonet' is one argument too many"),
        ("fit photos", "--out is missing. Try: metarep fit --help"),
        ("fit photos --out", "--out needs a value"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_line(line, message):
    with pytest.raises(MetarepError) as caught:
        read(line)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def all_parsers():
    for command in COMMANDS:
        parser = parser_of(command)
        yield parser
        yield from (parser_of(command, name) for name in parser.sub_parsers)


@pytest.mark.slow
def test_a_flag_takes_a_value_in_all_sub_parsers_or_in_none():
    for command in ("train", "index", "data"):
        counts = {}
        for name in parser_of(command).sub_parsers:
            for action in parser_of(command, name)._actions:
                for flag in action.option_strings:
                    counts.setdefault(flag, set()).add(action.nargs)
        assert {flag for flag, kinds in counts.items() if len(kinds) > 1} == set()


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 60])
def test_help_breaks_no_name(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    known = {*recipe_names(), *METHODS, *DATASETS, *zoo_names()}
    parts = {part for name in known if "-" in name for part in [name.rpartition("-")[0] + "-"]}
    seen = set()
    for parser in all_parsers():
        text = parser.format_help()
        lines = text.splitlines()
        assert not re.search(r"\w-$", text, re.MULTILINE), "a line ends in the middle of a name"
        assert [line for line in lines if line.split() and line.split()[-1] in parts] == []
        seen |= set(re.findall(r"[\w-]+", text))
    assert known - seen == set()
    whole = set(re.findall(r"[\w-]+", parser_of("train").format_help()))
    assert set(recipe_names()) <= whole


def test_help_of_a_method_shows_its_own_flags(capsys):
    for line in (["train", "triplet", "--help"], ["train", "--margin", "1", "triplet", "-h"]):
        with pytest.raises(SystemExit):
            main(line)
        said = capsys.readouterr().out
        assert "usage: metarep train triplet [flags]" in said
        assert "--margin X" in said
        assert "--turns" not in said


def write(tmp_path, text, name="my.toml"):
    path = tmp_path / name
    path.write_text(text, "utf-8")
    return str(path)


def job_of(*line):
    args = argparse.Namespace()
    top_parser().read(["train", *line], args)
    return read_job(args)


def test_flags_win_over_a_file_of_ones_own(tmp_path):
    path = write(tmp_path, CONFIG)
    job = job_of("protonet", "--config", path)
    assert (job.data, job.size, job.encoder, job.settings, job.train) == (
        "glyphs",
        16,
        {"name": "conv4", "width": 8},
        {"turns": 3},
        {"steps": 40},
    )
    job = job_of("--config", path, "--turns", "2", "protonet", "--steps", "7", "--width", "4", "--size", "20")
    assert (job.settings, job.train, job.encoder["width"], job.size) == ({"turns": 2}, {"steps": 7}, 4, 20)


def test_every_recipe_is_a_file_of_this_form(tmp_path):
    for name in recipe_names():
        path = tmp_path / f"{name}.toml"
        path.write_text((files("metarep.experiments.recipes") / path.name).read_text("utf-8"), "utf-8")
        assert read_config(path, load_recipe(name).method) == load_recipe(name).job


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dta = 'glyphs'", "my.toml: unknown key 'dta'; did you mean data? Known: about, clusters, data"),
        ("steps = 4", "my.toml: unknown key 'steps'; it belongs to [train]. Known: about, clusters, data"),
        ("[train]\nstpes = 4", "my.toml: unknown key 'train.stpes'; did you mean steps? Known: accumulate, augment"),
        (
            "[settings]\nmargin = 1",
            "my.toml: unknown key 'settings.margin'; did you mean metric? Known: label_weight, learn_temperature",
        ),
        ("encoder = { name = 'conv4', widht = 8 }", "my.toml: unknown key 'encoder.widht'; did you mean width?"),
        (
            "encoder = { name = 'conv4', widths = [8, 'x'] }",
            "my.toml: encoder.widths must be a list, each of it a whole number, not [8, 'x']",
        ),
        ("encoder = { name = 'conv4', widths = 8 }", "encoder.widths must be a list"),
        (
            "encoder = { name = 'conv5' }",
            "encoder.name must be one of conv4, resnet12, efficientnet-lite, vit, not 'conv5'",
        ),
        ("[train]\nsteps = 'many'", "my.toml: train.steps must be a whole number, not 'many'"),
        ("[train]\nsteps = true", "my.toml: train.steps must be a whole number, not True"),
        ("[train]\nsteps = 4.0", "my.toml: train.steps must be a whole number, not 4.0"),
        (
            "[train]\nschedule = 'cosin'",
            "train.schedule must be one of one-cycle, cosine, constant, linear, not 'cosin'",
        ),
        ("[train]\nsteps = 0", "my.toml: steps must be at least 1, not 0"),
        ("train = 4", "my.toml: train must be a table, not 4"),
        ("data = 4", "my.toml: data must be a text, not 4"),
        (
            "method = 'maml'",
            "my.toml is not for protonet: it says method = 'maml'; or train it with metarep train maml",
        ),
        ("method = 3", "my.toml: method must be one of protonet, siamese, "),
        ("encoder = { width = 8 }", "my.toml: encoder needs a name, one of conv4, resnet12, efficientnet-lite"),
        ("labels = 'cluster:x'", "my.toml: unknown labels 'cluster:x'"),
        ("init = 'simclr-omniglot'", "my.toml needs a run of recipe simclr-omniglot: name one by --init RUN"),
        ("teacher = 'baseline-cifar-fs'", "my.toml needs a run of recipe baseline-cifar-fs: name one by --teacher RUN"),
        ("data = ", "my.toml is not TOML: Invalid value (at"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(text, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, text)
    assert main(["train", "protonet", "--config", "my.toml"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


def test_a_file_that_is_not_there_or_of_another_method(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for line, message in (
        (["maml", "--config", write(tmp_path, CONFIG, "protonet-mine.toml")], "its name begins with protonet"),
        (["maml", "--config", "none.toml"], "none.toml"),
        (["maml", "--config", str(tmp_path)], str(tmp_path)),
        (["maml", "--config", "x", "--recipe", "omniglot"], "--recipe and --config both set where to start from"),
    ):
        assert main(["train", *line]) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "latin.toml").write_bytes(b"data = '\xff'")
    assert main(["train", "maml", "--config", "latin.toml"]) == 2
    assert "latin.toml is not UTF-8 text" in capsys.readouterr().err


class _Closed(io.StringIO):
    """An output whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, f"nobody reads {text}")


def test_a_closed_pipe_ends_a_command_without_a_message(monkeypatch, capsys):
    """As in ``metarep methods | head -1``."""
    monkeypatch.setattr(sys, "stdout", _Closed())
    assert main(["methods"]) == 141
    sys.stdout.close()
    assert capsys.readouterr().err == ""
