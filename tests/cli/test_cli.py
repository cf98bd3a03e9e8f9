"""The command line as a person uses it: what it answers, refuses, and leaves on disk."""

import json
import subprocess
import sys
import time

import pytest
from PIL import Image
from thinning import few

from metarep.cli import COMMANDS, _bound_spinning, main
from metarep.cli.flags import argument_helps

TINY = [
    "--steps",
    "4",
    "--ways",
    "8",
    "--queries",
    "3",
    "--validate-every",
    "2",
    "--validation-tasks",
    "20",
    "--width",
    "8",
]


@pytest.mark.slow
def test_help_needs_no_torch_and_no_slow_module_and_takes_less_than_a_second():
    slow = "{'torch', 'numpy', 'inspect', 'difflib', 'datetime', 'threading', 'hashlib'}"
    code = f"import sys; from metarep.cli import main\ntry: main(['--help'])\nfinally: print({slow} & {{*sys.modules}})"
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - started)
    assert done.stdout.rstrip().endswith("set()")
    assert all(command in done.stdout for command in COMMANDS)
    assert min(seconds) < 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["train", "protnet"], "unknown method 'protnet'; did you mean 'protonet'?"),
        (["train", "triplet", "--margn", "0.2"], "there is no flag --margn (did you mean --margin?)"),
        (
            ["train", "triplet", "--mining", "semihard"],
            "'semihard' is not one of batch-all, semi-hard, batch-hard (did you mean semi-hard?)",
        ),
        (["train", "protonet", "--margin", "0.2"], "there is no flag --margin"),
        (["train", "protonet", "--steps", "0"], "steps must be at least 1, not 0"),
        (["train", "protonet", "--ways", "1"], "ways must be at least 2, not 1"),
        (
            ["train", "protonet", "--recipe", "omniglott"],
            "unknown recipe 'protonet-omniglott'; did you mean 'protonet-omniglot'?",
        ),
        (["train", "protonet", "--data", "glyph"], "unknown data set 'glyph'; did you mean 'glyphs'?"),
        (["train", "protonet", "--device", "gpu9"], "device 'gpu9' cannot be used here"),
        (["train", "protonet", "--threads", "0"], "--threads must be at least 1, not 0"),
        (["train", "protonet", "--augment", "drawing"], "unknown augmentation 'drawing'; did you mean 'drawings'?"),
        (["train", "protonet", "--ways", "100000"], "100000-way 1-shot tasks"),
        (["train", "protonet", "--labels", "cluster:x"], "unknown labels 'cluster:x'; did you mean 'clusters:RUN'"),
        (["train", "protonet", "--labels", "clusters:x"], "unknown model or run folder 'x'"),
        (
            ["train", "simclr", "--labels", "instances"],
            "reads no labels; leave out --labels and --labels-per-class",
        ),
        (
            ["train", "anil", "--recipe", "cifar-fs-5-labels-from-simclr"],
            "recipe cifar-fs-5-labels-from-simclr needs a run of recipe simclr-cifar-fs: name one by --init RUN",
        ),
        (["train", "maml", "--teacher", "x"], "protonet, baseline can; leave out --teacher"),
        (["train", "protonet", "--teacher-weight", "1"], "and there is none; name one by --teacher RUN"),
        (["train", "protonet", "--teacher", "x"], "unknown model or run folder 'x'"),
        (["evaluate", "no-such-run"], "unknown model or run folder 'no-such-run'"),
        (["evaluate", "x", "--ways", "five"], "'five' is not a number, a list (5,20) or a range (5-20)"),
        (["data", "show"], "data show needs the name of a data set"),
        (["reproduce", "protonet"], "unknown recipe 'protonet'"),
    ],
)
def test_wrong_input_is_one_line_that_helps(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert len(err.strip().splitlines()) == 1, err
    assert "Traceback" not in err + out


@pytest.mark.slow
def test_labels_of_a_run_of_instances_and_of_few_of_a_class(tmp_path, capsys, monkeypatch):
    """Each flag reaches the run folder, and the rows say what was read."""
    monkeypatch.chdir(tmp_path)
    views = ["--steps", "2", "--images", "16", "--width", "8", "--validate-every", "2"]
    assert main(["train", "simclr", *views, "--out", "first", "--json"]) == 0
    few = [*TINY, "--queries", "1"]
    for flags, said in (
        (["--labels", "clusters:first", "--clusters", "90", "--partitions", "2"], "clusters"),
        (["--labels", "instances"], "instances"),
        (["--labels-per-class", "3", "--init", "first"], "3-a-class"),
    ):
        assert main(["train", "protonet", *few, *flags, "--out", said, "--json"]) == 0
        capsys.readouterr()
        assert main(["evaluate", said, "--learner", "neighbours", "--tasks", "20", "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)
        assert [row["labels"] for row in rows] == [said, "none", "none"]
    kept = json.loads((tmp_path / "clusters" / "settings.json").read_text())["data"]
    assert (kept["clusters"], kept["partitions"], kept["clustered_by"]) == (90, 2, "first")
    assert main(["evaluate", "instances", "--data", "glyphs", "--split", "train"]) == 2
    assert "were seen in training (Latin/" in capsys.readouterr().err


@pytest.mark.slow
def test_train_then_evaluate_then_refuse(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "protonet", *TINY, "--out", "run", "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["step"] in (2, 4)
    assert outcome["accuracy"] > 0
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {
        "settings.json",
        "environment.json",
        "log.jsonl",
        "model.safetensors",
    }

    command = [
        "evaluate",
        "run",
        "--ways",
        "5,3-4",
        "--tasks",
        "50",
        "--queries",
        "3",
        "--results",
        "table.csv",
        "--json",
    ]
    assert main(command) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["method"], row["ways"]) for row in rows[:3]] == [
        ("protonet", "5"),
        ("untrained encoder", "5"),
        ("raw pixels", "5"),
    ]
    assert rows[3]["ways"] == "3-4"
    assert all(row["tasks"] == 50 and row["ci95"] > 0 and row["protocol"] == "inductive" for row in rows)
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 7
    assert main(command) == 0
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 7, (
        "a second measurement takes the first one's place"
    )
    capsys.readouterr()

    assert main(["evaluate", "run", "--data", "glyphs", "--split", "train"]) == 2
    assert "were seen in training (Latin/" in capsys.readouterr().err
    assert main(["evaluate", "run", "--split", "all"]) == 2
    assert "run was trained on glyphs" in capsys.readouterr().err
    assert main(["train", "protonet", *TINY, "--out", "run", "--lr", "0.5"]) == 2
    assert "run holds a run with train.lr = 0.003, not 0.5" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("learner", few(["prototypes", "neighbours", "linear"], 1))
def test_every_learner_evaluates_a_run(tmp_path, capsys, learner):
    run = str(tmp_path / "run")
    assert main(["train", "triplet", *TINY, "--shots", "2", "--out", run, "--json"]) == 0
    capsys.readouterr()
    assert (
        main(
            [
                "evaluate",
                run,
                "--learner",
                learner,
                "--tasks",
                "20",
                "--shots",
                "2",
                "--queries",
                "3",
                "--no-references",
                "--json",
            ]
        )
        == 0
    )
    (row,) = json.loads(capsys.readouterr().out)
    assert row["learner"] == learner


def test_methods_and_data_list(capsys):
    assert main(["methods"]) == 0
    assert "--recipe omniglot" in capsys.readouterr().out
    assert main(["data", "list", "--json"]) == 0
    assert {"glyphs", "omniglot", "folder"} <= json.loads(capsys.readouterr().out).keys()


@pytest.mark.slow
def test_data_show_draws_tasks(tmp_path, capsys):
    picture = tmp_path / "tasks.png"
    assert main(["data", "show", "glyphs", "--out", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_spinning_is_bounded_unless_somebody_decided():
    for given, then in (
        ({}, {"GOMP_SPINCOUNT": "20000"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
    ):
        _bound_spinning(given)
        assert given == then


@pytest.mark.slow
@pytest.mark.filterwarnings("always::UserWarning")
def test_a_folder_is_shown_whole_and_its_notes_are_told_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("METAREP_CACHE", str(tmp_path / "cache"))
    for number, name in enumerate("aaabbbcccddd"):
        (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
        Image.new("L", (20, 20), 20 * (number % 9)).save(tmp_path / "photos" / name / f"{number}.png")
    (tmp_path / "photos" / "a" / "bad.png").write_bytes(b"")
    folder = [f"folder:{tmp_path / 'photos'}", "--size", "12", "--skip-bad"]
    assert main(["data", "prepare", *folder]) == 0
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == 4, notes
    assert "left out: a/bad.png is an empty file" in notes[0]
    assert notes[1].startswith("metarep: warning: LEFT OUT: 1 of 13 images (7.7 %), which cannot be read")
    assert "3 pictures are in more than one class" in notes[2]
    assert notes[3] == notes[1], "what is loud is said again at the end"
    picture = str(tmp_path / "tasks.png")
    assert main(["data", "show", *folder, "--split", "all", "--ways", "4", "--out", picture]) == 0
    assert "/all: " in capsys.readouterr().out


def test_a_data_set_is_written_as_a_bank_and_verified(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("METAREP_CACHE", str(tmp_path / "cache"))
    for number, name in enumerate("aabbcc"):
        (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
        Image.new("L", (20, 20), 20 * number).save(tmp_path / "photos" / name / f"{number}.png")
    folder, bank = [f"folder:{tmp_path / 'photos'}", "--size", "12"], tmp_path / "bank"
    assert main(["data", "prepare", *folder, "--out", str(bank)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-2].startswith(f"made: {tmp_path / 'cache'}")
    assert said[-1] == f"written: {bank}; open it as bank:{bank}"
    assert main(["data", "prepare", f"bank:{bank}"]) == 0
    again = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[2] for line in again[:3]] == [line.partition(": ")[2] for line in said[:3]]
    assert again[3] == f"opened: {bank}"
    assert main(["data", "verify", f"bank:{bank}"]) == 0
    assert capsys.readouterr().out == f"{bank}: 1 file as written\n"
    content = (bank / "000000.npy").read_bytes()
    (bank / "000000.npy").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert main(["data", "verify", f"bank:{bank}"]) == 2
    assert f"{bank} is damaged: 1 of 1 file changed after writing (000000.npy)" in capsys.readouterr().err


def test_help_of_a_flag_comes_from_the_docstring():
    assert argument_helps("What.\n\nArgs:\n    a, b: first\n        and more\n    c: last\n\nRaises:\n    X: y") == {
        "a": "first and more",
        "b": "first and more",
        "c": "last",
    }
