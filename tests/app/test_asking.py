"""Questions to the server: predictions and searches, alone and many at the same time."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from serving import KINDS, counts, drawing, drawings, refused, teach


@pytest.mark.slow
def test_from_an_empty_model_to_a_prediction(client: Any) -> None:
    assert counts(client) == {}
    assert client.get("/map").json() == {"share": 0, "dots": []}
    assert client.get("/summary").json()["trust"]["accuracy"] is None
    assert client.post("/search", files=drawings("file", "ring", 9)).json() == {"neighbours": []}
    refused(client.post("/predict", files=drawings("files", "ring", 9)), 409, "no classes yet")
    assert teach(client, "ring", 0, 1, 2) == [0, 1, 2]
    (answer,) = client.post("/predict", files=drawings("files", "ring", 9)).json()["answers"]
    assert (answer["label"], answer["probability"], answer["known"]) == ("ring", 1, True)
    assert teach(client, "cross", 0, 1, 2) == [3, 4, 5]
    both = drawings("files", "ring", 9) + drawings("files", "cross", 9)
    answers = client.post("/predict", params={"neighbours": 2}, files=both).json()["answers"]
    assert [each["label"] for each in answers] == ["ring", "cross"]
    assert [each["item"] for each in answers] == ["ring9.png", "cross9.png"]
    for each in answers:
        assert sum(each["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        assert [near["label"] for near in each["neighbours"]] == [each["label"]] * 2
        assert each["neighbours"][0]["item"].startswith(each["label"])


def test_the_server_answers_as_the_model_does(taught: Any, folder: Any) -> None:
    model = folder.model
    (own,) = model.answer(model.prepare([drawing("ring", 7)]), 3)
    (answer,) = taught.post("/predict", files=drawings("files", "ring", 7)).json()["answers"]
    assert answer["label"] == own.label
    assert answer["probabilities"] == pytest.approx(own.probabilities, abs=1e-5)
    assert [near["id"] for near in answer["neighbours"]] == [near.id for near in own.neighbours]


def test_search_by_a_file_and_by_an_image_of_the_model(taught: Any) -> None:
    near = taught.post("/search", params={"neighbours": 2}, files=drawings("file", "cross", 8)).json()["neighbours"]
    assert [each["label"] for each in near] == ["cross", "cross"]
    assert near[0]["similarity"] >= near[1]["similarity"]
    near = taught.post("/search", params={"id": 0, "neighbours": 9}).json()["neighbours"]
    assert near[0]["id"] == 1
    assert 0 not in [each["id"] for each in near]
    refused(taught.post("/search"), 422, "one of the two")
    refused(taught.post("/search", params={"id": 77}), 404, "no image 77")


@pytest.mark.slow
def test_concurrent_requests_are_encoded_in_one_batch(taught: Any, folder: Any) -> None:
    service = taught.app.state.service
    batches: list[int] = []
    service.batcher.on_batch, service.batcher.wait = batches.append, 0.5
    kinds = [KINDS[i % 2] for i in range(8)]

    def predict(i: int) -> str:
        return taught.post("/predict", files=drawings("files", kinds[i], 20 + i)).json()["answers"][0]["label"]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(predict, range(8))) == kinds, "each gets the answer to its own image"
    assert sum(batches) == 8
    assert max(batches) > 1


def test_a_failing_request_does_not_fail_the_others_of_its_batch(taught: Any) -> None:
    import torch

    batcher = taught.app.state.service.batcher

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    pixels = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    bad, good = batcher.submit(pixels, fail), batcher.submit(pixels, lambda model, rows: tuple(rows.shape))
    assert isinstance(bad.exception(timeout=10), ZeroDivisionError)
    assert good.result(timeout=10) == (1, 64)
    assert batcher.alive
