"""Tables of the docs: made from result files, exactly, and refused where a marker is wrong."""

import csv
import multiprocessing
from pathlib import Path

import pytest
from tools.tables.fill import fill_tables, main

from metarep.errors import MetarepError
from metarep.experiments.measurement.results import COLUMNS, read, record

PROTONET = {
    "method": "protonet",
    "learner": "prototypes",
    "data": "omniglot:vinyals",
    "split": "test",
    "trained_on": "omniglot:vinyals/trainval",
    "labels": "true",
    "init": "random",
    "encoder": "conv4-64",
    "size": "28",
    "normalisation": "running",
    "ways": "5",
    "shots": "1",
    "queries": 15,
    "protocol": "inductive",
    "tasks": 10000,
    "seeds": 1,
    "accuracy": 90.0,
    "ci95": 0.5,
    "published": 89.8,
    "source": "Somebody 2017",
    "train_seconds": 540,
    "hardware": "2 threads",
    "recipe": "protonet-omniglot",
    "commit": "abc",
}
PIXELS = PROTONET | {
    "method": "raw pixels",
    "trained_on": "",
    "encoder": "none",
    "accuracy": 40.25,
    "published": "",
    "source": "",
    "train_seconds": "",
    "recipe": "",
    "normalisation": "none",
}
PLACE = "before\n<!-- table:omniglot{} -->\nold\n<!-- /table -->\nafter"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    many = PROTONET | {"ways": "20", "accuracy": 80.0, "ci95": 0.25, "published": 96.0}
    siamese = PROTONET | {"method": "siamese", "accuracy": 85.0, "published": "", "source": "nobody", "recipe": "s"}
    validation = PROTONET | {"split": "val", "trained_on": "omniglot:vinyals/train", "accuracy": 99.0}
    lone = PIXELS | {"ways": "20", "data": "omniglot:lake"}
    record(tmp_path / "omniglot.csv", [PROTONET, many, siamese, validation, PIXELS, lone])
    return tmp_path


def test_a_table_is_what_the_result_file_says(results: Path) -> None:
    filled = fill_tables(PLACE.format(""), results)
    assert filled.splitlines() == [
        "before",
        "<!-- table:omniglot -->",
        "| method | learner | 5-way 1-shot | 20-way 1-shot |",
        "| --- | --- | ---: | ---: |",
        "| protonet | prototypes | 90.00 ± 0.50 (89.8) | 80.00 ± 0.25 (96.0) |",
        "| siamese | prototypes | 85.00 ± 0.50 |  |",
        "| raw pixels | prototypes | 40.25 ± 0.50 |  |",
        "",
        "Accuracy in percent ± half its 95 % interval over tasks. 10,000 tasks of 15 queries a class, inductive under "
        "running statistics. Split omniglot:vinyals/test; encoder conv4-64 on images of 28 px, trained on "
        "omniglot:vinyals/trainval. In brackets what was published.",
        "",
        "<details>",
        "<summary>Where each row comes from</summary>",
        "",
        "| row | tasks | training | hardware | commit | figure in brackets |",
        "| --- | ---: | ---: | --- | --- | --- |",
        "| protonet | 10,000 | 9 min | 2 threads | abc | Somebody 2017 |",
        "| siamese | 10,000 | 9 min | 2 threads | abc |  |",
        "",
        "</details>",
        "<!-- /table -->",
        "after",
    ]
    assert fill_tables(filled, results) == filled
    tested = [row for row in read(results / "omniglot.csv") if (row["method"], row["split"]) == ("protonet", "test")]
    assert [row["ways"] for row in tested] == ["5", "20"], "in order of number, not of text"


def test_a_filter_chooses_trained_rows_and_keeps_the_references_beside_them(results: Path) -> None:
    filled = fill_tables(PLACE.format(" method=siamese"), results)
    assert "| siamese |" in filled
    assert "| raw pixels |" in filled
    assert "protonet" not in filled
    assert "20-way" not in filled
    several = fill_tables(PLACE.format(" method=siamese,protonet"), results)
    assert "| siamese |" in several
    assert "| protonet |" in several


def test_what_differs_between_rows_gets_a_column(results: Path) -> None:
    record(results / "omniglot.csv", [PROTONET | {"encoder": "resnet12-64", "accuracy": 95.0}])
    filled = fill_tables(PLACE.format(" method=protonet"), results)
    assert "| protonet | prototypes | resnet12-64 | 95.00 ± 0.50 (89.8) |" in filled
    assert "| protonet | prototypes | conv4-64 | 90.00 ± 0.50 (89.8) | 80.00 ± 0.25 (96.0) |" in filled


@pytest.mark.parametrize(
    ("column", "other"), [("queries", 5), ("normalisation", "support"), ("protocol", "transductive"), ("tasks", 2000)]
)
def test_another_measurement_takes_no_place_and_the_same_one_does(results: Path, column: str, other: object) -> None:
    before = len(read(results / "omniglot.csv"))
    record(results / "omniglot.csv", [PROTONET | {column: other, "accuracy": 70.0}])
    assert len(read(results / "omniglot.csv")) == before + 1
    filled = fill_tables(PLACE.format(" method=protonet"), results)
    assert f"| protonet | prototypes | {other} | 70.00 ± 0.50 (89.8) |  |" in filled
    assert "90.00 ± 0.50" in filled
    record(results / "omniglot.csv", [PROTONET | {"accuracy": 91.0, "commit": "def", "digest": "other tasks"}])
    rows = [row["accuracy"] for row in read(results / "omniglot.csv")]
    assert len(rows) == before + 1
    assert "91.00" in rows
    assert "90.00" not in rows


def test_images_of_another_size_are_another_measurement_and_have_references_of_their_own(results: Path) -> None:
    larger = [PROTONET | {"size": "42", "accuracy": 92.0, "recipe": "large"}, PIXELS | {"size": "42", "accuracy": 41.0}]
    record(results / "omniglot.csv", larger)
    filled = fill_tables(PLACE.format(" method=protonet ways=5"), results)
    for line in (
        "| method | learner | px | 5-way 1-shot |",
        "| protonet-omniglot | prototypes | 28 | 90.00 ± 0.50 (89.8) |",
        "| large | prototypes | 42 | 92.00 ± 0.50 (89.8) |",
        "| raw pixels | prototypes | 28 | 40.25 ± 0.50 |",
        "| raw pixels | prototypes | 42 | 41.00 ± 0.50 |",
    ):
        assert line in filled
    assert "41.00" not in fill_tables(PLACE.format(" method=protonet size=28"), results)


def test_a_table_without_sizes_is_read_and_its_rows_are_replaced(results: Path) -> None:
    path = results / "omniglot.csv"
    with path.open() as file:
        old = [{name: row[name] for name in COLUMNS if name != "size"} for row in csv.DictReader(file)]
    with path.open("w") as file:
        writer = csv.DictWriter(file, [name for name in COLUMNS if name != "size"])
        writer.writeheader()
        writer.writerows(old)
    assert {row["size"] for row in read(path)} == {""}
    record(path, [PROTONET | {"accuracy": 91.0}])
    new = [row for row in read(path) if row["method"] == "protonet" and row["ways"] == "5" and row["split"] == "test"]
    assert [(row["size"], row["accuracy"]) for row in new] == [("28", "91.00")]


def test_references_stand_beside_rows_of_their_own_setting(results: Path) -> None:
    record(results / "omniglot.csv", [PROTONET | {"method": "siamese", "queries": 5, "recipe": "s"}])
    assert "raw pixels" not in fill_tables(PLACE.format(" method=siamese queries=5"), results)
    assert "raw pixels" in fill_tables(PLACE.format(" method=siamese queries=15"), results)


def test_reliability_has_columns_where_it_was_measured(results: Path) -> None:
    path = results / "omniglot.csv"
    before = read(path)
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)
    record(path, [PROTONET | {"auroc": 91.5, "false_alarms": float("nan"), "task_seconds": 0.000123456}])
    (row,) = [each for each in read(path) if each["auroc"]]
    assert (row["auroc"], row["false_alarms"], row["task_seconds"]) == ("91.5", "", "0.0001235")
    assert path.read_text().splitlines()[0] == ",".join((*COLUMNS, "auroc", "task_seconds"))
    others = [each for each in read(path) if each != row]
    assert [each for each in before if each in others] == others, "the other rows stay, with empty columns"
    assert len(others) == len(before) - 1


HEAD = ",".join(COLUMNS)
GOOD = {"ways": "5", "shots": "1-5", "queries": "15", "tasks": "9"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method,accuracy\nprotonet,9\n", "its first line must be method,learner"),
        ("", "its first line must be"),
        (f"{HEAD}\nprotonet,prototypes\n", f"line 2: a row must have {len(COLUMNS)} values"),
        (f"{HEAD}\n{'x,' * len(COLUMNS)}x\n", f"line 2: a row must have {len(COLUMNS)} values"),
        (f"{HEAD}\n{','.join((GOOD | {'tasks': 'many'}).get(c, '') for c in COLUMNS)}\n", "tasks is 'many'"),
        (f"{HEAD}\n{','.join((GOOD | {'ways': ''}).get(c, '') for c in COLUMNS)}\n", "ways is ''"),
        (b"\xff\xfe", "is not a results table"),
    ],
)
def test_a_result_file_that_is_none_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "omniglot.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(MetarepError, match=message):
        read(path)
    before = path.read_bytes()
    with pytest.raises(MetarepError, match=message):
        record(path, [PROTONET])
    assert path.read_bytes() == before


def test_of_one_recipe_all_stands_in_the_caption(results: Path) -> None:
    filled = fill_tables(PLACE.format(" method=protonet"), results)
    assert "trained on omniglot:vinyals/trainval. Training: 9 min. Hardware: 2 threads; commit abc. " in filled
    assert "In brackets what was published (Somebody 2017).\n<!-- /table -->" in filled


def test_a_figure_from_memory_says_so(results: Path) -> None:
    record(results / "omniglot.csv", [PROTONET | {"source": "recalled: a table"}])
    assert "90.00 ± 0.50 (89.8 recalled)" in fill_tables(PLACE.format(""), results)


def test_what_follows_from_another_column_gets_none(results: Path) -> None:
    other = {"normalisation": "transductive", "protocol": "transductive", "tasks": 900}
    record(results / "omniglot.csv", [PROTONET | {"method": "maml", "recipe": "m", "accuracy": 70.0} | other])
    filled = fill_tables(PLACE.format(""), results)
    assert "| method | learner | normalisation | 5-way 1-shot |" in filled
    assert "10,000 or 900 tasks of 15 queries a class, inductive under running statistics, or transductive." in filled
    assert "| m | 900 |" not in filled
    assert "| maml | 900 | 9 min |" in filled


def test_recipes_are_named_only_where_nothing_else_tells_rows_apart(results: Path) -> None:
    assert "protonet-omniglot" not in fill_tables(PLACE.format(""), results)
    record(results / "omniglot.csv", [PROTONET | {"recipe": "protonet-cosine", "accuracy": 95.0}])
    filled = fill_tables(PLACE.format(" method=protonet"), results)
    assert "| method | learner | 5-way 1-shot | 20-way 1-shot |" in filled
    assert "| protonet-omniglot | prototypes | 90.00 ± 0.50 (89.8) |" in filled, "another recipe takes no place"
    assert "| protonet-cosine | prototypes | 95.00 ± 0.50 (89.8) |  |" in filled


def test_of_a_reference_the_row_of_most_tasks_is_shown(results: Path) -> None:
    few = [PROTONET | {"method": "maml", "recipe": "m", "tasks": 900}, PIXELS | {"tasks": 900, "accuracy": 41.5}]
    record(results / "omniglot.csv", few)
    both = fill_tables(PLACE.format(""), results)
    assert (both.count("| raw pixels |"), "40.25" in both, "41.5" in both) == (1, True, False)
    assert "41.5" in fill_tables(PLACE.format(" method=maml"), results), "where no more were measured"


def test_minutes_of_several_recipes_of_a_method_are_told_apart(results: Path) -> None:
    record(
        results / "omniglot.csv", [PROTONET | {"recipe": "protonet-short", "labels": "clusters", "train_seconds": 60}]
    )
    filled = fill_tables(PLACE.format(""), results)
    for row in ("protonet-short | 10,000 | 1 min", "protonet-omniglot | 10,000 | 9 min", "siamese | 10,000 | 9 min"):
        assert f"| {row} |" in filled


def test_validation_rows_are_shown_only_where_they_are_asked_for(results: Path) -> None:
    assert "99.00" not in fill_tables(PLACE.format(""), results)
    assert "99.00 ± 0.50" in fill_tables(PLACE.format(" split=val"), results)


def test_splits_are_never_mixed_in_one_table(results: Path) -> None:
    record(results / "omniglot.csv", [PROTONET | {"data": "omniglot:lake", "accuracy": 70.0}])
    filled = fill_tables(PLACE.format(" method=protonet"), results)
    assert filled.count("| method |") == 2
    assert "Split omniglot:lake/test" in filled


@pytest.mark.parametrize("name", ["omniglot method=maml", "imagenet"])
def test_without_rows_the_text_says_so(results: Path, name: str) -> None:
    filled = fill_tables(f"<!-- table:{name} -->\n1.00\n<!-- /table -->", results)
    assert filled == f"<!-- table:{name} -->\nnot measured yet\n<!-- /table -->"


def test_several_trainings_are_named(results: Path) -> None:
    """And how far they lie apart, over the columns of a row."""
    record(results / "omniglot.csv", [PROTONET | {"seeds": 3, "seed_sd": 0.1}])
    assert "mean of 3 trainings with a deviation of 0.10" in fill_tables(PLACE.format(""), results)
    record(results / "omniglot.csv", [PROTONET | {"seeds": 3, "seed_sd": 0.25, "shots": 5}])
    assert "9 min, mean of 3 trainings with a deviation of 0.10 to 0.25 |" in fill_tables(PLACE.format(""), results)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 on; the children use no threads
def test_who_records_at_once_loses_no_row(tmp_path: Path) -> None:
    context, path = multiprocessing.get_context("fork"), tmp_path / "some.csv"
    jobs = [context.Process(target=_record_some, args=(path, name)) for name in "abc"]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(30)
    assert {(row["method"], row["tasks"]) for row in read(path)} == {(m, str(n)) for m in "abc" for n in range(1, 9)}


def _record_some(path: Path, method: str) -> None:
    for tasks in range(1, 9):
        record(path, [PROTONET | {"method": method, "tasks": tasks}])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- table:omniglot -->\nno end", "has no line"),
        ("<!-- table:omniglot methd=protonet -->\n<!-- /table -->", "did you mean 'method'"),
    ],
)
def test_wrong_markers_are_refused(results: Path, text: str, message: str) -> None:
    with pytest.raises(MetarepError, match=message):
        fill_tables(text, results)


def test_several_tables_of_one_page_are_filled_each_on_its_own(results: Path) -> None:
    filled = fill_tables(f"{PLACE.format('')}\n{PLACE.format(' method=siamese')}", results)
    assert filled.count("| siamese | prototypes |") == 2
    assert filled.count("| protonet | prototypes |") == 1
    assert filled.count("after") == 2


@pytest.mark.parametrize("second", ["omniglot", "cifar-fs"])
def test_the_first_of_two_tables_must_be_closed(results: Path, second: str) -> None:
    with pytest.raises(MetarepError, match="table:omniglot --> has no line"):
        fill_tables(f"<!-- table:omniglot -->\n\n<!-- table:{second} -->\n<!-- /table -->", results)


def test_check_changes_nothing_and_fails_on_a_stale_file(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(PLACE.format(""), "utf-8")
    flags = [str(page), "--results", str(results)]
    assert main([*flags, "--check"]) == 1
    assert page.read_text("utf-8") == PLACE.format("")
    assert main(flags) == 0
    assert "90.00 ± 0.50" in page.read_text("utf-8")
    assert main([*flags, "--check"]) == 0
    page.write_text("<!-- table:omniglot -->", "utf-8")
    capsys.readouterr()
    assert main(flags) == 2
    assert "has no line" in capsys.readouterr().err
