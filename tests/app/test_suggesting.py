"""The ranking of unlabelled images: equal to the command's, the same from encoded images, and refused in a sentence."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from serving import KINDS, counts, drawing, drawings, refused, served, teach

POOL = [(kind, seed) for kind in KINDS for seed in (5, 6, 7)]


def pool(*chosen: tuple[str, int]) -> list[Any]:
    return [file for kind, seed in chosen or POOL for file in drawings("files", kind, seed)]


@pytest.mark.slow
def test_the_ranking_is_that_of_the_command(
    taught: Any, folder: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from metarep.cli import main

    for kind, seed in [*POOL, ("ring", 0)]:
        (tmp_path / f"{kind}{seed}.png").write_bytes(drawing(kind, seed))
    paths = [str(tmp_path / f"{kind}{seed}.png") for kind, seed in [*POOL, ("ring", 0)]]
    assert main(["suggest", str(folder.path), *paths, "--number", "6", "--json"]) == 0
    command = json.loads(capsys.readouterr().out)
    own = taught.post("/suggest", params={"number": 6}, files=pool(*POOL, ("ring", 0))).json()
    assert own["classes"] == command["classes"]
    assert len(own["suggestions"]) == 6
    for one, other in zip(own["suggestions"], command["suggestions"], strict=True):
        assert paths[one["row"]] == other["image"]
        assert (one["label"], one["second"], one["known"]) == (other["label"], other["second"], other["known"])
        assert one["margin"] == pytest.approx(other["margin"], abs=1e-4)
        assert list(one["guesses"])[:2] == [one["label"], one["second"]]
        assert sum(one["guesses"].values()) == pytest.approx(1, abs=1e-4)
    assert len(POOL) not in [each["row"] for each in own["suggestions"]], "the model has this picture"


@pytest.mark.slow
def test_encoded_images_stand_for_the_files_and_nothing_is_kept(taught: Any, folder: Any) -> None:
    before = sorted(folder.path.rglob("*"))
    whole = taught.post("/suggest", files=pool()).json()
    parts = [taught.post("/suggest", params={"number": 0}, files=pool(*some)).json() for some in (POOL[:5], POOL[5:])]
    assert [part["suggestions"] for part in parts] == [[], []]
    images = [image for part in parts for image in part["images"]]
    assert [image["item"] for image in images] == [f"{kind}{seed}.png" for kind, seed in POOL]
    again = taught.post("/suggest", data={"encoded": [image["encoded"] for image in images]}).json()
    assert again["images"] == []
    assert [each["row"] for each in again["suggestions"]] == [each["row"] for each in whole["suggestions"]]
    assert counts(taught) == {"ring": 2, "cross": 2}
    assert sorted(folder.path.rglob("*")) == before
    first = again["suggestions"][0]["row"]
    teach(taught, *POOL[first])
    later = taught.post("/suggest", data={"encoded": [image["encoded"] for image in images]}).json()
    assert first not in [each["row"] for each in later["suggestions"]], "what was learned is not asked again"


@pytest.mark.slow
def test_what_is_refused(client: Any, folder: Any) -> None:
    refused(client.post("/suggest", files=pool(("ring", 0))), 409, "no classes yet")
    teach(client, "ring", 0, 1)
    [only] = client.post("/suggest", files=pool(("comb", 3))).json()["suggestions"]
    assert (only["label"], only["second"], only["guesses"]) == ("ring", "", {"ring": 1})
    refused(client.post("/suggest"), 422, "either files or encoded images")
    [image] = client.post("/suggest", params={"number": 0}, files=pool(("ring", 5))).json()["images"]
    refused(
        client.post("/suggest", files=pool(("ring", 0)), data={"encoded": [image["encoded"]]}), 422, "one of the two"
    )
    raw = base64.b64decode(image["encoded"])
    endless = base64.b64encode(raw[:-4] + b"\x00\x00\xc0\x7f").decode()
    for text, words in [
        ("é!", "image 1 is not"),
        ("AAAA", "image 1 is not"),
        ("", "image 1 is not"),
        (endless, "finite"),
    ]:
        refused(client.post("/suggest", data={"encoded": [image["encoded"], text]}), 422, words, "send the files again")
    refused(client.post("/suggest", data={"encoded": ["AAAA"] * 1001}), 400, "more than 1,000 fields")
    refused(
        client.post("/suggest", params={"number": 0}, data={"encoded": [image["encoded"]]}), 422, "ask for at least"
    )
    refused(client.post("/suggest", params={"number": 1001}, files=pool(("ring", 0))), 422, "number")
    notes = [*pool(("ring", 0)), ("files", ("notes.txt", b"these are notes"))]
    refused(client.post("/suggest", files=notes), 422, "notes.txt")
    assert counts(client) == {"ring": 2}


def test_its_limits(folder: Any) -> None:
    with served(folder, files=2, megabytes=1, requests=1) as client:
        teach(client, "ring", 0, 1)
        refused(client.post("/suggest", files=pool(*POOL[:3])), 413, "3 images", "at most 2")
        refused(client.post("/suggest", data={"encoded": ["A" * 300_000] * 4}), 413, "larger than 1 MiB")
        guard = client.app.middleware_stack
        while not hasattr(guard, "in_flight"):
            guard = guard.app
        guard.in_flight = 1
        refused(client.post("/suggest", files=pool(("ring", 3))), 429, "busy")
