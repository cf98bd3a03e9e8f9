"""A server that is killed while it writes, again and again: the model opens, and what was acknowledged is there."""

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving import ENCODER, server
from writing import Writer, labels_in, refuse_losses

pytest.importorskip("fastapi", reason="the server needs fastapi: pip install 'metarep[serve]'")
pytestmark = pytest.mark.proof

ROUNDS = 6
WRITERS = 4


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    from metarep.model.folder import ModelFolder

    generator = np.random.default_rng(0)
    path = tmp_path / "letters"
    held: list[dict[int, str]] = [{} for _ in range(WRITERS)]
    written = 0
    for turn in range(ROUNDS):
        with server(path, *(["--encoder", ENCODER] if turn == 0 else [])) as (process, address):
            # Every round draws new images: one that its class has already would be left out.
            writers = [Writer(address, number, own, 10_000 * turn) for number, own in enumerate(held)]
            for writer in writers:
                writer.start()
            time.sleep(1 + 2 * generator.random())
            process.kill()
            for writer in writers:
                writer.join(60)
                assert not writer.is_alive()
        there = labels_in(path)
        extra = refuse_losses(there, writers, f"round {turn}")
        for number in there:
            with Image.open(ModelFolder.open(path).image(number)) as picture:
                picture.load()
        # What was on its way is settled now, one way or the other.
        held = [{number: there[number] for number in writer.held if number in there} for writer in writers]
        for number in extra:
            held[0][number] = there[number]
        written += sum(writer.acknowledged for writer in writers)
    assert written > 20 * ROUNDS, f"only {written} writes were acknowledged in {ROUNDS} rounds"
    print(f"{written} writes acknowledged, {ROUNDS} kills, {len(there)} images held")
