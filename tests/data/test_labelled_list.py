"""Lists of labelled images: what is read from CSV and text files, and one plain line for each mistake."""

from pathlib import Path

import pytest
from folders import put
from thinning import few

from metarep.cli import main
from metarep.data.reading.labelled_list import find_classes, is_list, read_list
from metarep.errors import DataError

NFD, NFC = "cafe\u0301", "caf\u00e9"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a few images, which is not the working directory."""
    for name in ("1.png", "moth/2.png", "moth/a, b; (1).png", f"{NFC}/3.png"):
        put(tmp_path / "lists" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "lists"


def read(file: Path, content: str | bytes) -> dict[str, list[str]]:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return {entry.name: [path.as_posix() for path in entry.files] for entry in read_list(file).classes}


READ = [
    ("a.csv", "path,label\n1.png,fly\nmoth/2.png,moth\n", {"fly": ["1.png"], "moth": ["moth/2.png"]}),
    ("a.csv", "\ufeffLabel , PATH,note\r\n fly , 1.png ,x\r\n\r\n", {"fly": ["1.png"]}),
    ("a.CSV", 'path,label\n"moth/a, b; (1).png","Washington, D.C."\n', {"Washington, D.C.": ["moth/a, b; (1).png"]}),
    ("a.csv", "path,label\nmoth\\2.png,moth\n", {"moth": ["moth/2.png"]}),
    ("a.csv", f"path,label\n{NFD}/3.png,{NFD}\n", {NFC: [f"{NFC}/3.png"]}),
    ("a.txt", "moth/2.png\r\n1.png\tfly\r\n\r\n", {"fly": ["1.png"], "moth": ["moth/2.png"]}),
    ("a.tsv", f"moth\\2.png\n{NFC}/3.png", {NFC: [f"{NFC}/3.png"], "moth": ["moth/2.png"]}),
    ("a.lst", "moth/a, b; (1).png\rmoth/2.png\r", {"moth": ["moth/2.png", "moth/a, b; (1).png"]}),
]


@pytest.mark.parametrize(("name", "content", "classes"), READ)
def test_what_is_read(place: Path, name: str, content: str, classes: dict[str, list[str]]) -> None:
    assert read(place / name, content) == classes
    assert is_list(place / name)


def test_a_repeated_line_is_read_once_and_said(place: Path) -> None:
    (place / "a.csv").write_text("path,label\n1.png,Moth\n./1.png,Moth\nmoth/2.png,moth\n")
    tree = find_classes(str(place / "a.csv"))
    assert [len(entry.files) for entry in tree.classes] == [1, 1]
    assert tree.notes[0].endswith("repeats an earlier one")
    assert "differ in upper and lower case alone" in tree.notes[1]


WRONG = [
    (
        "a.csv",
        "path,label\n1.png,fly\nx.png,a\ny.png,b\n",
        "line 3: there is no image 'x.png' in .*1 more line like this",
    ),
    (
        "a.csv",
        "file,label\n1.png,fly\n",
        "has no column 'path', but 'file', 'label'; its first line must be path,label",
    ),
    ("a.csv", "path,label\n1.png,\n", "line 2: '1.png' has no label; write its class or remove the line"),
    (
        "a.csv",
        "path,label\n1.png,fly\n./1.png,moth\n",
        "'./1.png' has two labels, 'fly' in line 2 and 'moth' in line 3",
    ),
    ("a.csv", b"path,label\n1.png,m\xfccke\n", "not in UTF-8: see line 2; save it as text in UTF-8"),
    ("a.csv", "path;label\n1.png;fly\n", "has semicolons between its columns; save it with commas"),
    (
        "a.csv",
        "path,label\n1.png,fly|moth\n",
        "line 2: 'fly|moth' looks like several labels; .* mend the list, or keep all",
    ),
    (
        "a.csv",
        "path,label\n1.png,fly,moth\n",
        "line 2 has 3 columns, and the first line has 2; .*an image has one class",
    ),
    ("a.txt", "1.png fly\n", "there is no image '1.png fly', but '1.png'; write a tab before 'fly'"),
    ("a.csv", "path,label\n1.png\n", "line 2: '1.png' has no label"),
    ("a.csv", "path\tlabel\n1.png\tfly\n", "has tabs between its columns"),
    ("a.csv", "path,label\n,fly\n", "line 2 has no path"),
    ("a.csv", "path,label,label\n1.png,fly,moth\n", "has two columns 'label'; .*an image has one class"),
    ("a.csv", "1.png,fly\n", "begins with an image; write a first line above it: path,label"),
    ("a.csv", 'path,label\n"1.png,fly\n', "cannot be read as CSV: .*; check its quotes"),
    ("a.csv", "path,label\n1.png,a\u200bb\n", "line 2: the name .* has characters that cannot be seen"),
    ("a.csv", "path,label\nmoth,moth\n", "'moth' is a folder; write a line for each of its images"),
    ("a.csv", "path,label\n" + "x" * 5000 + ",moth\n", "there is no image"),
    ("a.csv", "path,label\n", "lists no image"),
    ("a.csv", "", "is empty; its first line must be path,label"),
    ("a.csv", "path,label\n1.png,fly\n".encode("utf-16"), "is in UTF-16, and not in UTF-8"),
    ("a.csv", b"PK\3\4\0\0", "is a spreadsheet or an archive"),
    ("a.txt", "1.png\n", "line 1: '1.png' has no label and is in no folder; write a tab and its class"),
    ("a.txt", "1.png\tfly\tmoth\n", "line 1 has 2 labels; .*an image has one class"),
    ("a.txt", "1.png\t\n", "line 1: '1.png' has no label"),
    ("a.txt", "\tfly\n", "line 1 has no path"),
    ("a.txt", b"a\0b", "is not text"),
]


@pytest.mark.parametrize(("name", "content", "message"), WRONG)
def test_what_is_wrong(place: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        read(place / name, content)
    assert name in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
@pytest.mark.filterwarnings("always::metarep.model.repeats.RepeatWarning")
@pytest.mark.parametrize("form", few(["csv", "txt"], 1))
def test_fit_add_and_measure_from_lists(place: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    sign, head = (",", "path,label\n") if form == "csv" else ("\t", "")
    lines = [f"{put(place / f'{n}.png', n).name}{sign}{'fly' if n % 2 else 'moth'}\n" for n in range(10, 16)]
    for part, some in (("train", lines[:4]), ("test", lines[4:])):
        (place / f"{part}.{form}").write_text(head + "".join(some))
    (place / f"more.{form}").write_text(f"{head}moth/2.png{sign}owl\n")
    fit = ["fit", f"lists/train.{form}", "--out", "model", "--encoder", "omniglot-protonet"]
    assert main(fit) == 0
    assert "2 classes, 4 images" in capsys.readouterr().out
    assert main(["predict", "model", f"lists/test.{form}", "--labelled"]) == 0
    assert "of 2 images of 2 classes" in capsys.readouterr().out
    assert main(["add", "model", f"lists/more.{form}"]) == 0
    assert "new: owl" in capsys.readouterr().out
    assert main(["add", "model", f"lists/more.{form}", "--to", "owl"]) == 2
    assert "is a list with the class of each image" in capsys.readouterr().err
    (place / f"one.{form}").write_text(head + lines[0])
    assert main([*fit[:1], f"lists/one.{form}", "--out", "other"]) == 2
    assert "holds a single class, 'moth', and a classifier needs two; add images" in capsys.readouterr().err
