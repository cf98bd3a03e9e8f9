"""Ten thousand mutated uploads to a real server: each gets an answer or a clear refusal, and the server stays."""

import http.client
import json
import os
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fuzzing import mutated
from serving import ENCODER, KINDS, drawing, server

pytest.importorskip("fastapi", reason="the server needs fastapi: pip install 'metarep[serve]'")
pytestmark = pytest.mark.proof

SEED = 20260729
UPLOADS = int(os.environ.get("METAREP_FUZZ", "10000"))
FINE = {200, 201, 204}
REFUSED = {400, 403, 404, 405, 408, 409, 413, 422}
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP")
WITHIN = 60.0  # seconds for an answer, beside whatever else the machine does
GROWTH = 600 << 20  # bytes that the server may have grown by


def form(content: bytes, name: bytes = b"photo.png") -> bytes:
    head = b'--edge\r\nContent-Disposition: form-data; name="name"\r\n\r\nring\r\n'
    return b'%s--edge\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n%s\r\n--edge--\r\n' % (
        head,
        name,
        content,
    )


class Attacker:
    """A share of the uploads, over one connection after another."""

    def __init__(self, address: str, number: int, uploads: int) -> None:
        self.host, self.number, self.uploads = address.removeprefix("http://"), number, uploads
        self.seen: Counter[int] = Counter()
        self.generator = np.random.default_rng([SEED, number])

    def run(self) -> None:
        seeds = [drawing(kind, 1, file=file) for kind in KINDS[:2] for file in FORMATS]
        link = http.client.HTTPConnection(self.host, timeout=WITHIN)
        for turn in range(self.uploads):
            method, path, body, kind = self.request(seeds[turn % len(seeds)], turn)
            try:
                link.request(method, path, body, {"content-type": kind})
                answer = link.getresponse()
                content = answer.read()
            except (ConnectionError, http.client.HTTPException, TimeoutError) as error:
                Path("fuzz-failure.bin").write_bytes(body)
                raise AssertionError(
                    f"upload {turn} of {self.number}: {error!r}; it is kept in fuzz-failure.bin"
                ) from error
            self.seen[answer.status] += 1
            if answer.status not in FINE:
                assert answer.status in REFUSED, (answer.status, content[:300], method, path)
                detail = json.loads(content)["detail"]
                assert isinstance(detail, str), detail
                assert 0 < len(detail) < 600
                assert not re.search("[\n\r]|Traceback|--skip-bad", detail), detail
            if answer.headers.get("connection") == "close":
                link.close()
        link.close()

    def request(self, seed: bytes, turn: int) -> tuple[str, str, bytes, str]:
        """Eight in ten spoil a file, one the form around it, one a name or a wish in JSON."""
        multipart = "multipart/form-data; boundary=edge"
        match turn % 10:
            case 8:
                return "POST", "/classes", mutated(form(seed), self.generator), multipart
            case 9 if turn % 20 == 9:
                wish = mutated(b'{"name": "nothing", "to": "something", "merge": true}', self.generator)
                return "PATCH", "/classes", wish, "application/json"
            case 9:
                return "POST", "/predict", form(seed, mutated(b"photo.png", self.generator)), multipart
            case _:
                return "POST", "/predict", form(mutated(seed, self.generator)), multipart


def test_mutated_uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with server(tmp_path / "letters", "--encoder", ENCODER, "--most-images", "3000") as (process, address):
        link = http.client.HTTPConnection(address.removeprefix("http://"), timeout=WITHIN)
        for kind in KINDS[:2]:
            body = form(drawing(kind, 0)).replace(b"\r\nring\r\n", f"\r\n{kind}\r\n".encode())
            link.request("POST", "/classes", body, {"content-type": "multipart/form-data; boundary=edge"})
            answer = link.getresponse()
            assert answer.status == 201, answer.read()
            answer.read()
        before = memory(process.pid)
        attackers = [Attacker(address, number, UPLOADS // 4) for number in range(4)]
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(attacker.run) for attacker in attackers]:
                done.result()
        seen = sum((attacker.seen for attacker in attackers), Counter())
        assert seen.total() == UPLOADS
        assert seen[200] > 0.05 * UPLOADS, f"every mutation is refused: {seen}"
        assert seen[422] > 0.1 * UPLOADS, f"the mutations do not bite: {seen}"
        assert process.poll() is None
        link.close()  # the server has left it: it was idle for long
        link.request("GET", "/health")
        assert link.getresponse().status == 200
        link.close()
        assert memory(process.pid) - before < GROWTH
        print(f"{UPLOADS} uploads: {dict(seen)}")


def memory(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10
