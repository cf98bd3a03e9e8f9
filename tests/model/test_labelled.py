"""How right a model is on a labelled folder, and folders of classes given to fit and add."""

import json
import re
import shutil
from pathlib import Path

import pytest
from serving import ENCODER, drawing
from thinning import few

from metarep.cli import main
from metarep.model.answers import Answer
from metarep.model.folder import ModelFolder
from metarep.model.labelled import NONE, Judged, Verdict, judge, share, taken_for
from metarep.model.trust.trust import wilson

KNOWN = ("ring", "cross", "steps")
pytestmark = [
    pytest.mark.filterwarnings("always::metarep.data.reading.folder_tree.FolderWarning"),
    pytest.mark.filterwarnings("always::metarep.model.repeats.RepeatWarning"),
]


def put(place: str, kind: str, *seeds: int) -> None:
    Path(place).mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        Path(place, f"{seed}.png").write_bytes(drawing(kind, seed))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data/train`` and ``data/test`` of the same three classes, and a stranger in the latter; fitted to ``model``."""
    root = tmp_path_factory.mktemp("fitted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for kind in KNOWN:
            put(f"data/train/{kind}", kind, *range(5))
            put(f"data/test/{kind}", kind, *range(10, 14))
        put("data/test/comb", "comb", 1, 2)
        assert main(["fit", "data", "--out", "model", "--encoder", ENCODER]) == 0
    return root


@pytest.fixture
def model(fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelFolder:
    """A copy of all that is ``fitted``, which is the working directory."""
    monkeypatch.chdir(shutil.copytree(fitted, tmp_path, dirs_exist_ok=True))
    return ModelFolder.open(Path("model"))


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    assert main([*argv]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def said(label: str, known: bool, label_set: tuple[str, ...] = ()) -> Answer:
    return Answer(label, 0.9, known, label_set or (label,), {label: 0.9}, ())


def test_a_verdict_counts() -> None:
    """By hand: a is right, right but called none, and taken for b; c is not known."""
    a = [
        Judged(Path("1"), "a", said("a", True)),
        Judged(Path("2"), "a", said("a", False)),
        Judged(Path("3"), "a", said("b", True, ("b", "a"))),
    ]
    b = [Judged(Path("4"), "b", said("b", True))]
    c = [Judged(Path("5"), "c", said("b", True)), Judged(Path("6"), "c", said("a", False))]
    verdict = Verdict(("b", "d", "a"), (*a, *b), tuple(c))
    counts, names = verdict.confusion()
    assert names == ["b", "a", NONE]
    assert counts.tolist() == [[1, 0, 0], [1, 1, 1], [1, 0, 1]]
    facts = json.loads(json.dumps(verdict.as_dict(), allow_nan=False))
    assert facts["accuracy"] == {"count": 3, "of": 4, "percent": 75.0, "interval": list(wilson(3, 4))}
    assert (facts["none_of_these"]["count"], facts["label_sets"]["count"]) == (1, 4)
    assert facts["classes"]["a"] == {
        "accuracy": {"count": 2, "of": 3, "percent": 66.67, "interval": list(wilson(2, 3))},
        "none_of_these": 1,
        "taken_for": {"b": 1},
    }
    assert facts["untested"] == ["d"]
    assert facts["strangers"]["found"]["count"] == 1
    assert facts["strangers"]["classes"]["c"]["taken_for"] == {"b": 1}
    assert [each["image"] for each in facts["wrong"]] == ["3"]
    assert share(0, 0) == {"count": 0, "of": 0, "percent": None, "interval": None}
    assert taken_for([a[2], a[2], Judged(Path("7"), "a", said("0", True))]) == {"b": 2, "0": 1}


@pytest.mark.slow
def test_how_right_a_model_is(model: ModelFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert model.model.gallery.counts.tolist() == [5, 5, 5], "what fit was given to test by is not learned"
    facts = json.loads(run(capsys, "predict", "model", "data/test", "--labelled", "--json"))
    answers = json.loads(run(capsys, "predict", "model", "data/test", "--json"))
    tested = [each for each in answers if "comb" not in each["image"]]
    right = [Path(each["image"]).parent.name == each["label"] for each in tested]
    assert facts["accuracy"]["count"] == sum(right) >= 10
    assert facts["none_of_these"]["count"] == sum(not each["known"] for each in tested)
    assert facts["strangers"]["found"]["count"] == sum(not each["known"] for each in answers if each not in tested)
    assert {name: each["accuracy"]["of"] for name, each in facts["classes"].items()} == dict.fromkeys(sorted(KNOWN), 4)
    assert list(facts["strangers"]["classes"]) == ["comb"]
    assert Path(facts["picture"]).stat().st_size > 1000
    lines = run(capsys, "predict", "model", "data/test", "--labelled", "--out", "x.png")
    percent = f"{facts['accuracy']['percent']:.1f} %"
    assert f"accuracy {percent} (" in lines
    assert f"): {sum(right)} of 12 images of 3 classes\n" in lines
    assert "strangers: 2 images of 1 class that the model does not know (comb)" in lines
    assert re.search(r"^ring +\d of 4 right  \d+\.\d %", lines, re.M)
    assert re.search(r"^comb \(a stranger\) +\d of 2 found", lines, re.M)
    assert lines.endswith("what is taken for what: x.png\n")


def test_pictures_that_were_learned_are_no_test(model: ModelFolder, capsys: pytest.CaptureFixture[str]) -> None:
    put("mixed/ring", "ring", 0, 20)
    facts = json.loads(run(capsys, "predict", "model", "mixed", "--labelled", "--json"))
    assert facts["in_the_model"] == ["mixed/ring/0.png"]
    assert facts["accuracy"]["of"] == 1
    assert facts["untested"] == sorted(set(KNOWN) - {"ring"})
    assert "left out: 1 picture that the model has learned" in run(capsys, "predict", "model", "mixed", "--labelled")
    assert main(["predict", "model", "data/train", "--labelled"]) == 2
    assert "the model has learned every one of these images; give new ones" in capsys.readouterr().err


def test_classes_of_the_folder_go_by_the_rule_of_names(model: ModelFolder, capsys: pytest.CaptureFixture[str]) -> None:
    put("spelled/ring ", "ring", 30)
    put("spelled/CROSS", "cross", 30)
    lines = run(capsys, "predict", "model", "spelled", "--labelled")
    assert re.search(r"accuracy .* of 1 image of 1 class\n", lines)
    main(["predict", "model", "spelled", "--labelled"])
    told = capsys.readouterr().err
    assert "note: 'CROSS' is taken for a class that the model does not know; it looks like 'cross'" in told
    assert judge(model, [(Path("spelled/CROSS/30.png"), "CROSS")]).strange_classes.keys() == {"CROSS"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("data --labelled", "data holds parts of the same classes; give one of them, as in data/test"),
        (
            "data/test/ring data/test/cross --labelled",
            "one folder that holds a folder of images for each class: give data/test",
        ),
        ("data/test/ring --labelled", "It seems to be a class itself: give data/test, above it"),
        (
            "flat --labelled",
            "nothing says of which class the images in flat are, so there is no right answer to compare with; leave "
            "--labelled out to classify, or give a folder that holds a folder of images for each class, or give a list",
        ),
        ("flat/0.png --labelled", "nothing says of which class flat/0.png is, so there is no right answer"),
        ("data/test --labelled --csv", "or --labelled with --json"),
        ("data/test --out x.png", "--out is the picture of --labelled"),
        ("gone --labelled", "'gone' is a link to nowhere, which is not there"),
        ("gone", "'gone' is a link to nowhere, which is not there"),
    ],
)
def test_what_to_type_instead(model: ModelFolder, line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("gone").symlink_to("nowhere")
    put("flat", "ring", 0)
    put("beside", "ring", 1)  # a folder with images beside it makes it no class
    assert main(["predict", "model", *line.split()]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_fit_says_how_to_test(model: ModelFolder, capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys, "fit", "data", "--out", "again", "--encoder", ENCODER)
    next_line = lines.splitlines()[-1]
    assert next_line == "next: metarep predict again data/test --labelled"
    assert "accuracy" in run(capsys, *next_line.split()[2:])
    facts = json.loads(run(capsys, "fit", "data", "--out", "third", "--encoder", ENCODER, "--json"))
    assert facts["held_out"] == ["data/test"]


ADDED = {  # folders, what is added, and the new images of each class, or words of the refusal
    "a folder of classes": ("more/ring more/comb", "more", {"ring": 2, "comb": 2}),
    "a class in parts": ("ring/2023 ring/2024", "ring", {"ring": 4}),
    "a class with a part": ("comb comb/2024", "comb", {"comb": 4}),
    "who knows": ("who/knows who/what", "who", "give who/*/ for a class each, or who --to who for one class"),
    "a training part": ("x/train/ring x/train/comb x/test/ring", "x", {"ring": 2, "comb": 2}),
    "a link to a class": ("elsewhere", "comb", {"comb": 2}),
    "said with --to": ("who/knows who/what", "who --to comb", {"comb": 4}),
    "a class that holds classes": (
        "ring/cross ring/comb",
        "ring",
        "ring may be one class, or hold a class in each folder",
    ),
}


@pytest.mark.parametrize("name", few(ADDED, 4))
def test_folders_that_are_added(model: ModelFolder, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    folders, given, want = ADDED[name]
    for place, folder in enumerate(folders.split()):
        put(folder, "comb", 100 + 2 * place, 101 + 2 * place)
    if name == "a link to a class":
        Path("comb").symlink_to("elsewhere")
    code = main(["add", "model", *given.split()])
    told = capsys.readouterr()
    gallery = model.model.gallery
    counts = dict(zip(gallery.names, (gallery.counts - 5).tolist(), strict=True))
    if isinstance(want, str):
        assert (code, want in told.err) == (2, True), told.err
        assert set(counts.values()) == {0}
        return
    assert code == 0, told.err
    assert {each: count + (0 if each in KNOWN else 5) for each, count in counts.items() if count} == want
    assert ("new: comb" in told.out) == ("comb" in want)
